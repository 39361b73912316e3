# SPDX-License-Identifier: Apache-2.0
"""DACS self-training as DAFormer runs it: an EMA teacher labels the target, and classes of the source are pasted onto
it.

Source: DAFormer (arXiv 2111.14887) and ``mmseg/models/uda/dacs.py`` of its official repository.
"""

import dataclasses
import functools
from typing import ClassVar

import jax

from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step, total
from nightjax.core.types import Batch, PyTree, Scalars
from nightjax.methods.parts.distillation import FROZEN, HEAD, FeatureDistillation
from nightjax.methods.parts.feature_distance import FeatureDistance
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.masking import MaskedConsistency, masked_examples, student_losses
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.pseudo_labels import PseudoLabels, Targets
from nightjax.methods.parts.segmenting import WithMixing
from nightjax.methods.parts.source_terms import student_passes, teacher_logits, with_total
from nightjax.methods.parts.teacher import EmaTeacher


@dataclasses.dataclass(frozen=True)
class Dacs(WithMixing):
    """Self-training by class mix.

    Attributes:
        network: of student and teacher.
        optimizer: of the student.
        training: of the run.
        loss: of the segmentation.
        teacher: the average of the student.
        pseudo_labels: what the teacher's predictions become.
        mixing: of source and target.
        masking: one more pass of the student on masked images, or None.
        feature_distance: to the initial network, or None.
        distillation: from a frozen foundation model, or None.
        source_photometric: augmentation of the source images, or None (the papers use none).
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    loss: SegmentationLoss = SegmentationLoss()
    teacher: EmaTeacher = EmaTeacher()
    pseudo_labels: PseudoLabels = PseudoLabels()
    mixing: ClassMix = ClassMix()
    masking: MaskedConsistency | None = None
    feature_distance: FeatureDistance | None = FeatureDistance()
    distillation: FeatureDistillation | None = None
    source_photometric: Photometric | None = None

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    optional_init: ClassVar[tuple[str, ...]] = (HEAD,)
    pretrained: ClassVar[tuple[str, ...]] = (FROZEN,)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        check_one_size(batch)
        if self.masking is not None:
            self.masking.check(self.network, batch)
        if self.distillation is None:
            return super().init(rng, batch)
        height, width, channels = batch["source"]["image"].shape[1:]
        student = self.network.init(rng, (height, width, channels))
        head = self.distillation.init(rng, self.network, student, (height, width))
        state = self.first_state(student | {"params": student["params"] | {HEAD: head}})
        return state.replace(frozen=state.frozen | {FROZEN: self.distillation.init_frozen(rng)})

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        teacher = self.teacher.update(state)
        targets, examples, stats = self.prepare(state, teacher, batch)
        state = state.replace(teacher=teacher | {"batch_stats": stats})
        losses = student_losses(self, state)
        if self.distillation is not None:
            losses.append(functools.partial(self.distillation.on_target, self, state))
        state, scalars = gradient_step(state, self.players, {"student": losses}, examples, self.training)
        return state, with_total(scalars) | {"pseudo_label_weight": targets.weight.mean()}

    def prepare(self, state: TrainState, teacher: PyTree, batch: Batch) -> tuple[Targets, dict[str, jax.Array], PyTree]:
        """The pseudo-labels, what the losses see, and the teacher's new running statistics."""
        keys, images = self.training.keys(state), self.network.decode(batch)
        target, flip = images["target"]["image"], self.pseudo_labels.flip
        logits, stats = teacher_logits(self.network, state.whole(teacher), target, keys, flip=flip)
        targets = self.pseudo_labels(target, jax.nn.softmax(logits))
        image, label = images["source"]["image"], batch["source"]["label"]
        mixed = self.mixing(keys, image, label, targets, self.pseudo_labels, self.loss, self.network.classes)
        mixed |= masked_examples(self, keys, image, label, targets)
        if self.distillation is not None:
            mixed["target"] = target
        if self.source_photometric is not None:
            image = self.source_photometric(image, keys("source_photometric"))
        return targets, {"source": image, "source_label": label, **mixed}, stats

    def source_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """See `WithMixing`; with the distillation on the source."""
        passes = student_passes(self, self.training, state, params, i)
        outputs, terms, new = passes.source(stats["student"], part)
        if self.distillation is not None:
            head, frozen = params["student"][HEAD], state.frozen[FROZEN]
            terms["loss_distilled_source"] = self.distillation(head, frozen, outputs, part["source"])
        return total(terms.values()), Outcome(terms, {"student": new})

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        targets, examples, _ = self.prepare(state, self.variables(state, "teacher"), batch)
        return mixing_images(batch, targets, examples) | {"prediction": self.predicted(state, batch["target"]["image"])}


def check_one_size(batch: Batch) -> None:
    """Raises UserError unless the images of all domains have one size: objects of one are pasted onto the other."""
    sizes = {name: domain["image"].shape[1:3] for name, domain in batch.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(
            f"data.streams: crops of {sizes}; objects of one are pasted onto the other, so make them one size"
        )


def mixing_images(batch: Batch, targets: Targets, examples: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What a self-training step saw, for visualizations."""
    target = batch["target"]
    shown = {"source": batch["source"]["image"], "truth": batch["source"]["label"], "target": target["image"]}
    if "reference" in target:
        shown["reference"] = target["reference"]
    names = ("mixed", "mixed_label", "mixed_weight", "masked", "translated")
    mixed = {name: examples[name] for name in names if name in examples}
    return shown | {"pseudo_label": targets.label, "confidence": targets.confidence} | mixed
