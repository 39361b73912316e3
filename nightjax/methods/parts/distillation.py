# SPDX-License-Identifier: Apache-2.0
"""Distillation: the student's features stay predictive of those of a frozen foundation model (VFM-UDA++).

Source: VFM-UDA++ (arXiv 2503.10685), ``get_feature_distance_loss`` of its official repository: a frozen DINOv2-L with
registers at 406 x 406, on source and target images. VFM-9 in docs/fidelity.md says what is ours.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError, choose
from nightjax.core.modules import apply, init
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome
from nightjax.core.types import PyTree, Size, Variables
from nightjax.losses.feature import feature_distillation
from nightjax.methods.parts.network import InputNormalization, Outputs, SegmentationNetwork
from nightjax.methods.parts.source_terms import student_passes
from nightjax.models.backbones import dinov2
from nightjax.models.projection import DistillationHead
from nightjax.ops.resize import resize

FROZEN = "foundation"
"""The frozen network in the state and in ``train.frozen``; its parameters are under ``backbone``, as in a run."""

HEAD = "distillation"
"""The student's module that brings its features to the channels and cells of the frozen network."""


@dataclasses.dataclass(frozen=True)
class FeatureDistillation:
    """Distance of the student's last features to a frozen plain transformer's, on every cell of both domains.

    ``train.frozen.foundation`` names the run whose backbone the frozen network is; without it its weights are random.

    Attributes:
        backbone: the frozen network, key of `dinov2.VARIANTS`.
        size: shorter side, in pixels, at which it sees images; the longer one in proportion, both down to whole
            patches.
        weight: of the loss on the source, and of that on the target.
        smooth: share of the smooth L1 distance; the rest is one minus the cosine.
    """

    backbone: str = "dinov2_l_reg"
    size: int = 406
    weight: float = 0.1
    smooth: float = 0.1

    def __post_init__(self):
        patch = self.module().patch
        if self.size < patch:
            raise UserError(f"method.distillation.size={self.size} must be {patch} or more, a patch of {self.backbone}")

    def module(self, dtype: Any = jnp.float32) -> dinov2.DinoV2:
        """The frozen network, whose one feature is the last."""
        options = choose(dinov2.VARIANTS, self.backbone, "method.distillation.backbone")
        return dinov2.DinoV2(**options | {"layers": (options["depth"] - 1,), "dtype": dtype})

    def sides(self, size: Size) -> Size:
        """Height and width that the frozen network sees of images of ``size``."""
        patch = self.module().patch
        height, width = (max(1, side * self.size // min(size) // patch) * patch for side in size)
        return height, width

    def init(self, key: jax.Array, network: SegmentationNetwork, student: Variables, size: Size) -> PyTree:
        """First parameters of the student's head, for images of ``size`` (H, W)."""
        image = jnp.zeros((1, *size, 3), jnp.float32)
        width = jax.eval_shape(lambda: network.features(student, image))["stage4"].shape[-1]
        head = DistillationHead(self.module().dim)
        return init(head, jax.random.fold_in(key, 1), jnp.zeros((1, 2, 2, width)), (2, 2))["params"]

    def init_frozen(self, key: jax.Array) -> Variables:
        """Random variables of the frozen network, in whose place those of ``train.frozen`` come."""
        module = self.module()
        image = jnp.zeros((1, *2 * (2 * module.patch,), 3), jnp.float32)
        return {"params": {"backbone": init(module, jax.random.fold_in(key, 2), image)["params"]}, "batch_stats": {}}

    def __call__(self, head: PyTree, frozen: Variables, outputs: Outputs, image: jax.Array) -> jax.Array:
        """The weighted loss.

        Args:
            head: parameters of the student's head.
            frozen: of `init_frozen` or ``train.frozen``.
            outputs: of the student on ``image``.
            image: [B, H, W, 3] float32 in [0, 1].
        """
        features = outputs["stage4"]
        seen = resize(InputNormalization().normalize(image), self.sides(image.shape[1:3]), align_corners=False)
        module = self.module(features.dtype)
        wanted = jax.lax.stop_gradient(apply(module, {"params": frozen["params"]["backbone"]}, seen)["stage1"])
        own = DistillationHead(module.dim, dtype=features.dtype)
        features = apply(own, {"params": head}, features, wanted.shape[1:3])
        return self.weight * feature_distillation(features, wanted, smooth=self.smooth)

    def on_target(
        self, method: Any, state: TrainState, params: Mapping[str, PyTree], stats: PyTree, part: Any, i: Any
    ) -> tuple[jax.Array, Outcome]:
        """The loss on the target images of one microbatch of a self-training method; see `core.step.Loss`.

        It takes a pass of its own, which leaves the student's running statistics as they are.
        """
        passes = student_passes(method, method.training, state, dict(params), i)
        outputs, _ = passes.run(stats["student"], part["target"], "distilled")
        loss = self(params["student"][HEAD], state.frozen[FROZEN], outputs, part["target"])
        return loss, Outcome({"loss_distilled_target": loss})
