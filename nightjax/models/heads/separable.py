# SPDX-License-Identifier: Apache-2.0
"""The classifier of Fast-SCNN (arXiv 1902.04502): depthwise separable convolutions on one feature."""

from collections.abc import Mapping

import jax

from nightjax.models.backbones.fast_scnn import SeparableConv
from nightjax.models.heads.head import Head


class SeparableHead(Head):
    """Separable 3x3 convolutions, channel dropout and a 1x1 classifier.

    Attributes:
        channels: before the classifier.
        depth: number of separable convolutions.
        stage: name of the feature it reads.
    """

    channels: int = 128
    depth: int = 2
    stage: str = "stage4"

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """See `Head`."""
        x = features[self.stage]
        for i in range(self.depth):
            x = SeparableConv(self.channels, dtype=self.dtype, name=f"convs_{i}")(x, train=train)
        return x
