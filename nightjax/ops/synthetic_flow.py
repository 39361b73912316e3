# SPDX-License-Identifier: Apache-2.0
"""Random smooth flows, whose truth is known: what a matcher is trained on without labels."""

import jax
import jax.numpy as jnp

from nightjax.core.types import Size

GRID = 3
"""Control points a side of the bend."""


def random_flow(key: jax.Array, batch: int, size: Size, *, homography: float, bend: float) -> jax.Array:
    """A homography and a smooth bend for every image.

    Args:
        key: random key.
        batch: B.
        size: (H, W).
        homography: largest move of a corner, and
        bend: of a control point of the bend, each along each axis, as shares of the image's sides.

    Returns:
        [B, H, W, 2] float32 (dx, dy) in pixels.
    """
    corner_key, bend_key = jax.random.split(key)
    sides = jnp.asarray(size[::-1], jnp.float32)  # width, height, as flows are (dx, dy)
    draw = lambda key, shape: jax.random.uniform(key, (batch, *shape, 2), minval=-1.0, maxval=1.0)
    corners = homography * sides * draw(corner_key, (4,))
    points = bend * sides * draw(bend_key, (GRID, GRID))
    return homography_flow(corners, size) + jax.image.resize(points, (batch, *size, 2), "cubic")


def homography_flow(corners: jax.Array, size: Size) -> jax.Array:
    """The flow of the homography that moves the image's corners so.

    Solved in closed form for the unit square (Heckbert 1989, section 2.2.3).

    Args:
        corners: [B, 4, 2] (dx, dy) pixels: moves of the top left, top right, bottom right and bottom
            left corner pixels.
        size: (H, W).

    Returns:
        [B, H, W, 2] (dx, dy) pixels.
    """
    height, width = size
    extent = jnp.asarray((width - 1, height - 1), jnp.float32)
    square = jnp.asarray(((0, 0), (1, 0), (1, 1), (0, 1)), jnp.float32)
    p0, p1, p2, p3 = jnp.moveaxis(square + corners / extent, 1, 0)  # each [B, 2]

    right, below, excess = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    cross = lambda a, b: (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])[:, None]
    g, h = cross(excess, below) / cross(right, below), cross(right, excess) / cross(right, below)
    along_x, along_y = p1 - p0 + g * p1, p3 - p0 + h * p3

    u, v = jnp.meshgrid(jnp.linspace(0, 1, width), jnp.linspace(0, 1, height))
    u, v = u[None, ..., None], v[None, ..., None]
    spread = lambda x: x[:, None, None, :]
    moved = spread(along_x) * u + spread(along_y) * v + spread(p0)
    moved = moved / (spread(g) * u + spread(h) * v + 1)
    return (moved - jnp.concatenate(jnp.broadcast_arrays(u, v), axis=-1)) * extent
