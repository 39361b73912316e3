# SPDX-License-Identifier: Apache-2.0
"""What every method that trains one segmentation network, the student, answers to loops and verbs."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.method import ReportSection, Task
from nightjax.core.optim import Optimizer
from nightjax.core.partition import BASE, joined, paths, split
from nightjax.core.stacks import Stack, stacks_of
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Player, Players, Training, first_opt_state, together, total
from nightjax.core.types import Batch, PyTree, Variables
from nightjax.methods.parts.feature_distance import FeatureDistance
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.source_terms import student_passes


class Segmenting:
    """Answers of a method with fields ``network``, ``optimizer`` and ``training`` whose one network is the student."""

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    loss: Any = None  # A `SegmentationLoss` where the method has one.

    task: ClassVar[Task] = "segmentation"
    networks: ClassVar[tuple[str, ...]] = ("student",)
    predictions: ClassVar[tuple[str, ...]] = ()
    optional_init: ClassVar[tuple[str, ...]] = ()
    pretrained: ClassVar[tuple[str, ...]] = ()
    report_sections: ClassVar[tuple[ReportSection, ...]] = ()

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Stacks of equal blocks among the parameters, see `core.stacks`."""
        return stacks_of(self.network.model)

    @property
    def players(self) -> Players:
        """The student under its optimizer."""
        return {"student": Player(self.optimizer, ("student",), self.stacks)}

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        return self.first_state(self.network.init(rng, batch["source"]["image"].shape[1:]))

    def first_state(self, student: Variables, others: dict[str, PyTree] | None = None) -> TrainState:
        """The state around the student's first variables and the parameters of other networks, such as
        discriminators."""
        trained, base = self.optimizer.split(student["params"])
        params = {"student": trained} | (others or {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={"student": student["batch_stats"]},
            opt_state=first_opt_state(self.players, params, self.training.steps),
            frozen={BASE: {"student": base}} if base else {},
        )

    def variables(self, state: TrainState, network: str = "") -> Variables:
        """Parameters and batch statistics of one of ``networks``; of the default one for ``""``."""
        if network == "teacher":
            return state.whole({"params": state.teacher["params"], "batch_stats": state.teacher["batch_stats"]})
        return state.whole({"params": state.params["student"], "batch_stats": state.batch_stats["student"]})

    def initial(self, state: TrainState) -> dict[str, Variables]:
        """What ``train.init`` replaces: network name in the other run's checkpoint to variables."""
        return {"student": self.variables(state)}

    def with_initial(self, state: TrainState, networks: dict[str, Variables]) -> TrainState:
        """The first state with these weights of another run; modules that are not given stay."""
        return with_student(state, networks["student"])

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of uint8 RGB images [B, H, W, 3]."""
        logits = self.network.predict(variables, image)
        return logits if self.loss is None else self.loss.unweighted(logits)

    def predict_as(self, name: str, variables: Variables, image: jax.Array, label: jax.Array) -> jax.Array:
        """Logits of one of ``predictions``; ``label`` [B, H', W'] are the true train ids."""
        raise UserError(f"this method has one prediction only, not {name!r}")

    def penultimate(self, variables: Variables, image: jax.Array) -> jax.Array:
        """What the classifier reads of uint8 RGB images [B, H, W, 3]: [B, h, w, C]."""
        return self.network.penultimate(variables, image)

    def predicted(self, state: TrainState, image: jax.Array) -> jax.Array:
        """The student's train ids [B, h, w] uint8 of uint8 images, for visualizations."""
        return self.predict(self.variables(state), image).argmax(-1).astype(jnp.uint8)


StudentLoss = Callable[[TrainState, dict[str, PyTree], dict[str, PyTree], Any, Any], tuple[jax.Array, Outcome]]
"""A state to a `core.step.Loss`, in one call."""


class WithTeacher(Segmenting):
    """Answers of a method whose student has an EMA teacher and, with ``feature_distance``, a frozen initial copy."""

    feature_distance: FeatureDistance | None

    networks: ClassVar[tuple[str, ...]] = ("student", "teacher")

    def first_state(self, student: Variables, others: dict[str, PyTree] | None = None) -> TrainState:
        """The state around the student's first variables, which are the teacher's too."""
        return self.with_copies(super().first_state(student, others))

    def with_initial(self, state: TrainState, networks: dict[str, Variables]) -> TrainState:
        """The first state with these weights in student, teacher and the frozen copy."""
        return self.with_copies(with_student(state, networks["student"]))

    def with_copies(self, state: TrainState) -> TrainState:
        """The state whose teacher and frozen initial network are the student, as far as it is trained."""
        student = {"params": state.params["student"], "batch_stats": state.batch_stats["student"]}
        frozen = {} if self.feature_distance is None else {"initial": copied(student)}
        return state.replace(teacher=copied(student), frozen=state.frozen | frozen)


class WithMixing(WithTeacher):
    """Answers of a method whose student sees source images, images that source and target are mixed in, and perhaps
    others."""

    loss: SegmentationLoss
    mixing: ClassMix

    @property
    def passes(self) -> tuple[StudentLoss, ...]:
        """The student's losses in their order, apart as far as they share nothing but parameters."""
        return self.source_loss, self.mixed_loss

    def student_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """All terms on one microbatch; see `core.step.Loss`."""
        return together([functools.partial(loss, state) for loss in self.passes])(params, stats, part, i)

    def source_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The terms on the source of one microbatch; see `core.step.Loss`."""
        _, terms, new = student_passes(self, self.training, state, params, i).source(stats["student"], part)
        return total(terms.values()), Outcome(terms, {"student": new})

    def mixed_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The term on the mixed images of one microbatch; see `core.step.Loss`."""
        passes = student_passes(self, self.training, state, params, i)
        _, terms, new = passes.mixed(stats["student"], part, self.mixing.weight)
        return total(terms.values()), Outcome(terms, {"student": new})


def with_student(state: TrainState, variables: Variables) -> TrainState:
    """The state with these parameters of the student replaced; others stay."""
    base = state.frozen.get(BASE, {}).get("student", {})
    frozen = state.frozen
    trained, found = split(variables["params"], paths(base).__contains__)
    if base:
        frozen = frozen | {BASE: {"student": joined(base, found)}}
    return state.replace(
        params=state.params | {"student": joined(state.params["student"], trained)},
        batch_stats=state.batch_stats | {"student": state.batch_stats["student"] | variables["batch_stats"]},
        frozen=frozen,
    )


def copied(tree: PyTree) -> PyTree:
    """New arrays of the same values; donated buffers must not be shared."""
    return jax.tree.map(jnp.copy, tree)
