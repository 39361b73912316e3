# SPDX-License-Identifier: Apache-2.0
"""ResNet (arXiv 1512.03385) with the stems, strides and dilations that segmentation uses.

Parameter names are torchvision's, and mmsegmentation's for the deep stem (``stem.0``, ``stem.1``,
``stem.3``, ...).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.ranges import Count
from nightjax.models.layers import Conv, max_pool
from nightjax.models.norm import BatchNorm
from nightjax.models.remat import Stored, rematerialized


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the first carries stride and dilation.

    Attributes:
        features: channels of both convolutions and of the output.
        stride: of the block.
        dilation: of the first convolution.
        norm: builds the batch norms.
        dtype: compute dtype.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    norm: Any = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        conv = functools.partial(Conv, self.features, dtype=self.dtype)
        norm = functools.partial(self.norm, dtype=self.dtype)
        y = conv(stride=self.stride, dilation=self.dilation, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train=train))
        y = norm(name="bn2")(conv(name="conv2")(y), train=train)
        return nn.relu(y + _shortcut(x, self.features, self.stride, norm, self.dtype, train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the output has 4 times ``features`` channels.

    Attributes:
        features: channels of the first two convolutions.
        stride: of the block, on the 3x3 convolution (style "pytorch") or on the first 1x1
            ("caffe").
        dilation: of the 3x3 convolution.
        style: see ``stride``.
        norm: builds the batch norms.
        dtype: compute dtype.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    style: str = "pytorch"
    norm: Any = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(self.norm, dtype=self.dtype)
        first, second = (1, self.stride) if self.style == "pytorch" else (self.stride, 1)
        y = conv(self.features, kernel=1, stride=first, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train=train))
        y = conv(self.features, stride=second, dilation=self.dilation, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y, train=train))
        y = norm(name="bn3")(conv(4 * self.features, kernel=1, name="conv3")(y), train=train)
        return nn.relu(y + _shortcut(x, 4 * self.features, self.stride, norm, self.dtype, train))


def _shortcut(x, features, stride, norm, dtype, train):
    """The input itself, or its 1x1 projection where the block changes its shape."""
    if stride == 1 and x.shape[-1] == features:
        return x
    x = Conv(features, kernel=1, stride=stride, dtype=dtype, name="downsample_0")(x)
    return norm(name="downsample_1")(x, train=train)


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """A stem and four stages of residual blocks.

    Attributes:
        depths: blocks of each stage.
        block: "basic" or "bottleneck".
        widths: features of the blocks of each stage (a bottleneck puts out four times as many).
        strides: of the first block of each stage.
        dilations: of each stage: one number for all its blocks, or one a block. Contracted
            dilation, where the first block of a dilated stage keeps half of it, is the second form:
            ``(2, 4, 4)``.
        stem: "torchvision" (7x7 stride 2), "v1c" (three 3x3, the first with stride 2 and, like the
            second, half the channels) or "3x3" (one 3x3 stride 2).
        stem_features: channels after the stem.
        pool: 3x3 stride-2 max-pool after the stem: "floor", "ceil" (torch's ceil mode, as in
            DANNet) or "none".
        style: place of a bottleneck's stride, see `Bottleneck`; basic blocks have only one.
        norm: builds the batch norms, such as ``functools.partial(BatchNorm, frozen=True)``.
        scan: in training, run the equal blocks of a stage as one compiled loop: compile time no
            longer grows with depth. Parameters and statistics keep one sub-tree a block. Not for
            training on CPU, where XLA's convolutions in loops are about ten times slower.
        remat: recompute each block in the backward pass instead of storing its inner values.
        stored: what of a block is stored nevertheless, see `models.remat`.
        dtype: compute dtype; parameters and norm statistics stay float32.
    """

    depths: tuple[Count, ...]
    block: str = "bottleneck"
    widths: tuple[Count, ...] = (64, 128, 256, 512)
    strides: tuple[Count, ...] = (1, 2, 2, 2)
    dilations: tuple[Count | tuple[Count, ...], ...] = (1, 1, 1, 1)
    stem: str = "torchvision"
    stem_features: int = 64
    pool: str = "floor"
    style: str = "pytorch"
    norm: Any = BatchNorm
    scan: bool = False
    remat: bool = False
    stored: Stored = "inputs"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None) -> dict[str, jax.Array]:
        """Features of a normalized image.

        Args:
            x: [B, H, W, 3] float32.
            train: batch norm uses and updates batch statistics.
            deterministic: accepted like in every backbone; nothing here is random.

        Returns:
            ``stem`` (before the max-pool) and ``stage1`` .. ``stage4``, [B, h, w, C] in ``dtype``.

        Raises:
            UserError: for an unknown block, stem, pool or style.
        """
        del deterministic
        for attribute, known in CHOICES.items():
            if getattr(self, attribute) not in known:
                raise UserError(
                    f"ResNet {attribute} {getattr(self, attribute)!r} is unknown; choose from {', '.join(known)}"
                )
        x = self._stem(x, train)
        features = {"stem": x}
        if self.pool != "none":
            x = max_pool(x, 3, 2, 1, ceil_mode=self.pool == "ceil")
        block = BLOCKS[self.block]
        options = {"norm": self.norm, "dtype": self.dtype}
        if self.block == "bottleneck":
            options["style"] = self.style
        if self.remat:
            block = rematerialized(block, self.stored, static_argnums=(2,))  # ``train``; number 0 is the module
        plan = zip(self.depths, self.widths, self.strides, self.dilations, strict=True)
        for stage, (depth, width, stride, dilation) in enumerate(plan, start=1):
            each = (dilation,) * depth if isinstance(dilation, int) else dilation
            new_block = functools.partial(block, width, **options)
            names = [f"layer{stage}_{i}" for i in range(depth)]
            x = new_block(stride=stride, dilation=each[0], name=names[0])(x, train)
            equal = depth > 2 and len(set(each[1:])) == 1
            if self.scan and equal and train and not self.is_initializing():
                x = self._scan_blocks(new_block(dilation=each[1], parent=None), names[1:], x, train)
            else:
                for name, block_dilation in zip(names[1:], each[1:], strict=True):
                    x = new_block(dilation=block_dilation, name=name)(x, train)
            features[f"stage{stage}"] = x
        return features

    def _scan_blocks(self, block, names, x, train):
        """Equal blocks in training mode."""
        params, stats = (
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *(self.variables[kind][name] for name in names))
            for kind in ("params", "batch_stats")
        )

        def body(x, layer):
            variables = {"params": layer[0], "batch_stats": layer[1]}
            x, updated = block.apply(variables, x, train, mutable=["batch_stats"])
            return x, updated["batch_stats"]

        x, updated = jax.lax.scan(body, x, (params, stats))
        for i, name in enumerate(names):
            self.put_variable("batch_stats", name, jax.tree.map(lambda leaf, i=i: leaf[i], updated))
        return x

    def _stem(self, x, train):
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(self.norm, dtype=self.dtype)
        if self.stem == "v1c":
            for i, (width, stride) in enumerate(((2, 2), (2, 1), (1, 1))):
                x = conv(self.stem_features // width, stride=stride, name=f"stem_{3 * i}")(x)
                x = nn.relu(norm(name=f"stem_{3 * i + 1}")(x, train=train))
            return x
        x = conv(self.stem_features, kernel=STEM_KERNELS[self.stem], stride=2, name="conv1")(x)
        return nn.relu(norm(name="bn1")(x, train=train))


STEM_KERNELS = {"torchvision": 7, "3x3": 3}

CHOICES = {
    "block": tuple(BLOCKS),
    "stem": ("v1c", *STEM_KERNELS),
    "pool": ("floor", "ceil", "none"),
    "style": ("pytorch", "caffe"),
}
"""Values that these attributes of :class:`ResNet` may have."""

_D8 = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}


def _contracted(depth: int) -> dict[str, Any]:
    """Output stride 8 in mmsegmentation's form, for a third stage of ``depth`` blocks."""
    return {"strides": (1, 2, 1, 1), "dilations": (1, 1, (1, *(depth - 1) * (2,)), (2, 4, 4))}


