# SPDX-License-Identifier: Apache-2.0
"""Named random generators and hash noise: every number of a scene is a function of an integer seed and a name."""

import zlib

import numpy as np

STEP_X, STEP_Y, FACTOR = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0x2C1B3C6D)
SHIFT_1, SHIFT_2, SHIFT_3 = np.uint32(15), np.uint32(12), np.uint32(8)
SCALE = np.float32(2.0**-24)


def named_generator(seed: int, name: str) -> np.random.Generator:
    """PCG64 generator of a seed and a name.

    Args:
        seed: non-negative integer.
        name: such as ``"layout"``; generators of different names are independent, so drawing more numbers from one
            does not change the others.
    """
    key = zlib.crc32(name.encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,))))


def hash_unit(ix: np.ndarray, iy: np.ndarray, seed: int) -> np.ndarray:
    """Integer lattice points to float32 in [0, 1): a 32-bit mix in wrapping uint32 arithmetic."""
    return _mix(_lattice(ix) * STEP_X, _lattice(iy) * STEP_Y, seed)


def value_noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Smooth noise in [0, 1) with one lattice cell a unit; float32 arrays of one shape."""
    fx, fy = np.floor(x), np.floor(y)
    left, low = _lattice(fx) * STEP_X, _lattice(fy) * STEP_Y
    right, high = left + STEP_X, low + STEP_Y
    u, v = x - fx, y - fy
    u *= u * (3 - 2 * u)
    v *= v * (3 - 2 * v)
    below = _mix(left, low, seed)
    below += u * (_mix(right, low, seed) - below)
    above = _mix(left, high, seed)
    above += u * (_mix(right, high, seed) - above)
    above -= below
    above *= v
    return below + above


def _lattice(index: np.ndarray) -> np.ndarray:
    return index.astype(np.int32).view(np.uint32)


def _mix(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    h = x ^ y
    h += np.uint32(seed * 0xC2B2AE3D & 0xFFFFFFFF)
    h ^= h >> SHIFT_1
    h *= FACTOR
    h ^= h >> SHIFT_2
    h >>= SHIFT_3
    return h.astype(np.float32) * SCALE
