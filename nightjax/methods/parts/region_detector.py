# SPDX-License-Identifier: Apache-2.0
"""NightLab's detector of hard regions: its view of an image, its boxes, and its loss."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nightjax.core.modules import apply
from nightjax.core.optim import Optimizer
from nightjax.core.ranges import Count, Share
from nightjax.core.types import PyTree, Size, Variables
from nightjax.losses.detection import proposal_losses
from nightjax.methods.parts.network import InputNormalization
from nightjax.models.detector import Detector, Proposals, build_detector, proposal_input_size
from nightjax.ops import boxes
from nightjax.ops.anchors import inside_image, match_anchors, sample_anchors
from nightjax.ops.resize import resize

MASKRCNN_SGD = Optimizer(name="sgd", lr=0.01, schedule="multistep", warmup=500, milestones=(18_000,), weight_decay=1e-4)


@dataclasses.dataclass(frozen=True)
class Relabeling:
    """Hardness detection: which of the detector's positives stay positive (ours).

    Attributes:
        count: K, positives an image that are judged, the best by objectness; the rest is ignored.
        hard_only: judge by the hard classes alone, not by all.
    """

    count: Count = 16
    hard_only: bool = False


@dataclasses.dataclass(frozen=True)
class RegionDetector:
    """The detector, which is maskrcnn-benchmark's region proposal network.

    Attributes:
        variant: key of `models.detector.VARIANTS`. Ours: the paper says only that it is maskrcnn-benchmark's.
        optimizer: of the detector.
        input: how pixels enter it; None for as they enter the segmenters.
        short_side: images are resized so that the short side is this, by maskrcnn-benchmark's rule; 0 leaves them at
            their size (ours).
        proposals: from anchors to boxes.
        score_threshold: of a box above which it counts (ours).
        anchors_per_image: that it learns from.
        positive_fraction: share of them that may be positive.
        relabeling: of its positives in the stages after its own.
    """

    variant: str = "resnet50"
    optimizer: Optimizer = MASKRCNN_SGD
    input: InputNormalization | None = None
    short_side: int = 0
    proposals: Proposals = Proposals()
    score_threshold: Share = 0.5
    anchors_per_image: Count = 256
    positive_fraction: Share = 0.5
    relabeling: Relabeling = Relabeling()

    @property
    def model(self) -> Detector:
        """The module."""
        return build_detector(self.variant)

    def view(self, x: jax.Array) -> tuple[jax.Array, Size]:
        """Normalized images at the detector's size, with a border of zeros, and their size without it."""
        size = x.shape[1:3]
        if self.short_side:
            longest = round(self.short_side * 1333 / 800)
            size = proposal_input_size(size, self.short_side, longest)
            x = resize(x, size, align_corners=False)
        border = [(0, -length % self.model.multiple) for length in size]
        return jnp.pad(x, ((0, 0), *border, (0, 0))), size

    def pixels(self, image: jax.Array, default: InputNormalization) -> jax.Array:
        """Images [B, H, W, 3] in 0..255 as they enter the detector."""
        return (self.input or default)(image)

    def detect(self, variables: Variables, x: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
        """The best boxes above the score, after a suppression over all levels.

        Args:
            variables: of the detector.
            x: `pixels` of images.
            count: M, boxes an image at most.

        Returns:
            Boxes [B, M, 4] in pixels of the view, the best first; their scores [B, M]; bool [B, M]; the view's size.
        """
        x, size = self.view(x)
        outputs = apply(self.model, variables, x, train=False)
        anchors = self.model.anchors(x.shape[1:3])

        def best(logits, code):
            box, score, valid = self.proposals(logits, code, anchors, size)
            valid = boxes.nms(box, score, self.proposals.threshold, valid & (score > self.score_threshold))
            return boxes.best_boxes(box, score, valid, count)

        return *jax.vmap(best)(outputs["logits"], outputs["code"]), size

    def loss(
        self,
        variables: Variables,
        x: jax.Array,
        truth_in_view: Callable[[Size], tuple[jax.Array, jax.Array]],
        key: jax.Array,
        relabel: Callable[..., tuple[jax.Array, jax.Array]] | None,
    ) -> tuple[jax.Array, dict[str, jax.Array], PyTree]:
        """Objectness and box offsets on sampled anchors.

        Args:
            variables: of the detector, its parameters those of the gradient.
            x: `pixels` of images.
            truth_in_view: from the size of the view to inclusive true boxes [B, G, 4] in it and bool [B, G].
            key: of the sampling.
            relabel: from logits, code, labels, samples, anchors and the view's size to new labels and the share of
                judged positives that is kept; None to learn all positives.

        Returns:
            The loss, its terms, and the new running statistics.
        """
        x, size = self.view(x)
        outputs, new = apply(self.model, variables, x, train=True, mutable=["batch_stats"])
        logits, code = jnp.concatenate(outputs["logits"], 1), jnp.concatenate(outputs["code"], 1)
        anchors = jnp.concatenate(self.model.anchors(x.shape[1:3]))
        inside = inside_image(anchors, size)
        truth, there = truth_in_view(size)

        def assign(key, truth, there):
            index, label = match_anchors(boxes.box_iou(truth, anchors), there)
            label = jnp.where(inside, label, -1)
            target = boxes.encode_boxes(truth[index], anchors)
            return label, target, sample_anchors(key, label, self.anchors_per_image, self.positive_fraction)

        label, target, sampled = jax.vmap(assign)(jax.random.split(key, len(x)), truth, there)
        scalars = {}
        if relabel is not None:
            decided = jax.lax.stop_gradient((logits, code))
            label, scalars["kept"] = relabel(*decided, label, sampled, anchors, size)
        objectness, offsets = proposal_losses(logits, code, label, target, sampled)
        scalars |= {
            "objectness": objectness,
            "offsets": offsets,
            "loss": objectness + offsets,
            "positives": jnp.mean((sampled & (label > 0)).sum(-1), dtype=jnp.float32),
        }
        return scalars["loss"], scalars, new.get("batch_stats", variables["batch_stats"])
