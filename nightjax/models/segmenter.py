# SPDX-License-Identifier: Apache-2.0
"""Segmentation networks: what methods may ask of one, and the usual one of a backbone and a head."""

from typing import Any

import jax
from flax import linen as nn

from nightjax.core.stacks import Stack, stacks_of
from nightjax.models.fit import fit_of


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
    """A backbone and a head, with an optional second classifier, optional relighting and an optional pyramid.

    Attributes:
        backbone: module from an image [B, H, W, 3] to a dict of features ``stage1`` ..
        head: module from that dict to logits [B, h, w, K] float32.
        auxiliary: a second head, usually on an earlier stage (PSPNet's ``dsn``, AdaptSegNet's first level), or None.
        relight: relighting in front of the backbone: module from an image to the residual that is added to it, or None.
        pyramid: what makes the features that the heads read, of four sizes, of the backbone's, or None.
    """

    backbone: nn.Module
    head: nn.Module
    auxiliary: nn.Module | None = None
    relight: nn.Module | None = None
    pyramid: nn.Module | None = None

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Those of the backbone, see `core.stacks`."""
        return stacks_of(self.backbone, "backbone")

    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        deterministic: bool | None = None,
        token_mask: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Runs all parts.

        Args:
            x: [B, H, W, 3] float32, normalized.
            train: batch norm uses batch statistics.
            deterministic: True switches dropout and drop path off; the default is ``not train``.
            token_mask: of a backbone with a mask token, see `DinoV2`; None for no masked tokens.

        Returns:
            The backbone's features; ``logits`` [B, h, w, K] float32 at the head's resolution, or at the image's where
            the backbone has padded it; with a second head ``auxiliary_logits``, of the same kind; with relighting its
            ``residual`` [B, H, W, 3] float32.
        """
        outputs, size, fit = {}, x.shape[1:3], fit_of(self.backbone)
        if self.relight is not None:
            outputs["residual"] = self.relight(x, train=train)
            x = x + outputs["residual"]
        masked = {} if token_mask is None else {"token_mask": token_mask}
        features = self.backbone(x, train=train, deterministic=deterministic, **masked)
        outputs |= features
        if self.pyramid is not None:
            features = self.pyramid(features, train=train)
        heads = {"logits": self.head, "auxiliary_logits": self.auxiliary}
        for name, head in heads.items():
            if head is not None:
                logits = head(features, train=train, deterministic=deterministic)
                outputs[name] = logits if fit is None else fit.logits(logits, size)
        return outputs

    def backbone_features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Features of the backbone by stage, [B, h, w, C]; images are not relit."""
        return self.backbone(x, train=False)
