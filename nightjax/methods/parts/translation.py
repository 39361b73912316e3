# SPDX-License-Identifier: Apache-2.0
"""Translation of the source into pseudo-target images (T2S-DA)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from nightjax.core.modules import apply, init
from nightjax.core.ranges import Share
from nightjax.core.types import Variables
from nightjax.methods.parts.network import RandomKeys
from nightjax.methods.parts.photometric import ColorJitter, Photometric
from nightjax.models.style import EMBEDDING, StyleRandomizer
from nightjax.ops.fourier import adapt_within, fourier_adapt

JITTER = Photometric(ColorJitter(probability=1.0), blur=None)


@dataclasses.dataclass(frozen=True)
class Translation:
    """How source images take on another look and keep their labels.

    Attributes:
        kind: ``"fda"`` (Fourier domain adaptation) or ``"style"`` (the style randomizer, whose published weights
            ``train.frozen.style`` names).
        beta: side of the exchanged low frequencies, see `fourier_adapt`.
        style_strength: share of the random style in the style's embedding.
        weight: of a cross-entropy on the translated images.
    """

    kind: Literal["fda", "style"] = "fda"
    beta: Share = 0.01
    style_strength: Share = 0.5
    weight: float = 0.0

    def init(self, key: jax.Array, image: jax.Array) -> dict[str, Variables]:
        """The frozen networks of the translation, for images like ``image`` [1, H, W, 3]."""
        if self.kind != "style":
            return {}
        return {"style": init(StyleRandomizer(), key, image, jnp.zeros((1, EMBEDDING)))}

    def to_target(
        self, frozen: dict[str, Variables], source: jax.Array, target: jax.Array, keys: RandomKeys
    ) -> jax.Array:
        """Source images in the look of the batch's target images, both [B, H, W, 3] float32 in [0, 1]."""
        if self.kind == "style":
            return self.stylize(frozen, source, keys)
        return fourier_adapt(source, target, self.beta)

    def at_random(self, frozen: dict[str, Variables], source: jax.Array, keys: RandomKeys) -> jax.Array:
        """Source images [B, H, W, 3] in another look, without a target.

        The fallback without the randomizer's weights takes the low-frequency amplitude of another source image of the
        batch and jitters the colors.
        """
        if self.kind == "style":
            return self.stylize(frozen, source, keys)
        return JITTER(adapt_within(source, keys("other"), self.beta), keys("jitter"))

    def stylize(self, frozen: dict[str, Variables], image: jax.Array, keys: RandomKeys) -> jax.Array:
        """Each image [B, H, W, 3] in a random style."""
        noise = jax.random.normal(keys("style"), (image.shape[0], EMBEDDING))
        return apply(StyleRandomizer(), frozen["style"], image, noise, strength=self.style_strength)
