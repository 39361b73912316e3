"""A light semantic feature pyramid for small models (after arXiv 1612.03144, 1901.02446)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.initializers import normal
from nightjax.models.layers import Conv, Dropout2d
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize


class FPNHead(nn.Module):
    """Lateral 1x1 convolutions, a top-down sum, a 3x3 and a classifier at the finest level.

    Attributes:
        num_classes: K.
        channels: of the pyramid.
        stages: features it reads, fine to coarse.
        dropout: rate at which whole channels are zeroed before the classifier.
        dtype: compute dtype; logits are float32.
    """

    num_classes: int
    channels: int = 32
    stages: tuple[str, ...] = ("stage1", "stage2", "stage3", "stage4")
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
        """Logits [B, h, w, K] float32 at the resolution of the finest stage.

        Args:
            features: holds every one of ``stages``, [B, h, w, C] each with its own size.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout off; the default is ``not train``.
        """
        deterministic = not train if deterministic is None else deterministic
        x = None
        for i, stage in reversed(list(enumerate(self.stages))):
            lateral = Conv(self.channels, kernel=1, use_bias=True, dtype=self.dtype, name=f"lateral_convs_{i}")
            level = lateral(features[stage])
            x = level if x is None else level + resize(x, level.shape[1:3], align_corners=False)
        x = Conv(self.channels, dtype=self.dtype, name="conv")(x)
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train=train))
        self.sow("intermediates", "decoded", x)
        x = Dropout2d(self.dropout)(x, deterministic=deterministic)
        classifier = Conv(
            self.num_classes,
            kernel=1,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=normal(0.01),
            name="conv_seg",
        )
        return classifier(x).astype(jnp.float32)
