# SPDX-License-Identifier: Apache-2.0
"""Checks and times nightjax on one GPU within a few minutes: correctness, recipes, PyTorch beside it, input.

    bash scripts/gpu_check.sh --out=runs/gpu
    bash scripts/gpu_check.sh --out=runs/gpu --parts=recipes,supervised --minutes=5
    bash scripts/gpu_check.sh --tiny --out=/tmp/tiny

``--out`` gets ``results.jsonl``, one line a figure, and ``table.md``, both brought up to date all the time, so that
nothing is lost if the machine is taken away. A part that fails or runs out of time says so in one line, and the next
begins. Every part has processes of its own, since memory that was once reserved stays with its process.

The CPU's values for the part ``agreement`` are computed beside it. To spare the GPU's machine that work, compute them
before with ``--parts=reference --reference=DIR`` on any machine with the same version of jax, and give it the folder.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from gpu_checks import common, report

SHARES = {"machine": 0.04, "agreement": 0.24, "recipes": 0.40, "supervised": 0.16, "torch": 0.16}
"""Part to its share of the time; what one leaves over goes to those after it."""

WITHIN = 5.0
"""Seconds after its deadline at which a part is ended."""

UNTUNED = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
"""Flags of the compiler with which nothing is tried out; Triton's products have no form without that."""


def main() -> None:
    """Runs the parts one after another, or with ``--worker`` one part in this process."""
    options = arguments()
    if options.worker:
        work(options)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began, deadline = time.time(), time.time() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.jsonl").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu_check-") as folder:
        left = sum(SHARES.get(name, 1.0) for name in options.parts)
        for name in options.parts:
            share = SHARES.get(name, 1.0)
            until = time.time() + max(deadline - time.time() - WITHIN, 0) * share / left
            left -= share
            if until - time.time() < 2:
                common.Check(options.out, pathlib.Path(folder), until, options.tiny).failed(name, "", "no time left")
                continue
            print(f"== {name}: until {until - began:.0f} s of {60 * options.minutes:.0f} s", flush=True)
            code = run(name, options, folder, until)
            report.write(options.out)
            print(f"== {name}: done at {time.time() - began:.0f} s", flush=True)
            if name == "machine" and code:
                sys.exit(code)
    print((options.out / "table.md").read_text())


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of results.jsonl and table.md")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(SHARES), help=", ".join(SHARES))
    parser.add_argument("--tiny", action="store_true", help="tiny networks on a CPU, to see that the check works")
    parser.add_argument("--reference", type=pathlib.Path, help="folder of the CPU's values, see above")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", default="0/1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.parts) - {*SHARES, "reference"}:
        parser.error(f"--parts: {sorted(unknown)[0]!r} is unknown; choose from {', '.join(SHARES)}, reference")
    return options


def run(name: str, options: argparse.Namespace, folder: str, until: float) -> int:
    """Runs one part in processes of its own and ends them soon after the deadline; the first one's exit code."""
    reference = options.reference or pathlib.Path(folder) / "reference"
    reference.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, *(f"--out={options.out}", f"--work={folder}", f"--reference={reference}")]
    command += [f"--until={until}", *(["--tiny"] if options.tiny else [])]
    cores = 1 if options.tiny else common.cores()
    wanted = {name: min(cores, 16) if name in ("agreement", "reference") else 1}
    if name == "agreement":  # What the folder of the CPU's values lacks.
        wanted["reference"] = max(1, min(cores // 2, 8))
    started = []
    try:
        for part, count in wanted.items():
            environment = {**os.environ, **settings(part, options)}
            for i in range(count):
                words = [*command, f"--worker={part}", f"--share={i}/{count}"]
                started.append((part, subprocess.Popen(words, env=environment, start_new_session=True)))
        for part, process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(until + WITHIN - time.time(), 0.1))
            if process.returncode != 0:
                check = common.Check(options.out, pathlib.Path(folder), until, options.tiny)
                why = "ended at its deadline" if process.returncode is None else f"exit code {process.returncode}"
                check.failed(part, "", why)
    finally:
        for _, process in started:
            # With the processes that it started, such as readers of data.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return started[0][1].returncode


def settings(part: str, options: argparse.Namespace) -> dict[str, str]:
    """Environment of a part."""
    if options.tiny or part == "reference":
        return {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if part == "agreement":  # Many small programs in several processes: no tuning, and each takes what it needs.
        flags = f"{os.environ.get('XLA_FLAGS', '')} {UNTUNED}"
        return {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.93"}


def work(options: argparse.Namespace) -> None:
    """One part in this process."""
    watch = threading.Timer(
        options.until + 2 * WITHIN - time.time(), os._exit, (1,)
    )  # Should nobody be left to end it.
    watch.daemon = True
    watch.start()
    check = common.Check(options.out, options.work, options.until, options.tiny)
    share, count = map(int, options.share.split("/"))
    if options.worker == "torch":  # jax and torch are never in one process: both want the whole memory.
        from gpu_checks import peer

        peer.torch_part(check)
    else:
        common.start_jax(check)
        if options.worker == "machine":
            common.machine_part(check)
        elif options.worker == "reference":
            from gpu_checks import agreement

            agreement.reference_part(check, options.reference, share, count)
        elif options.worker == "agreement":
            from gpu_checks import agreement

            agreement.agreement_part(check, options.reference, share, count)
        elif options.worker == "recipes":
            from gpu_checks import recipes

            recipes.recipes_part(check)
        elif options.worker == "supervised":
            from gpu_checks import supervised

            supervised.supervised_part(check)
    sys.stdout.flush()
    os._exit(0)  # Without waiting for threads that still compile.


if __name__ == "__main__":
    main()
