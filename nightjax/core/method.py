"""The interface between a method and the loops that run it."""

from typing import Any, Protocol

import jax

from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars

Variables = dict[str, Any]
"""What ``predict`` needs: ``{"params": ..., "batch_stats": ...}``."""


class Method(Protocol):
    """A way to train. Implementations are frozen dataclasses built from the sections of a config.

    A method never sees files, iterators, writers, flags or the whole config. All functions are pure and traceable;
    the loop compiles ``train_step`` and ``predict`` once a shape.
    """

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the domains that a batch must hold, such as ``("source", "target")``."""

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; only the shapes of ``batch`` are used."""

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update. The scalars are float32; the loop stops when one of them is not finite."""

    def variables(self, state: TrainState, which: str = "student") -> Variables:
        """The network to evaluate: ``"student"`` or, where the method has one, ``"teacher"``."""

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Logits ``[B, h, w, K]`` float32 for uint8 RGB images ``[B, H, W, 3]``.

        A method that names no classes raises UserError. One that translates has ``translate(variables, image, to)``
        besides: float32 pictures ``[B, H, W, 3]`` in [0, 1] in domain ``to``, ``"a"`` the day or ``"b"`` the night.
        """

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Pictures of one batch by name, each ``[B, H, W, 3]`` or ``[B, H, W]`` uint8 (labels) or float32 in [0, 1]."""
