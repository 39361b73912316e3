# SPDX-License-Identifier: Apache-2.0
"""pix2pixHD's losses on features of its discriminators and of VGG-19 (arXiv 1711.11585, section 3.3)."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from nightjax.losses.translation import reconstruction_loss

VGG_WEIGHTS = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}
"""Feature of VGG-19 to its weight."""


def feature_matching_loss(fake: Sequence[Sequence[jax.Array]], real: Sequence[Sequence[jax.Array]]) -> jax.Array:
    """Mean over scales of four times the mean over features of the L1 distance.

    Args:
        fake: what the discriminator of each scale gives for generated images: features and, last, scores, which do
            not count.
        real: the same for real images; gets no gradient.

    Returns:
        Scalar float32.
    """
    distances = [
        4.0
        / (len(ours) - 1)
        * sum(reconstruction_loss(x, jax.lax.stop_gradient(y)) for x, y in zip(ours[:-1], theirs[:-1], strict=True))
        for ours, theirs in zip(fake, real, strict=True)
    ]
    return jnp.asarray(sum(distances)) / len(distances)


def vgg_loss(fake: Mapping[str, jax.Array], real: Mapping[str, jax.Array]) -> jax.Array:
    """Weighted sum of the L1 distances of VGG-19's features.

    Args:
        fake: of generated images, holds the keys of `VGG_WEIGHTS`.
        real: the same of real images; gets no gradient.

    Returns:
        Scalar float32.
    """
    distances = {name: reconstruction_loss(fake[name], jax.lax.stop_gradient(real[name])) for name in VGG_WEIGHTS}
    return jnp.float32(sum(VGG_WEIGHTS[name] * value for name, value in distances.items()))
