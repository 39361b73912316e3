"""DANNet's relighting network, a small residual image-to-image network (arXiv 2104.10834, 3.2)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.initializers import torch_uniform, uniform
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm


class LightNet(nn.Module):
    """The residual that, added to an image, brings day and night to one brightness.

    The relit image is the input *plus* the output; it is not clipped. Submodules are named as in
    the official ``ResnetGenerator``.

    Attributes:
        features: channels of the first convolution.
        blocks: residual blocks, at a quarter of the resolution.
        dtype: compute dtype.
    """

    features: int = 64
    blocks: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Residual of normalised images.

        Args:
            x: [B, H, W, C] float32. Where a side is no multiple of 4 the output of the official
                network is up to 3 pixels longer; they are cut off.
            train: batch norm uses and updates batch statistics.

        Returns:
            [B, H, W, C] float32 in (-1, 1).
        """
        _, height, width, channels = x.shape
        conv = functools.partial(Conv, kernel_init=torch_uniform, dtype=self.dtype)

        def norm_relu(x, index):
            return nn.relu(BatchNorm(dtype=self.dtype, name=f"model_{index}")(x, train=train))

        y = conv(self.features, kernel=7, padding=0, name="model_1")(_reflect(x, 3))
        y = norm_relu(y, 2)
        for index, multiplier in ((4, 2), (7, 4)):
            y = conv(multiplier * self.features, stride=2, name=f"model_{index}")(y)
            y = norm_relu(y, index + 1)
        for index in range(10, 10 + self.blocks):
            y = ResidualBlock(dtype=self.dtype, name=f"model_{index}")(y, train=train)
        for index, multiplier in ((10 + self.blocks, 2), (13 + self.blocks, 1)):
            double = DoublingConv(multiplier * self.features, self.dtype, name=f"model_{index}")
            y = norm_relu(double(y), index + 1)
        last = conv(
            channels,
            kernel=7,
            padding=0,
            use_bias=True,
            bias_init=uniform((49 * self.features) ** -0.5),
            name=f"model_{17 + self.blocks}",
        )
        return jnp.tanh(last(_reflect(y, 3)).astype(jnp.float32))[:, :height, :width]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a ReLU between, added to the input."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = functools.partial(Conv, x.shape[-1], padding=0, kernel_init=torch_uniform, dtype=self.dtype)
        norm = functools.partial(BatchNorm, dtype=self.dtype)
        y = conv(name="conv_block_1")(_reflect(x, 1))
        y = nn.relu(norm(name="conv_block_2")(y, train=train))
        y = conv(name="conv_block_5")(_reflect(y, 1))
        return x + norm(name="conv_block_6")(y, train=train)


class DoublingConv(nn.Module):
    """3x3 transposed convolution of stride 2 that doubles both sides.

    Output pixel ``2m`` meets tap 1 of input ``m``, and ``2m + 1`` taps 2 and 0 of ``m`` and
    ``m + 1``. So it is computed as a dense 2x2 convolution to the four phases of each cell, which
    are then laid out side by side: on CPU its weight gradient is several times cheaper than that of
    a dilated input.

    Attributes:
        features: output channels.
        dtype: compute dtype; the parameter ``kernel_t`` [3, 3, I, O] is float32.
        use_bias: whether a bias, 0 at first, is added.
        kernel_init: initializer; None is torch's.
    """

    features: int
    dtype: Any = jnp.float32
    use_bias: bool = False
    kernel_init: Callable | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] to [B, 2H, 2W, O] in ``dtype``; torch's padding 1 and output padding 1."""
        shape = (3, 3, x.shape[-1], self.features)
        # torch takes the fan of a transposed weight from its output channels.
        init = self.kernel_init or uniform((9 * self.features) ** -0.5)
        kernel = self.param("kernel_t", init, shape, jnp.float32).astype(self.dtype)
        phases = _phase_taps(_phase_taps(kernel, 0), 2)  # [2, phase, 2, phase, I, O]
        phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, shape[2], 4 * self.features)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            phases,
            (1, 1),
            [(0, 1), (0, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        batch, height, width, _ = y.shape
        y = y.reshape(batch, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, 2 * height, 2 * width, self.features)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


def _phase_taps(kernel, axis):
    """Splits an axis of three taps in (input cell, phase of the output): [[1, 2], [none, 0]]."""
    first, middle, last = jnp.moveaxis(kernel, axis, 0)
    cells = jnp.stack([jnp.stack([middle, last]), jnp.stack([jnp.zeros_like(first), first])])
    return jnp.moveaxis(cells, (0, 1), (axis, axis + 1))


def _reflect(x, border):
    return jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
