"""FCN's classifier (arXiv 1411.4038) as mmsegmentation uses it beside a larger head."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.heads.daformer import ConvBNReLU
from nightjax.models.initializers import normal
from nightjax.models.layers import Conv, Dropout2d


class FCNHead(nn.Module):
    """3x3 convolution, batch norm, ReLU, channel dropout and a 1x1 classifier on one stage.

    Attributes:
        num_classes: K.
        channels: before the classifier.
        stage: name of the feature it reads.
        dropout: rate at which whole channels are zeroed before the classifier.
        dtype: compute dtype; logits are float32.
    """

    num_classes: int
    channels: int = 256
    stage: str = "stage3"
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, jax.Array],
        *,
        train: bool = False,
        deterministic: bool | None = None,
    ) -> jax.Array:
        """Logits [B, h, w, K] float32 at the resolution of the feature it reads.

        Args:
            features: holds ``stage``, [B, h, w, C].
            train: batch norm uses batch statistics.
            deterministic: True switches dropout off; the default is ``not train``.
        """
        deterministic = not train if deterministic is None else deterministic
        conv = ConvBNReLU(self.channels, 3, dtype=self.dtype, name="convs_0")
        x = conv(features[self.stage], train=train)
        x = Dropout2d(self.dropout)(x, deterministic=deterministic)
        return classify(x, self.num_classes, self.dtype)


def classify(x: jax.Array, num_classes: int, dtype: Any) -> jax.Array:
    """mmsegmentation's last layer ``conv_seg``, to be called inside a compact method."""
    classifier = Conv(
        num_classes,
        kernel=1,
        use_bias=True,
        dtype=dtype,
        kernel_init=normal(0.01),
        name="conv_seg",
    )
    return classifier(x).astype(jnp.float32)
