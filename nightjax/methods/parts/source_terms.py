# SPDX-License-Identifier: Apache-2.0
"""The student's passes that the self-training methods have in common, with the losses on them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nightjax.core.state import TrainState
from nightjax.core.step import Training
from nightjax.core.types import PyTree, Variables
from nightjax.methods.parts.feature_distance import FeatureDistance
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import Outputs, RandomKeys, SegmentationNetwork
from nightjax.ops.pseudo_label import flip_averaged
from nightjax.ops.resize import resize

Terms = dict[str, jax.Array]
"""Name of a weighted loss term, ``loss_<name>``, to its value."""


@dataclasses.dataclass(frozen=True)
class StudentPasses:
    """The student in one microbatch of one step.

    Attributes:
        network: of the student.
        loss: on its outputs.
        distance: to the frozen initial network, or None.
        state: before the step.
        params: of the student; the gradient is taken with respect to them.
        keys: of the student's random streams.
    """

    network: SegmentationNetwork
    loss: SegmentationLoss
    distance: FeatureDistance | None
    state: TrainState
    params: PyTree
    keys: RandomKeys

    def run(
        self, stats: PyTree, image: jax.Array, name: str, view: Mapping[str, Any] | None = None
    ) -> tuple[Outputs, PyTree]:
        """The pass ``name`` over images [B, H, W, 3] in [0, 1]: outputs and new running statistics.

        Args:
            stats: running statistics before.
            image: the images.
            name: of the pass, for its random streams.
            view: further arguments of the module, beside those that it draws.
        """
        variables = {"params": self.params, "batch_stats": stats}
        return self.network.student_pass(variables, image, self.keys, name, **(view or {}))

    def source(self, stats: PyTree, part: dict[str, Any]) -> tuple[Outputs, Terms, PyTree]:
        """Cross-entropy on the source and the feature distance to the initial network."""
        image, label = part["source"], part["source_label"]
        outputs, stats = self.run(stats, image, "source")
        terms = {"loss_source": self.loss.on_labels(outputs, label)}
        if self.distance is not None:
            initial = self.state.whole(self.state.frozen["initial"])
            terms["loss_feature_distance"] = self.distance(self.network, initial, outputs, image, label)
        return outputs, terms, stats

    def mixed(self, stats: PyTree, part: dict[str, Any], weight: float) -> tuple[Outputs, Terms, PyTree]:
        """Weighted cross-entropy on the mixed images."""
        outputs, stats = self.run(stats, part["mixed"], "mixed")
        loss = self.loss(outputs, part["mixed_label"], part["mixed_weight"])
        return outputs, {"loss_mixed": weight * loss}, stats


def teacher_logits(
    network: SegmentationNetwork, teacher: Variables, image: jax.Array, keys: RandomKeys, *, flip: bool = False
) -> tuple[jax.Array, PyTree]:
    """The teacher's logits [B, H, W, K] at the size of images [B, H, W, 3], and its new running statistics.

    With ``flip`` they are those of the mean probability of an image and its mirror image.
    """
    logits, _, stats = teacher_outputs(network, teacher, image, keys, flip=flip)
    return logits, stats


def teacher_outputs(
    network: SegmentationNetwork, teacher: Variables, image: jax.Array, keys: RandomKeys, *, flip: bool = False
) -> tuple[jax.Array, Outputs, PyTree]:
    """`teacher_logits` with the outputs of the pass over the images as they are, between the two."""
    outputs, stats = network.teacher_pass(teacher, image, keys)
    logits = resize(outputs["logits"].astype(jnp.float32), image.shape[1:3], align_corners=False)
    if flip:
        again = {"params": teacher["params"], "batch_stats": stats}
        mirrored, stats = teacher_logits(network, again, image[:, :, ::-1], keys)
        logits = flip_averaged(logits, mirrored[:, :, ::-1])
    return logits, outputs, stats


def with_total(scalars: dict[str, Any]) -> dict[str, Any]:
    """Scalars with ``loss``, the sum of all terms ``loss_<name>``, in front."""
    return {"loss": sum(value for name, value in scalars.items() if name.startswith("loss_"))} | scalars


def student_passes(
    method: Any, training: Training, state: TrainState, params: dict[str, PyTree], microbatch: jax.Array | int
) -> StudentPasses:
    """The passes of a self-training method's student in one microbatch."""
    keys = training.keys(state, microbatch)
    return StudentPasses(method.network, method.loss, method.feature_distance, state, params["student"], keys)
