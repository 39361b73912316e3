# SPDX-License-Identifier: Apache-2.0
"""UPerNet's decoder: pyramid pooling on top of a feature pyramid (arXiv 1807.10221), as in mmsegmentation."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nightjax.core.ranges import Count
from nightjax.models.blocks import ConvBNReLU
from nightjax.models.heads.head import Head
from nightjax.ops.resize import resize


class UPerNetHead(Head):
    """Pyramid pooling on the last stage, a top-down path, and the fusion of all levels.

    Attributes:
        channels: of every level and of the output.
        bins: side of each grid of the pyramid pooling.
        stages: names of the features, fine to coarse.
    """

    channels: int = 512
    bins: tuple[Count, ...] = (1, 2, 3, 6)
    stages: tuple[str, ...] = ("stage1", "stage2", "stage3", "stage4")

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        *finer, last = (features[stage] for stage in self.stages)
        levels = [self._conv(x, 1, f"lateral_convs_{i}", train) for i, x in enumerate(finer)]
        levels.append(self._pyramid_pooling(last, train))
        for i in reversed(range(len(finer))):
            levels[i] = levels[i] + _to_size_of(levels[i], levels[i + 1])
        outputs = [self._conv(x, 3, f"fpn_convs_{i}", train) for i, x in enumerate(levels[:-1])]
        outputs.append(levels[-1])
        x = jnp.concatenate([_to_size_of(outputs[0], x) for x in outputs], axis=-1)
        return self._conv(x, 3, "fpn_bottleneck", train)

    def _pyramid_pooling(self, x: jax.Array, train: bool) -> jax.Array:
        levels = [x.astype(self.dtype)]
        for i, side in enumerate(self.bins):
            means = resize(x, (side, side), method="area", align_corners=False)
            levels.append(_to_size_of(x, self._conv(means, 1, f"psp_modules_{i}_1", train)))
        return self._conv(jnp.concatenate(levels, axis=-1), 3, "bottleneck", train)

    def _conv(self, x: jax.Array, kernel: int, name: str, train: bool) -> jax.Array:
        return ConvBNReLU(self.channels, kernel, dtype=self.dtype, name=name)(x, train=train)


def _to_size_of(reference: jax.Array, x: jax.Array) -> jax.Array:
    return resize(x, reference.shape[1:3], align_corners=False)
