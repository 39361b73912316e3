# SPDX-License-Identifier: Apache-2.0
"""Adversarial losses on the raw scores of a discriminator that tells target from source.

Scores of source images are trained towards 0, those of target images towards 1, and the
segmentation network moves the target's scores to 0 (DANNet section 3.4, AdaptSegNet section 3).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError

SOURCE, TARGET = 0.0, 1.0
"""What the discriminator is trained to answer."""


def least_squares(scores: jax.Array, wanted: float) -> jax.Array:
    """Mean squared distance to ``wanted`` (LSGAN; DANNet, AdaptSegNet's ``LS``)."""
    return jnp.square(scores.astype(jnp.float32) - wanted).mean()


def vanilla(scores: jax.Array, wanted: float) -> jax.Array:
    """Binary cross-entropy of scores taken as logits (AdaptSegNet's default)."""
    scores = scores.astype(jnp.float32)
    return (jax.nn.softplus(scores) - scores * wanted).mean()


CRITERIA: dict[str, Callable[[jax.Array, float], jax.Array]] = {
    "least_squares": least_squares,
    "vanilla": vanilla,
}


def adversarial_loss(scores_target: jax.Array, *, kind: str = "least_squares") -> jax.Array:
    """Loss of the network whose target outputs shall pass as source.

    Args:
        scores_target: discriminator output of target images, any shape. The caller keeps the
            discriminator's parameters out of the gradient.
        kind: key of ``CRITERIA``.

    Returns:
        Scalar float32.

    Raises:
        UserError: for an unknown kind.
    """
    return _criterion(kind)(scores_target, SOURCE)


def discriminator_loss(scores_source: jax.Array, scores_target: jax.Array, *, kind: str = "least_squares") -> jax.Array:
    """Loss of a discriminator: the mean over both domains.

    Args:
        scores_source: its output for source images, whose gradient stops at its input.
        scores_target: the same for target images.
        kind: key of ``CRITERIA``.

    Returns:
        Scalar float32.

    Raises:
        UserError: for an unknown kind.
    """
    criterion = _criterion(kind)
    return 0.5 * (criterion(scores_source, SOURCE) + criterion(scores_target, TARGET))


def _criterion(kind: str) -> Callable[[jax.Array, float], jax.Array]:
    if kind not in CRITERIA:
        raise UserError(f"unknown adversarial loss '{kind}'; use one of {', '.join(CRITERIA)}")
    return CRITERIA[kind]
