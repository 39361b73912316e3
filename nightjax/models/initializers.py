"""Random initial weights: the laws of the published systems, and all weights of a state drawn together."""

import collections
import contextlib
import contextvars
import math
import zlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import random

T = TypeVar("T")
Shape = tuple[int, ...]
Initializer = Callable[..., jax.Array]
"""``(key, shape, dtype=float32)`` to an array, as flax calls it."""

LAWS: dict[str, Callable[[jax.Array, Shape], jax.Array]] = {
    "normal": random.normal,
    "truncated_normal": lambda key, shape: random.truncated_normal(key, -2.0, 2.0, shape),
    "uniform": lambda key, shape: random.uniform(key, shape, minval=-1.0, maxval=1.0),
}

_draw = contextvars.ContextVar("draw", default=lambda law, key, shape: LAWS[law](key, shape))


def _scaled(law: str, scale: Callable[[Shape], float]) -> Initializer:
    def init(key, shape, dtype=jnp.float32):
        return (scale(shape) * _draw.get()(law, key, tuple(shape))).astype(dtype)

    return init


def normal(stddev: float) -> Initializer:
    """Normal of mean 0."""
    return _scaled("normal", lambda shape: stddev)


def truncated_normal(stddev: float) -> Initializer:
    """Normal of mean 0 cut at two standard deviations, which makes its own smaller, as torch's ``trunc_normal_`` is."""
    return _scaled("truncated_normal", lambda shape: stddev)


def uniform(limit: float) -> Initializer:
    """Uniform in [-limit, limit]."""
    return _scaled("uniform", lambda shape: limit)


he_normal = _scaled("normal", lambda shape: math.sqrt(2 / math.prod(shape[:-1])))
"""Normal of variance 2 / fan in, for kernels [..., I, O]."""

lecun_uniform = _scaled("uniform", lambda shape: math.sqrt(3 / math.prod(shape[:-1])))
"""Uniform of variance 1 / fan in, for kernels [..., I, O]."""

torch_uniform = _scaled("uniform", lambda shape: math.prod(shape[:-1]) ** -0.5)
"""torch's default for kernels [..., I, O]: uniform up to 1 / sqrt(fan in). Its biases are ``uniform(fan_in**-0.5)``."""


def drawn_together(init: Callable[[], T], key: jax.Array) -> T:
    """``init()``, with one draw for each law instead of one for each weight. Traceable.

    The laws stay the same. What changes is the time to compile: one by one, the weights of a MiT-B5 are 750 loops.
    A weight depends on the key and on the weights of its law before it, not on those after it.

    Args:
        init: makes weights with initializers of this module, always the same ones in the same order.
        key: of all weights.
    """
    sizes = collections.Counter()

    def count(law, _, shape):
        sizes[law] += math.prod(shape)
        return jnp.zeros(shape)

    with _drawing(count):
        jax.eval_shape(init)
    drawn = {law: LAWS[law](random.fold_in(key, zlib.crc32(law.encode())), (size,)) for law, size in sizes.items()}
    drawn = jax.lax.optimization_barrier(drawn)  # or the compiler repeats a draw in all that read a part of it
    used = collections.Counter()

    def take(law, _, shape):
        start = used[law]
        used[law] += math.prod(shape)
        return drawn[law][start : used[law]].reshape(shape)

    with _drawing(take):
        return init()


@contextlib.contextmanager
def _drawing(draw: Callable[[str, jax.Array, Shape], jax.Array]) -> Iterator[None]:
    token = _draw.set(draw)
    try:
        yield
    finally:
        _draw.reset(token)
