# SPDX-License-Identifier: Apache-2.0
"""T2S-DA without any target: domain generalization (arXiv 2305.13752; the recipe is ours, T2S-13 in docs/fidelity.md).

The source is stylized at random instead of translated, nothing is mixed, and all negatives are source features. The
teacher's confidence is read from the stylized images.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.method import ReportSection
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step, total
from nightjax.core.types import Batch, Scalars, Variables
from nightjax.methods.parts.feature_distance import FeatureDistance
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.pull_to_source import PullToSource, check_translation_has_use, translated_terms
from nightjax.methods.parts.pulling import Negatives, Pulling
from nightjax.methods.parts.segmenting import WithTeacher
from nightjax.methods.parts.source_terms import student_passes, with_total
from nightjax.methods.parts.teacher import EmaTeacher
from nightjax.methods.parts.translation import Translation
from nightjax.methods.t2s_da import SIMILARITY


@dataclasses.dataclass(frozen=True)
class T2sDg(WithTeacher):
    """Domain generalization from the source alone; no batch of it holds a target.

    Attributes:
        network: of student and teacher.
        optimizer: of the student and its projection head.
        training: of the run.
        loss: of the segmentation.
        teacher: the average of the student.
        translation: the source in another look; ``"style"`` needs the randomizer's published weights, ``"fda"`` is the
            fallback without them. None takes the source's own features as queries.
        pull: the pulling loss, or None.
        feature_distance: to the initial network, or None.
        source_photometric: augmentation of the source images, or None.
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    loss: SegmentationLoss = SegmentationLoss()
    teacher: EmaTeacher = EmaTeacher()
    translation: Translation | None = Translation()
    pull: Pulling | None = Pulling(negatives=Negatives(domains="source"))
    feature_distance: FeatureDistance | None = FeatureDistance()
    source_photometric: Photometric | None = None

    domains: ClassVar[tuple[str, ...]] = ("source",)
    optional_init: ClassVar[tuple[str, ...]] = ("projection",)
    pretrained: ClassVar[tuple[str, ...]] = ("style",)
    report_sections: ClassVar[tuple[ReportSection, ...]] = (SIMILARITY,)

    def __post_init__(self):
        check_translation_has_use(self.translation, self.pull)
        if self.pull is None:
            return
        wrong = {
            "method.pull.negatives.domains": self.pull.negatives.domains != "source",
            "method.pull.queue": self.pull.queue is not None,
            "method.pull.real_target": self.pull.real_target,
        }
        for name in filter(wrong.get, wrong):
            raise UserError(f"{name} asks for target features, and t2s_dg sees no target: leave it out, or use t2s_da")

    @property
    def pulling(self) -> PullToSource | None:
        """The contrast, or None."""
        return None if self.pull is None else PullToSource(self.network, self.pull)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        size = batch["source"]["image"].shape[1:]
        student, memory, frozen = self.network.init(rng, size), {}, {}
        if self.translation is not None:
            frozen = self.translation.init(jax.random.fold_in(rng, 2), jnp.zeros((1, *size), jnp.float32))
        if self.pull is not None:
            head = PullToSource(self.network, self.pull).head(rng, student, size)
            student = student | {"params": student["params"] | {"projection": head}}
            memory = self.pull.tables(len(self.network.classes))
        state = self.first_state(student)
        return state.replace(memory=memory, frozen=state.frozen | frozen)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        examples, state, logged = self.prepare(state, self.teacher.update(state), batch)
        losses = {"student": functools.partial(self.student_loss, state)}
        state, scalars = gradient_step(state, self.players, losses, examples, self.training)
        return state, with_total(scalars) | dict(logged)

    def prepare(
        self, state: TrainState, teacher: Variables, batch: Batch
    ) -> tuple[dict[str, jax.Array], TrainState, Scalars]:
        """What the losses see, the state with its new teacher and memory, and scalars to log."""
        keys, label = self.training.keys(state), batch["source"]["label"]
        source = self.network.decode(batch)["source"]["image"]
        examples = {"source": source, "source_label": label}
        if self.source_photometric is not None:
            examples["source"] = self.source_photometric(source, keys("source_photometric"))
        seen, logged = source, {}
        if self.translation is not None:
            seen = examples["translated"] = self.translation.at_random(state.frozen, source, keys)
        outputs, stats = self.network.teacher_pass(state.whole(teacher), seen, keys, context_only=True)
        state = state.replace(teacher=teacher | {"batch_stats": stats})
        if self.pull is not None:
            contrast = PullToSource(self.network, self.pull)
            remembered, state, logged = contrast.remember(state, keys, source, label, outputs)
            examples |= remembered
        return examples, state, logged

    def student_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """All terms on one microbatch; see `core.step.Loss`."""
        passes = student_passes(self, self.training, state, params, i)
        source, terms, new = passes.source(stats["student"], part)
        more, new = translated_terms(passes, self.translation, self.pulling, new, part, source)
        terms |= more
        return total(terms.values()), Outcome(terms, {"student": new})

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        image = batch["source"]["image"]
        shown = {"source": image, "truth": batch["source"]["label"]}
        if self.translation is not None:
            decoded = self.network.input.decode(image)
            shown["translated"] = self.translation.at_random(state.frozen, decoded, self.training.keys(state))
        return shown | {"prediction": self.predicted(state, image)}
