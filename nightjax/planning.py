# SPDX-License-Identifier: Apache-2.0
"""What a run's step needs on a machine that is not here, as the machine's compiler tells it.

The step is the loop's own, `train.compile_step`, compiled ahead of time. Memory, collectives and bytes are the
compiler's (`core.hlo`); operations are counted by `core.flops`; the time of a step is a bound from the vendors'
figures, since nothing runs.
"""

import dataclasses
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections

from nightjax import methods
from nightjax.core import flops, hlo, sharding
from nightjax.core.errors import UserError
from nightjax.core.types import PyTree
from nightjax.run import references, settings, start
from nightjax.train import compile_step
from nightjax.zoo.machines import Machine, compile_only

GPU_SHARE = 0.9
"""Of a GPU's memory a program can have so much; the driver, cuDNN and fragments take the rest."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a compiler says about one step; bytes and operations are those of one chip.

    Attributes:
        target: as it was asked for.
        machine: the accelerator.
        chips: how many.
        batch: examples of each domain a step, on all chips.
        accumulate: microbatches.
        state: part of the state (``"params"``, ``"opt_state"``, ``"teacher"``, ...) to its bytes.
        temporary: bytes of activations and other temporaries; 0 where the compiler refused and did not say.
        code: bytes of the program.
        refusal: the compiler's own words where it refused for want of memory.
        flops: operations of matrix products and convolutions.
        moved: bytes moved from and to memory.
        collectives: kind to how many a step does and their bytes.
        compile_seconds: on this machine.
        steps: of the run.
        shard: whether the state is split over the chips, see ``train.shard``.
    """

    target: str
    machine: Machine
    chips: int
    batch: int
    accumulate: int
    state: Mapping[str, int]
    temporary: int
    code: int
    refusal: str
    flops: float
    moved: float
    collectives: Mapping[str, tuple[int, int]]
    compile_seconds: float
    steps: int
    shard: str = "none"

    @property
    def needed(self) -> int:
        """Bytes a chip needs, as far as the compiler said."""
        return sum(self.state.values()) + self.temporary + self.code

    @property
    def usable(self) -> float:
        """Bytes a program can have on a chip; 0 if unknown."""
        return self.machine.memory * (GPU_SHARE if self.machine.platform == "cuda" else 1)

    @property
    def fits(self) -> bool:
        """Whether the step fits in a chip's memory."""
        return not self.refusal and (not self.usable or self.needed <= self.usable)

    def bounds(self, dtype: str) -> dict[str, float]:
        """Seconds that a step takes at least, by what limits it; empty if the machine's figures are unknown.

        Args:
            dtype: of the matrix products.
        """
        peak = getattr(self.machine, dtype) or self.machine.bfloat16
        if not (peak and self.machine.bandwidth):
            return {}
        bounds = {"arithmetic": self.flops / peak, "memory": self.moved / self.machine.bandwidth}
        # A ring sends every byte of an all-reduce twice.
        sent = sum(size * (2 if kind == "all-reduce" else 1) for kind, (_, size) in self.collectives.items())
        return bounds | ({"links": sent * (self.chips - 1) / self.chips / self.machine.link} if self.chips > 1 else {})


