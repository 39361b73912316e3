# SPDX-License-Identifier: Apache-2.0
"""UAWarpC: dense matching of two views of a place, with uncertainty (Refign, arXiv 2207.06825).

Coarse to fine on VGG features: global correlation at 16x16 of a 256x256 copy, then local
correlation at 32x32 of that copy and at 1/8 and 1/4 of the image. Submodules are named as in refign's
checkpoints (``alignment_backbone``, ``alignment_head``). The network computes in float32 only: flows are
pixels.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.ranges import Count
from nightjax.core.types import Size
from nightjax.models.backbones.vgg import VGG, VGG16
from nightjax.models.layers import Conv, max_pool
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize
from nightjax.ops.warp import flow_warp

COARSE = 16
"""Side of the coarsest level's map; the next one has twice as many cells a side."""

PATCH = 9
"""Side of the local search window."""


def unit(x: jax.Array) -> jax.Array:
    """x over its L2 norm along channels, at least 1e-12; zeros stay zeros, with gradient zero."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def local_correlation(source: jax.Array, target: jax.Array) -> jax.Array:
    """`local_products` after ReLU, of unit norm."""
    return unit(nn.relu(local_products(source, target)))


def local_products(source: jax.Array, target: jax.Array) -> jax.Array:
    """Products of each target cell with the 9x9 source cells around it: [B, h, w, 81].

    Channel 9 i + j holds sum_c target(p) source(p + (j - 4, i - 4)), zero outside.
    """
    reach = PATCH // 2
    height, width = target.shape[1:3]
    padded = jnp.pad(source, ((0, 0), (reach, reach), (reach, reach), (0, 0)))

    def row(shift):
        rows = jax.lax.dynamic_slice_in_dim(padded, shift, height, axis=1)
        windows = (rows[:, :, j : j + width] for j in range(PATCH))
        return jnp.stack([jnp.sum(target * window, axis=-1) for window in windows], axis=-1)

    products = jax.lax.map(row, jnp.arange(PATCH))
    return jnp.moveaxis(products, 0, 3).reshape(*target.shape[:3], PATCH * PATCH)


def global_correlation(source: jax.Array, target: jax.Array) -> jax.Array:
    """`global_products` with mutual matches raised, after ReLU, of unit norm over the source cells.

    Each product is multiplied by its ratios to the best product of its target cell and of its
    source cell.
    """
    shape = target.shape[:3]
    products = global_products(source, target).reshape(shape[0], shape[1] * shape[2], -1)
    best_of_target = products / (products.max(axis=2, keepdims=True) + 1e-5)
    best_of_source = products / (products.max(axis=1, keepdims=True) + 1e-5)
    products = products * (best_of_source * best_of_target)
    return unit(nn.relu(products)).reshape(*shape, -1)


def global_products(source: jax.Array, target: jax.Array) -> jax.Array:
    """Products of all pairs of cells: [B, h, w, hs * ws], source cells in reading order."""
    cells = source.reshape(len(source), -1, source.shape[-1])
    return jnp.einsum("bhwc,bsc->bhws", target, cells)


class ConvBN(nn.Module):
    """Convolution, batch norm with running statistics, and by default leaky ReLU."""

    features: int
    kernel: int = 3
    dilation: int = 1
    padding: int | None = None
    activate: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = Conv(self.features, self.kernel, dilation=self.dilation, padding=self.padding, name="conv")
        x = BatchNorm(name="bn")(conv(x), train=train)
        return nn.leaky_relu(x, 0.1) if self.activate else x


class FlowDecoder(nn.Module):
    """Residual stack from correlation to a map [B, h, w, 2]; also returns its 32 features.

    Attributes:
        narrow: divisor of all widths, in this and the following modules.
    """

    narrow: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        wide, middle, small, last = (width // self.narrow for width in (128, 96, 64, 32))
        first = ConvBN(wide, activate=False, name="conv__0")(x, train)
        x = ConvBN(wide, name="conv__1")(nn.leaky_relu(first, 0.1), train)
        x = ConvBN(middle, activate=False, name="conv__2")(x, train)
        second = x + ConvBN(middle, 1, activate=False, name="conv0_skip")(first, train)
        x = ConvBN(small, name="conv__3")(nn.leaky_relu(second, 0.1), train)
        x = ConvBN(last, activate=False, name="conv__4")(x, train)
        x = x + ConvBN(last, 1, activate=False, name="conv2_skip")(second, train)
        x = nn.leaky_relu(x, 0.1)
        return Conv(2, use_bias=True, name="predict_mapping")(x), x


class Refinement(nn.Module):
    """Dilated convolutions from decoder features to a flow correction [B, h, w, 2]."""

    narrow: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        layers = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))
        for i, (width, dilation) in enumerate(layers):
            conv = ConvBN(width // self.narrow, dilation=dilation, name=f"dc_convs_{i}")
            x = conv(x, train)
        return Conv(2, use_bias=True, name=f"dc_convs_{len(layers)}")(x)


class Uncertainty(nn.Module):
    """Log-variance [B, h, w, 1] of a flow, from each cell's correlation surface and features."""

    narrow: int = 1

    @nn.compact
    def __call__(self, correlation: jax.Array, *others: jax.Array, train: bool = False) -> jax.Array:
        """Correlation [B, h, w, s * s], s = 9 or 16; others [B, h, w, .] in checkpoint order."""
        side = math.isqrt(correlation.shape[-1])
        wide, small = 32 // self.narrow, 16 // self.narrow
        x = correlation.reshape(-1, side, side, 1)
        x = ConvBN(wide, padding=0, name="conv__0")(x, train)
        if side == COARSE:
            x = max_pool(x, 2, 2)
        x = ConvBN(wide, padding=0, name="conv__1")(x, train)
        x = ConvBN(small, padding=0, name="conv__2")(x, train)
        x = Conv(6, padding=0, use_bias=True, name="predict_uncertainty")(x)
        x = jnp.concatenate([x.reshape(*correlation.shape[:3], 6), *others], axis=-1)
        x = ConvBN(wide, name="pred_conv__0")(x, train)
        x = ConvBN(small, name="pred_conv__1")(x, train)
        return Conv(1, use_bias=True, name="predict_uncertainty_final")(x)


