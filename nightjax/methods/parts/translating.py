# SPDX-License-Identifier: Apache-2.0
"""What every method that trains an image translator answers to loops and verbs."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from nightjax.core.method import ReportSection, Task
from nightjax.core.optim import Optimizer
from nightjax.core.stacks import Stack
from nightjax.core.state import TrainState
from nightjax.core.step import Player, Players, Training, first_opt_state
from nightjax.core.types import PyTree, Variables

STREAMS = {"a": "source", "b": "target"}
"""Domain of an unpaired translator, ``a`` the day and ``b`` the night, to the domain of the batch that it comes
from."""

OTHER = {"a": "b", "b": "a"}

LETTERS = {"day": "a", "night": "b"}
"""Domain as verbs name it to its name in networks and papers."""

Adversarial = Literal["least_squares", "vanilla"]


class Translating:
    """Answers of a method with fields ``optimizer`` and ``training`` that trains generators against discriminators.

    The state's networks are ``generators`` and the discriminators by name; both sides have the same kind of optimizer.
    """

    optimizer: Optimizer
    training: Training

    task: ClassVar[Task] = "translation"
    networks: ClassVar[tuple[str, ...]] = ("generators",)
    stacks: ClassVar[tuple[Stack, ...]] = ()
    optional_init: ClassVar[tuple[str, ...]] = ()
    pretrained: ClassVar[tuple[str, ...]] = ()
    report_sections: ClassVar[tuple[ReportSection, ...]] = ()

    discriminator_names: ClassVar[tuple[str, ...]]
    """Names of the discriminators in the state."""

    @property
    def players(self) -> Players:
        """The generators, and the discriminators together."""
        return {
            "generators": Player(self.optimizer, ("generators",)),
            "discriminators": Player(self.optimizer, self.discriminator_names),
        }

    def first_state(
        self,
        params: dict[str, PyTree],
        frozen: dict[str, Variables] | None = None,
        memory: dict[str, PyTree] | None = None,
    ) -> TrainState:
        """The first state around the first parameters of all networks."""
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={},
            opt_state=first_opt_state(self.players, params, self.training.steps),
            frozen=frozen or {},
            memory=memory or {},
        )

    def variables(self, state: TrainState, network: str = "") -> Variables:
        """Parameters and batch statistics of one of ``networks``; of the default one for ``""``."""
        del network  # There is only one.
        return {"params": state.params["generators"], "batch_stats": {}}

    def initial(self, state: TrainState) -> dict[str, Variables]:
        """What ``train.init`` replaces: network name in the other run's checkpoint to variables."""
        return {"generators": self.variables(state)}

    def with_initial(self, state: TrainState, networks: dict[str, Variables]) -> TrainState:
        """The first state with these weights of another run; modules that are not given stay."""
        own = state.params["generators"] | networks["generators"]["params"]
        return state.replace(params=state.params | {"generators": own})


def to_signed(image: jax.Array) -> jax.Array:
    """uint8 to float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def to_unit(image: jax.Array) -> jax.Array:
    """[-1, 1] to [0, 1]."""
    return (image + 1.0) / 2.0
