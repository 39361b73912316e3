"""A segmentation network: a backbone and a head."""

import jax
from flax import linen as nn


class Segmenter(nn.Module):
    """Logits and features of an image.

    Attributes:
        backbone: module from an image [B, H, W, 3] to a dict of features ``stage1`` ..
        head: module from that dict to logits [B, h, w, K] float32.
    """

    backbone: nn.Module
    head: nn.Module

    def __call__(
        self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None
    ) -> dict[str, jax.Array]:
        """Runs both.

        Args:
            x: [B, H, W, 3] float32, normalised.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout and drop path off; the default is ``not train``.

        Returns:
            The backbone's features, and ``logits`` [B, h, w, K] float32 at the head's resolution.
        """
        features = self.backbone(x, train=train, deterministic=deterministic)
        return {**features, "logits": self.head(features, train=train, deterministic=deterministic)}
