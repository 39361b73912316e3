# SPDX-License-Identifier: Apache-2.0
"""Distillation of a trained network into a small one on unlabeled days and nights (Hinton et al., arXiv 1503.02531)."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step, total
from nightjax.core.types import Batch, Scalars
from nightjax.losses.segmentation import soft_cross_entropy
from nightjax.methods.parts.frozen_segmenter import frozen_segmenter
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.segmenting import Segmenting
from nightjax.ops.resize import resize


@dataclasses.dataclass(frozen=True)
class TeacherNetwork:
    """A frozen network of another form than the student; its run is what ``train.frozen.teacher`` names.

    Attributes:
        model: the section ``model`` of its run; empty if no run is named yet, which is an error when training starts.
    """

    model: dict[str, Any] = dataclasses.field(hash=False)

    def network(self, classes: ClassSet) -> SegmentationNetwork:
        """The network, and how pixels enter it.

        Raises:
            UserError: no run is named.
        """
        if not self.model:
            raise UserError("there is no teacher: name its run by the config argument, --config=distill:teacher=RUN")
        return frozen_segmenter(self.model, classes, "method.teacher.model")


@dataclasses.dataclass(frozen=True)
class Distill(Segmenting):
    """The student learns the probabilities that the teacher gives every pixel; no label is read.

    The teacher sees images as they are, the student after augmentation. Days and nights weigh the same, and each has
    its own batch statistics in training.

    Attributes:
        network: of the student.
        optimizer: of the student.
        training: of the run.
        teacher: a trained network, of any form.
        photometric: augmentation of the student's images, or None.
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    teacher: TeacherNetwork
    photometric: Photometric | None = Photometric()

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    pretrained: ClassVar[tuple[str, ...]] = ("teacher",)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `core.method.Trainable`; the teacher's weights are random until those of its run come."""
        teacher = self.taught_by.init(jax.random.fold_in(rng, 1), batch["source"]["image"].shape[1:])
        state = super().init(rng, batch)
        return state.replace(frozen=state.frozen | {"teacher": teacher})

    @property
    def taught_by(self) -> SegmentationNetwork:
        """The teacher's network."""
        return self.teacher.network(self.network.classes)

    def probabilities(self, state: TrainState, image: jax.Array) -> jax.Array:
        """What the teacher says, float32 [B, H, W, K], of images uint8 [B, H, W, 3]."""
        logits = self.taught_by.predict(state.frozen["teacher"], image)
        return jax.nn.softmax(resize(logits, image.shape[1:3], align_corners=False))

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `core.method.Trainable`."""
        images, keys = self.network.decode(batch), self.training.keys(state)
        examples = {}
        for domain in self.domains:
            image = images[domain]["image"]
            if self.photometric is not None:
                image = self.photometric(image, keys(f"photometric_{domain}"))
            examples[domain] = {
                "image": image,
                "probabilities": self.probabilities(state, batch[domain]["image"]),
            }
        loss = functools.partial(self.student_loss, state)
        return gradient_step(state, self.players, {"student": loss}, examples, self.training)

    def student_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The loss on one microbatch; see `core.step.Loss`."""
        variables = {"params": params["student"], "batch_stats": stats["student"]}
        images = {domain: part[domain]["image"] for domain in self.domains}
        outputs, new = self.network.student_passes(variables, images, self.training.keys(state, i))
        terms = {
            f"loss_{domain}": soft_cross_entropy(outputs[domain]["logits"], part[domain]["probabilities"])
            for domain in self.domains
        }
        loss = total(terms.values())
        return loss, Outcome(terms | {"loss": loss}, {"student": new})

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `core.method.Trainable`."""
        shown = {}
        for domain in self.domains:
            image = batch[domain]["image"]
            shown |= {
                domain: image,
                f"teacher_{domain}": self.probabilities(state, image).argmax(-1).astype(jnp.uint8),
                f"prediction_{domain}": self.predicted(state, image),
            }
        return shown