def plan(config: ml_collections.ConfigDict, target: str) -> Plan:
    """Compiles the step of a run for a target.

    Args:
        config: complete.
        target: see `zoo.machines`.

    Raises:
        UserError: the batch does not divide over the chips, or the target's compiler is missing.
    """
    machine, devices = compile_only(target)
    mesh = sharding.make_mesh(list(devices))
    sharding.check_batch_size(config.train.batch, config.train.accumulate, mesh)
    config = references.planned(config)
    method = methods.build(config)
    state, batch = start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh)
    # Nothing can be tried out where there is no device, and products by Triton have to be.
    untuned = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    options = untuned if machine.platform == "cuda" else None
    began, compiled, refusal = time.perf_counter(), None, ""
    try:
        compiled = compile_step(method, state, batch, mesh, options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        refusal = " ".join(str(error).split())[:300]
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis() if compiled else None
    program = hlo.Program(compiled.as_text() or "") if compiled else None
    cost: Mapping[str, float] = (compiled.cost_analysis() if compiled else None) or {}
    return Plan(
        target=target,
        machine=machine,
        chips=mesh.devices.size,
        batch=config.train.batch,
        accumulate=config.train.accumulate,
        state={name: size for name, size in _sizes(state, batch).items() if size},
        temporary=memory.temp_size_in_bytes if memory else _refused_bytes(refusal),
        code=memory.generated_code_size_in_bytes if memory else 0,
        refusal=refusal,
        flops=flops.count(method.train_step, state, batch) / mesh.devices.size,
        # A TPU's compiler knows how it pads arrays, which our count does not.
        moved=max(program.moved(), cost.get("bytes accessed", 0.0)) if program else 0.0,
        collectives=program.collectives() if program else {},
        compile_seconds=seconds,
        steps=config.train.steps,
        shard=config.train.shard,
    )


def smaller(config: ml_collections.ConfigDict, refused: Plan) -> Iterator[tuple[str, ml_collections.ConfigDict]]:
    """Changes that make a step smaller, the one that changes least first: (flags, changed config).

    Splitting the state, recomputing what lies between products or whole blocks, and taking microbatches one after
    another leave the method's equations alone; a smaller batch does not. A change that cannot be enough by itself comes
    only with the next one.

    Args:
        config: complete.
        refused: its plan.
    """
    changes: dict[str, Any] = {}
    chips, model = refused.chips, config.model
    if chips > 1 and config.train.shard == "none":
        changes["train.shard"] = "params"
        if refused.temporary + refused.code < refused.usable:
            yield _flags(changes), settings.override(config, changes)
    if model.get("backbone_remat") is False or model.get("backbone_stored") == "products":
        products: dict[str, Any] = {"model.backbone_remat": True, "model.backbone_stored": "products"}
        products |= {"model.head_remat": True} if "head_remat" in model else {}
        if model.backbone_remat is False:
            if changes and sum(refused.state.values()) < refused.usable:
                yield _flags(products), settings.override(config, products)
            yield _flags(changes | products), settings.override(config, changes | products)
        changes |= products | {"model.backbone_stored": "inputs"}
        yield _flags(changes), settings.override(config, changes)
    accumulate = config.train.accumulate
    while config.train.batch % (2 * accumulate * chips) == 0:
        accumulate *= 2
        changes["train.accumulate"] = accumulate
        yield _flags(changes), settings.override(config, changes)
    batch = config.train.batch
    while batch > chips and batch % (2 * chips) == 0:
        batch //= 2
        changes |= {"train.batch": batch, "train.accumulate": batch // chips}
        yield _flags(changes), settings.override(config, changes)


def first_that_fits(config: ml_collections.ConfigDict, refused: Plan) -> tuple[str, Plan] | None:
    """The first of `smaller` that fits, and its plan; None if none does."""
    for words, changed in smaller(config, refused):
        found = plan(changed, refused.target)
        if found.fits:
            return words, found
    return None


def format_plan(found: Plan, config: ml_collections.ConfigDict, price: float = 0.0) -> str:
    """A plan as a few lines of text.

    Args:
        found: the plan.
        config: whose step it is.
        price: of one chip for one hour; 0 leaves the cost out.
    """
    where = f"{found.chips} x {found.machine.title}" if found.chips > 1 else found.machine.title
    need = _amount(found.needed, "B") + (f" of {_amount(found.usable, 'B')}" if found.usable else "")
    verdict = "fits" if found.fits else "does not fit"
    lines = [
        f"{config.method.name} on {where}, compiled in {found.compile_seconds:.0f} s; nothing was run",
        f"  {verdict:<13}{need} a chip, batch {found.batch}, accumulate {found.accumulate}"
        + (", state split" if found.shard == "params" else ""),
    ]
    if found.refusal:
        lines.append(f"  {'compiler':<13}{found.refusal}")
    parts = [*found.state.items(), ("activations", found.temporary), ("code", found.code)]
    lines.append(f"  {'memory':<13}" + ", ".join(f"{name} {_amount(size, 'B')}" for name, size in parts))
    talk = [f"{number} {kind} of {_amount(size, 'B')} in all" for kind, (number, size) in found.collectives.items()]
    lines.append(f"  {'collectives':<13}" + (", ".join(talk) or "none"))
    lines.append(f"  {'work':<13}{_amount(found.flops, 'FLOP')} a chip and step, {_amount(found.moved, 'B')} moved")
    bounds = found.bounds(config.model.get("dtype", "float32"))
    if bounds and found.fits:
        limit = max(bounds, key=lambda name: bounds[name])
        hours = found.steps * bounds[limit] / 3600
        cost = f", {hours * found.chips * price:.0f} at {price:g} a chip and hour" if price else ""
        lines.append(
            f"  {'at best':<13}{1000 * bounds[limit]:.1f} ms a step, limited by {limit}: "
            f"{found.batch / bounds[limit]:.0f} images/s of each domain, {found.steps} steps in {hours:.2g} h{cost}; "
            "a bound, not a measurement"
        )
    return "\n".join(lines)


COLUMNS = ("recipe", "target", "batch", "state, GB", "activations, GB", "fits", "TFLOP", "moved, GB", "at best, ms")


def table_head() -> str:
    """The first two lines of a Markdown table of `table_row`."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (COLUMNS, ("---", "---", *["--:"] * 7)))


def table_row(recipe: str, found: Plan, dtype: str, flags: str = "") -> str:
    """A plan as a line of a Markdown table; all figures but the batch are of one chip.

    Args:
        recipe: what is planned.
        found: the plan.
        dtype: of the matrix products.
        flags: with which it is planned.
    """
    bounds = found.bounds(dtype)
    figures = (sum(found.state.values()) / 1e9, found.temporary / 1e9)
    cells = [f"{recipe} `{flags}`" if flags else recipe, found.target, str(found.batch)]
    cells += [f"{figure:.1f}" if figure else "unknown" for figure in figures] + ["yes" if found.fits else "no"]
    cells += [f"{found.flops / 1e12:.1f}", f"{found.moved / 1e9:.0f}" if found.moved else "unknown"]
    cells.append(f"{1000 * max(bounds.values()):.0f}" if bounds and found.fits else "")
    return f"| {' | '.join(cells)} |"


SCALING_COLUMNS = (
    *("target", "chips", "batch", "collectives", "MB"),
    *("links, ms", "the rest, ms", "share of links", "fits"),
)


def scaling_head() -> str:
    """The first two lines of a Markdown table of `scaling_row`."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (SCALING_COLUMNS, ("---", *["--:"] * 8)))


def scaling_row(found: Plan, dtype: str) -> str:
    """A plan as a line of the table that shows what more chips cost, each with a batch of its own.

    The share of the links is that of a step in which they never work beside the rest; latencies are not counted.

    Args:
        found: the plan.
        dtype: of the matrix products.
    """
    bounds = found.bounds(dtype)
    links = 1000 * bounds.pop("links", 0.0)
    rest = 1000 * max(bounds.values(), default=0.0)
    number, size = (sum(column) for column in zip(*found.collectives.values(), (0, 0), strict=True))
    times = [f"{links:.2f}", f"{rest:.1f}", f"{100 * links / (links + rest):.1f} %"] if rest else ["unknown"] * 3
    cells = [found.target, str(found.chips), str(found.batch), str(number), f"{size / 1e6:.1f}", *times]
    cells.append("yes" if found.fits else "no")
    return f"| {' | '.join(cells)} |"


def times_chips(config: ml_collections.ConfigDict, target: str) -> ml_collections.ConfigDict:
    """The config with its batch on every chip of a target."""
    return settings.override(config, {"train.batch": config.train.batch * len(compile_only(target)[1])})


def for_chips(config: ml_collections.ConfigDict, target: str) -> ml_collections.ConfigDict:
    """The config at its own batch, or at one example of each domain a chip if that is more."""
    chips = len(compile_only(target)[1])
    return settings.override(config, {"train.batch": chips}) if config.train.batch % chips else config


def _amount(value: float, unit: str) -> str:
    """A number of bytes or operations with a decimal prefix and two digits or more."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.{1 if value < 100 * size else 0}f} {prefix}{unit}"
    return f"{value / 1e3:.1f} k{unit}"


def to_json(found: Plan) -> str:
    """A plan as JSON, for tables and other programs."""
    facts = dataclasses.asdict(found) | {"machine": found.machine.title, "fits": found.fits, "needed": found.needed}
    return json.dumps(facts)


def _sizes(state: PyTree, batch: PyTree) -> dict[str, int]:
    """Bytes on one chip of every part of the state, and of the batch."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: _bytes(tree) for name, tree in (fields | {"batch": batch}).items()}


def _bytes(tree: PyTree) -> int:
    size = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * _itemsize(x.dtype)
    return sum(map(size, jax.tree.leaves(tree)))


def _itemsize(dtype: Any) -> int:
    return dtype.itemsize  # Of random keys too, which numpy does not know.


def _refused_bytes(refusal: str) -> int:
    """What the compiler said it would need."""
    used = re.search(r"(?:[Uu]sed |temporaries \()([\d.]+)([KMGT])", refusal)
    return int(float(used[1]) * 1024 ** ("KMGT".index(used[2]) + 1)) if used else 0


def _flags(changes: Mapping[str, Any]) -> str:
    return " ".join(f"--config.{key}={value}" for key, value in changes.items())


def check_price(price: float) -> float:
    """The price, if it is one.

    Raises:
        UserError: it is negative or not finite.
    """
    if not (math.isfinite(price) and price >= 0):
        raise UserError(f"--price={price} must be a positive number: that of one chip for one hour")
    return price
