"""A segmentation network against discriminators of its output, each network under its optimiser."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nightjax.core.optim import Optimizer, accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import NUM_CLASSES, Batch, Scalars
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

    discriminator: Discriminator = Discriminator()
    discriminator_optimizer: Optimizer = Optimizer(
        name="adam", lr=1e-4, schedule="mmseg_poly", power=0.9, weight_decay=0.0, b2=0.99
    )
    adversarial: str = "least_squares"

    streams = ("source", "target")

    @property
    def judges(self) -> tuple[str, ...]:
        """Names of the discriminators; none where adversarial losses have no weight."""
        raise NotImplementedError

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        key, judge_key = jax.random.split(rng)
        state = super().init(key, batch)
        params, probs = dict(state.params), jnp.zeros((1, *batch["source"]["image"].shape[1:3], NUM_CLASSES))
        for i, judge in enumerate(self.judges):
            params[judge] = self.discriminator.init(jax.random.fold_in(judge_key, i), probs)["params"]
        opt_state = {
            name: optimizer.build(own, self.steps).init(own) for name, optimizer, own in self._optimizers(params)
        }
        return state.replace(params=params, opt_state=opt_state)

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

    def score_panels(self, state: TrainState, probs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Each discriminator's map of the probabilities it is shown: black for source, white for target."""
        pictures = {}
        for judge in self.judges:
            scores = self.scores(state.params[judge], probs[judge])
            share = jax.nn.sigmoid(scores) if self.adversarial == "vanilla" else scores
            grey = jnp.clip(share, 0.0, 1.0)
            pictures[f"discriminator_{judge}"] = jnp.repeat(grey, 3, axis=-1)
        return pictures

    def _judge_loss(self, params: PyTree, pairs: Pairs):
        losses = {}
        for judge in self.judges:
            scores = [self.scores(params[judge], jax.lax.stop_gradient(x)) for x in pairs[judge]]
            losses[f"discriminator_{judge}"] = discriminator_loss(*scores, kind=self.adversarial)
        return sum(losses.values(), jnp.zeros(())), losses

    def _optimizers(self, params: PyTree) -> tuple[tuple[str, Optimizer, PyTree], ...]:
        """Name, settings and parameters of each optimiser."""
        student = ("student", self.optimizer, {"student": params["student"]})
        judges = {judge: params[judge] for judge in self.judges}
        if not judges:
            return (student,)
        return student, ("judges", self.discriminator_optimizer, judges)
