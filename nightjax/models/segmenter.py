"""Segmentation networks: what methods may ask of one, and the usual one of a backbone and a head."""

from typing import Any

import jax
from flax import linen as nn

from nightjax.core.stacks import Stack, stacks_of


class SegmentationModel(nn.Module):
    """Base of segmentation networks, with the answers of a network that sees an image once and whole.

    A subclass has ``__call__(x, *, train=False, deterministic=None)``, which returns a dict with ``logits``
    [B, h, w, K] float32. A network that looks at several views of an image, as HRDA does, takes further keyword
    arguments there and overrides the members below.

    Attributes:
        shares_pass: whether images of several domains may be one training pass: False if each pass has a random view.
    """

    shares_pass = True

    @nn.nowrap
    def draw_view(self, key: jax.Array, size: tuple[int, int]) -> dict[str, Any]:
        """Keyword arguments of one training pass.

        Args:
            key: of what is random in them.
            size: (H, W) of the images.
        """
        del key, size
        return {}

    @nn.nowrap
    def context_view(self) -> dict[str, Any]:
        """Keyword arguments of a pass of which only the features and logits of the whole image count."""
        return {}

    def backbone_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Features of the whole image in evaluation mode, for ``apply(..., method="backbone_features")``.

        Args:
            x: [B, H, W, 3] float32, normalized.

        Returns:
            The backbone's features by stage, [B, h, w, C].
        """
        raise NotImplementedError


class Segmenter(SegmentationModel):
    """A backbone and a head, with an optional second classifier and optional relighting.

    Attributes:
        backbone: module from an image [B, H, W, 3] to a dict of features ``stage1`` ..
        head: module from that dict to logits [B, h, w, K] float32.
        auxiliary: a second head, usually on an earlier stage (PSPNet's ``dsn``, AdaptSegNet's first level), or None.
        relight: relighting in front of the backbone: module from an image to the residual that is added to it, or None.
    """

    backbone: nn.Module
    head: nn.Module
    auxiliary: nn.Module | None = None
    relight: nn.Module | None = None

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Those of the backbone, see `core.stacks`."""
        return stacks_of(self.backbone, "backbone")

    def __call__(self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None) -> dict[str, jax.Array]:
        """Runs all parts.

        Args:
            x: [B, H, W, 3] float32, normalized.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout and drop path off; the default is ``not train``.

        Returns:
            The backbone's features; ``logits`` [B, h, w, K] float32 at the head's resolution; with a second head
            ``auxiliary_logits``, of the same kind; with relighting its ``residual`` [B, H, W, 3] float32.
        """
        outputs = {}
        if self.relight is not None:
            outputs["residual"] = self.relight(x, train=train)
            x = x + outputs["residual"]
        features = self.backbone(x, train=train, deterministic=deterministic)
        outputs |= features
        outputs["logits"] = self.head(features, train=train, deterministic=deterministic)
        if self.auxiliary is not None:
            outputs["auxiliary_logits"] = self.auxiliary(features, train=train, deterministic=deterministic)
        return outputs

    def backbone_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """See `SegmentationModel`; images are not relit."""
        return self.backbone(x, train=False)
