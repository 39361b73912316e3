# SPDX-License-Identifier: Apache-2.0
"""NightLab's prediction (2204.05538): an image level, a detector of hard regions, and a region level that looks closer.

The paper's body and code are not public; this is a reconstruction from its supplementary.
"""

import dataclasses

import jax
import jax.numpy as jnp

from nightjax.core.types import PyTree, Variables
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.region_detector import RegionDetector
from nightjax.methods.parts.region_geometry import RegionGeometry
from nightjax.ops import regions
from nightjax.ops.resize import resize, resize_nearest

LEVELS = ("image", "region")
NETWORKS = (*LEVELS, "detector")
"""Two segmenters of one architecture, and the detector."""


@dataclasses.dataclass(frozen=True)
class TwoLevel:
    """Three networks and the prediction that they make together, one compiled program an image shape.

    All of them see the image itself: a region is cut out before relighting.

    Attributes:
        network: of both levels.
        detector: of hard regions.
        geometry: of regions.
        hard_classes: train ids that the region level may overrule.
        adjustment: class weights whose logarithm is taken off the logits of both levels, or None.
    """

    network: SegmentationNetwork
    detector: RegionDetector
    geometry: RegionGeometry
    hard_classes: tuple[int, ...]
    adjustment: tuple[float, ...] | None

    def segment(self, variables: Variables, name: str, image: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] of one level alone for images [B, H, W, 3] in 0..255."""
        logits = self.network.predict(only(variables, name), image)
        return SegmentationLoss(self.adjustment, unweighting=1.0).unweighted(logits)

    def image_level(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Logits [B, H, W, K] of the image level alone, at the image's size."""
        return resize(self.segment(variables, "image", image), image.shape[1:3], align_corners=False)

    def segment_regions(self, variables: Variables, image: jax.Array, found: jax.Array) -> jax.Array:
        """Logits [B, M, h, w, K] of the region level for regions [B, M, 4], all in one pass."""
        cut = self.geometry.crop(image, found)
        logits = self.segment(variables, "region", cut.reshape(-1, *cut.shape[2:]))
        return logits.reshape(*cut.shape[:2], *logits.shape[1:])

    def merge(self, variables: Variables, image: jax.Array, found: jax.Array, valid: jax.Array) -> jax.Array:
        """Merged logits [B, H, W, K]: see `ops.regions.merge_regions`."""
        logits, closer = self.image_level(variables, image), self.segment_regions(variables, image, found)
        aspect = self.geometry.keep_aspect
        return regions.merge_regions(logits, closer, found, valid, self.hard_classes, keep_aspect=aspect)

    def detect(self, variables: Variables, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The regions to look at, half-open [B, M, 4] in whole pixels, the best first; bool [B, M]."""
        x = self.detector.pixels(image, self.network.input)
        box, _, valid, size = self.detector.detect(only(variables, "detector"), x, self.geometry.max_regions)
        return jnp.round(self.geometry.detected(box, size, image.shape[1:3])), valid

    def oracle(self, variables: Variables, image: jax.Array, label: jax.Array) -> jax.Array:
        """Merged logits with regions around the truth.

        True regions have no score: the largest parts make them, and of those the smallest region, the closest look, is
        on top (ours).
        """
        label = resize_nearest(label, image.shape[1:3])
        return self.merge(variables, image, *self.geometry.oracle_regions(label, self.hard_classes))


def only(variables: Variables, name: str) -> Variables:
    """One network's variables out of those of all."""
    return {key: tree[name] for key, tree in variables.items()}


def with_shared_relighting(trees: dict[str, PyTree]) -> dict[str, PyTree]:
    """Parameters or statistics by network in which the region level relights by the image level's module."""
    relight = jax.tree.map(jnp.copy, trees["image"].get("relight", {}))  # Donated buffers must not be shared.
    return trees | {"region": trees["region"] | ({"relight": relight} if relight else {})}
