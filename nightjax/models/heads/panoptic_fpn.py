# SPDX-License-Identifier: Apache-2.0
"""Semantic branch of Panoptic FPN: as published, and with convolutions shared between the levels of the pyramid.

Sources: Kirillov et al. 2019 (arXiv 1901.02446, section 3.1 and figure 3), with detectron2's details. The shared form
is that of "Nighttime scene understanding with label transfer scene parser" (Image and Vision Computing 151, 2024) and
its released program, after ``Andy-zhujunwen/FPN-Semantic-segmentation``, whose parameter names it keeps.

Neither form has dropout by default, and group norms are the same in training and evaluation.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.heads.head import Head
from nightjax.models.layers import Conv
from nightjax.ops.resize import resize, resize_nearest


class PanopticFPNHead(Head):
    """The published branch: every level has its own convolutions and is doubled up to the size of the finest.

    Reads ``stage1`` .. ``stage4``, each at most as large as the one before.

    Attributes:
        dropout: rate at which whole channels are zeroed before the classifier.
        channels: of the pyramid.
        width: of the branch; 64, 128, 256 give 74.1, 74.5, 74.6 mIoU in the paper.
        groups: of the group norms; divides ``width``.
    """

    dropout: float = 0.0
    channels: int = 256
    width: int = 128
    groups: int = 32

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        del train
        total, top = 0.0, None
        for stage in (4, 3, 2, 1):
            level = _conv(self, self.channels, 1, f"lateral{stage + 1}")(features[f"stage{stage}"])
            top = level if top is None else level + resize_nearest(top, level.shape[1:3])
            x = _conv(self, self.channels, 3, f"output{stage + 1}")(top)
            for step in range(max(stage - 1, 1)):
                x = _conv(self, self.width, 3, f"p{stage + 1}_{step}", bias=False)(x)
                x = nn.relu(_group_norm(self.groups, f"p{stage + 1}_{step}_norm", self.dtype)(x))
                finer = features[f"stage{max(stage - 1 - step, 1)}"]
                x = resize(x, finer.shape[1:3], align_corners=False)
            total = total + x
        return total

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map."""
        return _conv(self, self.num_classes, 1, "predictor")(x).astype(jnp.float32)


class SharedPanopticFPNHead(Head):
    """The form with two shared convolutions, aligned corners, and as many groups as channels in the norms.

    Reads ``stage1`` .. ``stage4``. The official program upsamples the logits by four, with aligned corners. A map of
    one cell would be normalized to zeros, so at output stride 32 images must have at least 64 pixels a side.

    Attributes:
        dropout: rate at which whole channels are zeroed before the classifier.
        channels: of the pyramid.
        width: of the summed maps.
    """

    dropout: float = 0.0
    channels: int = 256
    width: int = 128

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        del train
        size = features["stage1"].shape[1:3]
        levels = [_conv(self, self.channels, 1, "toplayer")(features["stage4"])]
        top = levels[0]
        for i, stage in enumerate((3, 2, 1), start=1):
            lateral = _conv(self, self.channels, 1, f"latlayer{i}")(features[f"stage{stage}"])
            top = lateral + resize(top, lateral.shape[1:3], align_corners=True)
            levels.append(_conv(self, self.channels, 3, f"smooth{i}")(top))
        wide, narrow = _conv(self, self.channels, 3, "conv2"), _conv(self, self.width, 3, "semantic_branch")
        wide_norm = _group_norm(self.channels, "gn2", self.dtype)
        narrow_norm = _group_norm(self.width, "gn1", self.dtype)
        total = 0.0
        for level, repeats in zip(levels, (2, 1, 0, 0), strict=True):
            for _ in range(repeats):
                level = resize(nn.relu(wide_norm(wide(level))), size, align_corners=True)
            total = total + resize(nn.relu(narrow_norm(narrow(level))), size, align_corners=True)
        return jnp.asarray(total)

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map."""
        return _conv(self, self.num_classes, 1, "conv3")(x).astype(jnp.float32)


def _conv(head: Head, features: int, kernel: int, name: str, bias: bool = True) -> Conv:
    return Conv(features, kernel, use_bias=bias, dtype=head.dtype, name=name)


def _group_norm(groups: int, name: str, dtype: Any) -> nn.GroupNorm:
    return nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)
