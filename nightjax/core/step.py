# SPDX-License-Identifier: Apache-2.0
"""One training step of any number of networks: gradients, microbatches, clipping, updates, norms and rates.

Every method's step ends in `gradient_step`. A method says which networks learn under which optimizer (`Player`) and
what each player minimizes (a loss function). Nothing else in the library calls ``jax.grad`` or an optimizer.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from nightjax.core.optim import Optimizer
from nightjax.core.partition import BASE, joined
from nightjax.core.rng import stream_key
from nightjax.core.stacks import Stack
from nightjax.core.state import TrainState
from nightjax.core.types import PyTree, Scalars

Passes = Literal["together", "apart"]
"""``train.passes``, see `Training`."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What a method knows about its run.

    Attributes:
        steps: length of the run, for schedules.
        seed: of the run.
        accumulate: number of microbatches, equal parts of the batch whose gradients are computed one after another.
        passes: of the student whose losses share parameters alone: ``"together"`` under one gradient, or ``"apart"``,
            the gradient of one after that of the other, so that the activations of one alone are in memory.
    """

    steps: int
    seed: int = 0
    accumulate: int = 1
    passes: Passes = "together"

    def key(self, state: TrainState, stream: str, microbatch: jax.Array | int = 0) -> jax.Array:
        """Key of a named random stream at this step and microbatch."""
        return jax.random.fold_in(stream_key(self.seed, state.step, stream), microbatch)

    def keys(self, state: TrainState, microbatch: jax.Array | int = 0) -> Callable[[str], jax.Array]:
        """`key` as a function of the stream's name alone."""
        return lambda stream: self.key(state, stream, microbatch)


