# SPDX-License-Identifier: Apache-2.0
"""SingleHDR (arXiv 2004.01179): an HDR image from one 8-bit photo by undoing quantisation, response curve and clipping.

Inference only: NightLab's enhancement baseline runs the published networks. They are TensorFlow 1 code, so padding is
    "SAME",
and `double_corner` is its bilinear resize. Modules are named as there, with ``_`` for ``/``; `interop.singlehdr` reads
the weights.
"""

import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike

from nightjax.core.errors import UserError
from nightjax.core.types import Size
from nightjax.models.norm import BatchNorm
from nightjax.models.translation_blocks import double, pad

THRESHOLD = 0.12
"""How far below 1 the mask of clipped highlights begins."""

VGG_MEAN_BGR = (103.939, 116.779, 123.68)
BINS = (4, 8, 16)
BORDER, MULTIPLE = 32, 64
"""Official test: pixels mirrored around an image, whose sides are multiples of 64 before."""


class SingleHDR(nn.Module):
    """The four networks in a row."""

    def setup(self):
        self.dequantization = HdrUNet(256, tanh=True)
        self.linearization = Linearization()
        self.hallucination = Hallucination()
        self.refinement = HdrUNet(128)

    def __call__(self, x: jax.Array, curves: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Runs all.

        Args:
            x: [B, H, W, 3] float32 RGB in [0, 1], sides multiples of 32.
            curves: ``g0`` [1024] and ``hinv`` [N, 1024], mean and basis of the inverse response curves (EMoR).

        Returns:
            ``dequantized`` (C), ``curve`` [B, 1024], ``linear`` (B), ``hallucinated``, ``filled`` (A) and ``hdr``, the
            result: images are [B, H, W, 3] float32; HDR values are linear, at least 0 and without an upper bound.

        Raises:
            UserError: other sides.
        """
        if x.shape[1] % 32 or x.shape[2] % 32:
            raise UserError(
                f"SingleHDR: an image of {x.shape[1]}x{x.shape[2]} cannot be halved five times; use multiples of 32"
            )
        dequantized = jnp.clip(x + self.dequantization(x), 0.0, 1.0)
        weights = self.linearization(curve_features(dequantized))
        curve = monotone(curves["g0"] + weights @ curves["hinv"])
        linear = apply_curve(dequantized, curve)
        hallucinated = self.hallucination(linear)
        filled = linear + highlight_mask(linear) * nn.relu(hallucinated)
        residual = self.refinement(jnp.concatenate([filled, linear, dequantized], axis=-1))
        return {
            "dequantized": dequantized,
            "curve": curve,
            "linear": linear,
            "hallucinated": hallucinated,
            "filled": filled,
            "hdr": nn.relu(filled + residual),
        }


class HdrUNet(nn.Module):
    """Four halvings and doublings with skips, leaky ReLU 0.1, no norm; gives a residual.

    Attributes:
        bottom: channels at the lowest resolution.
        tanh: whether the residual is cut to (-1, 1).
    """

    bottom: int
    tanh: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H, W, 3]; sides multiples of 16."""
        count = iter(range(19))

        def conv(x, features, kernel):
            number = next(count)
            return nn.Conv(features, (kernel, kernel), name=f"conv2d_{number}" if number else "conv2d")(x)

        def leaky(*args):
            return nn.leaky_relu(conv(*args), 0.1)

        skips = []
        for features, kernel in ((16, 7), (32, 5), (64, 3), (128, 3), (self.bottom, 3)):
            if skips:
                x = nn.avg_pool(x, (2, 2), (2, 2))
            x = leaky(leaky(x, features, kernel), features, kernel)
            skips.append(x)
        for skip, features in zip(skips[-2::-1], (128, 64, 32, 16), strict=True):
            x = leaky(double_corner(x), features, 3)
            x = leaky(jnp.concatenate([x, skip], axis=-1), features, 3)
        x = conv(x, 3, 3)
        return jnp.tanh(x) if self.tanh else x


class Linearization(nn.Module):
    """A small ResNet from features of an image to the weights of its inverse response curve.

    Attributes:
        weights: how many.
    """

    weights: int = 11

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] of `curve_features` to [B, weights]."""
        x = nn.Conv(64, (7, 7), 2, name="conv1")(x)
        x = nn.relu(self._norm("bn_conv1", x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for block, width, stride in (("2a", 64, 1), ("2b", 64, 1), ("2c", 64, 1), ("3a", 128, 2), ("3b", 128, 1)):
            shortcut = self._conv(f"{block}_branch1", x, 4 * width, 1, stride) if block.endswith("a") else x
            y = nn.relu(self._conv(f"{block}_branch2a", x, width, 1, stride))
            y = nn.relu(self._conv(f"{block}_branch2b", y, width, 3, 1))
            x = nn.relu(shortcut + self._conv(f"{block}_branch2c", y, 4 * width, 1, 1))
        return nn.Dense(self.weights, name="dense")(x.mean((1, 2)))

    def _conv(self, name, x, features, kernel, stride):
        x = nn.Conv(features, (kernel, kernel), stride, use_bias=False, name=f"res{name}")(x)
        return self._norm(f"bn{name}", x)

    def _norm(self, name, x):
        return BatchNorm(epsilon=1e-3, name=f"{name}_BatchNorm")(x, train=False)


class Hallucination(nn.Module):
    """VGG-16 down and a mirrored decoder up, joined by sums: what is beyond the clipped highlights."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Linear images [B, H, W, 3] to unbounded values of the same shape."""
        pixels = 255.0 * x
        skips, y = [pixels], pixels[..., ::-1] - jnp.asarray(VGG_MEAN_BGR)
        for group, (features, convolutions) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
            for i in range(1, convolutions + 1):
                y = nn.relu(nn.Conv(features, (3, 3), name=f"encoder_h{group}_conv_{i}")(y))
            skips.append(y)
            y = nn.max_pool(y, (2, 2), (2, 2))
        y = nn.Conv(512, (3, 3), name="encoder_h6_conv")(y)
        y = nn.relu(self._norm("encoder_h6_batch_norm", y))
        for level, features in enumerate((512, 512, 256, 128, 64), start=1):
            if level > 1:
                y = self._fuse(f"decoder_h{level}", y, skips[7 - level])
            name = f"decoder_h{level}_decon2d"
            y = nn.relu(nn.Conv(features, (3, 3), padding="VALID", name=name)(pad(double(y), 1)))
            y = nn.relu(self._norm(f"{name}_batch_norm_dc", y))
        y = self._fuse("decoder_h6", y, skips[1])
        y = nn.Conv(3, (1, 1), name="decoder_h7_conv2d")(y)
        y = nn.relu(self._norm("decoder_h7_batch_norm", y))
        return self._fuse("decoder_h7", y, skips[0])

    def _fuse(self, name, x, skip):
        both = jnp.concatenate([x, skip / 255.0], axis=-1)
        return nn.Conv(x.shape[-1], (1, 1), kernel_init=sum_init, name=f"{name}_fuse_skip_connection")(both)

    def _norm(self, name, x):
        return BatchNorm(name=name)(x, train=False)


