"""SegFormer's all-MLP decoder (arXiv 2105.15203, section 3.2); also HRDA's scale attention.

Submodules are named as in refign's checkpoints. HRDA's own name them ``embed_layers.i``, ``fuse_layer``
and ``conv_seg``, with the four input groups of the fuse convolution in the opposite
order.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.heads.daformer import ConvBNReLU, Embed
from nightjax.models.initializers import normal
from nightjax.models.layers import Conv, Dropout2d
from nightjax.ops.resize import resize


class SegFormerHead(nn.Module):
    """Embed each level, resize to the finest, concatenate coarse to fine, 1x1 fuse, 1x1 classifier.

    Attributes:
        num_classes: K.
        channels: channels of each embedded level and of the fused map.
        level_norm: batch norm and ReLU on every embedded level, instead of a bias, as mmsegmentation's head has them.
        dropout: rate at which whole channels are zeroed before the classifier.
        dtype: compute dtype; logits are float32.
    """

    num_classes: int
    channels: int = 256
    level_norm: bool = False
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
        """Logits [B, h, w, K] float32 at the size of ``stage1``; arguments as in DAFormerHead."""
        deterministic = not train if deterministic is None else deterministic
        size = features["stage1"].shape[1:3]
        levels = []
        for stage in (4, 3, 2, 1):
            level, name = features[f"stage{stage}"], f"linear_c{stage}"
            if self.level_norm:
                level = ConvBNReLU(self.channels, dtype=self.dtype, name=name)(level, train=train)
            else:
                level = Embed(self.channels, dtype=self.dtype, name=name)(level)
            levels.append(resize(level, size, align_corners=False))
        fuse = ConvBNReLU(self.channels, dtype=self.dtype, name="linear_fuse")
        x = fuse(jnp.concatenate(levels, axis=-1), train=train)
        self.sow("intermediates", "decoded", x)
        x = Dropout2d(self.dropout)(x, deterministic=deterministic)
        classifier = Conv(
            self.num_classes,
            kernel=1,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=normal(0.01),
            name="linear_pred",
        )
        return classifier(x).astype(jnp.float32)
