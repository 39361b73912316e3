# SPDX-License-Identifier: Apache-2.0
"""Style randomizer: an image in a style drawn from those of paintings (arXiv 1809.05375).

Facts: the official ``philipjackson/style-augmentation``, whose network T2S-DA's authors release again. Submodules are
    named as
there; `nightjax.interop.style_names` reads its checkpoints.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.errors import UserError
from nightjax.models.backbones.inception import BLOCKS, ConvNormReLU, Mixed
from nightjax.models.layers import Conv, max_pool
from nightjax.models.translation_blocks import double, pad
from nightjax.ops.instance_norm import instance_norm

EMBEDDING = 100
"""Numbers in a style's embedding."""

LEAST_SIDE = 43
"""Of images, below which nothing is left at the end of the predictor."""


class StylePredictor(nn.Module):
    """An image's own style: Inception-v3 up to ``Mixed_6e``, its mean, and a linear map.

    The blue channel's scale is off by 0.225 / 0.255, as in the official code, for which the weights are made.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [0, 1] to [B, 100] float32.

        Raises:
            UserError: a side is below `LEAST_SIDE`.
        """
        if min(x.shape[1:3]) < LEAST_SIDE:
            raise UserError(
                f"the style randomizer needs images of {LEAST_SIDE} pixels and more, not {x.shape[1]}x{x.shape[2]}"
            )
        blue = 2 * ((x[..., 2] - 0.406) * (0.225 / 0.255) + 0.406) - 1
        x = jnp.concatenate([2 * x[..., :2] - 1, blue[..., None]], axis=-1)
        conv = functools.partial(ConvNormReLU, dtype=self.dtype)
        x = conv(32, 3, 2, 0, name="Conv2d_1a_3x3")(x)
        x = conv(32, 3, padding=0, name="Conv2d_2a_3x3")(x)
        x = max_pool(conv(64, 3, name="Conv2d_2b_3x3")(x), 3, 2)
        x = conv(80, 1, name="Conv2d_3b_1x1")(x)
        x = max_pool(conv(192, 3, padding=0, name="Conv2d_4a_3x3")(x), 3, 2)
        for name, options in BLOCKS.items():
            x = Mixed(**{"pool": "padded_average"} | options, dtype=self.dtype, name=name)(x)
            if name == "Mixed_6e":
                break
        return nn.Dense(EMBEDDING, name="fc")(x.astype(jnp.float32).mean(axis=(1, 2)))


class ConvInstanceNorm(nn.Module):
    """Reflected border, convolution, instance norm; then a scale and shift that are linear in the style, if any.

    Attributes:
        features: output channels.
        kernel, stride: of the convolution.
        upsample: doubles the input first (nearest neighbor).
        activation: ReLU at the end.
        dtype: compute dtype.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    upsample: bool = False
    activation: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, style: jax.Array | None = None) -> jax.Array:
        """[B, H, W, I] and [B, 100] to [B, h, w, features]."""
        x = pad(double(x) if self.upsample else x, self.kernel // 2)
        conv = Conv(self.features, self.kernel, self.stride, padding=0, use_bias=True, dtype=self.dtype, name="conv")
        x = instance_norm(conv(x))
        if style is not None:
            x = restyle(x, style, "")
        return nn.relu(x) if self.activation else x


class StyledResidual(nn.Module):
    """Two styled 3x3 convolutions of the same width, a ReLU between, added to the input."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        """[B, H, W, C] and [B, 100] to [B, H, W, C]."""
        conv = functools.partial(Conv, x.shape[-1], padding=0, use_bias=True, dtype=self.dtype)
        y = nn.relu(restyle(instance_norm(conv(name="conv1")(pad(x, 1))), style, "1"))
        return x + restyle(instance_norm(conv(name="conv2")(pad(y, 1))), style, "2")


def restyle(x: jax.Array, style: jax.Array, suffix: str) -> jax.Array:
    """``gamma * x + beta``, linear in the style; inside a module, which gets ``fc_gamma`` and ``fc_beta``."""
    gamma, beta = (nn.Dense(x.shape[-1], name=f"fc_{kind}{suffix}")(style)[:, None, None] for kind in ("gamma", "beta"))
    return (gamma * x + beta).astype(x.dtype)


class StyleTransformer(nn.Module):
    """Redraws an image in a style (after Ghiasi et al., arXiv 1705.06830)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        """[B, H, W, 3] and [B, 100] to [B, H, W, 3] float32 in (0, 1); sides are rounded up to multiples of 4."""
        block = functools.partial(ConvInstanceNorm, dtype=self.dtype)
        x = block(32, 9, name="layers_0")(x)
        x = block(64, stride=2, name="layers_1")(x)
        x = block(128, stride=2, name="layers_2")(x)
        for i in range(3, 8):
            x = StyledResidual(self.dtype, name=f"layers_{i}")(x, style)
        x = block(64, upsample=True, name="layers_8")(x, style)
        x = block(32, upsample=True, name="layers_9")(x, style)
        x = block(3, 9, activation=False, name="layers_10")(x, style)
        return nn.sigmoid(x.astype(jnp.float32))


class StyleRandomizer(nn.Module):
    """Predictor, distribution of styles, and transformer.

    The parameters ``embedding_mean`` [100] and ``embedding_factor`` [100, 100] turn unit noise into embeddings.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array, strength: float = 0.5) -> jax.Array:
        """Images in the mean of a random style and their own; nothing has a gradient.

        Args:
            x: [B, H, W, 3] float32 in [0, 1].
            noise: [B, 100] float32, standard normal.
            strength: share of the random style.

        Returns:
            [B, H, W, 3] float32 in (0, 1).

        Raises:
            UserError: the image is too small.
        """
        mean = self.param("embedding_mean", nn.initializers.zeros, (EMBEDDING,), jnp.float32)
        factor = self.param("embedding_factor", nn.initializers.orthogonal(), (EMBEDDING, EMBEDDING), jnp.float32)
        drawn = noise @ factor.T + mean
        style = strength * drawn + (1 - strength) * StylePredictor(self.dtype, name="stylePredictor")(x)
        y = StyleTransformer(self.dtype, name="ghiasi")(x, style)
        return jax.lax.stop_gradient(y[:, : x.shape[1], : x.shape[2]])
