# SPDX-License-Identifier: Apache-2.0
"""Losses of image translators (UNIT, arXiv 1703.00848 and its 2018 release).

Adversarial losses are *summed* over the scales of a discriminator, not averaged.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from nightjax.core.config import choose
from nightjax.losses.adversarial import CRITERIA
from nightjax.ops.instance_norm import instance_norm

FAKE, REAL = 0.0, 1.0
"""What a discriminator is trained to answer."""

CAFFE_MEAN_BGR = (103.939, 116.779, 123.680)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def reconstruction_loss(image: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute difference of two arrays of one shape, scalar float32."""
    return jnp.abs(image.astype(jnp.float32) - target.astype(jnp.float32)).mean()


def code_loss(code: jax.Array) -> jax.Array:
    """Mean square of a code: the KL divergence from N(code, I) to N(0, I) up to a constant factor.

    Args:
        code: any shape; the mean of the code (2018), or a sample of it (2017).

    Returns:
        Scalar float32.
    """
    return jnp.square(code.astype(jnp.float32)).mean()


def generator_loss(scores: Sequence[jax.Array], kind: str = "least_squares") -> jax.Array:
    """Loss of a generator whose images shall pass as real, summed over scales.

    Args:
        scores: a discriminator's scores of translated images, [B, h, w, 1] for each scale.
        kind: key of ``losses.adversarial.CRITERIA``: ``"least_squares"`` (LSGAN) or ``"vanilla"`` (NSGAN, on logits).

    Returns:
        Scalar float32.

    Raises:
        UserError: unknown kind.
    """
    criterion = choose(CRITERIA, kind, "method.adversarial")
    return jnp.asarray(sum(criterion(score, REAL) for score in scores))


def discriminator_loss(fake: Sequence[jax.Array], real: Sequence[jax.Array], kind: str = "least_squares") -> jax.Array:
    """Loss of a discriminator, summed over scales and over its answers to translated and to real images.

    Args:
        fake, real: its scores, [B, h, w, 1] for each scale.
        kind: see `generator_loss`.

    Returns:
        Scalar float32.

    Raises:
        UserError: unknown kind.
    """
    criterion = choose(CRITERIA, kind, "method.adversarial")
    return jnp.asarray(sum(criterion(f, FAKE) + criterion(r, REAL) for f, r in zip(fake, real, strict=True)))


def caffe_bgr(image: jax.Array) -> jax.Array:
    """[-1, 1] RGB to BGR in [0, 255] minus the mean: the input of weights that come from Caffe."""
    return (image[..., ::-1] + 1.0) * 127.5 - jnp.asarray(CAFFE_MEAN_BGR)


def imagenet_rgb(image: jax.Array) -> jax.Array:
    """[-1, 1] RGB to zero mean and unit variance on ImageNet: the input of torchvision's weights."""
    return ((image + 1.0) / 2.0 - jnp.asarray(IMAGENET_MEAN)) / jnp.asarray(IMAGENET_STD)


PIXELS = {"caffe_bgr": caffe_bgr, "imagenet_rgb": imagenet_rgb}
"""How [-1, 1] pixels enter a frozen network, by the origin of its weights, which must not be mixed."""


def perceptual_loss(features: Callable[[jax.Array], jax.Array], image: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared difference of instance-normalized features.

    The normalization removes each channel's mean and contrast: a global darkening is nearly free, structure is tied
    down. It is 0 for equal images and at most 4.

    Args:
        features: frozen network, [B, H, W, 3] to [B, h, w, C].
        image, target: [B, H, W, 3], as ``features`` wants them.

    Returns:
        Scalar float32.
    """
    normalized = [instance_norm(features(x).astype(jnp.float32)) for x in (image, target)]
    return jnp.square(normalized[0] - normalized[1]).mean()
