# SPDX-License-Identifier: Apache-2.0
"""NightLab's regions: how they are cut out of images, found around labels, and drawn for training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.ranges import Count, Share, Side
from nightjax.core.types import Size
from nightjax.methods.parts.network import RandomKeys
from nightjax.ops import boxes, regions


@dataclasses.dataclass(frozen=True)
class RegionGeometry:
    """The geometry of regions. Sizes are pixels of the image. All values are ours: no source states them.

    Attributes:
        size: side to which regions are resampled.
        keep_aspect: resample the long side to it and fill up the short one; otherwise both become ``size``.
        antialias: along sides that shrink.
        min_side: to which smaller regions are grown.
        context: factor on the sides of boxes from labels.
        context_in_target: the detector learns boxes with their context, and what it finds is not grown again.
        min_area: pixels of the smallest part of a label map that makes a box (64 at 512x1024).
        max_boxes: the largest so many parts make boxes.
        merge_iou: boxes of different classes that overlap by more are joined.
        max_regions: the best so many count in a prediction.
    """

    size: Side = 512
    keep_aspect: bool = False
    antialias: bool = True
    min_side: float = 64.0
    context: float = 2.0
    context_in_target: bool = True
    min_area: int = 64
    max_boxes: Count = 64
    merge_iou: Share = 0.7
    max_regions: Count = 20

    def crop(self, image: jax.Array, found: jax.Array) -> jax.Array:
        """Regions [B, M, 4] of images [B, H, W, 3] at the region level's size, float32 in the images' range."""
        options = {"antialias": self.antialias, "keep_aspect": self.keep_aspect}
        return regions.crop(image.astype(jnp.float32), found, self.size, **options)

    def crop_label(self, label: jax.Array, found: jax.Array) -> jax.Array:
        """The same regions of labels [B, H, W]."""
        return regions.crop_label(label, found, self.size, keep_aspect=self.keep_aspect)

    def detected(self, box: jax.Array, size: Size, image_size: Size) -> jax.Array:
        """Regions of an image for boxes [..., 4] in pixels of the detector's view of ``size``."""
        context = 1.0 if self.context_in_target else self.context
        found = boxes.half_open(box) * pixels_of(size, image_size)
        return boxes.region_of(found, image_size, context=context, min_side=self.min_side)

    def true_regions(
        self, label: jax.Array, classes: tuple[int, ...], context: float
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Regions around the parts of some classes, the largest part first.

        Args:
            label: [B, H, W] train ids.
            classes: train ids.
            context: factor on the sides of the parts' boxes.

        Returns:
            Half-open regions [B, G, 4]; the classes int32 [B, G], of joined boxes that of the largest part; bool [B,
            G].
        """
        least = self.min_side if context != 1.0 else 0.0

        def one(label):
            box, kind, area = regions.label_boxes(label, classes, count=self.max_boxes, min_area=self.min_area)
            box = boxes.region_of(boxes.half_open(box), label.shape, context=context, min_side=least)
            box, valid = boxes.merge_overlapping(boxes.inclusive(box), kind, area > 0, self.merge_iou)
            order = jnp.argsort(~valid, stable=True)
            return boxes.half_open(box)[order], kind[order], valid[order]

        return jax.vmap(one)(label)

    def oracle_regions(self, label: jax.Array, classes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Regions around the largest parts, the smallest region first: [B, M, 4] in whole pixels and bool [B, M]."""
        found, _, valid = (x[:, : self.max_regions] for x in self.true_regions(label, classes, self.context))
        found = jnp.round(found)
        area = (found[..., 2:] - found[..., :2]).prod(-1)
        order = jnp.argsort(jnp.where(valid, area, jnp.inf), axis=1, stable=True)
        return jnp.take_along_axis(found, order[..., None], axis=1), jnp.take_along_axis(valid, order, axis=1)


@dataclasses.dataclass(frozen=True)
class RegionJitter:
    """Random change of regions from labels, in training (ours).

    Attributes:
        scale: range of the factor on their sides.
        shift: at most, in sides.
    """

    scale: tuple[float, float] = (0.8, 1.25)
    shift: float = 0.1

    def __call__(self, key: jax.Array, found: jax.Array, size: Size, min_side: float) -> jax.Array:
        """Regions [B, C, 4] of images of ``size`` (H, W), changed."""
        scale_key, shift_key = jax.random.split(key)
        low, high = np.log(self.scale)
        factor = jnp.exp(jax.random.uniform(scale_key, (*found.shape[:2], 1), minval=low, maxval=high))
        shift = jax.random.uniform(shift_key, (*found.shape[:2], 2), minval=-1.0, maxval=1.0) * self.shift
        sides = found[..., 2:] - found[..., :2]
        center = (found[..., :2] + found[..., 2:]) / 2 + shift * sides
        found = jnp.concatenate([center - factor * sides / 2, center + factor * sides / 2], -1)
        return boxes.region_of(found, size, min_side=min_side)


@dataclasses.dataclass(frozen=True)
class RegionSampling:
    """The regions that the region level learns from (ours).

    Attributes:
        per_image: regions an image.
        detected: share of them that the detector finds rather than the labels.
        by_class: of those from labels, draw a class that the image has first, then one of its parts; otherwise any
            part, and frequent classes such as poles take most.
        jitter: of those from labels.
    """

    per_image: Count = 4
    detected: Share = 0.0
    by_class: bool = True
    jitter: RegionJitter = RegionJitter()

    @property
    def detections(self) -> int:
        """Number of regions an image that the detector finds."""
        return round(self.per_image * self.detected)

    def from_labels(
        self,
        keys: RandomKeys,
        domain: str,
        true: tuple[jax.Array, jax.Array, jax.Array],
        size: Size,
        min_side: float,
    ) -> jax.Array:
        """Regions [B, C, 4] drawn from `RegionGeometry.true_regions`, and jittered."""
        found, kind, valid = true
        count = self.per_image - self.detections
        drawn = draw_regions(keys(f"regions_{domain}"), found, valid, count, size, kind if self.by_class else None)
        return self.jitter(keys(f"jitter_{domain}"), drawn, size, min_side)


def draw_regions(
    key: jax.Array, found: jax.Array, valid: jax.Array, count: int, size: Size, kind: jax.Array | None = None
) -> jax.Array:
    """Some of the regions of each image, with replacement; the whole image where there are none.

    Args:
        key: of the draw.
        found: [B, G, 4].
        valid: bool [B, G].
        count: C.
        size: (H, W) of the image.
        kind: classes int [B, G]: each class is then as likely as another, and so is each region of a class; None for
            all regions alike.

    Returns:
        [B, C, 4].
    """
    some = valid.any(-1)[:, None]
    chance = jnp.zeros(valid.shape)
    if kind is not None:
        same = (kind[:, :, None] == kind[:, None]) & valid[:, None]
        chance = -jnp.log(jnp.maximum(same.sum(-1), 1))
    chance = jnp.where(valid | ~some, chance, -jnp.inf)
    index = jax.random.categorical(key, chance[:, None], shape=(len(found), count))
    drawn = jnp.take_along_axis(found, index[..., None], axis=1)
    whole = jnp.array([0, 0, size[1], size[0]], jnp.float32)
    return jnp.where(some[..., None], drawn, whole)


def pixels_of(size: Size, image_size: Size) -> jax.Array:
    """Pixels of an image to one of its view of ``size`` (H, W), for the four numbers of a region."""
    return jnp.array([image_size[1] / size[1], image_size[0] / size[0]] * 2, jnp.float32)
