# SPDX-License-Identifier: Apache-2.0
"""HRDA: a low-resolution context view fused with high-resolution details (arXiv 2204.13132).

The context view is the whole image at half size. A detail view is a window of that same size in pixels, taken from the
image at full size: one window for the student in training, overlapping windows at half-window stride for the teacher
and in evaluation. A scale attention, computed from the context view, weights the two for every class and cell. The
forms are those of refign's hrda.py: all views of a call go through the network as one batch and share their batch norm
statistics.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nightjax.core.errors import UserError
from nightjax.core.stacks import Stack, stacks_of
from nightjax.core.types import Size
from nightjax.models.segmenter import SegmentationModel
from nightjax.ops.resize import resize

OUTPUT_STRIDE = 4
"""Pixels of a view per cell of its logits."""

OFFSET_STRIDE = 2 * OUTPUT_STRIDE
"""Training offsets are multiples of this, so that windows fall on whole cells of both views."""


def view_size(size: Size) -> tuple[int, int]:
    """Height and width of every view of an image of ``size``."""
    return size[0] // 2, size[1] // 2


def offset_choices(size: Size) -> np.ndarray:
    """How many offsets (y, x) a detail window may be drawn at in an image of ``size``: int [2].

    As in the official code the last one that would fit is not drawn.
    """
    margins = np.asarray(size) - view_size(size)
    return np.maximum((margins + 1) // OFFSET_STRIDE, 1)


def draw_detail_offset(key: jax.Array, size: Size) -> jax.Array:
    """Random offset int32 [2] (y, x) of a detail window: a multiple of 8, uniform."""
    return OFFSET_STRIDE * jax.random.randint(key, (2,), 0, offset_choices(size), jnp.int32)


def detail_crop(x: jax.Array, offset: jax.Array | Sequence[jax.Array | int]) -> jax.Array:
    """The detail window of images, labels or weights: [B, H, W, ...] to [B, H//2, W//2, ...].

    Args:
        x: array at full size.
        offset: (y, x) of the window, traced or not.
    """
    size = view_size(x.shape[1:3])
    start = (0, offset[0], offset[1]) + (0,) * (x.ndim - 3)
    return jax.lax.dynamic_slice(x, start, (x.shape[0], *size, *x.shape[3:]))


def detail_windows(size: Size) -> list[tuple[int, int]]:
    """Offsets (y, x) of the overlapping windows that cover an image of ``size``, row by row."""
    starts = []
    for full, view in zip(size, view_size(size), strict=True):
        stride = view // 2
        count = -(-(full - view) // stride) + 1
        starts.append([min(i * stride, full - view) for i in range(count)])
    return [(y, x) for y in starts[0] for x in starts[1]]


def detail_crops(
    outputs: Mapping[str, jax.Array], label: jax.Array, weight: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """Label and weight inside the detail window of a training pass, as the loss on its ``hr_logits[:, 0]`` needs them.

    Args:
        outputs: of `HRDA` with one detail window.
        label: [B, H, W] at the size of the image.
        weight: [B, H, W], or None, which stays None.

    Returns:
        The crops [B, H//2, W//2] of both.
    """
    offset = outputs["detail_box"][0, ::2]
    return detail_crop(label, offset), None if weight is None else detail_crop(weight, offset)


class HRDA(SegmentationModel):
    """A segmentation network run at two resolutions.

    Attributes:
        backbone: module from an image [B, H, W, 3] to a dict of features.
        head: module from features to logits at stride 4, shared by all views.
        hrda_scale_attention: module from context features to logits of the attention, stride 4.
    """

    backbone: nn.Module
    head: nn.Module
    hrda_scale_attention: nn.Module

    shares_pass = False

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Those of the backbone, see `core.stacks`."""
        return stacks_of(self.backbone, "backbone")

    @nn.nowrap
    def draw_view(self, key: jax.Array, size: tuple[int, int]) -> dict[str, Any]:
        """A random detail window, see `SegmentationModel`."""
        return {"detail_offset": draw_detail_offset(key, size)}

    @nn.nowrap
    def context_view(self) -> dict[str, Any]:
        """The cheapest pass with a context view: one detail window, at the corner; see `SegmentationModel`."""
        return {"detail_offset": jnp.zeros(2, jnp.int32)}

    def backbone_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Features of the context view, see `SegmentationModel`."""
        return self.backbone(resize(x, view_size(x.shape[1:3]), align_corners=False), train=False)

    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        deterministic: bool | None = None,
        detail_offset: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Fused logits.

        Args:
            x: [B, H, W, 3] float32, normalized.
            train: batch norm uses batch statistics, over all views together.
            deterministic: True switches dropout and drop path off; the default is ``not train``.
            detail_offset: int32 [2] (y, x), multiples of 8: use this one detail window, as the
                student does in training; attention is 0 outside it. None: use all overlapping
                windows, as the teacher and evaluation do.

        Returns:
            ``logits`` [B, h, w, K] float32 at stride 4 of the image; ``stage1`` .. features of the
            context view; ``lr_logits`` [B, h/2, w/2, K]; ``attention`` [B, h/2, w/2, K] in (0, 1),
            before masking; ``hr_logits`` [B, N, h/2, w/2, K] of the N windows; ``detail_box`` int32
            [N, 4], their (y1, y2, x1, x2) in pixels.

        Raises:
            UserError: for sides that are not multiples of 8.
        """
        batch, size = x.shape[0], x.shape[1:3]
        if any(side % OFFSET_STRIDE for side in size):
            raise UserError(
                f"HRDA needs image sides that are multiples of {OFFSET_STRIDE}, "
                f"got {size[0]}x{size[1]}: change the crop or the resize of the data"
            )
        view = view_size(size)
        if detail_offset is None:
            offsets = detail_windows(size)
        else:
            offsets = [(detail_offset[0], detail_offset[1])]
        context = resize(x, view, align_corners=False)
        views = jnp.stack([context, *(detail_crop(x, offset) for offset in offsets)], axis=1)

        def by_view(y):
            return y.reshape(batch, 1 + len(offsets), *y.shape[1:])

        features = self.backbone(views.reshape(-1, *view, x.shape[-1]), train=train, deterministic=deterministic)
        logits = by_view(self.head(features, train=train, deterministic=deterministic))
        lr_logits, hr_logits = logits[:, 0], logits[:, 1:]
        features = {name: by_view(feature)[:, 0] for name, feature in features.items()}
        attention = nn.sigmoid(self.hrda_scale_attention(features, train=train, deterministic=deterministic))
        corners = jnp.asarray(offsets, jnp.int32)
        box = jnp.concatenate([corners, corners + np.asarray(view)], axis=1)[:, (0, 2, 1, 3)]
        return {
            **features,
            "logits": fuse(lr_logits, hr_logits, attention, offsets),
            "lr_logits": lr_logits,
            "hr_logits": hr_logits,
            "attention": attention,
            "detail_box": box,
        }


def fuse(
    lr_logits: jax.Array,
    hr_logits: jax.Array,
    attention: jax.Array,
    offsets: Sequence[tuple[jax.Array | int, jax.Array | int]],
) -> jax.Array:
    """Context logits and the mean of overlapping detail logits, by attention: [B, h, w, K].

    Args:
        lr_logits: [B, h/2, w/2, K].
        hr_logits: [B, N, h/2, w/2, K].
        attention: [B, h/2, w/2, K], weight of detail; taken as 0 in cells that no window covers.
        offsets: (y, x) of each window in pixels of the image.
    """
    batch, h, w, classes = lr_logits.shape
    size = (2 * h, 2 * w)
    total = jnp.zeros((batch, *size, classes), lr_logits.dtype)
    count = jnp.zeros((1, *size, 1), lr_logits.dtype)
    for i, (y, x) in enumerate(offsets):
        start = (0, y // OUTPUT_STRIDE, x // OUTPUT_STRIDE, 0)
        total += jax.lax.dynamic_update_slice(jnp.zeros_like(total), hr_logits[:, i], start)
        count += jax.lax.dynamic_update_slice(jnp.zeros_like(count), jnp.ones((1, h, w, 1)), start)
    covered = (count > 0).reshape(1, h, 2, w, 2, 1).all(axis=(2, 4))
    attention = attention * covered
    context = resize((1 - attention) * lr_logits, size, align_corners=False)
    return context + resize(attention, size, align_corners=False) * (total / jnp.maximum(count, 1))
