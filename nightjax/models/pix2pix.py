"""pix2pix (arXiv 1611.07004): a U-Net and its patch discriminator, both with batch norm and the official names.

NightLab's text names pix2pixHD and its footnote this; no method trains it, official weights can be run with it. The
official
program translates in training mode: batch statistics at batch 1, and dropout.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from nightjax.models.cyclegan import check_sides
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm
from nightjax.models.translation_blocks import normal_002


class UNet(nn.Module):
    """Halvings to the bottom and doublings back, each level joined with its mirror image.

    Attributes:
        widths: channels of every level, fine to coarse; sides are multiples of 2**levels.
        dropout: rate on the way up at the coarsest levels but one that are as wide as the bottom.
        channels: of the output.
        dtype: compute dtype.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512, 512)
    dropout: float = 0.5
    channels: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = True, deterministic: bool | None = None) -> jax.Array:
        """Translates images.

        Args:
            x: [B, H, W, C] float32 in [-1, 1].
            train: batch norm uses batch statistics.
            deterministic: True switches dropout off; the default is ``not train``.

        Returns:
            [B, H, W, channels] float32 in (-1, 1).

        Raises:
            UserError: for other sides.
        """
        check_sides(x, 2 ** len(self.widths))
        deterministic = not train if deterministic is None else deterministic
        level = Level(self.widths, self.channels, True, self.dropout, self.dtype, name="model")
        return jnp.tanh(level(x, train, deterministic).astype(jnp.float32))


class Level(nn.Module):
    """One level of a `UNet` and all that is below it."""

    widths: tuple[int, ...]
    channels: int
    outermost: bool
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, deterministic: bool) -> jax.Array:
        width, *below = self.widths
        index = 0 if self.outermost else 1
        y = x if self.outermost else nn.leaky_relu(x, 0.2)
        y = _conv(width, self.dtype, f"model_{index}")(y)
        if below:
            if not self.outermost:
                index += 1
                y = BatchNorm(dtype=self.dtype, name=f"model_{index}")(y, train=train)
            index += 1
            inner = Level(tuple(below), width, False, self.dropout, self.dtype, name=f"model_{index}")
            y = jnp.concatenate([y, inner(y, train, deterministic)], axis=-1)
        index += 2
        up = TransposedConv(self.channels, self.outermost, self.dtype, name=f"model_{index}")
        y = up(nn.relu(y))
        if self.outermost:
            return y
        y = BatchNorm(dtype=self.dtype, name=f"model_{index + 1}")(y, train=train)
        widest = below and self.channels == width == below[-1]
        return nn.Dropout(self.dropout)(y, deterministic=deterministic) if widest else y


class TransposedConv(nn.Module):
    """4x4 transposed convolution of stride 2 and padding 1, [B, H, W, I] to [B, 2H, 2W, features]."""

    features: int
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel_t", normal_002, shape, jnp.float32).astype(self.dtype)
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel[::-1, ::-1],
            (1, 1),
            [(2, 2), (2, 2)],
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


class BatchNormPatchGAN(nn.Module):
    """The 70x70 PatchGAN with batch norm in place of instance norm.

    Attributes:
        features: channels of the first convolution.
        dtype: compute dtype.
    """

    features: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = True) -> jax.Array:
        """Scores [B, h, w, 1] float32, before the sigmoid, of pairs of images [B, H, W, 2 C] in [-1, 1]."""
        conv = functools.partial(_conv, dtype=self.dtype)
        x = nn.leaky_relu(conv(self.features, name="model_0", use_bias=True)(x), 0.2)
        for i, stride in enumerate((2, 2, 1)):
            x = conv(2 ** (i + 1) * self.features, name=f"model_{3 * i + 2}", stride=stride)(x)
            x = nn.leaky_relu(BatchNorm(dtype=self.dtype, name=f"model_{3 * i + 3}")(x, train=train), 0.2)
        return conv(1, name="model_11", stride=1, use_bias=True)(x).astype(jnp.float32)


def _conv(features: int, dtype: Any, name: str, *, stride: int = 2, use_bias: bool = False) -> Conv:
    return Conv(
        features,
        kernel=4,
        stride=stride,
        padding=1,
        use_bias=use_bias,
        kernel_init=normal_002,
        dtype=dtype,
        name=name,
    )
