"""Weights by the integer-hash rule of the unit_fid README, where they would be too large to store."""

import zlib

import jax
import numpy as np

from nightjax.interop.torch_weights import from_torch, to_torch


def hashed(k, seed):
    """The README's integer hash of an index array, as uint32."""
    x = np.asarray(k, np.uint32) + np.uint32(seed * 0x9E3779B9 % 2**32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def hashed_weight(name, shape):
    """A parameter by the README's rule, float32."""
    u = hashed(np.arange(np.prod(shape, dtype=np.int64)), zlib.crc32(name.encode())) / 2**32
    if len(shape) > 1:
        u = (2 * u - 1) * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("running_var") or name.endswith("weight"):
        u = 0.5 + u
    else:
        u = 0.2 * (u - 0.5)
    return u.reshape(shape).astype(np.float32)


def hashed_variables(shapes, rename=lambda name: name, change=lambda name, value: value):
    """Variables of these shapes by the rule; ``rename`` gives the official name of ours."""
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    official = {name: rename(name) for name in to_torch(zeros)}
    state = {
        name: change(official[name], hashed_weight(official[name], x.shape)) for name, x in to_torch(zeros).items()
    }
    return from_torch(state, shapes)