def sum_init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Kernel [1, 1, 2 C, C] that adds the two halves of its input."""
    del key
    eye = jnp.eye(shape[-1], dtype=dtype)
    return jnp.concatenate([eye, eye])[None, None]


def double_corner(x: jax.Array) -> jax.Array:
    """[B, H, W, C] to [B, 2H, 2W, C]: pixel 2i is i and 2i + 1 is halfway to i + 1, as in TensorFlow 1."""
    for axis in (1, 2):
        cells = [jax.lax.slice_in_dim(x, start, None, axis=axis) for start in (1, -1)]
        following = jnp.concatenate(cells, axis)
        shape = [*x.shape]
        shape[axis] *= 2
        x = jnp.stack([x, (x + following) / 2], axis + 1).reshape(shape)
    return x


def curve_features(x: jax.Array) -> jax.Array:
    """[B, H, W, 3] in [0, 1] to [B, H, W, 102]: the image, its edges and soft histograms of every pixel."""
    return jnp.concatenate([x, sobel(x), *(soft_histogram(x, bins) for bins in BINS)], axis=-1)


def sobel(x: jax.Array) -> jax.Array:
    """Vertical and horizontal derivative of each channel, [B, H, W, C] to [B, H, W, 2 C]; the border is reflected."""
    x = pad(x, 1)
    smooth = lambda x, axis: _part(x, axis, 0) + 2 * _part(x, axis, 1) + _part(x, axis, 2)
    differ = lambda x, axis: _part(x, axis, 2) - _part(x, axis, 0)
    edges = jnp.stack([smooth(differ(x, 1), 2), smooth(differ(x, 2), 1)], axis=-1)
    return edges.reshape(*edges.shape[:3], -1)


def _part(x, axis, start):
    return jax.lax.slice_in_dim(x, start, x.shape[axis] - 2 + start, axis=axis)


def soft_histogram(x: jax.Array, bins: int) -> jax.Array:
    """[B, H, W, C] in [0, 1] to [B, H, W, (bins + 1) C]: how near each value is to each of 0, 1/bins, .. 1; sums to
    1."""
    return jnp.concatenate([nn.relu(1.0 - jnp.abs(x - i / bins) * bins) for i in range(bins + 1)], axis=-1)


def monotone(curve: jax.Array) -> jax.Array:
    """Curves [..., N] lifted until they nowhere fall, and scaled to go from 0 to 1."""
    steps = jnp.diff(curve, axis=-1)
    steps += nn.relu(-steps.min(-1, keepdims=True))
    rise = jnp.cumsum(steps / steps.sum(-1, keepdims=True), axis=-1)
    return jnp.concatenate([jnp.zeros_like(rise[..., :1]), rise], axis=-1)


def apply_curve(x: jax.Array, curve: jax.Array) -> jax.Array:
    """Values [B, ...] in [0, 1] through each example's curve [B, N], interpolated linearly."""
    last = curve.shape[-1] - 1
    position = jnp.clip(x, 0.0, 1.0) * last
    low = jnp.minimum(jnp.floor(position).astype(jnp.int32), last - 1)
    take = jax.vmap(jnp.take)
    share = position - low
    return take(curve, low) * (1.0 - share) + take(curve, low + 1) * share


