"""DeepLab-v3+'s decoder with separable convolutions (arXiv 1802.02611, section 3), as in mmsegmentation."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.heads.daformer import ConvBNReLU, SeparableConvBNReLU
from nightjax.models.heads.fcn import classify
from nightjax.models.layers import Dropout2d
from nightjax.ops.resize import resize


class DeepLabV3PlusHead(nn.Module):
    """ASPP on the last stage, fused with the first stage at its resolution.

    Attributes:
        num_classes: K.
        channels: of every branch and of the output.
        low_channels: that the first stage is reduced to.
        dilations: of the ASPP; 1 stands for the 1x1 branch. An image-pooling branch comes first.
        dropout: rate at which whole channels are zeroed before the classifier.
        dtype: compute dtype; logits are float32.
    """

    num_classes: int
    channels: int = 512
    low_channels: int = 48
    dilations: tuple[int, ...] = (1, 12, 24, 36)
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
        """Logits [B, h, w, K] float32 at the size of ``stage1``.

        Args:
            features: holds ``stage1`` and ``stage4``, [B, h, w, C] each with its own size.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout off; the default is ``not train``.
        """
        deterministic = not train if deterministic is None else deterministic
        low, high = features["stage1"], features["stage4"]
        x = self._aspp(high, train)
        x = resize(x, low.shape[1:3], align_corners=False)
        reduce = ConvBNReLU(self.low_channels, dtype=self.dtype, name="c1_bottleneck")
        x = jnp.concatenate([x, reduce(low, train=train)], axis=-1)
        for i in range(2):
            conv = SeparableConvBNReLU(self.channels, 1, self.dtype, name=f"sep_bottleneck_{i}")
            x = conv(x, train=train)
        self.sow("intermediates", "decoded", x)
        x = Dropout2d(self.dropout)(x, deterministic=deterministic)
        return classify(x, self.num_classes, self.dtype)

    def _aspp(self, x: jax.Array, train: bool) -> jax.Array:
        size = x.shape[1:3]
        pool = ConvBNReLU(self.channels, dtype=self.dtype, name="image_pool_1")
        pooled = pool(resize(x, (1, 1), method="area", align_corners=False), train=train)
        branches = [resize(pooled, size, align_corners=False)]
        for i, dilation in enumerate(self.dilations):
            name = f"aspp_modules_{i}"
            if dilation == 1:
                branch = ConvBNReLU(self.channels, dtype=self.dtype, name=name)
            else:
                branch = SeparableConvBNReLU(self.channels, dilation, self.dtype, name=name)
            branches.append(branch(x, train=train))
        bottleneck = ConvBNReLU(self.channels, 3, dtype=self.dtype, name="bottleneck")
        return bottleneck(jnp.concatenate(branches, axis=-1), train=train)
