# SPDX-License-Identifier: Apache-2.0
"""From logits at the network's size to labels at the image's: bilinear growth and decision, a few rows at a time.

The columns of a chunk of logits are grown first. Then every row of the output mixes two of these rows and is decided
at once, so the logits of all pixels never exist: a band of rows stays in the processor's cache. Nothing is turned into
probabilities that is not asked for, because the likeliest class is that of the largest logit.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from nightjax.core.types import Size
from nightjax.ops.largest import largest

Wanted = Literal["label", "confidence", "probabilities"]
"""What to compute: the label alone, or the confidence too, or the probabilities of all classes as well."""

CHUNK_VALUES = 2**24
"""How many values (64 MiB) the logits with grown columns may have; more are made in several chunks of rows, so that a
photo of 100 megapixels needs no array of all its classes."""

BAND_VALUES = 2**19
"""How many logits (2 MiB) are decided at a time."""


@functools.partial(jax.jit, static_argnames=("output", "least", "wanted", "temperature"))
def decide(
    scores: Sequence[jax.Array], extent: jax.Array, output: Size, least: int, wanted: Wanted, temperature: float = 1.0
) -> tuple[jax.Array, ...]:
    """Decides every pixel of an image.

    One map is decided by its logits, resized bilinearly with half-pixel centers. Several, of other scales or of the
    mirror image, become probabilities, which are averaged (mmseg's test-time augmentation).

    Args:
        scores: logits float32 [h, w, K]; sizes may differ.
        extent: float32 [2], (height, width) of the image in pixels of the output.
        output: (height, width) of the result, which may reach beyond the extent and repeats its border there.
        least: height of the smallest extent that this program is called with.
        wanted: what to compute.
        temperature: that logits are divided by for confidence and probabilities, or the logarithm of the average is;
            the label stays the same.

    Returns:
        label uint8 [H, W], then confidence float32 [H, W] and probabilities float32 [H, W, K] if wanted, where W is the
        output's and H is at least so, because the last band is a full one.
    """
    (height, width), classes = output, scores[0].shape[-1]
    band = math.ceil(height / math.ceil(height / max(BAND_VALUES // (width * classes), 1)))  # All about as high.
    held = CHUNK_VALUES // (width * classes * len(scores))
    chunk = height
    for score in scores:  # As many rows as grow from the logits that may be held.
        if held < len(score):
            chunk = min(chunk, max(held - 4, 0) * least // len(score) + 1)
    chunk = max(chunk // band, 1) * band if chunk < height else math.ceil(height / band) * band

    def decided(first: jax.Array | int) -> tuple[jax.Array, ...]:
        """The rows from ``first`` to ``first + chunk``."""
        parts = [_Part(score, extent, width, first, chunk, least) for score in scores]
        rows = jax.lax.map(
            lambda top: _decide([part.rows(top, band) for part in parts], wanted, temperature),
            first + jnp.arange(0, chunk, band),
        )
        return jax.tree.map(_joined, rows)

    if chunk >= height:
        return decided(0)
    return jax.tree.map(_joined, jax.lax.map(decided, jnp.arange(0, height, chunk)))


class _Part:
    """The logits that a chunk of rows grows from, their columns already grown: float32 [n, K, W]."""

    def __init__(self, score: jax.Array, extent: jax.Array, width: int, first: jax.Array | int, chunk: int, least: int):
        self._length, self._extent = len(score), extent[0]
        count = min(math.ceil((chunk - 1) * len(score) / least) + 3, len(score))
        begin, _, _ = _places(first, 1, self._length, self._extent)
        self._start = jnp.minimum(begin[0], self._length - count)
        part = jnp.moveaxis(jax.lax.dynamic_slice_in_dim(score, self._start, count), 2, 1)
        before, after, share = _places(0, width, score.shape[1], extent[1])
        part = (1 - share) * jnp.take(part, before, 2, mode="clip") + share * jnp.take(part, after, 2, mode="clip")
        self._grown = jax.lax.optimization_barrier(part)  # Else it would be grown again for every row.

    def rows(self, first: jax.Array, count: int) -> jax.Array:
        """Logits float32 [count, K, W] of the output's rows from ``first`` on."""
        before, after, share = _places(first, count, self._length, self._extent)
        above, below = (jnp.take(self._grown, index - self._start, 0, mode="clip") for index in (before, after))
        return (1 - share[:, None, None]) * above + share[:, None, None] * below


def _decide(logits: list[jax.Array], wanted: Wanted, temperature: float) -> tuple[jax.Array, ...]:
    """Label, and what else is wanted, of some rows from their logits [rows, K, W] by every view."""
    if len(logits) > 1:
        average = jnp.asarray(sum(jax.nn.softmax(view, axis=1) for view in logits)) / len(logits)
        label, confidence = largest(average, axis=1)
        if temperature != 1:
            average = jax.nn.softmax(jnp.log(average) / temperature, axis=1)
            confidence = average.max(axis=1)
    else:
        label, top = largest(logits[0], axis=1)
        if wanted == "label":
            return (label,)
        (scaled,) = logits
        if temperature != 1:
            scaled, top = scaled / temperature, top / temperature
        confidence = 1 / sum(jnp.exp(scaled[:, k] - top) for k in range(scaled.shape[1]))
        average = jax.nn.softmax(scaled, axis=1)
    results = {"label": label, "confidence": confidence, "probabilities": jnp.moveaxis(average, 1, 2)}
    return tuple(results.values())[: list(results).index(wanted) + 1]


def _places(
    first: jax.Array | int, count: int, length: int, extent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which two of ``length`` cells each place mixes, and the share of the second."""
    source = jnp.clip((first + jnp.arange(count) + 0.5) * (length / extent) - 0.5, 0.0, length - 1)
    before = jnp.floor(source).astype(jnp.int32)
    return before, jnp.minimum(before + 1, length - 1), source - before


def _joined(part: jax.Array) -> jax.Array:
    """[n, rows, ...] as [n * rows, ...]."""
    return part.reshape(-1, *part.shape[2:])
