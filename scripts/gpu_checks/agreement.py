# SPDX-License-Identifier: Apache-2.0
"""Whether one step of every method on the GPU gives the CPU's values, in float32 and in bfloat16.

The variants and their batches are those of ``tests/safety/record_steps.py``. Both sides begin with the state that the
CPU drew.
"""

import contextlib
import importlib.util
import pathlib
import time
from typing import Any

import jax
import numpy as np
from gpu_checks.common import Check

VARIANTS = (
    "supervised",
    "dacs_feature_distance",
    "dsr_fpa_start_0",
    "t2s_da",
    "dannet",
    "adaptsegnet",
    "nightlab_all",
    "self_training_hard",
    "t2s_dg",
    "uawarpc",
    "unit_2018",
    "cyclegan",
    "pix2pixhd_label",
    "dacs_mit_paper",
    "dsr_fpa_hrda",
    "supervised_swin",
)
"""Every method at least once, and the networks of the big recipes; the first ones matter most."""

TINY_VARIANTS = ("supervised", "dacs_mit_paper")

PRECISIONS = {
    "float32, highest": ("float32", "highest"),
    "bfloat16": ("bfloat16", None),
    "float32, default": ("float32", None),
}
"""Name to type of the network and precision of products; the default multiplies float32 as TF32 on this hardware."""

FLOAT32_ONLY = ("uawarpc",)
"""Variants that refuse bfloat16."""

BOUND, DEFAULT_BOUND = 1e-3, 1e-2
"""Largest relative difference of scalars and of gradients at which float32 agrees, at the highest precision and at the
default one. The latter may be as far off as the CPU in bfloat16, and bfloat16 twice as far."""

WAIT = 1.0
"""Seconds between looks for a file that another process is writing."""


def reference_part(check: Check, folder: pathlib.Path, share: int, count: int) -> None:
    """Writes the CPU's values of every ``count``-th variant: ``VARIANT.npz``."""
    for name in variants(check)[share::count]:
        file = folder / f"{name}.npz"
        if file.exists():
            continue
        with check.attempt("reference", name):
            arrays: dict[str, np.ndarray] = {}
            for dtype in ("float32",) if name in FLOAT32_ONLY else ("float32", "bfloat16"):
                config, method, mesh = build(name, dtype)
                if not arrays:
                    arrays |= leaves("before", first_state(config, method, mesh))
                arrays |= one_step(config, method, mesh, arrays, dtype)
            draft = file.with_suffix(".part.npz")
            np.savez_compressed(draft, **arrays)
            draft.rename(file)
            print(f"reference of {name}", flush=True)


def agreement_part(check: Check, folder: pathlib.Path, share: int, count: int) -> None:
    """One row for each of every ``count``-th variant and each precision."""
    for precision, (dtype, products) in PRECISIONS.items():
        for name in variants(check)[share::count]:
            if dtype == "bfloat16" and name in FLOAT32_ONLY:
                continue
            with check.attempt("agreement", f"{name}, {precision}"):
                began = time.perf_counter()
                config, method, mesh = build(name, dtype)
                context = jax.default_matmul_precision(products) if products else contextlib.nullcontext()
                with context:
                    step = steps().compile_step(config, method, mesh)
                seconds = time.perf_counter() - began
                reference = read(check, folder / f"{name}.npz")
                found = one_step(config, method, mesh, reference, dtype, step)
                row = {"variant": name, "precision": precision, "compile_s": round(seconds, 1)}
                check.row("agreement", **row, **compared(reference, found, precision))


def variants(check: Check) -> tuple[str, ...]:
    """Names of what is compared."""
    return TINY_VARIANTS if check.tiny else VARIANTS


