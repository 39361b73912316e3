# SPDX-License-Identifier: Apache-2.0
"""FCN's classifier (arXiv 1411.4038) as mmsegmentation uses it beside a larger head."""

from collections.abc import Mapping

import jax

from nightjax.models.blocks import ConvBNReLU
from nightjax.models.heads.head import Head


class FCNHead(Head):
    """3x3 convolution, batch norm, ReLU, channel dropout and a 1x1 classifier on one stage.

    Attributes:
        channels: before the classifier.
        stage: name of the feature it reads.
    """

    channels: int = 256
    stage: str = "stage3"

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        return ConvBNReLU(self.channels, 3, dtype=self.dtype, name="convs_0")(features[self.stage], train=train)