def highlight_mask(x: jax.Array) -> jax.Array:
    """[B, H, W, C] to [B, H, W, 1]: 0 up to 0.88 of the largest channel, 1 from 1 on."""
    return jnp.clip((x.max(-1, keepdims=True) - 1.0 + THRESHOLD) / THRESHOLD, 0.0, 1.0)


def mu_law(x: jax.Array) -> jax.Array:
    """log(1 + 10 x) / log 11: 0 to 0 and 1 to 1."""
    return jnp.log1p(10.0 * x) / np.log(11.0)


def tone_map(hdr: jax.Array) -> jax.Array:
    """HDR images for the eye and for segmentation: each scaled to mean 0.5, mu-law, cut to [0, 1]. NightLab's way is
    unknown.

    Args:
        hdr: [B, H, W, 3], at least 0.

    Returns:
        The same shape, float32 in [0, 1].
    """
    mean = hdr.mean((1, 2, 3), keepdims=True)
    return jnp.clip(mu_law(0.5 * hdr / jnp.maximum(mean, jnp.finfo(jnp.float32).tiny)), 0.0, 1.0)


def padded_size(size: Size) -> Size:
    """(height, width) that an image is resized to first: the next multiples of 64."""
    return tuple(-(-side // MULTIPLE) * MULTIPLE for side in size)


def enhance(model: SingleHDR, variables: Any, curves: Mapping[str, ArrayLike], image: jax.Array) -> jax.Array:
    """Photos by the official test: enlarged to multiples of 64, mirrored at the border, run and cut back; then
    tone-mapped.

    Args:
        model, variables, curves: see `SingleHDR`.
        image: uint8 [B, H, W, 3] RGB of any size.

    Returns:
        float32 [B, H, W, 3] in [0, 1].
    """
    batch, *size, channels = image.shape
    grow = functools.partial(jax.image.resize, method="cubic", antialias=False)
    x = image.astype(jnp.float32) / 255.0
    larger = padded_size(image.shape[1:3])
    x = jnp.clip(grow(x, (batch, *larger, channels)), 0.0, 1.0)
    border = (BORDER, BORDER)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)), mode="symmetric")
    hdr = cast(dict[str, jax.Array], model.apply(variables, x, curves))["hdr"][:, BORDER:-BORDER, BORDER:-BORDER]
    return tone_map(nn.relu(grow(hdr, (batch, *size, channels))))
