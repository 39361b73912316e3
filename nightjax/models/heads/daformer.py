"""DAFormer's decoder: context-aware fusion of four levels (arXiv 2111.14887, section 3.2)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.initializers import normal, torch_uniform
from nightjax.models.layers import Conv, Dropout2d
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize


class Embed(nn.Module):
    """A linear map of every cell to ``channels``."""

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.channels, dtype=self.dtype, kernel_init=torch_uniform, name="proj")(x)


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; submodules ``conv`` and ``bn``."""

    features: int
    kernel: int = 1
    dilation: int = 1
    groups: int | str = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(
            self.features,
            kernel=self.kernel,
            dilation=self.dilation,
            groups=self.groups,
            dtype=self.dtype,
            name="conv",
        )(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train=train))


class SeparableConvBNReLU(nn.Module):
    """Dilated depthwise 3x3, then 1x1, each with batch norm and ReLU."""

    features: int
    dilation: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        depthwise = ConvBNReLU(x.shape[-1], 3, self.dilation, "depthwise", dtype=self.dtype, name="depthwise_conv")
        pointwise = ConvBNReLU(self.features, dtype=self.dtype, name="pointwise_conv")
        return pointwise(depthwise(x, train=train), train=train)


class SeparableASPP(nn.Module):
    """Parallel 1x1 and dilated separable 3x3 convolutions, no image pooling, 3x3 bottleneck."""

    features: int
    dilations: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        branches = []
        for i, dilation in enumerate(self.dilations):
            name = f"aspp_modules_{i}"
            if dilation == 1:
                branch = ConvBNReLU(self.features, dtype=self.dtype, name=name)
            else:
                branch = SeparableConvBNReLU(self.features, dilation, dtype=self.dtype, name=name)
            branches.append(branch(x, train=train))
        bottleneck = ConvBNReLU(self.features, 3, dtype=self.dtype, name="bottleneck")
        return bottleneck(jnp.concatenate(branches, axis=-1), train=train)


class DAFormerHead(nn.Module):
    """Embed each level, resize to the finest, concatenate, separable ASPP, 1x1 classifier.

    Attributes:
        num_classes: K.
        embed_dim: channels of each embedded level.
        channels: channels of the ASPP branches and of its output.
        dilations: of the ASPP; 1 stands for the 1x1 branch.
        dropout: rate at which whole channels are zeroed before the classifier.
        dtype: compute dtype; logits are float32.
    """

    num_classes: int
    embed_dim: int = 256
    channels: int = 256
    dilations: tuple[int, ...] = (1, 6, 12, 18)
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
        """Logits at the resolution of ``stage1``.

        Args:
            features: ``stage1`` .. ``stage4``, [B, h, w, C] each with its own size.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout off; the default is ``not train``.

        Returns:
            [B, h, w, K] float32.
        """
        deterministic = not train if deterministic is None else deterministic
        size = features["stage1"].shape[1:3]
        levels = []
        for i in range(4):
            level = Embed(self.embed_dim, dtype=self.dtype, name=f"embed_layers_{i}")(features[f"stage{i + 1}"])
            levels.append(resize(level, size, align_corners=False))
        x = jnp.concatenate(levels, axis=-1)
        aspp = SeparableASPP(self.channels, self.dilations, dtype=self.dtype, name="fuse_layer")
        x = aspp(x, train=train)
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
