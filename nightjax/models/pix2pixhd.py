# SPDX-License-Identifier: Apache-2.0
"""pix2pixHD (arXiv 1711.11585): coarse-to-fine generator, multi-scale discriminator, and label maps as input.

The global generator is `models.cyclegan.ResnetGenerator` with four halvings.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.classes import CITYSCAPES
from nightjax.core.config import choose
from nightjax.models.cyclegan import (
    ResnetBlock,
    ResnetGenerator,
    check_options,
    check_sides,
    doubling_conv,
    halving_conv,
    patchgan,
    reflected_conv,
)
from nightjax.models.translation_blocks import MultiScaleDiscriminator, average_pool
from nightjax.ops.instance_norm import instance_norm


class LocalEnhancer(nn.Module):
    """A generator at full resolution around the feature of a global one at half resolution.

    Attributes:
        features: channels of the first full-resolution convolution; the global generator has twice as many.
        downsamplings, blocks: of the global generator.
        local_blocks: residual blocks at half resolution.
        channels: of the output.
        dtype: compute dtype.
    """

    features: int = 32
    downsamplings: int = 4
    blocks: int = 9
    local_blocks: int = 3
    channels: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Translates images.

        Args:
            x: [B, H, W, C] float32; sides are multiples of 2 ** (downsamplings + 1).

        Returns:
            [B, H, W, channels] float32 in (-1, 1).

        Raises:
            UserError: for other sides.
        """
        check_sides(x, 2 ** (self.downsamplings + 1))
        width, dtype = self.features, self.dtype
        coarse = ResnetGenerator(2 * width, self.downsamplings, self.blocks, None, dtype, name="coarse")
        half = coarse(average_pool(x))
        x = nn.relu(instance_norm(reflected_conv(x, width, 7, dtype, "model1__1_1")))
        x = nn.relu(instance_norm(halving_conv(2 * width, dtype, "model1__1_4")(x))) + half
        for i in range(self.local_blocks):
            x = ResnetBlock(dtype=dtype, name=f"model1__2_{i}")(x)
        x = nn.relu(instance_norm(doubling_conv(width, dtype, f"model1__2_{self.local_blocks}")(x)))
        x = reflected_conv(x, self.channels, 7, dtype, f"model1__2_{self.local_blocks + 4}")
        return jnp.tanh(x.astype(jnp.float32))


GENERATORS = {"global": functools.partial(ResnetGenerator, downsamplings=4), "local": LocalEnhancer}
"""Form to generator: the global one serves up to 1024x512, the local one 2048x1024."""


def build_generator(form: str = "global", **options: Any) -> nn.Module:
    """A generator.

    Args:
        form: key of `GENERATORS`.
        **options: its attributes.

    Raises:
        UserError: unknown form or attribute.
    """
    generator = choose(GENERATORS, form, "model.form")
    check_options(getattr(generator, "func", generator), options)
    return generator(**options)


def multiscale(features: int = 64, scales: int = 2, dtype: Any = jnp.float32) -> MultiScaleDiscriminator:
    """The discriminators of all scales; each gives its four features and its scores."""
    return MultiScaleDiscriminator(scales, patch=functools.partial(patchgan, features, dtype, padding=2))


def one_hot_labels(label: jax.Array, num_classes: int = len(CITYSCAPES)) -> jax.Array:
    """Train ids as images: a channel for each class and a last one for everything else.

    Args:
        label: [B, H, W] of any integer type; 255, -1 and the like are void.
        num_classes: K.

    Returns:
        [B, H, W, K + 1] float32; channels sum to 1.
    """
    label = label.astype(jnp.int32)
    known = (label >= 0) & (label < num_classes)
    return jax.nn.one_hot(jnp.where(known, label, num_classes), num_classes + 1)
