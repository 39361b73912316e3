# SPDX-License-Identifier: Apache-2.0
"""CycleGAN's residual generator (arXiv 1703.10593, appendix), also pix2pixHD's global one, and its discriminator.

The generator's submodules are named as in the official programs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.models.layers import Conv, DoublingConv
from nightjax.models.translation_blocks import PatchDiscriminator, normal_002, pad
from nightjax.ops.instance_norm import instance_norm


class ResnetGenerator(nn.Module):
    """Down, residual blocks, up; instance norm and ReLU after every convolution but the last.

    Attributes:
        features: channels of the first convolution; every halving doubles them.
        downsamplings: halvings of the size, 2 in CycleGAN, 4 in pix2pixHD.
        blocks: residual blocks at the lowest resolution.
        channels: of the output; None gives the feature before the last layer, as pix2pixHD's local enhancer wants it.
        dtype: compute dtype.
    """

    features: int = 64
    downsamplings: int = 2
    blocks: int = 9
    channels: int | None = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Translates images.

        Args:
            x: [B, H, W, C] float32 in [-1, 1], or one-hot labels; sides are multiples of 2**downsamplings.

        Returns:
            [B, H, W, channels] float32 in (-1, 1), or the feature [B, H, W, features].

        Raises:
            UserError: for other sides.
        """
        check_sides(x, 2**self.downsamplings)
        x = nn.relu(instance_norm(reflected_conv(x, self.features, 7, self.dtype, "model_1")))
        for i in range(self.downsamplings):
            x = halving_conv(2 ** (i + 1) * self.features, self.dtype, f"model_{4 + 3 * i}")(x)
            x = nn.relu(instance_norm(x))
        index = 4 + 3 * self.downsamplings
        for i in range(self.blocks):
            x = ResnetBlock(dtype=self.dtype, name=f"model_{index + i}")(x)
        index += self.blocks
        for i in reversed(range(self.downsamplings)):
            x = doubling_conv(2**i * self.features, self.dtype, f"model_{index}")(x)
            x = nn.relu(instance_norm(x))
            index += 3
        if self.channels is None:
            return x
        x = reflected_conv(x, self.channels, 7, self.dtype, f"model_{index + 1}")
        return jnp.tanh(x.astype(jnp.float32))


def reflected_conv(x: jax.Array, features: int, kernel: int, dtype: Any, name: str) -> jax.Array:
    """Convolution with bias of the image reflected at its border; to be called inside a compact method."""
    conv = Conv(features, kernel=kernel, padding=0, use_bias=True, kernel_init=normal_002, dtype=dtype, name=name)
    return conv(pad(x, kernel // 2))


def halving_conv(features: int, dtype: Any, name: str) -> nn.Module:
    """3x3 convolution of stride 2, zero-padded."""
    return Conv(features, stride=2, use_bias=True, kernel_init=normal_002, dtype=dtype, name=name)


def doubling_conv(features: int, dtype: Any, name: str) -> nn.Module:
    """3x3 transposed convolution that doubles both sides."""
    return DoublingConv(features, dtype, use_bias=True, kernel_init=normal_002, name=name)


class ResnetBlock(nn.Module):
    """Two reflected 3x3 convolutions with instance norm and a ReLU between, added to the input."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        y = nn.relu(instance_norm(reflected_conv(x, width, 3, self.dtype, "conv_block_1")))
        return x + instance_norm(reflected_conv(y, width, 3, self.dtype, "conv_block_5"))


def build_resnet_generator(**options: Any) -> ResnetGenerator:
    """A generator from its attributes.

    Raises:
        UserError: unknown attribute.
    """
    check_options(ResnetGenerator, options)
    return ResnetGenerator(**options)


def check_options(module: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Raises UserError unless all options are attributes of the module."""
    known = {field.name: None for field in dataclasses.fields(module) if field.name not in ("parent", "name")}
    for name in options:
        choose(known, name, "model option")


def patchgan(features: int = 64, dtype: Any = jnp.float32, **options: Any) -> PatchDiscriminator:
    """The 70x70 PatchGAN: 4x4 convolutions, the first three of stride 2, instance norm but on the first and last.

    Other attributes of ``PatchDiscriminator`` may be given; pix2pixHD pads by 2.
    """
    settings = {"padding": 1, "pad_mode": "zero", "last_kernel": 4, "norm": "instance"} | options
    return PatchDiscriminator(features, (2, 2, 2, 1), dtype=dtype, **settings)


def check_sides(x: jax.Array, factor: int) -> None:
    """Raises UserError unless both sides of [B, H, W, C] are multiples of ``factor``."""
    if x.shape[1] % factor or x.shape[2] % factor:
        raise UserError(
            f"translator: images of {x.shape[1]}x{x.shape[2]} cannot be halved to its lowest resolution; use sides "
            "that are "
            f"multiples of {factor}"
        )
