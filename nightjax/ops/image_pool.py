# SPDX-License-Identifier: Apache-2.0
"""CycleGAN's pool of past translations, which discriminators see again (arXiv 1612.07828, section 2.3)."""

import jax
import jax.numpy as jnp

from nightjax.core.state import ExampleBuffer


class ImagePool(ExampleBuffer):
    """N images in each of S slots; a slot is a pool of its own.

    With one slot it is the official pool. With one slot for each example of the batch, nothing is moved between
    devices: shard axis 1 like the batch.

    Attributes:
        image: [N, S, ...].
        count: scalar int32, how many of the N images of every slot are filled.
    """

    image: jax.Array
    count: jax.Array


def empty_pool(image: jax.Array, size: int) -> ImagePool:
    """A pool of ``size`` images a slot, for S images at a time of the shape and type of ``image`` [S, ...]."""
    return ImagePool(jnp.zeros((size, *image.shape), image.dtype), jnp.zeros((), jnp.int32))


def query(pool: ImagePool, image: jax.Array, swap: jax.Array, index: jax.Array) -> tuple[ImagePool, jax.Array]:
    """What a discriminator is shown instead of fresh translations.

    Until a slot is full, an image is stored and returned. Then, with ``swap``, a stored image is returned and replaced
    by the new one; else the new one is returned.

    Args:
        pool: S slots of N images. With N = 0 the images come back as they are.
        image: [B, ...], B a multiple of S: image i asks slot i % S, one after the other.
        swap: [B] bool.
        index: [B] int32 in [0, N), which stored image.

    Returns:
        The pool and the images to show [B, ...].
    """
    size, slots = pool.image.shape[:2]
    if size == 0:
        return pool, image
    rounds = lambda x: x.reshape(-1, slots, *x.shape[1:])

    def ask(pool, item):
        new, swap, index = item
        place = jnp.where(pool.count < size, pool.count, index)
        chosen = (
            place == jnp.arange(size)[:, None]
        )  # [N, S]; a product instead of a gather keeps slots on their devices
        chosen = chosen.reshape(*chosen.shape, *(1,) * (new.ndim - 1))
        old = jnp.where(chosen, pool.image, 0).sum(0).astype(new.dtype)
        swap = swap.reshape(-1, *(1,) * (new.ndim - 1)) & (pool.count == size)
        stored = chosen & (swap | (pool.count < size))
        filled = ImagePool(jnp.where(stored, new, pool.image), jnp.minimum(pool.count + 1, size))
        return filled, jnp.where(swap, old, new)

    pool, shown = jax.lax.scan(ask, pool, (rounds(image), rounds(swap), rounds(index)))
    return pool, shown.reshape(image.shape)
