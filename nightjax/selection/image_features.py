# SPDX-License-Identifier: Apache-2.0
"""What describes a whole image as a row of numbers: Inception-v3 for FID and KID, or a random network that needs no
weights."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nightjax.core import sharding, targets
from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.interop.torch_weights import from_torch
from nightjax.interop.weight_files import load_state_dict
from nightjax.metrics import fid
from nightjax.models.backbones import inception

Describe = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]
"""Images, uint8 [H, W, 3] of any sizes, to batches of features, float32 [n, D], in the same order."""

HOW_TO_GET_WEIGHTS = (
    "FID needs Inception-v3 weights: download pt_inception-2015-12-05-6726825d.pth from the releases of "
    "github.com/mseitzer/pytorch-fid and give --weights=FILE (needs nightjax[convert]), or use --features=random"
)

RANDOM_SIZE = (128, 256)
RANDOM_WIDTHS = (16, 32, 64)


def describe_with(name: str, *, weights: str = "", rule: str = "pytorch_fid", batch: int = 32) -> Describe:
    """A feature network by name.

    Args:
        name: ``"inception"``, 2048 numbers, the network of FID and KID; or ``"random"``, 112 numbers of an untrained
            network: its distances say whether one thing's colors and edges are nearer another's, and are no FID.
        weights: file of the Inception weights, as pytorch-fid's.
        rule: see `fid.resize`.
        batch: images at a time, split over the devices of this process.

    Raises:
        UserError: unknown name or rule, no weights, or weights of another network.
    """
    choose(fid.RESIZE_RULES, rule, "resize rule")
    size, variables, apply_fn = choose({"inception": _inception, "random": _random}, name, "features")(weights)
    mesh = sharding.make_mesh(jax.local_devices())
    variables = jax.device_put(variables, sharding.replicated(mesh))
    batch = -(-batch // mesh.devices.size) * mesh.devices.size
    program = jax.jit(targets.written_for(targets.of(mesh.devices.flat), apply_fn))

    def describe(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        images = iter(images)
        while group := list(itertools.islice(images, batch)):
            rows = np.stack([fid.network_input(image, size, rule) for image in group])
            blank = np.zeros((batch - len(rows), *rows.shape[1:]), np.float32)
            pixels = sharding.put_batch(np.concatenate([rows, blank]), mesh)
            yield np.asarray(program(variables, pixels))[: len(rows)]

    return describe


Network = tuple[tuple[int, int], Any, Callable[[Any, jax.Array], jax.Array]]
"""Input size, weights, and ``(weights, pixels) -> features``."""


def _inception(weights: str) -> Network:
    if not weights:
        raise UserError(HOW_TO_GET_WEIGHTS)
    model = inception.InceptionV3()
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *inception.INPUT_SIZE, 3)))
    variables = from_torch(load_state_dict(weights), shapes, allow_surplus=("fc.*", "AuxLogits.*"))

    def features(variables: Any, pixels: jax.Array) -> jax.Array:
        return cast(dict[str, jax.Array], model.apply(variables, pixels))["pool2048"]

    return inception.INPUT_SIZE, variables, features


def _random(weights: str) -> Network:
    if weights:
        raise UserError("--weights is for --features=inception: leave it out with random features")
    rng, widths = np.random.RandomState(0), (3, *RANDOM_WIDTHS)
    kernels = [
        rng.normal(0, np.sqrt(2 / (9 * i)), (3, 3, i, o)).astype(np.float32) for i, o in itertools.pairwise(widths)
    ]

    def apply(kernels: list[jax.Array], x: jax.Array) -> jax.Array:
        means = []
        for kernel in kernels:
            x = nn.relu(
                jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            )
            means.append(x.mean((1, 2)))
        return jnp.concatenate(means, -1)

    return RANDOM_SIZE, kernels, apply
