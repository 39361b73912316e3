"""Random numbers of the weights of a state, drawn together."""

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

LAWS: dict[str, Callable[[jax.Array, Shape], jax.Array]] = {
    "normal": random.normal,
    "uniform": lambda key, shape: random.uniform(key, shape, minval=-1.0, maxval=1.0),
}

_source = contextvars.ContextVar("source", default=lambda law, key, shape: LAWS[law](key, shape))


def draw(law: str, key: jax.Array, shape: Shape) -> jax.Array:
    """float32 numbers of a law of `LAWS`; within `drawn_together` the next ones of its draw, whatever the key."""
    return _source.get()(law, key, shape)


def drawn_together(init: Callable[..., T]) -> Callable[..., T]:
    """``init`` with one draw for each law instead of one for each weight. Traceable.

    The laws stay the same. What changes is the time to compile: one by one, the weights of a MiT-B5 are 750 loops.
    A weight depends on the key and on the weights of its law before it, not on those after it.

    Args:
        init: ``(key, *args)`` to weights, always in the same order; those not made by `draw` stay as they are.
    """

    @functools.wraps(init)
    def together(key: jax.Array, *args) -> T:
        drawn = _all_draws(LAWS.__getitem__, init, key, *args)
        drawn = jax.lax.optimization_barrier(drawn)  # or the compiler repeats a draw in all that read a part of it
        with _drawing(_taken_from(drawn)):
            return init(key, *args)

    return together


def drawn_copies(init: Callable[..., T], copies: int) -> Callable[..., T]:
    """``init`` many times over, as weights with a leading axis of ``copies``, each with numbers of its own. Traceable.

    Args:
        init: ``(key, *args)`` to weights that `draw` makes, always in the same order.
        copies: at least one.
    """

    def several(key: jax.Array, *args) -> T:
        def one(drawn):
            with _drawing(_taken_from(drawn)):
                return init(key, *args)

        each = lambda law: lambda key, shape: draw(law, key, (copies, *shape))
        return jax.vmap(one)(_all_draws(each, init, key, *args))

    return several


def _all_draws(law_of, init, key, *args):
    """The numbers of each law that ``init`` draws, in one array."""
    sizes = collections.Counter()

    def count(law, _, shape):
        sizes[law] += math.prod(shape)
        return jnp.zeros(shape)

    with _drawing(count):
        jax.eval_shape(
            lambda *args: init(*args), key, *args
        )  # a function of its own, or a trace of before is taken for this
    return {law: law_of(law)(random.fold_in(key, zlib.crc32(law.encode())), (size,)) for law, size in sizes.items()}


def _taken_from(drawn):
    used = collections.Counter()

    def take(law, _, shape):
        start = used[law]
        used[law] += math.prod(shape)
        return drawn[law][start : used[law]].reshape(shape)

    return take


@contextlib.contextmanager
def _drawing(source: Callable[[str, jax.Array, Shape], jax.Array]) -> Iterator[None]:
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)
