"""A segmentation network: a backbone and a head."""

import jax
from flax import linen as nn


class Segmenter(nn.Module):
    """Logits and features of an image.

    Attributes:
        backbone: module from an image [B, H, W, 3] to a dict of features ``stage1`` ..
        head: module from that dict to logits [B, h, w, K] float32.
        light: light adaptation in front of the backbone: module from an image to the residual that is added to it, or
            None.
    """

    backbone: nn.Module
    head: nn.Module
    light: nn.Module | None = None

    def __call__(self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None) -> dict[str, jax.Array]:
        """Runs both.

        Args:
            x: [B, H, W, 3] float32, normalised.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout and drop path off; the default is ``not train``.

        Returns:
            The backbone's features, ``logits`` [B, h, w, K] float32 at the head's resolution, and with light
            adaptation its ``residual`` [B, H, W, 3] float32.
        """
        options = {"train": train, "deterministic": deterministic}
        residual = {} if self.light is None else {"residual": self.light(x, train=train)}
        features = self.backbone(x + residual.get("residual", 0.0), **options)
        return {**features, **residual, "logits": self.head(features, **options)}
