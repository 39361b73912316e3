"""UAWarpC: dense matching of two views of a place, with uncertainty (Refign, arXiv 2207.06825).

Coarse to fine on VGG features: global correlation at 16x16 of a 256x256 copy, then local
correlation at 32x32 of that copy and at 1/8 and 1/4 of the image. Submodules are named as in refign's
checkpoints (``alignment_backbone``, ``alignment_head``). The network runs in evaluation mode and in
float32 only: flows are pixels.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nightjax.models.backbones.vgg import VGG
from nightjax.models.layers import Conv, max_pool
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize
from nightjax.ops.warp import flow_warp

COPY = 256
"""Side of the square copy on which the two coarse levels work."""

PATCH = 9
"""Side of the local search window."""


def unit(x: jax.Array) -> jax.Array:
    """x over its L2 norm along channels."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def local_correlation(source: jax.Array, target: jax.Array) -> jax.Array:
    """Products of each target cell with the 9x9 source cells around it: [B, h, w, 81].

    Channel 9 i + j holds sum_c target(p) source(p + (j - 4, i - 4)), zero outside; then ReLU and
    unit norm.
    """
    reach = PATCH // 2
    height, width = target.shape[1:3]
    padded = jnp.pad(source, ((0, 0), (reach, reach), (reach, reach), (0, 0)))

    def row(shift):
        rows = jax.lax.dynamic_slice_in_dim(padded, shift, height, axis=1)
        windows = (rows[:, :, j : j + width] for j in range(PATCH))
        return jnp.stack([jnp.sum(target * window, axis=-1) for window in windows], axis=-1)

    products = jax.lax.map(row, jnp.arange(PATCH))
    products = jnp.moveaxis(products, 0, 3).reshape(*target.shape[:3], PATCH * PATCH)
    return unit(nn.relu(products))


def global_correlation(source: jax.Array, target: jax.Array) -> jax.Array:
    """Products of all pairs of cells, mutual matches raised: [B, h, w, hs * ws] in reading order.

    Each product is multiplied by its ratios to the best product of its target cell and of its
    source cell; then ReLU and unit norm over the source cells.
    """
    batch, height, width, _ = target.shape
    source, target = (x.reshape(batch, -1, x.shape[-1]) for x in (source, target))
    products = jnp.einsum("btc,bsc->bts", target, source)
    best_of_target = products / (products.max(axis=2, keepdims=True) + 1e-5)
    best_of_source = products / (products.max(axis=1, keepdims=True) + 1e-5)
    products = products * (best_of_source * best_of_target)
    return unit(nn.relu(products)).reshape(batch, height, width, -1)


class ConvBN(nn.Module):
    """Convolution, batch norm with running statistics, and by default leaky ReLU."""

    features: int
    kernel: int = 3
    dilation: int = 1
    padding: int | None = None
    activate: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = Conv(
            self.features, self.kernel, dilation=self.dilation, padding=self.padding, name="conv"
        )
        x = BatchNorm(name="bn")(conv(x), train=False)
        return nn.leaky_relu(x, 0.1) if self.activate else x


class FlowDecoder(nn.Module):
    """Residual stack from correlation to a map [B, h, w, 2]; also returns its 32 features."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = ConvBN(128, activate=False, name="conv__0")(x)
        x = ConvBN(128, name="conv__1")(nn.leaky_relu(first, 0.1))
        x = ConvBN(96, activate=False, name="conv__2")(x)
        second = x + ConvBN(96, 1, activate=False, name="conv0_skip")(first)
        x = ConvBN(64, name="conv__3")(nn.leaky_relu(second, 0.1))
        x = ConvBN(32, activate=False, name="conv__4")(x)
        x = x + ConvBN(32, 1, activate=False, name="conv2_skip")(second)
        x = nn.leaky_relu(x, 0.1)
        return Conv(2, use_bias=True, name="predict_mapping")(x), x


class Refinement(nn.Module):
    """Dilated convolutions from decoder features to a flow correction [B, h, w, 2]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))
        for i, (features, dilation) in enumerate(layers):
            x = ConvBN(features, dilation=dilation, name=f"dc_convs_{i}")(x)
        return Conv(2, use_bias=True, name=f"dc_convs_{len(layers)}")(x)


class Uncertainty(nn.Module):
    """Log-variance [B, h, w, 1] of a flow, from each cell's correlation surface and features."""

    @nn.compact
    def __call__(self, correlation: jax.Array, *others: jax.Array) -> jax.Array:
        """Correlation [B, h, w, s * s], s = 9 or 16; others [B, h, w, .] in checkpoint order."""
        side = math.isqrt(correlation.shape[-1])
        x = correlation.reshape(-1, side, side, 1)
        x = ConvBN(32, padding=0, name="conv__0")(x)
        if side == 16:
            x = max_pool(x, 2, 2)
        x = ConvBN(32, padding=0, name="conv__1")(x)
        x = ConvBN(16, padding=0, name="conv__2")(x)
        x = Conv(6, padding=0, use_bias=True, name="predict_uncertainty")(x)
        x = jnp.concatenate([x.reshape(*correlation.shape[:3], 6), *others], axis=-1)
        x = ConvBN(32, name="pred_conv__0")(x)
        x = ConvBN(16, name="pred_conv__1")(x)
        return Conv(1, use_bias=True, name="predict_uncertainty_final")(x)


