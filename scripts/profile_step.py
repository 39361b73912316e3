# SPDX-License-Identifier: Apache-2.0
"""Says where a CPU's time goes in one training step of each config, by what XLA's profiler saw.

    python scripts/profile_step.py
    python scripts/profile_step.py --config=dacs:data=nightstreet,model=resnet18 --heaviest=20

The step is compiled as a run compiles it, and its batch is made up. Every operation of the compiled program counts for
the time that it took on its thread, and has one kind: a convolution, a matrix product, a sum over an axis (norms,
losses), a move of values (transposes, slices, concatenation, padding), or else elementwise work. ``busy`` is the time
of all operations over the step's, so it is at most the number of cores. Nothing else should run on the machine.
"""

import collections
import concurrent.futures
import functools
import multiprocessing
import pathlib
import re
import statistics
import tempfile
import time
from collections.abc import Sequence

import jax
from absl import flags
from gpu_checks import programs

from nightjax.core import cli

DEFAULT = (
    "supervised:data=nightstreet,model=tiny",
    "dacs:data=nightstreet,model=tiny",
    "dsr_fpa:data=nightstreet,model=tiny",
    "t2s_da:data=nightstreet,model=tiny",
    "supervised:data=nightstreet,model=resnet18",
    "supervised:data=nightstreet,model=daformer_b0",
    "supervised:data=nightstreet,model=deeplab50",
)

KINDS = {
    "convolutions": {"convolution"},
    "products": {"dot"},
    "sums": {"reduce", "reduce-window"},
    "moves": {
        "transpose",
        "copy",
        "concatenate",
        "slice",
        "dynamic-slice",
        "dynamic-update-slice",
        "pad",
        "gather",
        "scatter",
    },
}
"""Kind of an operation to what makes it one, first match first; an operation of none of them is elementwise."""

LOOPS = {"while", "call", "conditional"}
"""Operations whose computations run instruction by instruction, each with a time of its own."""

NAMES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
"""Operations that take no time."""

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (?:\([^=]*\)|\S+) ([\w\-]+)\(")
CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
SOURCE = re.compile(r'op_name="([^"]*)"')


def kinds(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Kind and source by name of every instruction of a compiled program, written as HLO; loops have none."""
    inside: dict[str, set[str]] = collections.defaultdict(set)
    found: dict[str, tuple[str, str, str]] = {}
    sources: dict[str, str] = {}
    computation = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            computation = match[1]
        elif match := INSTRUCTION.match(line):
            name, operation = match.groups()
            called = CALLED.search(line)
            inside[computation].add(operation)
            found[name] = computation, operation, called[1] if called else ""
            if source := SOURCE.search(line):
                sources[name] = source[1]
    parts = {called for _, operation, called in found.values() if operation not in LOOPS}

    def kind(operation: str, called: str) -> str:
        operations = inside[called] | {operation} if operation == "fusion" else {operation}
        return next((name for name, signs in KINDS.items() if signs & operations), "elementwise")

    of_its_own = lambda computation, operation: computation not in parts and operation not in LOOPS | NAMES
    return {name: kind(*made[1:]) for name, made in found.items() if of_its_own(*made[:2])}, sources


def profiled(program: programs.Program, batch: object, steps: int) -> dict[str, float]:
    """Milliseconds of a step by instruction."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            program.run(batch, steps)
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    spent: dict[str, float] = collections.defaultdict(float)
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if name := dict(event.stats).get("hlo_op"):
                    spent[str(name)] += event.duration_ns / 1e6 / steps
    return spent


def measure(path: str, steps: int, heaviest: int) -> list[str]:
    """The row of a config, and its heaviest operations."""
    program = programs.prepare(path, {})
    program.begin()
    batch, seconds = program.batch(), []
    for _ in range(steps + 2):
        began = time.perf_counter()
        program.run(batch, 1)
        seconds.append(time.perf_counter() - began)
    step = 1000 * statistics.median(seconds[2:])
    by_name, sources = kinds(program.step.as_text() or "")
    spent = {name: ms for name, ms in profiled(program, batch, steps).items() if name in by_name}
    total = sum(spent.values())
    share: dict[str, float] = collections.defaultdict(float)
    for name, ms in spent.items():
        share[by_name[name]] += 100 * ms / total
    cells = [f"{step:.0f}", f"{total / step:.2f}", *(f"{share[kind]:.0f} %" for kind in (*KINDS, "elementwise"))]
    lines = [f"| `{path}` | " + " | ".join(cells) + " |"]
    for name, ms in sorted(spent.items(), key=lambda item: -item[1])[:heaviest]:
        lines.append(f"    {ms:7.2f} ms  {by_name[name]:12}  {name}  {sources.get(name, '')[-90:]}")
    return lines


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "config", list(DEFAULT), "Config with its arguments; may be repeated.", flag_values=values
    )
    flags.DEFINE_integer("steps", 10, "Steps to time, and as many to profile.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("heaviest", 0, "Operations to list below a row.", lower_bound=0, flag_values=values)
    cli.parse(values, argv, __doc__)
    print("| step | ms | busy | " + " | ".join((*KINDS, "elementwise")) + " |")
    print("|---|" + "--:|" * (3 + len(KINDS)), flush=True)
    for path in values.config:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
            job = functools.partial(measure, path, values.steps, values.heaviest)
            print("\n".join(process.submit(job).result()), flush=True)


if __name__ == "__main__":
    cli.run(main)
