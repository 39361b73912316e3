"""Shared fixtures: golden files, recipe weights, virtual devices."""

import gc
import os
import pathlib
import tempfile
import zlib

import jaxlib.version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Four devices; and little optimization, since tests compile for longer than they compute.
FLAGS = {"xla_force_host_platform_device_count": 4, "xla_backend_optimization_level": 0}
if jaxlib.version.__version_info__ < (0, 11):  # Version 0.12 has no such flag.
    FLAGS["xla_cpu_use_fusion_emitters"] = "false"
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
    [given, *(f"--{flag}={value}" for flag, value in FLAGS.items() if flag not in given)]
)

# One compile cache for the whole run, its subprocesses included: many tests build the same tiny programs.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = tempfile.TemporaryDirectory(prefix="nightjax-xla-")  # It goes when the process that made it ends.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# Tracing makes many objects that live on. By default Python looks through all of them again and again, which took a
# sixth of the time of a module that traces training steps.
gc.set_threshold(100_000, 50, 100)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tests.helpers.golden import OFFICIAL, GoldenFiles  # noqa: E402


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        default=str(OFFICIAL),
        help="folder of reference files, laid out like tests/golden",
    )


@pytest.fixture(scope="session")
def golden(request) -> GoldenFiles:
    """``golden("dsr_fpa", "refine")`` loads ``<golden-dir>/dsr_fpa/refine.npz`` as a dict of arrays."""
    return GoldenFiles(pathlib.Path(request.config.getoption("--golden-dir")))


@pytest.fixture(scope="module", autouse=True)
def free_programs():
    """Compiled programs of a finished module would fill the memory; what is needed again is in the cache on disk."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def recipe():
    """``recipe(torch_name, torch_shape, seed)``: the golden READMEs' weights, a pure function of name and shape."""
    return recipe_weight


def recipe_weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One weight by the rule of the golden READMEs, float32, torch layout."""
    rng = np.random.RandomState((zlib.crc32(name.encode()) + int(seed)) % 2**32)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_mean"):
        value = 0.1 * rng.randn(*shape)
    elif name.endswith("running_var"):
        value = 0.8 + 0.4 * rng.rand(*shape)
    elif len(shape) == 4:
        value = rng.randn(*shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif len(shape) == 2 and name.endswith(".weight"):
        value = rng.randn(*shape) * np.sqrt(1 / shape[1])
    elif name.endswith(".weight"):
        value = 1 + 0.1 * rng.randn(*shape)
        if name.endswith("bn3.weight"):
            value = value * 0.3
    else:
        value = 0.1 * rng.randn(*shape)
    return value.astype(np.float32)