def steps() -> Any:
    """The module ``tests/safety/record_steps.py``."""
    path = pathlib.Path(__file__).parents[2] / "tests" / "safety" / "record_steps.py"
    spec = importlib.util.spec_from_file_location("record_steps", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(name: str, dtype: str) -> tuple[Any, Any, jax.sharding.Mesh]:
    """Config, method and mesh of a variant whose network computes in ``dtype``."""
    record = steps()
    path, own = record.VARIANTS[name]
    replaced = "model" in own
    common = {
        key: value
        for key, value in record.COMMON.items()
        if key not in own and not (replaced and key.startswith("model."))
    }
    config = record.load(path)
    if replaced:
        own = own | {"model": own["model"] | {"dtype": dtype}}
    elif "dtype" in config.model:
        common["model.dtype"] = dtype
    config = record.with_defaults(record.override(config, common | own))
    return config, record.build(config), record.make_mesh()


def first_state(config: Any, method: Any, mesh: jax.sharding.Mesh) -> Any:
    """A fresh state."""
    return steps().first_state(config, method, mesh)


def one_step(config, method, mesh, before, dtype: str, step=None) -> dict[str, np.ndarray]:
    """What a step makes of the state ``before/...``: its arrays and scalars, by names that begin with ``dtype``."""
    from nightjax.core import sharding
    from nightjax.run import start

    record = steps()
    step = step or record.compile_step(config, method, mesh)
    shapes = start.abstract_state(config, method, mesh)
    given, structure = jax.tree_util.tree_flatten_with_path(shapes)
    values = [
        jax.device_put(before[f"before/{jax.tree_util.keystr(path, simple=True, separator='/')}"], leaf.sharding)
        for path, leaf in given
    ]
    batch = sharding.put_batch(record.random_batch(record.batch_shapes(config, method), 0), mesh)
    after, scalars = step(jax.tree_util.tree_unflatten(structure, values), batch)
    return leaves(f"{dtype}/after", after) | leaves(f"{dtype}/scalars", scalars)


def leaves(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    """Arrays of a tree by path."""
    return {
        f"{prefix}/{jax.tree_util.keystr(path, simple=True, separator='/')}": np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def read(check: Check, file: pathlib.Path) -> dict[str, np.ndarray]:
    """The CPU's values, once they are there."""
    while not file.exists():
        if check.left() < 5:
            raise TimeoutError(f"the CPU's values ({file.name}) did not come in time")
        time.sleep(WAIT)
    with np.load(file) as arrays:
        return dict(arrays)


def compared(reference: dict[str, np.ndarray], found: dict[str, np.ndarray], precision: str) -> dict[str, Any]:
    """Differences from the CPU's float32 step, and how far the CPU's own step in bfloat16 is from that."""
    own = differences(reference, relabeled(found, PRECISIONS[precision][0]))
    values, off = {**own, "bound": BOUND}, 0.0
    if half := relabeled(reference, "bfloat16"):
        cpu = differences(reference, half)
        values |= {"cpu_scalars": cpu["scalars"], "cpu_gradients": cpu["gradients"]}
        off = max(cpu["scalars"], cpu["gradients"])
    if precision != "float32, highest":
        values["bound"] = max(DEFAULT_BOUND, 2 * off if precision == "bfloat16" else off)
    bound = values["bound"]
    return values | {"agrees": own["scalars"] <= bound and own["gradients"] <= bound}


def relabeled(arrays: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """A step's arrays under the names of the float32 step."""
    return {
        name.replace(f"{dtype}/", "float32/", 1): value
        for name, value in arrays.items()
        if name.startswith(f"{dtype}/")
    }


def differences(reference: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Relative differences of a step.

    ``scalars`` and ``params`` are the largest of any scalar and of any parameter array (Euclidean norms), with its
    name; ``gradients`` is that of all moments of the optimizers together, which after one step are the gradients.
    """
    finite = lambda x: float(np.nan_to_num(x, nan=np.inf))
    scalars = {
        name.removeprefix("float32/scalars/"): finite(
            np.max(np.abs(found[name] - value) / np.maximum(np.abs(value), 1e-6))
        )
        for name, value in reference.items()
        if name.startswith("float32/scalars/")
    }
    params = {
        name.removeprefix("float32/after/params/"): finite(norm(found[name] - value) / max(norm(value), 1e-12))
        for name, value in reference.items()
        if name.startswith("float32/after/params/")
    }
    moments = [
        (found[name].ravel(), value.ravel())
        for name, value in reference.items()
        if name.startswith("float32/after/opt_state/") and np.issubdtype(value.dtype, np.floating)
    ]
    one, other = (np.concatenate(parts) for parts in zip(*moments, strict=True))
    worst_scalar, worst_array = max(scalars, key=scalars.__getitem__), max(params, key=params.__getitem__)
    return {
        "scalars": scalars[worst_scalar],
        "scalar": worst_scalar,
        "params": params[worst_array],
        "array": worst_array,
        "gradients": finite(norm(one - other) / max(norm(other), 1e-12)),
    }


def norm(x: np.ndarray) -> float:
    """Euclidean norm in float64."""
    return float(np.linalg.norm(np.asarray(x, np.float64)))