class UAWarpCHead(nn.Module):
    """Flow and log-variance at four levels from the features of both images.

    Attributes:
        copy: side of the square copy on which the two coarse levels work.
        narrow: divisor of all widths.
        centered: see `Matcher`.
    """

    copy: int = 256
    narrow: int = 1
    centered: bool = False

    @nn.compact
    def __call__(
        self,
        target: tuple[jax.Array, ...],
        source: tuple[jax.Array, ...],
        size: Size,
        train: bool = False,
    ) -> dict[str, jax.Array]:
        """Where each target cell lies in the source.

        Args:
            target, source: features at 1/4 and 1/8 of the images, then those of the square copies, 32x32
                and 16x16.
            size: (H, W) of the images.
            train: norms use batch statistics.

        Returns:
            ``flow4`` .. ``flow1`` [B, h, w, 2] (dx, dy) in pixels of the images, coarse to fine,
            and ``logvar4`` .. ``logvar1`` [B, h, w, 1], their log-variances.
        """
        (t1, t2, t3, t4), (s1, s2, s3, s4) = (
            tuple(self.directions(level.astype(jnp.float32)) for level in levels) for levels in (target, source)
        )
        copy = np.asarray([self.copy, self.copy], np.float32)
        pixels = np.asarray(size[::-1], np.float32)  # width, height, as flows are (dx, dy)
        to_pixels = pixels / copy
        log_to_pixels = 2 * math.log(math.hypot(*size) / math.hypot(self.copy, self.copy))

        correlation = global_correlation(s4, t4)
        mapping, features = FlowDecoder(self.narrow, name="decoder4")(correlation, train)
        flow4 = mapping_to_flow(mapping) * (copy / extent(t4))
        uncertainty = Uncertainty(self.narrow, name="estimate_uncertainty_components4")
        logvar4 = uncertainty(correlation, features, train=train)
        logvar4 = logvar4 + 2 * math.log(self.copy / t4.shape[1])

        def level(number, target, source, flow, logvar, units, refine=None, more=()):
            """One local level: up-sampled flow, correction, log-variance and features."""
            cells = target.shape[1:3]
            flow, logvar = (resize(x, cells, align_corners=False) for x in (flow, logvar))
            warped, _ = flow_warp(source, flow * (extent(target) / units))
            correlation = local_correlation(warped, target)
            inputs = jnp.concatenate([correlation, flow, *more, logvar], axis=-1)
            change, features = FlowDecoder(self.narrow, name=f"decoder{number}")(inputs, train)
            if refine:
                change = change + Refinement(self.narrow, name=refine)(features, train)
            uncertainty = Uncertainty(self.narrow, name=f"estimate_uncertainty_components{number}")
            logvar = uncertainty(correlation, features, logvar, flow, train=train)
            return flow + change, logvar, features

        flow3, logvar3, _ = level(3, t3, s3, flow4, logvar4, copy, "refinement_module_adaptive")
        flow3, logvar3 = flow3 * to_pixels, logvar3 + log_to_pixels
        flow2, logvar2, features = level(2, t2, s2, flow3, logvar3, pixels)
        features = resize(features, t1.shape[1:3], align_corners=False)
        reduced = Conv(2, 1, use_bias=True, name="reduce")(features)
        flow1, logvar1, _ = level(1, t1, s1, flow2, logvar2, pixels, "refinement_module_finest", (reduced,))
        flows = (flow1, flow2, flow3, flow4 * to_pixels)
        logvars = (logvar1, logvar2, logvar3, logvar4 + log_to_pixels)
        return {f"flow{i}": flow for i, flow in enumerate(flows, start=1)} | {
            f"logvar{i}": logvar for i, logvar in enumerate(logvars, start=1)
        }

    def directions(self, x: jax.Array) -> jax.Array:
        """Features [B, h, w, C] as they are compared: of unit norm."""
        return unit(x - x.mean((1, 2), keepdims=True) if self.centered else x)


