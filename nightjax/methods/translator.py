"""Image translators: what generators and their discriminators share in training."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.optim import Optimizer, accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import Scalars

PyTree = Any
Loss = Callable[[PyTree, Mapping[str, jax.Array]], tuple[jax.Array, Scalars]]
"""``(own parameters, examples) -> (loss, scalars)``."""


@dataclasses.dataclass(frozen=True)
class Translator:
    """Base of CycleGAN, pix2pixHD and UNIT: generators, called the student, and discriminators.

    In `update`, the step of the first two, both players' gradients are taken at the parameters from before the step.
    UNIT's players take turns instead.

    Attributes:
        model: a generator.
        optimizer: of the generators, and another one of the discriminators.
        steps: length of the run, for schedules.
        seed: of the run.
        accumulate: equal parts of the batch whose gradients are computed one after the other.
    """

    model: nn.Module
    optimizer: Optimizer
    steps: int
    seed: int = 0
    accumulate: int = 1

    scratch = ()

    def first_state(self, params: PyTree, **parts: PyTree) -> TrainState:
        """The first state around the first parameters, ``student`` and those of the discriminators."""
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={"student": {}},
            opt_state={name: self.optimizer.build(own, self.steps).init(own) for name, own in players(params).items()},
            **parts,
        )

    def with_weights(self, state: TrainState, variables: Variables) -> TrainState:
        """The first state with the generators of another run."""
        return state.replace(params=state.params | {"student": variables["params"]})

    def variables(self, state: TrainState, which: str = "student") -> Variables:
        """See `Method`."""
        del which  # There is no teacher.
        return {"params": state.params["student"], "batch_stats": state.batch_stats["student"]}

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """See `Method`; a translator names no classes."""
        raise UserError("a translator predicts no classes: leave eval.sets empty, use its run with nightjax translate")

    def update(
        self,
        state: TrainState,
        losses: Mapping[str, Loss],
        examples: Mapping[str, jax.Array],
        **changes: PyTree,
    ) -> tuple[TrainState, Scalars]:
        """One step of both players.

        Args:
            state: before the step.
            losses: of ``student`` and ``discriminators``.
            examples: arrays with a leading batch axis.
            **changes: other fields of the new state.

        Returns:
            The new state and the scalars of both.
        """
        params, opt_state, scalars = {}, {}, {}
        for name, own in players(state.params).items():

            def grad_fn(carry, part, i, own=own, loss=losses[name]):
                del i  # Nothing is random in these networks.
                grads, terms = jax.grad(loss, has_aux=True)(own, part)
                return grads, carry, terms

            grads, _, terms = accumulate(grad_fn, (), examples, self.accumulate)
            transform = self.optimizer.build(own, self.steps)
            updates, opt_state[name] = transform.update(grads, state.opt_state[name], own)
            params |= optax.apply_updates(own, updates)
            scalars |= dict(terms) | {f"gradient_norm_{name}": optax.tree.norm(grads)}
        scalars["learning_rate"] = self.optimizer.schedule_fn(self.steps)(state.step)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state, **changes), scalars


def players(params: PyTree) -> dict[str, PyTree]:
    """Parameters by player: the student, and the discriminators."""
    judges = {name: tree for name, tree in params.items() if name != "student"}
    return {"student": {"student": params["student"]}, "discriminators": judges}


def to_signed(image: jax.Array) -> jax.Array:
    """uint8 to float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def to_unit(picture: jax.Array) -> jax.Array:
    """[-1, 1] to [0, 1]."""
    return (picture + 1.0) / 2.0
