# SPDX-License-Identifier: Apache-2.0
"""Self-training on unlabeled images under a frozen teacher.

After Zoph et al., "Rethinking pre-training and self-training" (NeurIPS 2020), and "Semantic image segmentation in the
dark with domain adaptation method" (UIT, VNU-HCM, 2021). The latter labels whole images once, keeps every pixel, and
trains on the union: that is `Supervised` on what ``nightjax pseudo-label`` wrote. Here the teacher labels each crop in
the step, so that labels may be soft, and the student may see it under stronger augmentation than the teacher.
"""

import dataclasses
import functools
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from nightjax.core.optim import Optimizer
from nightjax.core.ranges import Share
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step
from nightjax.core.types import IGNORE, Batch, PyTree, Scalars, Variables
from nightjax.losses.segmentation import soft_cross_entropy
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.segmenting import Segmenting, copied
from nightjax.methods.parts.supervision import RelightWeights, Supervision
from nightjax.ops.pseudo_label import pseudo_label
from nightjax.ops.resize import resize


@dataclasses.dataclass(frozen=True)
class SelfTraining(Segmenting):
    """Supervised training on ``source``, and on ``target`` under the labels of a frozen teacher.

    The teacher is the run that ``train.frozen.teacher`` names; ``train.init`` says whether the student starts from it
    too (the thesis: better) or from scratch. A next round takes this run as teacher.

    Attributes:
        network: of student and teacher.
        optimizer: of the student.
        training: of the run.
        loss: of the segmentation.
        photometric: augmentation of the student's images, or None.
        labels: ``"hard"``, the teacher's likeliest class, or ``"soft"``, its probabilities.
        threshold: pixels whose likeliest class is less probable than this have no label; 0 keeps all.
        target_weight: of the loss on the target.
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    loss: SegmentationLoss = SegmentationLoss(normalizer="valid")
    photometric: Photometric | None = None
    labels: Literal["hard", "soft"] = "hard"
    threshold: Share = 0.0
    target_weight: float = 1.0

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    pretrained: ClassVar[tuple[str, ...]] = ("teacher",)
    optional_init = ("relight",)

    def first_state(self, student: Variables, others: dict[str, PyTree] | None = None) -> TrainState:
        """The state around the student's first variables."""
        state = super().first_state(student, others)
        return state.replace(frozen={"teacher": copied(self.variables(state))})

    def teacher_probabilities(self, state: TrainState, image: jax.Array) -> jax.Array:
        """Of the frozen teacher in evaluation mode: [B, H, W, K] for images [B, H, W, 3] in [0, 1]."""
        logits = self.network.logits(state.frozen["teacher"], image)
        return jax.nn.softmax(resize(logits, image.shape[1:3], align_corners=False))

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        images, keys = self.network.decode(batch), self.training.keys(state)
        supervision = Supervision(self.network, ("source",), self.loss, RelightWeights(), self.photometric)
        probabilities = self.teacher_probabilities(state, images["target"]["image"])
        label, confidence = pseudo_label(probabilities)
        confident = confidence >= self.threshold
        examples = {
            "source": supervision.augmented(images["source"]["image"], keys, "source"),
            "source_label": batch["source"]["label"],
            "target": supervision.augmented(images["target"]["image"], keys, "target"),
            "target_label": jnp.where(confident, label, jnp.uint8(IGNORE)),
        }
        if self.labels == "soft":
            examples["probabilities"] = probabilities
        losses = {"student": functools.partial(self.student_loss, state)}
        state, scalars = gradient_step(state, self.players, losses, examples, self.training)
        return state, scalars | {"confident_fraction": confident.mean()}

    def student_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """Both terms on one microbatch; see `core.step.Loss`."""
        keys = self.training.keys(state, i)

        def run(stats, name):
            return self.network.student_pass(
                {"params": params["student"], "batch_stats": stats}, part[name], keys, name
            )

        outputs, new = run(stats["student"], "source")
        source = self.loss.on_labels(outputs, part["source_label"])
        outputs, new = run(new, "target")
        target = self._target_loss(outputs, part)
        loss = source + self.target_weight * target
        return loss, Outcome({"loss": loss, "loss_source": source, "loss_target": target}, {"student": new})

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        target = batch["target"]["image"]
        label, confidence = pseudo_label(self.teacher_probabilities(state, self.network.input.decode(target)))
        return {
            "source": batch["source"]["image"],
            "truth": batch["source"]["label"],
            "target": target,
            "pseudo_label": label,
            "confidence": confidence,
            "prediction": self.predicted(state, target),
        }

    def _target_loss(self, outputs, part):
        label = part["target_label"]
        if self.labels == "hard":
            return self.loss(outputs, label)
        weight = label != IGNORE
        return soft_cross_entropy(outputs["logits"], part["probabilities"], weight, normalizer=self.loss.normalizer)