class Matcher(nn.Module):
    """Flow from a target image into a source image of the same place, and its uncertainty.

    Attributes:
        channels: of the VGG's convolutions, by group; as many groups as are used.
        copy: side of the square copies on which the two coarse levels work: 64 times a power of 2.
        narrow: divisor of the head's widths.
        centered: features are compared after each image's mean is taken off (ours, for matchers from scratch: after a
            ReLU all features of an untrained network point the same way, and their correlations say nothing).
    """

    channels: tuple[tuple[Count, ...], ...] = VGG16
    copy: int = 256
    narrow: int = 1
    centered: bool = False

    def setup(self):
        self.alignment_backbone = VGG(self.channels)
        self.alignment_head = UAWarpCHead(self.copy, self.narrow, self.centered)

    def __call__(self, target: jax.Array, source: jax.Array) -> dict[str, jax.Array]:
        """Matches pairs in evaluation mode.

        Args:
            target: [B, H, W, 3] float32, normalized: the night image.
            source: [B, H, W, 3] float32, normalized: the day image.

        Returns:
            ``flow`` [B, H, W, 2] (dx, dy) in pixels: target pixel p is seen at p + flow(p) in the
            source; ``logvar`` [B, H, W, 1] its log-variance; and the head's levels.
        """
        size = target.shape[1:3]
        # The images of a pair alternate in one batch: no example changes device.
        found = self.features(jnp.stack([target, source], axis=1).reshape(-1, *target.shape[1:]))
        pairs = [x.reshape(len(target), 2, *x.shape[1:]) for x in found]
        ours, theirs = (tuple(x[:, i] for x in pairs) for i in range(2))
        levels = self.match(ours, theirs, size)
        return levels | {
            "flow": resize(levels["flow1"], size, align_corners=False),
            "logvar": resize(levels["logvar1"], size, align_corners=False),
        }

    def features(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """What `match` needs of each image [B, H, W, 3]: maps at 1/4, 1/8, and of its copy 32x32 and 16x16."""
        copies = resize(images, (self.copy, self.copy), method="area", align_corners=False)
        fine, coarse = self.alignment_backbone(images), self.alignment_backbone(copies)
        first = int(math.log2(self.copy // (2 * COARSE)))  # pooling after which a copy has 32 cells a side
        return fine["pool2"], fine["pool3"], coarse[f"pool{first}"], coarse[f"pool{first + 1}"]

    def match(
        self,
        target: tuple[jax.Array, ...],
        source: tuple[jax.Array, ...],
        size: Size,
        train: bool = False,
    ) -> dict[str, jax.Array]:
        """The head's levels from the `features` of targets and sources; see `UAWarpCHead`."""
        return self.alignment_head(target, source, size, train)


MATCHERS = {
    "uawarpc": {},
    "uawarpc_tiny": {"channels": ((8,), (16, 16), (24, 24)), "copy": 128, "narrow": 4, "centered": True},
}
"""Name to the attributes of a `Matcher`: Refign's, and one that trains on two CPU cores."""


def build_matcher(variant: str, dtype: Any = jnp.float32) -> Matcher:
    """A matcher by its name.

    Args:
        variant: key of `MATCHERS`.
        dtype: compute dtype, float32.

    Raises:
        UserError: unknown name, or another compute type than float32.
    """
    if dtype != jnp.float32:
        raise UserError("a matcher computes in float32 only, its flows are pixels: set model.dtype to float32")
    return Matcher(**choose(MATCHERS, variant, "model.variant"))


def extent(x: jax.Array) -> np.ndarray:
    """(width, height) of [B, h, w, C]."""
    return np.asarray(x.shape[2:0:-1], np.float32)


def mapping_to_flow(mapping: jax.Array) -> jax.Array:
    """Flow in cells from positions in [-1, 1], corners aligned: [B, h, w, 2] to the same shape."""
    width, height = extent(mapping)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    return (mapping + 1) * ((extent(mapping) - 1) / 2) - grid
