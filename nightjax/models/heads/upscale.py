# SPDX-License-Identifier: Apache-2.0
"""VFM-UDA's light head for plain vision transformers (arXiv 2406.09896), and VFM-UDA++'s for four levels
(arXiv 2503.10685)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.heads.head import Head
from nightjax.models.initializers import he_uniform, normal, torch_uniform
from nightjax.models.layers import Conv, PatchUpConv
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize

EPSILON = 1e-6
"""LayerNorm epsilon of the light head."""


class UpscaleHead(Head):
    """Two transposed 2x2 convolutions and a 3x3 one on the last feature, each with a layer norm; no dropout.

    Widths are 1/2, 1/4 and 1/4 of the feature's. Logits have four times its sides, stride 3.5 of patches of 14.

    Attributes:
        stage: the feature it reads.
    """

    stage: str = "stage4"
    dropout: float = 0.0

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        x = features[self.stage]
        half, quarter = x.shape[-1] // 2, x.shape[-1] // 4
        x = self._norm(PatchUpConv(half, dtype=self.dtype, name="upscale_0")(x), "upscale_1")
        x = nn.gelu(x, approximate=False)
        x = self._norm(PatchUpConv(quarter, dtype=self.dtype, name="upscale_3")(x), "upscale_4")
        x = Conv(quarter, dtype=self.dtype, kernel_init=torch_uniform, name="upscale_5")(x)
        return self._norm(x, "upscale_6")

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map."""
        return _classify(x, self.num_classes, self.dtype)

    def _norm(self, x: jax.Array, name: str) -> jax.Array:
        return nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, use_fast_variance=False, name=name)(x)


class UpscalePyramidHead(Head):
    """From coarse to fine: a transposed 2x2 convolution, the sum with the next finer level, 3x3, batch norm, ReLU.

    Reads ``stage1`` .. ``stage4``, each with twice the sides of the next. Widths are 1/2, 1/4 and 1/8 of the features',
    and a last 3x3 convolution follows. The official program puts it on a ViT-Adapter, which is not here.
    """

    dropout: float = 0.0

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        options = {"use_bias": True, "dtype": self.dtype, "kernel_init": he_uniform}
        x = features["stage4"]
        for i, stage in enumerate((3, 2, 1), start=1):
            finer = features[f"stage{stage}"]
            width = finer.shape[-1] // 2**i
            x = PatchUpConv(width, name=f"up_conv{i}", **options)(x)
            x = resize(x, finer.shape[1:3], align_corners=False)  # An odd finer level has a row or column more.
            x = x + Conv(width, kernel=1, name=f"reduce_conv{i}", **options)(finer)
            x = Conv(width, name=f"smooth_conv{i}", **options)(x)
            x = nn.relu(BatchNorm(bn_decay=0.99, dtype=self.dtype, name=f"norm{i}")(x, train=train))
        return Conv(x.shape[-1], name="smooth_conv4", **options)(x)

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map."""
        return _classify(x, self.num_classes, self.dtype)


def _classify(x: jax.Array, num_classes: int, dtype: Any) -> jax.Array:
    """Both programs' classifier: 1x1 without bias."""
    return Conv(num_classes, kernel=1, dtype=dtype, kernel_init=normal(0.1), name="out")(x).astype(jnp.float32)
