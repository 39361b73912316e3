# SPDX-License-Identifier: Apache-2.0
"""Optimizers from a config: groups by parameter name, decay, clipping and schedules."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from nightjax.core import partition, schedules
from nightjax.core.errors import UserError
from nightjax.core.ranges import Count, Decay, Range
from nightjax.core.stacks import Stack, find_stack
from nightjax.core.types import PyTree


@dataclasses.dataclass(frozen=True)
class Group:
    """How the parameters whose path matches ``pattern`` differ from the rest.

    Attributes:
        pattern: regular expression searched in the path inside the network, such as ``"^backbone/"``. First match wins.
        lr: factor on the learning rate; 0 freezes, and then no decay is applied either.
        decay: factor on the weight decay.
        layer_decay: of the L blocks of a network's one stack, block i learns at ``layer_decay ** (L - 1 - i)`` of the
            group's rate, and its other parameters at ``layer_decay ** L`` of it (VFM-UDA++).
        trained: False keeps these parameters out of gradients and optimizer. Student and teacher share them, and
            checkpoints leave them to the run of ``train.init``. A rate of 0 computes what it then does not use.
    """

    pattern: str
    lr: float = 1.0
    decay: float = 1.0
    layer_decay: Annotated[float, Range(0, 1, above=True)] = 1.0
    trained: bool = True


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer's settings.

    Attributes:
        name: ``"adamw"``, ``"adam"`` (decay coupled into the gradient, as in torch) or ``"sgd"``.
        lr: peak learning rate.
        schedule: ``"warmup_poly"`` (linear warm-up, then poly over the rest), ``"mmseg_poly"``, ``"warmup_line"``
            (VFM-UDA), ``"linear_tail"`` (constant, then linear to the end over the second half), ``"step"``,
            ``"multistep"``, ``"cosine"`` or ``"constant"``.
        min_lr: what the schedule ends at, instead of 0.
        warmup: steps of linear warm-up.
        power: exponent of the poly decay.
        cosine_steps: steps in which the schedule ``"cosine"`` falls to 0, before it rises again; 0 for the whole run.
        step_every, step_factor: of the schedule ``"step"``: every so many steps the rate is multiplied by the factor.
        milestones: of the schedule ``"multistep"``, the steps at which the rate falls to a tenth.
        weight_decay: decay rate.
        decay_vectors: whether one-dimensional parameters (biases, norms) decay.
        momentum: of SGD.
        b1, b2, eps: of Adam.
        clip_norm: global gradient norm limit, 0 for none.
        groups: exceptions by name.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[float, Range(0, 100)] = 6e-4
    schedule: Literal[
        "warmup_poly", "mmseg_poly", "warmup_line", "linear_tail", "step", "multistep", "cosine", "constant"
    ] = "warmup_poly"
    min_lr: float = 0.0
    warmup: int = 0
    power: Annotated[float, Range(0, 100)] = 1.0
    cosine_steps: int = 0
    step_every: Count = 100_000
    step_factor: Annotated[float, Range(0, 1, above=True)] = 0.5
    milestones: tuple[int, ...] = ()
    weight_decay: Annotated[float, Range(0, 100)] = 0.01
    decay_vectors: bool = False
    momentum: Decay = 0.9
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: Annotated[float, Range(0, 1, above=True)] = 1e-8
    clip_norm: float = 0.0
    groups: tuple[Group, ...] = ()

    def __post_init__(self):
        if self.lr < 0:
            raise UserError(f"optim.lr={self.lr} must not be below 0")
        if self.min_lr > self.lr:
            raise UserError(f"optim.min_lr={self.min_lr} must not be above optim.lr={self.lr}: the rate falls to it")
        for group in self.groups:
            try:
                re.compile(group.pattern)
            except re.error as error:
                raise UserError(f"optim.groups: {group.pattern!r} is no regular expression ({error})") from error

    def schedule_fn(self, steps: int) -> optax.Schedule:
        """Learning rate as a function of the step, for a run of ``steps`` steps."""
        table = {
            "warmup_poly": lambda t: schedules.warmup_poly(t, steps, self.warmup, self.power),
            "mmseg_poly": lambda t: schedules.mmseg_poly(t, steps, self.warmup, self.power),
            "warmup_line": lambda t: schedules.warmup_line(t, steps, self.warmup),
            "linear_tail": lambda t: schedules.linear_tail(t, steps, steps // 2),
            "step": lambda t: schedules.step_decay(t, self.step_every, self.step_factor),
            "multistep": lambda t: schedules.warmup_multistep(t, self.milestones, self.warmup),
            "cosine": lambda t: schedules.cosine(t, self.cosine_steps or steps),
            "constant": lambda t: jnp.ones((), jnp.float32),
        }
        factor = table[self.schedule]
        return lambda t: self.min_lr + (self.lr - self.min_lr) * factor(t)

    def build(self, params: PyTree, steps: int, stacks: Sequence[Stack] = ()) -> optax.GradientTransformation:
        """The optax transformation for parameters of this structure.

        Args:
            params: network name to parameters.
            steps: length of the run.
            stacks: of equal blocks, paths inside the network: their leading axis is no axis of a parameter.

        Raises:
            UserError: the optimizer is unknown, or a group matches no parameter.
        """
        lr_factor, decay_factor = self._factors(params, stacks)
        scale = optax.stateless(lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, lr_factor))
        decay = _decay(self.weight_decay, decay_factor)
        adam = optax.scale_by_adam(self.b1, self.b2, self.eps)
        chains = {
            "adamw": (adam, decay),
            "adam": (decay, adam),
            "sgd": (decay, optax.trace(self.momentum) if self.momentum else optax.identity()),
        }
        chain = chains[self.name]
        clip = (optax.clip_by_global_norm(self.clip_norm),) if self.clip_norm else ()
        return optax.chain(*clip, *chain, scale, optax.scale_by_learning_rate(self.schedule_fn(steps)))

    def split(self, params: PyTree) -> tuple[PyTree, PyTree]:
        """Parameters of one network in two trees: those that are trained, and those that are not.

        Raises:
            UserError: nothing is left to train.
        """
        if all(group.trained for group in self.groups):
            return params, {}
        trained, base = partition.split(params, lambda path: not self._group(path).trained)
        if not trained:
            raise UserError("optim.groups leave no parameter to train; check the patterns of those with trained=False")
        return trained, base

    def _group(self, inside: str) -> Group:
        return next((g for g in self.groups if re.search(g.pattern, inside)), Group(""))

    def _factors(self, params: PyTree, stacks: Sequence[Stack] = ()) -> tuple[PyTree, PyTree]:
        """Factors on learning rate and weight decay of every parameter; see `build` for arguments and errors."""
        flat: dict[str, Any] = dict(traverse_util.flatten_dict(params, sep="/"))
        unused = {g.pattern for g in self.groups if g.trained}
        lr, decay = {}, {}
        for path, value in flat.items():
            inside = path.partition("/")[2]
            group = self._group(inside)
            if not group.trained:
                raise UserError(f"optim.groups: this method trains {path}, and cannot leave out {group.pattern!r}")
            unused.discard(group.pattern)
            lr[path] = group.lr
            if group.layer_decay != 1.0:
                lr[path] = group.lr * _depth_factor(group, inside, value, flat, stacks)
            stacked = find_stack(stacks, inside.split("/")) is not None
            decays = value.ndim - stacked > 1 or self.decay_vectors
            decay[path] = group.decay * decays * (group.lr != 0)
        if unused:
            raise UserError(
                f"optim.groups: {sorted(unused)[0]!r} matches no parameter; paths look like "
                f"{sorted(flat)[0].partition('/')[2]!r}"
            )
        unflatten = lambda x: traverse_util.unflatten_dict(x, sep="/")
        return unflatten(lr), unflatten(decay)


def _depth_factor(
    group: Group, inside: str, value: Any, flat: dict[str, Any], stacks: Sequence[Stack]
) -> float | np.ndarray:
    """``layer_decay`` of one parameter, for those of a stack an array along its axis of blocks."""
    counts = {}
    for path, other in flat.items():
        stack = find_stack(stacks, path.partition("/")[2].split("/"))
        if stack is not None:
            counts[stack.path] = other.shape[0]
    if len(counts) != 1:
        raise UserError(
            f"optim.groups: layer_decay of {group.pattern!r} needs a network with one stack of blocks, such as DINOv2, "
            f"and this one has {len(counts)}"
        )
    (count,) = counts.values()
    if find_stack(stacks, inside.split("/")) is None:
        return group.layer_decay**count
    powers = group.layer_decay ** np.arange(count - 1, -1, -1, dtype=np.float64)
    return powers.astype(np.float32).reshape(-1, *[1] * (value.ndim - 1))


def _decay(rate: float, factor: PyTree) -> optax.GradientTransformation:
    def update(updates, params):
        return jax.tree.map(lambda u, p, f: u + rate * f * p if rate * f else u, updates, params, factor)

    return optax.stateless(update)
