# SPDX-License-Identifier: Apache-2.0
"""The interface between a method and the loops and verbs that use it.

A method is a frozen dataclass made of parts. It never sees files, iterators, writers, flags or the whole config. All
its functions are pure and traceable; the loop compiles ``train_step`` once and ``predict`` once an image shape.

Every method is `Trainable`. What else it can do follows from its ``task``, and verbs ask by `segments`, `translates`
and `matches`, which refuse a method of another task in one line.
"""

import dataclasses
from typing import Any, ClassVar, Literal, Protocol, cast

import jax

from nightjax.core.errors import UserError
from nightjax.core.stacks import Stack
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars, Variables

Task = Literal["segmentation", "translation", "matching", "pretraining"]


@dataclasses.dataclass(frozen=True)
class ClassCurves:
    """A report section: two scalars of each class over the steps, ``<prefix>own/<id>`` and ``<prefix>other/<id>``.

    Attributes:
        prefix: of the scalars' names.
        title: of the section.
        caption: what a reader should see in it.
    """

    prefix: str
    title: str
    caption: str


@dataclasses.dataclass(frozen=True)
class PredictionTable:
    """A report section: one table for every set that was scored by several predictions of a method.

    Attributes:
        captions: name of a prediction (``EvalSet.prediction``, ``""`` for the method's own) to the head of its column,
            in the order of columns.
        hard_classes: dotted key of the config with the train ids whose mean is shown too.
    """

    captions: tuple[tuple[str, str], ...]
    hard_classes: str = ""


ReportSection = ClassCurves | PredictionTable


class Trainable(Protocol):
    """A way to train.

    Attributes:
        task: what the trained network does.
        optional_init: modules of the network that the run named by ``train.init`` may lack; they start from scratch.
        pretrained: frozen networks whose weights ``train.frozen`` names.
        report_sections: what the report shows of this method beside what it shows of all.
    """

    task: ClassVar[Task]
    optional_init: ClassVar[tuple[str, ...]]
    pretrained: ClassVar[tuple[str, ...]]
    report_sections: ClassVar[tuple[ReportSection, ...]]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that a batch must hold, such as ``("source", "target")``."""
        ...

    @property
    def networks(self) -> tuple[str, ...]:
        """Networks that can be evaluated, the default one first."""
        ...

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Stacks of equal blocks among the parameters that `variables` returns, see `core.stacks`.

        Frozen networks have these stacks or none.
        """
        ...

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; only the shapes of ``batch`` are used."""
        ...

    def initial(self, state: TrainState) -> dict[str, Variables]:
        """What ``train.init`` replaces: network name in the other run's checkpoint to variables."""
        ...

    def with_initial(self, state: TrainState, networks: dict[str, Variables]) -> TrainState:
        """The first state with these weights of another run; modules that are not given stay."""
        ...

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update. The scalars are float32; the loop stops when one of them is not finite."""
        ...

    def variables(self, state: TrainState, network: str = "") -> Variables:
        """One of ``networks``, to evaluate; the default one for ``""``."""
        ...

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, each [B, H, W, 3] or [B, H, W], uint8 (labels) or float32 in [0, 1]."""
        ...


class Segments(Trainable, Protocol):
    """A method whose network assigns a class to every pixel.

    Attributes:
        predictions: names of the predictions that the method makes beside its own.
    """

    predictions: ClassVar[tuple[str, ...]]

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 for uint8 RGB images [B, H, W, 3]."""
        ...

    def predict_as(self, name: str, variables: Variables, image: jax.Array, label: jax.Array) -> jax.Array:
        """One of ``predictions``, logits [B, h, w, K]; ``label`` [B, H', W'] are the true train ids."""
        ...

    def penultimate(self, variables: Variables, image: jax.Array) -> jax.Array:
        """What the classifier reads of uint8 RGB images [B, H, W, 3]: [B, h, w, C].

        Raises:
            UserError: the head does not show it, or the network has several views of an image (HRDA).
        """
        ...


class Translates(Trainable, Protocol):
    """A method whose network turns day into night or night into day."""

    def translate(self, variables: Variables, image: jax.Array, to: str) -> jax.Array:
        """Images [B, H, W, 3] float32 in [0, 1] in the domain ``to``, ``"day"`` or ``"night"``, of uint8 images."""
        ...


class Matches(Trainable, Protocol):
    """A method whose network finds the pixels of one image in another."""

    def match(self, variables: Variables, image: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where the pixels of ``image`` lie in ``reference``, both uint8 [B, H, W, 3].

        Returns:
            Flow [B, H, W, 2] (dx, dy) in pixels, and its probability [B, H, W] of being right within one pixel.
        """
        ...


USES = {
    "segmentation": "predict and evaluate",
    "translation": "nightjax translate",
    "matching": "nightjax match and the config argument aligner=uawarpc",
    "pretraining": "train.init of other runs",
}
"""Task to what a run of it is for."""


def segments(method: Trainable) -> Segments:
    """The method as one that segments, or a UserError."""
    return cast(Segments, _of_task(method, "segmentation"))


def translates(method: Trainable) -> Translates:
    """The method as one that translates, or a UserError."""
    return cast(Translates, _of_task(method, "translation"))


def matches(method: Trainable) -> Matches:
    """The method as one that matches, or a UserError."""
    return cast(Matches, _of_task(method, "matching"))


def _of_task(method: Trainable, task: Task) -> Any:
    if method.task != task:
        raise UserError(
            f"this needs a run for {task}, and this run is for {method.task}: it is used by {USES[method.task]}"
        )
    return method
