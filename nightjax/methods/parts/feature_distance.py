# SPDX-License-Identifier: Apache-2.0
"""The feature distance that keeps the student near its first weights (DAFormer, section 3.4)."""

import dataclasses

import jax

from nightjax.core.ranges import Share
from nightjax.core.types import Variables
from nightjax.losses.feature import feature_distance
from nightjax.methods.parts.network import Outputs, SegmentationNetwork


@dataclasses.dataclass(frozen=True)
class FeatureDistance:
    """Distance of the last stage's features to those of the initial network, on thing classes.

    Attributes:
        weight: of the loss.
        min_ratio: share of its pixels from which a feature cell takes their majority label.
    """

    weight: float = 0.005
    min_ratio: Share = 0.75

    def __call__(
        self, network: SegmentationNetwork, initial: Variables, outputs: Outputs, image: jax.Array, label: jax.Array
    ) -> jax.Array:
        """The weighted loss.

        Args:
            network: of student and initial network.
            initial: variables of the initial network.
            outputs: of the student on ``image``.
            image: [B, H, W, 3] float32 in [0, 1].
            label: [B, H, W] train ids.
        """
        first = network.features(initial, image)
        classes = network.classes
        return self.weight * feature_distance(
            outputs["stage4"],
            first["stage4"],
            label,
            classes=classes.group("thing"),
            num_classes=len(classes),
            min_ratio=self.min_ratio,
        )
