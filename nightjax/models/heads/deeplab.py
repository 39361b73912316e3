"""DeepLab-v2's classifier: parallel dilated convolutions, summed (arXiv 1606.00915, 3.2)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.initializers import normal
from nightjax.models.layers import Conv, Dropout2d


class DeepLabV2Head(nn.Module):
    """The sum of one 3x3 convolution to the classes for each dilation.

    Attributes:
        num_classes: K.
        dilations: one branch each.
        summed: how many of the branches count, the first ones; None for all. The official code of
            AdaptSegNet and DANNet returns after the second, so their weights are made for 2. The
            others keep their parameters, so that checkpoints fit.
        stage: name of the feature it reads.
        dropout: rate at which whole channels are zeroed before the branches.
        dtype: compute dtype; logits are float32.
    """

    num_classes: int
    dilations: tuple[int, ...] = (6, 12, 18, 24)
    summed: int | None = None
    stage: str = "stage4"
    dropout: float = 0.0
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
            train: sets the default of ``deterministic``.
            deterministic: True switches dropout off; the default is ``not train``.
        """
        deterministic = not train if deterministic is None else deterministic
        self.sow("intermediates", "decoded", features[self.stage])
        x = Dropout2d(self.dropout)(features[self.stage], deterministic=deterministic)
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
        return logits
