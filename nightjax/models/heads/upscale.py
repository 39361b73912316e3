"""VFM-UDA's light head for plain vision transformers (arXiv 2406.09896), and VFM-UDA++'s for four levels
(arXiv 2503.10685)."""

from collections.abc import Mapping

import jax
from flax import linen as nn

from nightjax.models.heads.head import Head
from nightjax.models.initializers import normal, torch_uniform
from nightjax.models.layers import Conv, PatchUpConv
from nightjax.models.norm import BatchNorm

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
        """See `Head`."""
        x = features[self.stage]
        half, quarter = x.shape[-1] // 2, x.shape[-1] // 4
        x = self._norm(PatchUpConv(half, dtype=self.dtype, name="upscale_0")(x), "upscale_1")
        x = nn.gelu(x, approximate=False)
        x = self._norm(PatchUpConv(quarter, dtype=self.dtype, name="upscale_3")(x), "upscale_4")
        x = Conv(quarter, dtype=self.dtype, kernel_init=torch_uniform, name="upscale_5")(x)
        return self._norm(x, "upscale_6")

    def classify(self, x: jax.Array) -> jax.Array:
        """See `Head`; without bias, as in the official program."""
        conv = Conv(self.num_classes, kernel=1, dtype=self.dtype, kernel_init=normal(0.1), name="out")
        return conv(x).astype("float32")

    def _norm(self, x: jax.Array, name: str) -> jax.Array:
        return nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, use_fast_variance=False, name=name)(x)
