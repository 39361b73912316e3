# SPDX-License-Identifier: Apache-2.0
"""DSR+FPA: dynamic and small object refinement with feature prototype alignment (arXiv 2310.04747).

Self-training by class mix with (a) a class mask that keeps objects whole, (b) a bank that pastes rare classes, (c)
night pseudo-labels refined by the coarsely aligned day view, and (d) pixels pulled to the prototypes of the other
domain. Every one is a part that may be None, so that the paper's ablation is a handful of overrides. Where the paper
and the official code (Rorisis/DSRNSS_codes) disagree, the default is the code's.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nightjax.core.errors import choose
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step, total
from nightjax.core.types import Batch, PyTree, Scalars, Variables
from nightjax.methods.dacs import check_one_size, mixing_images
from nightjax.methods.parts.alignment import PrototypeAlignment
from nightjax.methods.parts.bank import RareClassBank
from nightjax.methods.parts.feature_distance import FeatureDistance
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.masking import MaskedConsistency, masked_examples, student_losses
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import SegmentationNetwork, deinterleave, interleave
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.pseudo_labels import PseudoLabels, Targets
from nightjax.methods.parts.pull_to_source import check_translation_has_use, translated_terms
from nightjax.methods.parts.refinement import DayRefinement
from nightjax.methods.parts.segmenting import StudentLoss, WithMixing
from nightjax.methods.parts.source_terms import StudentPasses, student_passes, teacher_logits, with_total
from nightjax.methods.parts.teacher import EmaTeacher
from nightjax.methods.parts.translation import Translation


@dataclasses.dataclass(frozen=True)
class DsrFpa(WithMixing):
    """DSR+FPA.

    Attributes:
        network: of student and teacher.
        optimizer: of the student.
        training: of the run.
        loss: of the segmentation.
        teacher: the average of the student.
        pseudo_labels: what the teacher's predictions become.
        mixing: of source and target; the mask of section 3.2.1 by default.
        bank: pastes rare classes of the last batches, or None.
        refinement: of the night pseudo-labels by the day view (section 3.2.2), or None.
        reference_swap: whether, at every second step on average, the day view takes the night image's place (official
            ``adapt_to_ref``).
        alignment: of features to prototypes (section 3.3), or None.
        translation: one more pass of the student, on source images in the look of the night (ours), or None.
        masking: one more pass of the student on masked images, or None.
        feature_distance: to the initial network, or None.
        source_photometric: augmentation of the source images, or None (the papers use none).
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    loss: SegmentationLoss = SegmentationLoss()
    teacher: EmaTeacher = EmaTeacher()
    pseudo_labels: PseudoLabels = PseudoLabels()
    mixing: ClassMix = ClassMix(mode="object_groups")
    bank: RareClassBank | None = RareClassBank()
    refinement: DayRefinement | None = DayRefinement()
    reference_swap: bool = False
    alignment: PrototypeAlignment | None = PrototypeAlignment()
    translation: Translation | None = None
    masking: MaskedConsistency | None = None
    feature_distance: FeatureDistance | None = FeatureDistance()
    source_photometric: Photometric | None = None

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    pretrained: ClassVar[tuple[str, ...]] = ("aligner", "style")

    def __post_init__(self):
        check_translation_has_use(self.translation, None)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        check_one_size(batch)
        if self.masking is not None:
            self.masking.check(self.network, batch)
        state = super().init(rng, batch)
        if self.refinement is not None:
            size = batch["target"]["image"].shape[1:3]
            state = state.replace(frozen=state.frozen | self.refinement.init(jax.random.fold_in(rng, 1), size))
        if self.translation is not None:
            source = jnp.zeros((1, *batch["source"]["image"].shape[1:]), jnp.float32)
            state = state.replace(frozen=state.frozen | self.translation.init(jax.random.fold_in(rng, 2), source))
        if self.bank is not None:
            state = state.replace(memory={"bank": self.bank.init(batch["source"]["image"])})
        return state

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        teacher = self.teacher.update(state)
        targets, examples, stats, memory = self.prepare(state, teacher, batch)
        state = state.replace(teacher=teacher | {"batch_stats": stats}, memory=memory)
        losses = {"student": student_losses(self, state)}
        state, scalars = gradient_step(state, self.players, losses, examples, self.training)
        return state, with_total(scalars) | {"pseudo_label_weight": targets.weight.mean()}

    def prepare(
        self, state: TrainState, teacher: Variables, batch: Batch
    ) -> tuple[Targets, dict[str, jax.Array], PyTree, dict[str, Any]]:
        """The pseudo-labels, what the losses see, the teacher's new running statistics, and the new memory."""
        keys, images = self.training.keys(state), self.network.decode(batch)
        targets, stats = self.targets(state, teacher, batch, images["target"])
        image, label = images["source"]["image"], batch["source"]["label"]
        classes, memory = self.network.classes, {}
        mixed = self.mixing(keys, image, label, targets, self.pseudo_labels, self.loss, classes)
        others = masked_examples(self, keys, image, label, targets)
        if self.translation is not None:
            others["translated"] = self.translation.to_target(state.frozen, image, images["target"]["image"], keys)
        if self.source_photometric is not None:
            image = self.source_photometric(image, keys("source_photometric"))
        if self.bank is not None:
            source = batch["source"]
            pushed = source["image"], source["label"]
            mixed, memory["bank"] = self.bank(state, *pushed, mixed, self.network, self.loss)
        night = {"night": targets.image, "night_label": targets.label}
        return targets, {"source": image, "source_label": label, **mixed, **others, **night}, stats, memory

    def targets(
        self, state: TrainState, teacher: Variables, batch: Batch, images: dict[str, jax.Array]
    ) -> tuple[Targets, PyTree]:
        """Refined pseudo-labels of the night images, or plain ones of day images that stand in.

        Args:
            state: before the step.
            teacher: moved toward the student already.
            batch: of the step.
            images: the target's, in [0, 1].

        Returns:
            The targets and the teacher's new running statistics.
        """
        keys = self.training.keys(state)

        def plain(name: str) -> tuple[Targets, PyTree]:
            whole, flip = state.whole(teacher), self.pseudo_labels.flip
            logits, stats = teacher_logits(self.network, whole, images[name], keys, flip=flip)
            return self.pseudo_labels(images[name], jax.nn.softmax(logits)), stats

        def on_night() -> tuple[Targets, PyTree]:
            if self.refinement is None:
                return plain("image")
            # Night and day alternate in one batch: the norms see both, no example changes device.
            both = interleave([images["image"], images["reference"]])
            whole, flip = state.whole(teacher), self.pseudo_labels.flip
            logits, stats = teacher_logits(self.network, whole, both, keys, flip=flip)
            night, day = deinterleave(logits, 2)
            scores = self.refinement(state.frozen, batch["target"], night, day, self.network.classes)
            return self.pseudo_labels(images["image"], scores), stats

        if not self.reference_swap:
            return on_night()
        use_day = jax.random.uniform(keys("adapt_to_ref")) < 0.5
        return jax.lax.cond(use_day, lambda: plain("reference"), on_night)

    @property
    def passes(self) -> tuple[StudentLoss, ...]:
        """See `WithMixing`; the alignment compares the features of source and mixed images."""
        translated = () if self.translation is None else (self.translated_loss,)
        return (*(super().passes if self.alignment is None else (self.aligned_loss,)), *translated)

    def aligned_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The terms on source and mixed images and their alignment on one microbatch; see `core.step.Loss`."""
        alignment = self.alignment
        assert alignment is not None
        passes = student_passes(self, self.training, state, params, i)
        source, terms, new = passes.source(stats["student"], part)
        night, new = self.night_pass(alignment, passes, new, part["night"])
        mixed, more, new = passes.mixed(new, part, self.mixing.weight)
        terms |= more
        level = alignment.level
        terms["loss_fpa"] = alignment.when_due(
            state.step,
            lambda: alignment(
                (source[level], part["source_label"]),
                (night[level], part["night_label"]),
                (mixed[level], part["mixed_label"]),
                self.network.classes,
            ),
            jnp.zeros(()),
        )
        return total(terms.values()), Outcome(terms, {"student": new})

    def translated_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """Cross-entropy on the translated source images of one microbatch; see `core.step.Loss`."""
        passes = student_passes(self, self.training, state, params, i)
        terms, new = translated_terms(passes, self.translation, None, stats["student"], part, None)
        return total(terms.values()), Outcome(terms, {"student": new})

    def night_pass(
        self, alignment: PrototypeAlignment, passes: StudentPasses, stats: PyTree, image: jax.Array
    ) -> tuple[dict[str, jax.Array], PyTree]:
        """The features of the night images that are aligned, without gradient, at the steps with FPA.

        Only the backbone runs on them, so the head's running statistics stay.
        """
        fixed = dataclasses.replace(passes, params=jax.lax.stop_gradient(passes.params))

        def compute() -> tuple[dict[str, jax.Array], PyTree]:
            outputs, new = fixed.run(stats, image, "night")
            stages = {name: feature for name, feature in outputs.items() if name.startswith("stage")}
            features = {alignment.level: choose(stages, alignment.level, "method.alignment.level")}
            return features, dict(stats) | {k: v for k, v in new.items() if k == "backbone"}

        features, _ = jax.eval_shape(compute)
        before = (jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), features), dict(stats))
        return alignment.when_due(passes.state.step, compute, before)

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        targets, examples, *_ = self.prepare(state, self.variables(state, "teacher"), batch)
        return mixing_images(batch, targets, examples) | {"prediction": self.predicted(state, batch["target"]["image"])}
