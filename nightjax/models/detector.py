# SPDX-License-Identifier: Apache-2.0
"""Region proposal network on a feature pyramid of a ResNet (maskrcnn-benchmark's RPN of R-50-FPN).

Parameter names are the official ones without ``module.`` in front and ``stem`` in the ResNet.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.config import choose
from nightjax.core.ranges import Count
from nightjax.core.types import Size
from nightjax.models.backbones.resnet import ResNet
from nightjax.models.initializers import lecun_uniform, normal
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm
from nightjax.ops.anchors import cell_anchors, grid_anchors
from nightjax.ops.boxes import best_boxes, clip_boxes, decode_boxes, nms


class FeaturePyramid(nn.Module):
    """Stages of a backbone, the finest first, to as many levels of ``features`` channels, and one of half the last's
    size.

    Attributes:
        features: channels of every level.
        dtype: compute dtype.
    """

    features: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stages: Sequence[jax.Array]) -> list[jax.Array]:
        """Levels [B, h, w, features]. Sizes of neighboring stages must differ by 2 exactly."""
        conv = functools.partial(Conv, self.features, use_bias=True, kernel_init=lecun_uniform, dtype=self.dtype)
        levels, above = [], None
        for number, stage in reversed(list(enumerate(stages, start=1))):
            inner = conv(kernel=1, name=f"fpn_inner{number}")(stage)
            above = inner if above is None else inner + above.repeat(2, 1).repeat(2, 2)
            levels.insert(0, conv(kernel=3, name=f"fpn_layer{number}")(above))
        return [*levels, levels[-1][:, ::2, ::2]]


class Body(nn.Module):
    """A ResNet and its pyramid.

    Attributes:
        body: the ResNet.
        stages: names of its outputs that enter the pyramid, the finest first.
        features: channels of the pyramid.
        dtype: compute dtype.
    """

    body: nn.Module
    stages: tuple[str, ...]
    features: int
    dtype: Any = jnp.float32

    def setup(self):
        self.fpn = FeaturePyramid(self.features, self.dtype)

    def __call__(self, x: jax.Array, train: bool) -> tuple[dict[str, jax.Array], list[jax.Array]]:
        found = self.body(x, train=train)
        return found, self.fpn([found[name] for name in self.stages])


class ProposalHead(nn.Module):
    """Objectness and box offsets of every anchor of a level.

    Attributes:
        features: channels of its input.
        anchors: A, anchors of a cell.
        dtype: compute dtype.
    """

    features: int
    anchors: int
    dtype: Any = jnp.float32

    def setup(self):
        conv = functools.partial(Conv, use_bias=True, kernel_init=normal(0.01), dtype=self.dtype)
        self.conv = conv(self.features)
        self.cls_logits = conv(self.anchors, kernel=1)
        self.bbox_pred = conv(4 * self.anchors, kernel=1)

    def __call__(self, level: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, h, w, C] to logits [B, h * w * A] and offsets [B, h * w * A, 4], in the order of `grid_anchors`."""
        x = nn.relu(self.conv(level))
        logits, code = self.cls_logits(x), self.bbox_pred(x)
        return logits.reshape(len(x), -1).astype(jnp.float32), code.reshape(len(x), -1, 4).astype(jnp.float32)