@dataclasses.dataclass(frozen=True)
class Player:
    """Networks that share one optimizer.

    Attributes:
        optimizer: of all their parameters together.
        networks: keys of ``TrainState.params``.
        stacks: of equal blocks in each of the networks, see `core.stacks`.
    """

    optimizer: Optimizer
    networks: tuple[str, ...]
    stacks: tuple[Stack, ...] = ()

    def parameters(self, params: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """This player's share of all parameters."""
        return {name: params[name] for name in self.networks}


Players = dict[str, Player]
"""Name of an optimizer to who learns under it."""


class Outcome(NamedTuple):
    """What a loss function returns beside the loss.

    Attributes:
        scalars: to be logged.
        batch_stats: network name to new running statistics; other networks keep theirs.
        outputs: arrays that the losses of later players read among their examples.
    """

    scalars: Scalars
    batch_stats: Mapping[str, PyTree] = {}
    outputs: Mapping[str, Any] = {}


Loss = Callable[[dict[str, PyTree], dict[str, PyTree], Mapping[str, Any], Any], tuple[jax.Array, Outcome]]
"""``(the player's parameters by network, all running statistics, examples, microbatch index) -> (loss, outcome)``."""


def total(terms: Iterable[jax.Array]) -> jax.Array:
    """Sum of a loss's terms, of which there is at least one; without any, ``sum`` would give an int."""
    return cast(jax.Array, sum(terms))


def together(losses: Sequence[Loss]) -> Loss:
    """The sum of several losses of one player as one loss, running statistics handed on from each to the next."""

    def loss(own, stats, part, i):
        terms, scalars, batch_stats, outputs = [], {}, {}, {}
        for one in losses:
            term, outcome = one(own, stats | batch_stats, {**part, **outputs}, i)
            terms.append(term)
            scalars |= dict(outcome.scalars)
            batch_stats |= dict(outcome.batch_stats)
            outputs |= dict(outcome.outputs)
        return total(terms), Outcome(scalars, batch_stats, outputs)

    return loss


def first_opt_state(players: Players, params: Mapping[str, PyTree], steps: int) -> dict[str, PyTree]:
    """The optimizers' state before the first step of a run of ``steps`` steps."""
    states = {}
    for name, player in players.items():
        own = player.parameters(params)
        states[name] = player.optimizer.build(own, steps, player.stacks).init(own)
    return states


def gradient_step(
    state: TrainState,
    players: Players,
    losses: Mapping[str, Loss | Sequence[Loss]],
    examples: Mapping[str, Any],
    training: Training,
    *,
    last: bool = True,
) -> tuple[TrainState, dict[str, Any]]:
    """Updates every player that has a loss, with gradients at the parameters from before the step.

    Args:
        state: before the step.
        players: of the method.
        losses: player name to loss function, computed in this order. Of several functions of one player the gradients
            are taken one after another and added, so no activations need to be kept from one to the next.
        examples: arrays with a leading batch axis, which may differ from array to array.
        training: of the run.
        last: counts the step. Players that take turns within one step call this function once each, the last one
            with True.

    Returns:
        The new state and the scalars of all losses, with ``gradient_norm`` and ``learning_rate``, or with several
        players ``gradient_norm_<player>`` and ``learning_rate_<player>``.
    """

    def microbatch_gradients(stats, part, i):
        grads, scalars = {}, {}
        for name, given in losses.items():
            own = players[name].parameters(state.params)
            for loss in given if isinstance(given, Sequence) else (given,):
                if name in grads:  # The parameters are at hand when the gradients before are.
                    own, grads[name] = jax.lax.optimization_barrier((own, grads[name]))
                found, outcome = jax.grad(with_base(state, loss), has_aux=True)(own, stats, part, i)
                grads[name] = jax.tree.map(jnp.add, grads[name], found) if name in grads else found
                stats = stats | dict(outcome.batch_stats)
                scalars |= dict(outcome.scalars)
                part = {**part, **outcome.outputs}
        return grads, stats, scalars

    grads, stats, scalars = accumulate(microbatch_gradients, state.batch_stats, examples, training.accumulate)
    scalars, params, opt_state = dict(scalars), dict(state.params), dict(state.opt_state)
    for name in losses:
        player = players[name]
        own = player.parameters(state.params)
        transform = player.optimizer.build(own, training.steps, player.stacks)
        updates, opt_state[name] = transform.update(grads[name], state.opt_state[name], own)
        params |= cast(dict[str, Any], optax.apply_updates(own, updates))
        suffix = f"_{name}" if len(players) > 1 else ""
        scalars[f"gradient_norm{suffix}"] = optax.tree.norm(grads[name])
        scalars[f"learning_rate{suffix}"] = player.optimizer.schedule_fn(training.steps)(state.step)
    new = state.replace(step=state.step + last, params=params, batch_stats=stats, opt_state=opt_state)
    return new, scalars


def with_base(state: TrainState, loss: Loss) -> Loss:
    """The loss as a function of the trained parameters alone; those that no step changes are constants in it."""
    base = state.frozen.get(BASE)
    if base is None:
        return loss

    def of_trained(own, stats, part, i):
        whole = {name: joined(tree, base[name]) if name in base else tree for name, tree in own.items()}
        return loss(whole, stats, part, i)

    return of_trained


def accumulate(
    gradients: Callable[[PyTree, PyTree, jax.Array | int], tuple[PyTree, PyTree, PyTree]],
    carry: PyTree,
    batch: PyTree,
    count: int,
) -> tuple[PyTree, PyTree, PyTree]:
    """Mean gradient over ``count`` microbatches, computed one after another.

    Microbatch ``i`` holds the examples ``i, i + count, ...``: a stride keeps every device's rows on that device.

    Args:
        gradients: ``(carry, microbatch, i) -> (gradients, carry, scalars)``.
        carry: what one microbatch hands to the next, such as running statistics.
        batch: arrays with a leading batch axis.
        count: number of microbatches; 1 calls ``gradients`` once on the whole batch.

    Returns:
        Mean gradients and scalars in float32, and the last carry.
    """
    if count == 1:
        grads, carry, scalars = gradients(carry, batch, 0)
        return grads, carry, scalars
    split = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0), batch)

    def body(carry, item):
        inner, sums = carry
        i, part = item
        grads, inner, scalars = gradients(inner, part, i)
        sums = jax.tree.map(lambda s, x: s + x.astype(jnp.float32) / count, sums, (grads, scalars))
        return (inner, sums), None

    first = jax.tree.map(lambda x: x[0], split)
    grads, _, scalars = jax.eval_shape(lambda c, p: gradients(c, p, 0), carry, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (grads, scalars))
    (carry, (grads, scalars)), _ = jax.lax.scan(body, (carry, zeros), (jnp.arange(count), split))
    return grads, carry, scalars


def from_step(step: jax.Array, start: int, compute: Callable[[], PyTree], before: PyTree, every: int = 1) -> PyTree:
    """``compute()`` from step ``start`` on, and ``before``, of the same shapes, at other steps without computing it.

    Args:
        step: scalar int32.
        start: first step that computes; at 0 or less, every step does.
        compute: a function of what it closes over.
        before: the result at other steps.
        every: steps from one that computes to the next.
    """
    if start <= 0 and every == 1:
        return compute()
    due = step >= start if every == 1 else (step >= start) & ((step - start) % every == 0)
    return jax.lax.cond(due, compute, lambda: before)
