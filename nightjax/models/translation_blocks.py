# SPDX-License-Identifier: Apache-2.0
"""Blocks of image translators: padded convolutions, their norms, residual blocks and multi-scale discriminators.

Submodules are named as in the official UNIT program, so that its checkpoints are read by rule
(`interop.torch_weights`).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.ranges import Count
from nightjax.models.initializers import he_normal, normal, uniform
from nightjax.models.layers import Conv
from nightjax.ops.instance_norm import instance_norm

normal_002 = normal(0.02)
"""Initializer of discriminators; biases start at 0."""

PADDINGS = {"reflect": "reflect", "zero": "constant", "replicate": "edge"}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "relu": nn.relu,
    "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=0.2),
    "leaky_relu_001": functools.partial(nn.leaky_relu, negative_slope=0.01),
    "tanh": jnp.tanh,
}


def pad(x: jax.Array, border: int, mode: str = "reflect") -> jax.Array:
    """[B, H, W, C] with ``border`` more pixels on each side.

    Args:
        x: images or features.
        border: pixels.
        mode: key of `PADDINGS`.

    Raises:
        UserError: reflection of an image that is not larger than the border.
    """
    if mode == "reflect" and min(x.shape[1:3]) <= border:
        raise UserError(
            f"an image of {x.shape[1]}x{x.shape[2]} cannot be reflected by {border} pixels; use larger images or crops"
        )
    return jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode=PADDINGS[mode])


def pad_to_multiple(x: jax.Array, multiple: int) -> jax.Array:
    """[B, H, W, C] with its last row and column repeated until both sides are multiples."""
    rows, columns = (-side % multiple for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")


def average_pool(x: jax.Array) -> jax.Array:
    """Halves images by the mean of 3x3 pixels, stride 2; cells of the border of 1 do not count.

    Args:
        x: [B, H, W, C].

    Returns:
        [B, ceil(H / 2), ceil(W / 2), C].
    """
    padding: Any = ((1, 1), (1, 1))  # flax takes numbers too, whatever its annotation says
    return nn.avg_pool(x, (3, 3), (2, 2), padding, count_include_pad=False)


def binomial_pool(x: jax.Array) -> jax.Array:
    """Halves images by a binomial blur (1, 2, 1) / 4 in both directions and every second pixel; the border is repeated.

    Args:
        x: [B, H, W, C].

    Returns:
        [B, ceil(H / 2), ceil(W / 2), C].
    """
    x = pad(x, 1, "replicate")
    x = (x[:, :-2:2] + 2 * x[:, 1:-1:2] + x[:, 2::2]) / 4
    return (x[:, :, :-2:2] + 2 * x[:, :, 1:-1:2] + x[:, :, 2::2]) / 4


POOLS = {"average": average_pool, "binomial": binomial_pool}


def double(x: jax.Array) -> jax.Array:
    """[B, H, W, C] to [B, 2H, 2W, C], every pixel four times (nearest neighbor)."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class SampleNorm(nn.Module):
    """UNIT's own layer norm: each example over all its pixels and channels, then a scale and shift a channel.

    Divides by the *unbiased* standard deviation plus epsilon, which flax's LayerNorm and GroupNorm do not. The scale
    ``gamma`` starts uniform in [0, 1).
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to the same, statistics in float32."""
        gamma = self.param("gamma", lambda *of: 0.5 + uniform(0.5)(*of), x.shape[-1:], jnp.float32)
        beta = self.param("beta", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        wide = x.astype(jnp.float32)
        centered = wide - wide.mean((1, 2, 3), keepdims=True)
        variance = jnp.square(centered).sum((1, 2, 3), keepdims=True) / (x[0].size - 1)
        # The root of 0, of a constant example, would have no finite gradient.
        deviation = jnp.sqrt(jnp.maximum(variance, jnp.finfo(jnp.float32).tiny))
        return (centered / (deviation + self.epsilon) * gamma + beta).astype(x.dtype)


NORMS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "instance": instance_norm,
    "layer": lambda x: SampleNorm(name="norm")(x),
}
"""Norms by name; to be called inside a module, as one of them has parameters."""