class Proposer(nn.Module):
    """The head under the name that official checkpoints give it."""

    head: nn.Module

    def __call__(self, levels: Sequence[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
        return [self.head(level) for level in levels]


class Detector(nn.Module):
    """Region proposals of an image.

    Attributes:
        backbone: a `Body`.
        rpn: a `Proposer`.
        strides: of each level in pixels; the last is twice the one before.
        sizes: root of the area of each level's anchors in pixels.
        ratios: height / width of the anchors.
    """

    backbone: nn.Module
    rpn: nn.Module
    strides: tuple[Count, ...] = (4, 8, 16, 32, 64)
    sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __call__(self, x: jax.Array, *, train: bool = False) -> dict[str, Any]:
        """Runs the network.

        Args:
            x: [B, H, W, 3] float32, normalized; H and W are multiples of `multiple`.
            train: batch norms that are not frozen use batch statistics.

        Returns:
            The ResNet's features; ``levels``, a list of the pyramid's; ``logits`` and ``code``, lists of a level's
            objectness [B, N] and box offsets [B, N, 4].
        """
        found, levels = self.backbone(x, train)
        logits, code = zip(*self.rpn(levels), strict=True)
        return found | {"levels": levels, "logits": list(logits), "code": list(code)}

    @property
    def multiple(self) -> int:
        """What the sides of an image must be a multiple of."""
        return self.strides[-2]

    def anchors(self, size: Size) -> list[np.ndarray]:
        """Anchors float32 [N, 4] of each level, for images of ``size`` (H, W)."""
        every = []
        for stride, side in zip(self.strides, self.sizes, strict=True):
            grid = -(-size[0] // stride), -(-size[1] // stride)
            every.append(grid_anchors(cell_anchors(stride, (side,), self.ratios), grid, stride))
        return every


@dataclasses.dataclass(frozen=True)
class Proposals:
    """From the anchors of an image to its proposals.

    Attributes:
        before: anchors of each level that enter the suppression.
        after: boxes of each level that leave it.
        total: boxes of the image.
        threshold: IoU above which the worse of two boxes goes.
        min_side: pixels; smaller boxes are dropped.
    """

    before: int = 1000
    after: int = 1000
    total: int = 1000
    threshold: float = 0.7
    min_side: float = 0.0

    def __call__(
        self,
        logits: Sequence[jax.Array],
        code: Sequence[jax.Array],
        anchors: Sequence[jax.Array | np.ndarray],
        size: Size,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Proposals of one image.

        Args:
            logits: [N] of each level.
            code: [N, 4] of each level.
            anchors: [N, 4] of each level.
            size: (H, W) that boxes are cut to.

        Returns:
            Boxes [P, 4], scores in [0, 1] [P], sorted, and bool [P] that says which there are.
        """
        levels = [self._level(*level, size) for level in zip(logits, code, anchors, strict=True)]
        boxes, scores, valid = map(jnp.concatenate, zip(*levels, strict=True))
        return best_boxes(boxes, scores, valid, self.total)

    def _level(self, logits, code, anchors, size):
        every = jnp.ones(logits.shape, bool)
        best, scores, valid = best_boxes(
            jnp.concatenate([anchors, code], -1), jax.nn.sigmoid(logits), every, self.before
        )
        boxes = clip_boxes(decode_boxes(best[:, 4:], best[:, :4]), size)
        valid &= (boxes[:, 2:] - boxes[:, :2] + 1 >= self.min_side).all(-1)
        return best_boxes(boxes, scores, nms(boxes, scores, self.threshold, valid), self.after)


def proposal_input_size(size: Size, short: int = 800, longest: int = 1333) -> tuple[int, int]:
    """(height, width) to which maskrcnn-benchmark resizes an image: short side 800, unless the long one passes 1333."""
    least, most = min(size), max(size)
    if most / least * short > longest:
        short = round(longest * least / most)
    scale = lambda side: short if side == least else int(short * side / least)
    return scale(size[0]), scale(size[1])


def build_detector(name: str, dtype: Any = jnp.float32) -> Detector:
    """A detector by its name in `VARIANTS`.

    Raises:
        UserError: unknown.
    """
    options = dict(choose(VARIANTS, name, "method.detector"))
    body, stages, features = (options.pop(key) for key in ("body", "stages", "features"))
    anchors = len(options.get("ratios", Detector.ratios))
    return Detector(
        backbone=Body(ResNet(**body, dtype=dtype), stages, features, dtype),
        rpn=Proposer(ProposalHead(features, anchors, dtype)),
        **options,
    )


_STAGES = ("stage1", "stage2", "stage3", "stage4")
_FROZEN = functools.partial(BatchNorm, frozen=True)
_RESNET50 = {"depths": (3, 4, 6, 3)}
VARIANTS = {
    "resnet50": {
        "body": _RESNET50 | {"style": "caffe", "norm": functools.partial(_FROZEN, epsilon=0.0)},
        "stages": _STAGES,
        "features": 256,
    },
    "resnet50_torchvision": {"body": _RESNET50 | {"norm": _FROZEN}, "stages": _STAGES, "features": 256},
    "tiny": {
        "body": {
            "depths": (1, 1, 1, 1),
            "block": "basic",
            "widths": (16, 32, 48, 64),
            "stem": "3x3",
            "stem_features": 16,
            "pool": "none",
        },
        "stages": _STAGES[1:],
        "features": 48,
        "strides": (4, 8, 16, 32),
        "sizes": (16, 32, 64, 128),
    },
}
"""Parts of a `Detector` by name: ``resnet50`` is maskrcnn-benchmark's, whose norms are frozen and have no epsilon;
``resnet50_torchvision`` takes torchvision's weights; ``tiny`` learns from scratch on images of about 128x256."""
