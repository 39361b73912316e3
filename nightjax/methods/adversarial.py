"""A segmentation network against discriminators of its output, each network under its optimiser."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nightjax.core.optim import Optimizer, accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import NUM_CLASSES, Scalars
from nightjax.losses.adversarial import discriminator_loss
from nightjax.methods.network import NetworkMethod
from nightjax.models.discriminator import Discriminator

PyTree = Any
Pairs = dict[str, tuple[jax.Array, jax.Array]]
"""Discriminator to class probabilities [B, H, W, K] of source and target."""


@dataclasses.dataclass(frozen=True)
class AdversarialMethod(NetworkMethod):
    """Base of DANNet and AdaptSegNet. Subclasses name their discriminators in ``judges``.

    Parameters that get no gradient (auxiliary classifiers, branches that are not summed) must be
    frozen by the optimiser's groups, or they would decay.

    Attributes:
        discriminator: built once for each name in ``judges``.
        discriminator_optimizer: one for all of them.
        adversarial: kind of adversarial loss, see ``losses.adversarial``.
    """

    discriminator: nn.Module = Discriminator()
    discriminator_optimizer: Optimizer = Optimizer(
        name="adam", lr=1e-4, schedule="mmseg_poly", power=0.9, weight_decay=0.0, b2=0.99
    )
    adversarial: str = "least_squares"

    streams = ("source", "target")
    judges = ()

    def adversarial_state(
        self, rng: jax.Array, student: PyTree, stats: PyTree, size: tuple[int, int]
    ) -> TrainState:
        """The first state around the student's first parameters and statistics."""
        probs = jnp.zeros((1, *size, NUM_CLASSES))
        params = {"student": student}
        for key, judge in zip(jax.random.split(rng, len(self.judges)), self.judges, strict=True):
            params[judge] = self.discriminator.init(key, probs)["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={"student": stats},
            opt_state={
                name: optimizer.build(own, self.steps).init(own)
                for name, optimizer, own in self._optimizers(params)
            },
        )

    def adversarial_step(
        self, state: TrainState, examples: dict[str, jax.Array], student_loss: Callable
    ) -> tuple[TrainState, Scalars]:
        """One step of all networks, with the gradients at the parameters from before it.

        Args:
            state: before the step.
            examples: arrays with a leading batch axis.
            student_loss: ``(params, stats, part, i) -> (loss, (stats, scalars, pairs))`` of the
                student's parameters and statistics and one part of the examples.
        """

        def grad_fn(stats, part, i):
            grads, (stats, scalars, pairs) = jax.grad(student_loss, has_aux=True)(
                state.params["student"], stats, part, i
            )
            judges = {judge: state.params[judge] for judge in self.judges}
            judge_grads, losses = jax.grad(self._judge_loss, has_aux=True)(judges, pairs)
            return {"student": grads, **judge_grads}, stats, scalars | losses

        stats = state.batch_stats["student"]
        grads, stats, scalars = accumulate(grad_fn, stats, examples, self.accumulate)
        params, opt_state = {}, {}
        for name, optimizer, own in self._optimizers(state.params):
            own_grads = {network: grads[network] for network in own}
            transform = optimizer.build(own, self.steps)
            updates, opt_state[name] = transform.update(own_grads, state.opt_state[name], own)
            params |= optax.apply_updates(own, updates)
        scalars |= {
            "gradient_norm": optax.tree.norm(grads["student"]),
            "learning_rate": self.optimizer.schedule_fn(self.steps)(state.step),
        }
        new = {"params": params, "batch_stats": {"student": stats}, "opt_state": opt_state}
        return state.replace(step=state.step + 1, **new), scalars

    def scores(self, params: PyTree, probs: jax.Array) -> jax.Array:
        """Output [B, h, w, 1] of the discriminator with these parameters."""
        return self.discriminator.apply({"params": params}, probs)

    def _judge_loss(self, params: PyTree, pairs: Pairs):
        losses = {}
        for judge, pair in pairs.items():
            scores = [self.scores(params[judge], jax.lax.stop_gradient(probs)) for probs in pair]
            losses[f"discriminator_{judge}"] = discriminator_loss(*scores, kind=self.adversarial)
        return sum(losses.values()), losses

    def _optimizers(self, params: PyTree) -> tuple[tuple[str, Optimizer, PyTree], ...]:
        """Name, settings and parameters of each optimiser."""
        return (
            ("student", self.optimizer, {"student": params["student"]}),
            ("judges", self.discriminator_optimizer, {name: params[name] for name in self.judges}),
        )
