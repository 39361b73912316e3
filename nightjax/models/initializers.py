# SPDX-License-Identifier: Apache-2.0
"""Random initial weights from the distributions of the published systems."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nightjax.core.fused_init import Shape, sample

Initializer = Callable[..., jax.Array]
"""``(key, shape, dtype=float32)`` to an array, as flax calls it."""


def _scaled(distribution: str, scale: Callable[[Shape], float]) -> Initializer:
    def init(key, shape, dtype=jnp.float32):
        return (scale(shape) * sample(distribution, key, tuple(shape))).astype(dtype)

    return init


def normal(stddev: float) -> Initializer:
    """Normal of mean 0."""
    return _scaled("normal", lambda shape: stddev)


def uniform(limit: float) -> Initializer:
    """Uniform in [-limit, limit]."""
    return _scaled("uniform", lambda shape: limit)


he_normal = _scaled("normal", lambda shape: math.sqrt(2 / math.prod(shape[:-1])))
"""Normal of variance 2 / fan in, for kernels [..., I, O]."""

he_uniform = _scaled("uniform", lambda shape: math.sqrt(6 / math.prod(shape[:-1])))
"""Uniform of variance 2 / fan in, for kernels [..., I, O]."""

lecun_uniform = _scaled("uniform", lambda shape: math.sqrt(3 / math.prod(shape[:-1])))
"""Uniform of variance 1 / fan in, for kernels [..., I, O]."""

torch_uniform = _scaled("uniform", lambda shape: math.prod(shape[:-1]) ** -0.5)
"""torch's default for kernels [..., I, O]: uniform up to 1 / sqrt(fan in). Its biases are ``uniform(fan_in**-0.5)``."""