class UAWarpCHead(nn.Module):
    """Flow and log-variance at four levels from the features of both images."""

    @nn.compact
    def __call__(
        self,
        target: tuple[jax.Array, jax.Array],
        source: tuple[jax.Array, jax.Array],
        target_copy: tuple[jax.Array, jax.Array],
        source_copy: tuple[jax.Array, jax.Array],
        size: tuple[int, int],
    ) -> dict[str, jax.Array]:
        """Where each target cell lies in the source.

        Args:
            target, source: VGG features at 1/4 and 1/8 of the images.
            target_copy, source_copy: VGG features of the 256x256 copies, 32x32 and 16x16.
            size: (H, W) of the images.

        Returns:
            ``flow4`` .. ``flow1`` [B, h, w, 2] (dx, dy) in pixels of the images, coarse to fine,
            and ``logvar4`` .. ``logvar1`` [B, h, w, 1], their log-variances.
        """
        (t1, t2), (s1, s2), (t3, t4), (s3, s4) = (
            tuple(unit(level.astype(jnp.float32)) for level in levels)
            for levels in (target, source, target_copy, source_copy)
        )
        copy = np.asarray([COPY, COPY], np.float32)
        pixels = np.asarray(size[::-1], np.float32)  # width, height, as flows are (dx, dy)
        to_pixels = pixels / copy
        log_to_pixels = 2 * math.log(math.hypot(*size) / math.hypot(COPY, COPY))

        correlation = global_correlation(s4, t4)
        mapping, features = FlowDecoder(name="decoder4")(correlation)
        flow4 = mapping_to_flow(mapping) * (copy / extent(t4))
        logvar4 = Uncertainty(name="estimate_uncertainty_components4")(correlation, features)
        logvar4 = logvar4 + 2 * math.log(COPY / t4.shape[1])

        def level(number, target, source, flow, logvar, units, refine=None, more=()):
            """One local level: up-sampled flow, correction, log-variance and features."""
            cells = target.shape[1:3]
            flow, logvar = (resize(x, cells, align_corners=False) for x in (flow, logvar))
            warped, _ = flow_warp(source, flow * (extent(target) / units))
            correlation = local_correlation(warped, target)
            inputs = jnp.concatenate([correlation, flow, *more, logvar], axis=-1)
            change, features = FlowDecoder(name=f"decoder{number}")(inputs)
            if refine:
                change = change + Refinement(name=refine)(features)
            uncertainty = Uncertainty(name=f"estimate_uncertainty_components{number}")
            return flow + change, uncertainty(correlation, features, logvar, flow), features

        flow3, logvar3, _ = level(3, t3, s3, flow4, logvar4, copy, "refinement_module_adaptive")
        flow3, logvar3 = flow3 * to_pixels, logvar3 + log_to_pixels
        flow2, logvar2, features = level(2, t2, s2, flow3, logvar3, pixels)
        features = resize(features, t1.shape[1:3], align_corners=False)
        reduced = Conv(2, 1, use_bias=True, name="reduce")(features)
        flow1, logvar1, _ = level(
            1, t1, s1, flow2, logvar2, pixels, "refinement_module_finest", (reduced,)
        )
        flows = (flow1, flow2, flow3, flow4 * to_pixels)
        logvars = (logvar1, logvar2, logvar3, logvar4 + log_to_pixels)
        return {f"flow{i}": flow for i, flow in enumerate(flows, start=1)} | {
            f"logvar{i}": logvar for i, logvar in enumerate(logvars, start=1)
        }


class Matcher(nn.Module):
    """Flow from a target image into a source image of the same place, and its uncertainty."""

    def setup(self):
        self.alignment_backbone = VGG()
        self.alignment_head = UAWarpCHead()

    def __call__(self, target: jax.Array, source: jax.Array) -> dict[str, jax.Array]:
        """Matches pairs, without gradient.

        Args:
            target: [B, H, W, 3] float32, normalised: the night image.
            source: [B, H, W, 3] float32, normalised: the day image.

        Returns:
            ``flow`` [B, H, W, 2] (dx, dy) in pixels: target pixel p is seen at p + flow(p) in the
            source; ``logvar`` [B, H, W, 1] its log-variance; and the head's levels.
        """
        size = target.shape[1:3]
        pair = jax.lax.stop_gradient(jnp.stack([target, source], axis=1))
        images = pair.reshape(-1, *target.shape[1:])

        def features(images, *names):
            found = self.alignment_backbone(images)
            both = [found[name].reshape(len(target), 2, *found[name].shape[1:]) for name in names]
            return [tuple(x[:, i] for x in both) for i in range(2)]

        copies = resize(images, (COPY, COPY), method="area", align_corners=False)
        levels = self.alignment_head(
            *features(images, "pool2", "pool3"), *features(copies, "pool3", "pool4"), size
        )
        levels = jax.lax.stop_gradient(levels)
        return levels | {
            "flow": resize(levels["flow1"], size, align_corners=False),
            "logvar": resize(levels["logvar1"], size, align_corners=False),
        }


def extent(x: jax.Array) -> np.ndarray:
    """(width, height) of [B, h, w, C]."""
    return np.asarray(x.shape[2:0:-1], np.float32)


def mapping_to_flow(mapping: jax.Array) -> jax.Array:
    """Flow in cells from positions in [-1, 1], corners aligned: [B, h, w, 2] to the same shape."""
    width, height = extent(mapping)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    return (mapping + 1) * ((extent(mapping) - 1) / 2) - grid
