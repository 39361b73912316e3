# SPDX-License-Identifier: Apache-2.0
"""DeepLab-v2's classifier: parallel dilated convolutions, summed (arXiv 1606.00915, 3.2)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nightjax.core.ranges import Count
from nightjax.models.heads.head import Head
from nightjax.models.initializers import normal
from nightjax.models.layers import Conv


class DeepLabV2Head(Head):
    """The sum of one 3x3 convolution to the classes for each dilation.

    Attributes:
        dropout: rate at which whole channels are zeroed before the branches.
        dilations: one branch each.
        summed: how many of the branches count, the first ones; None for all. The official code of AdaptSegNet and
            DANNet returns after the second, so their weights are made for 2. The others keep their parameters, so
            that checkpoints fit.
        stage: name of the feature it reads.
    """

    dropout: float = 0.0
    dilations: tuple[Count, ...] = (6, 12, 18, 24)
    summed: int | None = None
    stage: str = "stage4"

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        del train
        return features[self.stage]

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map."""
        logits = 0.0
        for i, dilation in enumerate(self.dilations):
            branch = Conv(
                self.num_classes,
                dilation=dilation,
                use_bias=True,
                dtype=self.dtype,
                kernel_init=normal(0.01),
                name=f"conv2d_list_{i}",
            )
            y = branch(x).astype(jnp.float32)
            if self.summed is None or i < self.summed:
                logits = logits + y
        return jnp.asarray(logits)
