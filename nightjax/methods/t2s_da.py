# SPDX-License-Identifier: Apache-2.0
"""T2S-DA: pulling target to source (arXiv 2305.13752).

Self-training by class mix, and a contrast between two domains: features of a pseudo-target image, which is the source
image translated to the look of the target and so keeps its label, are pulled to the source prototype of their class and
pushed away from source and target features of other classes. Classes on which the teacher is unsure weigh more.

Certain is the structure, from the abstract and the method's figure: student, teacher and projection head under one
moving average; pseudo-target queries, as many for every class; source prototypes; as many negatives from either domain;
a dynamic re-weighting. Every formula and constant is our decision: the paper's body and its training code could not be
read.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nightjax.core.method import ClassCurves, ReportSection
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step, total
from nightjax.core.types import Batch, Scalars, Variables
from nightjax.methods.dacs import check_one_size, mixing_images
from nightjax.methods.parts.feature_distance import FeatureDistance
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.masking import MaskedConsistency, masked_examples, student_losses
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.pseudo_labels import PseudoLabels, Targets
from nightjax.methods.parts.pull_to_source import PullToSource, check_translation_has_use, translated_terms
from nightjax.methods.parts.pulling import Pulling
from nightjax.methods.parts.segmenting import StudentLoss, WithMixing
from nightjax.methods.parts.source_terms import student_passes, teacher_outputs, with_total
from nightjax.methods.parts.teacher import EmaTeacher
from nightjax.methods.parts.translation import Translation

SIMILARITY = ClassCurves(
    prefix="similarity/",
    title="Target features and source prototypes",
    caption="Mean cosine of target features to the source prototype of their class, and to those of other classes.",
)


@dataclasses.dataclass(frozen=True)
class T2sDa(WithMixing):
    """T2S-DA. Without ``pull`` and without a weight of ``translation`` it is DACS.

    The teacher sees source and target in two passes, not in one batch of both: each domain has norm statistics of its
    own, and the pseudo-labels stay those of DACS.

    Attributes:
        network: of student and teacher.
        optimizer: of the student and its projection head.
        training: of the run.
        loss: of the segmentation.
        teacher: the average of the student.
        pseudo_labels: what the teacher's predictions become.
        mixing: of source and target.
        translation: of the source into pseudo-target images; None takes the source's own features as queries.
        pull: the pulling loss, or None.
        masking: one more pass of the student on masked images, or None.
        feature_distance: to the initial network, or None.
        source_photometric: augmentation of the source images, or None.
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    loss: SegmentationLoss = SegmentationLoss()
    teacher: EmaTeacher = EmaTeacher()
    pseudo_labels: PseudoLabels = PseudoLabels()
    mixing: ClassMix = ClassMix()
    translation: Translation | None = Translation()
    pull: Pulling | None = Pulling()
    masking: MaskedConsistency | None = None
    feature_distance: FeatureDistance | None = FeatureDistance()
    source_photometric: Photometric | None = None

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    optional_init: ClassVar[tuple[str, ...]] = ("projection",)
    pretrained: ClassVar[tuple[str, ...]] = ("style",)
    report_sections: ClassVar[tuple[ReportSection, ...]] = (SIMILARITY,)

    def __post_init__(self):
        check_translation_has_use(self.translation, self.pull)

    @property
    def pulling(self) -> PullToSource | None:
        """The contrast, or None."""
        return None if self.pull is None else PullToSource(self.network, self.pull)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        check_one_size(batch)
        if self.masking is not None:
            self.masking.check(self.network, batch)
        images, *size = batch["source"]["image"].shape
        student = self.network.init(rng, tuple(size))
        memory, frozen = {}, {}
        if self.translation is not None:
            frozen = self.translation.init(jax.random.fold_in(rng, 2), jnp.zeros((1, *size), jnp.float32))
        if self.pull is not None:
            head = PullToSource(self.network, self.pull).head(rng, student, tuple(size))
            student = student | {"params": student["params"] | {"projection": head}}
            memory = self.pull.tables(len(self.network.classes)) | self.pull.empty_queue(images)
        state = self.first_state(student)
        return state.replace(memory=memory, frozen=state.frozen | frozen)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        targets, examples, state, logged = self.prepare(state, self.teacher.update(state), batch)
        losses = {"student": student_losses(self, state)}
        state, scalars = gradient_step(state, self.players, losses, examples, self.training)
        return state, with_total(scalars) | {"pseudo_label_weight": targets.weight.mean()} | dict(logged)

    def prepare(
        self, state: TrainState, teacher: Variables, batch: Batch
    ) -> tuple[Targets, dict[str, jax.Array], TrainState, Scalars]:
        """The pseudo-labels, what the losses see, the state with its new teacher and memory, and scalars to log."""
        keys, images = self.training.keys(state), self.network.decode(batch)
        source, target, label = images["source"]["image"], images["target"]["image"], batch["source"]["label"]
        flip = self.pseudo_labels.flip
        logits, outputs, stats = teacher_outputs(self.network, state.whole(teacher), target, keys, flip=flip)
        targets = self.pseudo_labels(target, jax.nn.softmax(logits))
        mixed = self.mixing(keys, source, label, targets, self.pseudo_labels, self.loss, self.network.classes)
        mixed |= masked_examples(self, keys, source, label, targets)
        augmented = source
        if self.source_photometric is not None:
            augmented = self.source_photometric(source, keys("source_photometric"))
        examples: dict[str, Any] = {"source": augmented, "source_label": label, **mixed}
        state, logged = state.replace(teacher=teacher | {"batch_stats": stats}), {}
        if self.translation is not None:
            examples["translated"] = self.translation.to_target(state.frozen, source, target, keys)
        if self.pull is not None:
            if self.pull.real_target:
                examples["target"] = target
            contrast = PullToSource(self.network, self.pull)
            remembered, state, logged = contrast.remember(state, keys, source, label, outputs)
            examples |= remembered
        return targets, examples, state, logged

    @property
    def passes(self) -> tuple[StudentLoss, ...]:
        """See `WithMixing`; without translated images the source's own features are pulled."""
        if self.pull is None and self.translation is None:
            return super().passes
        return (*((self.source_loss,) if self.translation is not None else ()), self.pulled_loss, self.mixed_loss)

    def pulled_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The terms on one microbatch of the translated images, or without them of the source; see `core.step.Loss`."""
        passes = student_passes(self, self.training, state, params, i)
        outputs, terms, new = None, {}, stats["student"]
        if self.translation is None:
            outputs, terms, new = passes.source(new, part)
        more, new = translated_terms(passes, self.translation, self.pulling, new, part, outputs)
        terms |= more
        return total(terms.values()), Outcome(terms, {"student": new})

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        targets, examples, *_ = self.prepare(state, self.variables(state, "teacher"), batch)
        return mixing_images(batch, targets, examples) | {"prediction": self.predicted(state, batch["target"]["image"])}
