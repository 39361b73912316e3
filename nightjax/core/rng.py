# SPDX-License-Identifier: Apache-2.0
"""Random keys as a function of (seed, step, stream), so that no key is ever stored in a checkpoint."""

import zlib

import jax


def stream_key(seed: int, step: jax.Array | int, name: str) -> jax.Array:
    """Key of one named random stream at one step.

    Args:
        seed: integer seed of the run.
        step: scalar step, traced or not.
        name: stream name, such as ``"mix"`` or ``"dropout"``; distinct names give independent streams.

    Returns:
        A typed key, equal for equal arguments on any number of devices or processes.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)
