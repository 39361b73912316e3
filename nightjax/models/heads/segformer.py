# SPDX-License-Identifier: Apache-2.0
"""SegFormer's all-MLP decoder (arXiv 2105.15203, section 3.2); also HRDA's scale attention.

Submodules are named as in refign's checkpoints. HRDA's checkpoints call them ``embed_layers.i``, ``fuse_layer`` and
``conv_seg``, with the four input groups of the fuse convolution in the opposite order.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nightjax.models.blocks import ConvBNReLU, Embed, classify
from nightjax.models.heads.head import Head
from nightjax.ops.resize import resize


class SegFormerHead(Head):
    """Embed each stage, resize to the finest, concatenate coarse to fine, 1x1 fuse, 1x1 classifier.

    Reads ``stage1`` .. ``stage4``.

    Attributes:
        channels: channels of each embedded stage and of the fused map.
        level_norm: batch norm and ReLU on every embedded stage, instead of a bias, as mmsegmentation's head has them.
    """

    channels: int = 256
    level_norm: bool = False

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        size = features["stage1"].shape[1:3]
        embedded = []
        for stage in (4, 3, 2, 1):
            x, name = features[f"stage{stage}"], f"linear_c{stage}"
            if self.level_norm:
                x = ConvBNReLU(self.channels, dtype=self.dtype, name=name)(x, train=train)
            else:
                x = Embed(self.channels, dtype=self.dtype, name=name)(x)
            embedded.append(resize(x, size, align_corners=False))
        fuse = ConvBNReLU(self.channels, dtype=self.dtype, name="linear_fuse")
        return fuse(jnp.concatenate(embedded, axis=-1), train=train)

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map."""
        return classify(x, self.num_classes, self.dtype, name="linear_pred")