VARIANTS = {
    "resnet18": {"depths": (2, 2, 2, 2), "block": "basic"},
    "resnet50": {"depths": (3, 4, 6, 3)},
    "resnet101": {"depths": (3, 4, 23, 3)},
    "resnet50_v1c": {"depths": (3, 4, 6, 3), "stem": "v1c"},
    "resnet101_v1c": {"depths": (3, 4, 23, 3), "stem": "v1c"},
    "resnet50_v1c_d8": {"depths": (3, 4, 6, 3), "stem": "v1c", **_D8},
    "resnet101_v1c_d8": {"depths": (3, 4, 23, 3), "stem": "v1c", **_D8},
    "resnet50_v1c_d8_contracted": {"depths": (3, 4, 6, 3), "stem": "v1c", **_contracted(6)},
    "resnet101_v1c_d8_contracted": {"depths": (3, 4, 23, 3), "stem": "v1c", **_contracted(23)},
    "resnet_tiny": {
        "depths": (1, 2, 2, 2),
        "block": "basic",
        "widths": (16, 32, 64, 96),
        "strides": (1, 2, 2, 1),
        "dilations": (1, 1, (1, 2), (2, 4)),
        "stem": "3x3",
        "stem_features": 16,
        "pool": "none",
    },
}
"""Arguments of :class:`ResNet` by name. ``d8`` is DeepLab-v2's form with output stride 8,
``contracted`` mmsegmentation's for DeepLab-v3+;
``resnet_tiny`` has features at strides 2, 4, 8, 8 and learns from scratch on a CPU."""
