# SPDX-License-Identifier: Apache-2.0
"""What all segmentation heads share."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.blocks import classify
from nightjax.models.layers import Dropout2d


class Head(nn.Module):
    """Base of the heads: fuse the features, drop channels, classify.

    A subclass says in `fuse` how it makes one map of the backbone's features, and where its classifier is not
    mmsegmentation's, in `classify` what reads that map.

    Attributes:
        num_classes: K.
        dropout: rate at which whole channels are zeroed before the classifier.
        dtype: compute dtype; logits are float32.
    """

    num_classes: int
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: Mapping[str, jax.Array], *, train: bool = False, deterministic: bool | None = None
    ) -> jax.Array:
        """Logits of features.

        What the classifier reads, before dropout, is sown as ``penultimate`` in the collection ``intermediates``.

        Args:
            features: by stage, [B, h, w, C], each with its own size.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout off; the default is ``not train``.

        Returns:
            [B, h, w, K] float32, at the resolution of the finest feature that the head reads.
        """
        x = self.fuse(features, train)
        self.sow("intermediates", "penultimate", x)
        x = Dropout2d(self.dropout)(x, deterministic=not train if deterministic is None else deterministic)
        return self.classify(x)

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads; called inside the compact ``__call__``."""
        raise NotImplementedError

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map; called inside the compact ``__call__``."""
        return classify(x, self.num_classes, self.dtype)
