# SPDX-License-Identifier: Apache-2.0
"""The pulling loss of T2S-DA and its dynamic class weights (arXiv 2305.13752).

The structure is the paper's figure; the formulas and constants are ours, since its body and code could not be read.
"""

import jax
import jax.numpy as jnp

from nightjax.ops.prototypes import unit_vectors


def info_nce(query: jax.Array, positive: jax.Array, negatives: jax.Array, temperature: float) -> jax.Array:
    """``-log(e^(q.p/t) / (e^(q.p/t) + sum_j e^(q.n_j/t)))`` of unit vectors.

    Args:
        query: [..., M, C], any length.
        positive: [..., C], shared by the M queries.
        negatives: [..., N, C] shared by them, or [..., M, N, C].
        temperature: t.

    Returns:
        [..., M] float32; its floor is ``ln(1 + N e^(-2/t))``.
    """
    query, positive, negatives = unit_vectors(query), unit_vectors(positive), unit_vectors(negatives)
    shared = negatives.ndim == query.ndim
    highest = jax.lax.Precision.HIGHEST
    positive_similarity = jnp.einsum("...mc,...c->...m", query, positive, precision=highest)
    pattern = "...mc,...nc->...mn" if shared else "...mc,...mnc->...mn"
    negative_similarity = jnp.einsum(pattern, query, negatives, precision=highest)
    # As a softplus: a sum that begins with the positive's 1 would round the last digits of a small loss away.
    negatives_term = jax.nn.logsumexp(negative_similarity / temperature, axis=-1)
    return jax.nn.softplus(negatives_term - positive_similarity / temperature)


def pull_loss(
    query: jax.Array,
    prototype: jax.Array,
    negatives: jax.Array,
    present: jax.Array,
    weight: jax.Array,
    *,
    temperature: float = 0.2,
) -> jax.Array:
    """Pulls queries of each class to its prototype and away from negatives; gradient through the queries alone.

    Args:
        query: [K, M, C].
        prototype: [K, C].
        negatives: [K, N, C], or [K, M, N, C] for a set a query.
        present: [K] bool, the classes that count.
        weight: [K] float32.
        temperature: see `info_nce`.

    Returns:
        Scalar float32: the mean over present classes of ``weight`` times their mean loss; 0 with zero gradient without
            any.
    """
    fixed = jax.lax.stop_gradient((prototype, negatives))
    loss = info_nce(query, *fixed, temperature).mean(axis=-1)
    return jnp.where(present, weight * loss, 0.0).sum() / jnp.maximum(present.sum(), 1)


def confidence_weights(confidence: jax.Array, exponent: float = 0.5, *, present_only: bool = False) -> jax.Array:
    """Weight of each class: the less confident the teacher, the more.

    Args:
        confidence: s, [K] in [0, 1]; 0 for classes never predicted.
        exponent: b; 0 gives every class weight 1.
        present_only: the maximum below is over classes once predicted; by default a class never predicted sets it to 1.

    Returns:
        ``((1 - s) / max_j(1 - s_j))^b`` [K] float32 in [0, 1]; 1 where that maximum is 0.
    """
    doubt = 1.0 - confidence.astype(jnp.float32)
    counted = (confidence > 0) | (not present_only)
    most = jnp.max(jnp.where(counted, doubt, 0.0))
    relative = jnp.where(most > 0, doubt / jnp.where(most > 0, most, 1.0), 1.0)
    return jnp.clip(relative, 0.0, 1.0) ** exponent


def update_confidence(confidence: jax.Array, mean: jax.Array, present: jax.Array, decay: float = 0.99) -> jax.Array:
    """``decay * confidence + (1 - decay) * mean`` of the present classes; the others stay. All [K]."""
    return jnp.where(present, decay * confidence + (1.0 - decay) * mean, confidence)


def running_means(
    means: jax.Array, seen: jax.Array, mean: jax.Array, present: jax.Array, decay_max: float
) -> tuple[jax.Array, jax.Array]:
    """Running class means whose decay warms up from 0: ``min(1 - 1 / t, decay_max)`` at a class's t-th sight.

    Source: U2PL's optional prototypes.

    Args:
        means: [K, C] float32.
        seen: [K] int32, how often each class was seen.
        mean: [K, C] of the batch.
        present: [K] bool.
        decay_max: cap of the decay.

    Returns:
        The new means and counts; classes not present keep theirs.
    """
    seen = seen + present
    rate = jnp.maximum(1.0 / jnp.maximum(seen, 1), 1.0 - decay_max)[:, None]
    return jnp.where(present[:, None], (1.0 - rate) * means + rate * mean, means), seen
