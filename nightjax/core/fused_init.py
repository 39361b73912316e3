# SPDX-License-Identifier: Apache-2.0
"""Fused weight initialization: one random draw per distribution instead of one per parameter.

It saves time to compile: every draw is a loop of its own in the program, and one by one a MiT-B5 would have 750.
"""

import collections
import contextlib
import contextvars
import functools
import math
import zlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import random

T = TypeVar("T")
Shape = tuple[int, ...]
Sampler = Callable[[str, jax.Array, Shape], jax.Array]
"""``(distribution, key, shape)`` to float32 numbers."""


def _uniform(key: jax.Array, shape: Shape) -> jax.Array:
    return random.uniform(key, shape, minval=-1.0, maxval=1.0)


DISTRIBUTIONS: dict[str, Callable[[jax.Array, Shape], jax.Array]] = {"normal": random.normal, "uniform": _uniform}
"""Standard normal, and uniform in [-1, 1)."""


def _sample_now(distribution: str, key: jax.Array, shape: Shape) -> jax.Array:
    return DISTRIBUTIONS[distribution](key, shape)


_sampler: contextvars.ContextVar[Sampler] = contextvars.ContextVar("sampler", default=_sample_now)


def sample(distribution: str, key: jax.Array, shape: Shape) -> jax.Array:
    """Random numbers for a parameter.

    Args:
        distribution: key of `DISTRIBUTIONS`.
        key: random key. Inside `fused_init` and `stacked_init` it is not used: the numbers are the next ones of the
            array that was drawn for the whole distribution.
        shape: of the result.

    Returns:
        float32 of that shape.
    """
    return _sampler.get()(distribution, key, shape)


def fused_init(init: Callable[..., T]) -> Callable[..., T]:
    """``init`` with one draw for each distribution instead of one for each parameter. Traceable.

    A parameter depends on the key and on the parameters of its distribution that come before it, not on later ones.

    Args:
        init: ``(key, *args)`` to parameters, always in the same order. Those that `sample` does not make stay as they
            are.
    """

    @functools.wraps(init)
    def fused(key: jax.Array, *args) -> T:
        numbers = {name: _sample_now(name, own, (size,)) for name, own, size in _totals(init, key, *args)}
        numbers = jax.lax.optimization_barrier(numbers)  # Or the compiler repeats a draw for each of its readers.
        with _sampling(_slices_of(numbers)):
            return init(key, *args)

    return fused


def stacked_init(init: Callable[..., T], copies: int) -> Callable[..., T]:
    """``init`` repeated, as parameters with a leading axis of ``copies``, each with its own numbers. Traceable.

    Args:
        init: ``(key, *args)`` to parameters that `sample` makes, always in the same order.
        copies: at least one.
    """

    def stacked(key: jax.Array, *args) -> T:
        def one(numbers):
            with _sampling(_slices_of(numbers)):
                return init(key, *args)

        numbers = {name: sample(name, own, (copies, size)) for name, own, size in _totals(init, key, *args)}
        return jax.vmap(one)(numbers)

    return stacked


def _totals(init, key, *args) -> list[tuple[str, jax.Array, int]]:
    """Each distribution that ``init`` samples from, a key for it and how many numbers it needs."""
    sizes = collections.Counter()

    def count(distribution, _, shape):
        sizes[distribution] += math.prod(shape)
        return jnp.zeros(shape)

    def traced(*args):  # A new function, or jax would reuse an earlier trace of ``init`` and count nothing.
        return init(*args)

    with _sampling(count):
        jax.eval_shape(traced, key, *args)
    return [(name, random.fold_in(key, zlib.crc32(name.encode())), size) for name, size in sizes.items()]


def _slices_of(numbers: dict[str, jax.Array]) -> Sampler:
    """A sampler that hands out consecutive slices of one array for each distribution."""
    used = collections.Counter()

    def take(distribution, _, shape):
        start = used[distribution]
        used[distribution] += math.prod(shape)
        return numbers[distribution][start : used[distribution]].reshape(shape)

    return take


@contextlib.contextmanager
def _sampling(sampler: Sampler) -> Iterator[None]:
    token = _sampler.set(sampler)
    try:
        yield
    finally:
        _sampler.reset(token)
