"""Recipe weights of the golden files of modern recipes, whose README has two rules more than the others'."""

import zlib

import jax
import numpy as np

from nightjax.interop.torch_weights import from_torch, to_torch
from tests.conftest import recipe_weight


def modern_weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One weight by the rule of the README in ``golden/modern``, float32, torch layout."""
    rng = np.random.RandomState((zlib.crc32(name.encode()) + int(seed)) % 2**32)
    if name.endswith(".gamma"):
        return (0.5 + 0.1 * rng.randn(*shape)).astype(np.float32)
    if len(shape) == 3:
        return (0.5 * rng.randn(*shape)).astype(np.float32)
    if len(shape) == 2:
        return (rng.randn(*shape) * np.sqrt(1 / shape[1])).astype(np.float32)
    return recipe_weight(name, shape, seed)


def template(model, *args, **options):
    """Zeros in the shapes of a module's first variables."""
    shapes = jax.eval_shape(lambda key: model.init(key, *args, **options), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def recipe_variables(model, seed, *args, prefix="", rename=lambda name: name, stacks=None):
    """Recipe weights of a module.

    Args:
        model: of any network.
        seed: of the file.
        *args: of the module.
        prefix: of the official names.
        rename: our torch-style name to the official one.
        stacks: of the module, if it does not declare them itself.
    """
    stacks = getattr(model, "stacks", ()) if stacks is None else stacks
    variables = template(model, *args)
    shapes = {name: value.shape for name, value in to_torch(variables, stacks).items()}
    weights = {name: modern_weight(prefix + rename(name), shape, seed) for name, shape in shapes.items()}
    return from_torch(weights, variables, stacks)