class ConvBlock(nn.Module):
    """Padding, convolution with bias, norm, activation.

    Attributes:
        features: output channels.
        kernel, stride: of the convolution.
        padding: pixels on each side.
        pad_mode: key of `PADDINGS`.
        norm: key of `NORMS`.
        activation: key of `ACTIVATIONS`.
        kernel_init: of the convolution.
        dtype: compute dtype.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pad_mode: str = "reflect"
    norm: str = "none"
    activation: str = "relu"
    kernel_init: Callable = he_normal
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] to [B, h, w, features] in ``dtype``."""
        zeros = self.pad_mode == "zero"
        conv = Conv(
            self.features,
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding if zeros else 0,
            use_bias=True,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )
        x = conv(x if zeros or not self.padding else pad(x, self.padding, self.pad_mode))
        return ACTIVATIONS[self.activation](choose(NORMS, self.norm, "norm")(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm, an activation between, dropout after, added to the input.

    Attributes:
        pad_mode: key of `PADDINGS`.
        dropout: rate after the second; random stream ``"dropout"``.
        kernel_init: of the convolutions.
        dtype: compute dtype.
        activation: key of `ACTIVATIONS`.
    """

    pad_mode: str = "reflect"
    dropout: float = 0.0
    kernel_init: Callable = he_normal
    dtype: Any = jnp.float32
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to the same in ``dtype``."""
        block = functools.partial(
            ConvBlock,
            x.shape[-1],
            pad_mode=self.pad_mode,
            norm="instance",
            kernel_init=self.kernel_init,
            dtype=self.dtype,
        )
        y = block(activation=self.activation, name="model_0")(x)
        y = block(activation="none", name="model_1")(y)
        return x + nn.Dropout(self.dropout)(y, deterministic=not train)


class ResidualBlocks(nn.Module):
    """``count`` residual blocks of the same kind; see `ResidualBlock`."""

    count: int
    pad_mode: str = "reflect"
    dropout: float = 0.0
    kernel_init: Callable = he_normal
    dtype: Any = jnp.float32
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, C] to the same in ``dtype``."""
        block = functools.partial(
            ResidualBlock, self.pad_mode, self.dropout, self.kernel_init, self.dtype, self.activation
        )
        for i in range(self.count):
            x = block(name=f"model_{i}")(x, train=train)
        return x


class PatchDiscriminator(nn.Module):
    """Convolutions that double the channels, and a last one to a score for every patch; no sigmoid.

    Attributes:
        features: channels of the first convolution; they double up to eight times as many.
        strides: of all convolutions but the last.
        kernel, padding, pad_mode: of these.
        last_kernel: of the last convolution, which is padded like the others if larger than 1, with stride 1.
        norm: of all but the first and the last; see `ConvBlock`.
        activation: key of `ACTIVATIONS`.
        dtype: compute dtype.
    """

    features: int = 64
    strides: tuple[Count, ...] = (2, 2, 2, 2)
    kernel: int = 4
    padding: int = 1
    pad_mode: str = "reflect"
    last_kernel: int = 1
    norm: str = "none"
    activation: str = "leaky_relu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """What every convolution gives.

        Args:
            x: [B, H, W, C] float32 in [-1, 1].

        Returns:
            The features after each activation, and last the scores [B, h, w, 1] float32.

        Raises:
            UserError: the input is too small for the strides.
        """
        outputs, settings = [], {"pad_mode": self.pad_mode, "kernel_init": normal_002, "dtype": self.dtype}
        for i, stride in enumerate(self.strides):
            x = ConvBlock(
                self.features * min(2**i, 8),
                kernel=self.kernel,
                stride=stride,
                padding=self.padding,
                norm=self.norm if i else "none",
                activation=self.activation,
                name=f"{i}",
                **settings,
            )(x)
            outputs.append(x)
        padding = self.padding if self.last_kernel > 1 else 0
        score = Conv(
            1,
            kernel=self.last_kernel,
            padding=0 if padding else None,
            use_bias=True,
            kernel_init=normal_002,
            dtype=self.dtype,
            name=f"{len(self.strides)}",
        )
        return (*outputs, score(pad(x, padding, self.pad_mode) if padding else x).astype(jnp.float32))


class MultiScaleDiscriminator(nn.Module):
    """Independent patch discriminators on an image and on its halved copies.

    Attributes:
        scales: how many.
        pool: key of `POOLS`, how images are halved.
        patch: makes the discriminator of one scale from its ``name``.
    """

    scales: int = 3
    pool: str = "average"
    patch: Callable[..., PatchDiscriminator] = PatchDiscriminator

    @nn.compact
    def __call__(self, x: jax.Array) -> list[tuple[jax.Array, ...]]:
        """What the discriminator of each scale gives for [B, H, W, C], full resolution first."""
        outputs = []
        for i in range(self.scales):
            x = POOLS[self.pool](x) if i else x
            outputs.append(self.patch(name=f"cnns_{i}")(x))
        return outputs
