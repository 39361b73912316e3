"""A segmentation network with a second classifier on an earlier stage."""

import jax
from flax import linen as nn


class AuxiliarySegmenter(nn.Module):
    """Two classifiers on one backbone: PSPNet with ``dsn``, AdaptSegNet's DeepLab-v2.

    Attributes:
        backbone: module from an image [B, H, W, 3] to a dict of features ``stage1`` ..
        head: module from that dict to logits [B, h, w, K] float32.
        auxiliary: the same for an earlier stage.
        light: light adaptation as in ``Segmenter``, or None.
    """

    backbone: nn.Module
    head: nn.Module
    auxiliary: nn.Module
    light: nn.Module | None = None

    def __call__(self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None) -> dict[str, jax.Array]:
        """Runs all.

        Args:
            x: [B, H, W, 3] float32, normalised.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout off; the default is ``not train``.

        Returns:
            The backbone's features, ``logits`` and ``auxiliary_logits``, [B, h, w, K] float32, and with light
            adaptation its ``residual`` [B, H, W, 3] float32.
        """
        options = {"train": train, "deterministic": deterministic}
        residual = {} if self.light is None else {"residual": self.light(x, train=train)}
        features = self.backbone(x + residual.get("residual", 0.0), **options)
        return {
            **features,
            **residual,
            "logits": self.head(features, **options),
            "auxiliary_logits": self.auxiliary(features, **options),
        }
