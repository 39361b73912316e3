# SPDX-License-Identifier: Apache-2.0
"""Supervised training of one segmenter: its examples and its loss, shared by supervised training and NightLab's
levels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nightjax.core.types import Batch, PyTree, Variables
from nightjax.losses.light import light_loss
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import RandomKeys, SegmentationNetwork, deinterleave, interleave
from nightjax.methods.parts.photometric import Photometric


@dataclasses.dataclass(frozen=True)
class RelightWeights:
    """Weights of DANNet's light loss where a supervised network relights its images.

    They are NightLab's as reconstructed; its paper's are unknown.

    Attributes:
        night, day: of the domains ``source`` (the night) and ``day``.
    """

    night: float = 0.01
    day: float = 1.0


@dataclasses.dataclass(frozen=True)
class Supervision:
    """How labeled images train a segmenter.

    Attributes:
        network: the segmenter.
        domains: labeled domains of a batch, one image of each in turn.
        loss: of the segmentation.
        relight: weights of the light loss, for networks that relight.
        photometric: augmentation of the images, or None.
    """

    network: SegmentationNetwork
    domains: tuple[str, ...]
    loss: SegmentationLoss
    relight: RelightWeights
    photometric: Photometric | None

    def augmented(self, image: jax.Array, keys: RandomKeys, domain: str) -> jax.Array:
        """A domain's images [B, H, W, 3] in [0, 1] after augmentation."""
        if self.photometric is None:
            return image
        return self.photometric(image, keys("photometric" if domain == "source" else f"photometric_{domain}"))

    def examples(self, batch: Batch, keys: RandomKeys) -> dict[str, dict[str, jax.Array]]:
        """Augmented images in [0, 1] and labels, by domain."""
        images = self.network.decode(batch)
        return {
            domain: {
                "image": self.augmented(images[domain]["image"], keys, domain),
                "label": batch[domain]["label"],
            }
            for domain in self.domains
        }

    def level(self, examples: dict[str, dict[str, jax.Array]]) -> jax.Array:
        """Mean of the normalized night images, which the light loss pulls every domain to."""
        return self.network.input.normalize(examples["source"]["image"]).mean()

    def __call__(
        self, variables: Variables, part: dict[str, Any], level: jax.Array, keys: RandomKeys
    ) -> tuple[jax.Array, dict[str, jax.Array], PyTree]:
        """The loss on one microbatch.

        Args:
            variables: of the segmenter, its parameters those of the gradient.
            part: a microbatch of `examples`.
            level: of the whole batch.
            keys: of the student's random streams.

        Returns:
            The weighted sum; its terms, where there is more than one; the new running statistics.
        """
        image, label = (interleave([part[name][field] for name in self.domains]) for field in ("image", "label"))
        outputs, stats = self.network.student_pass(variables, image, keys, "source")
        weight, scalars = self.loss.label_weight(label), {}
        loss = self.loss(outputs, label, weight)
        if "auxiliary_logits" in outputs or "residual" in outputs:
            scalars["segmentation"] = loss
        if "auxiliary_logits" in outputs:
            scalars["auxiliary"] = self.loss({"logits": outputs["auxiliary_logits"]}, label, weight)
            loss += self.loss.auxiliary * scalars["auxiliary"]
        if "residual" in outputs:
            weights = {"source": self.relight.night, "day": self.relight.day}
            seen = self.network.input.normalize(image)
            pairs = (deinterleave(x, len(self.domains)) for x in (seen, outputs["residual"]))
            for name, own, residual in zip(self.domains, *pairs, strict=True):
                scalars[f"light_{name}"] = light_loss(own, residual, level)["total"]
                loss += weights[name] * scalars[f"light_{name}"]
        return loss, scalars, stats

    def visualizations(self, variables: Variables, batch: Batch, keys: RandomKeys) -> dict[str, jax.Array]:
        """Images, what augmentation and relighting make of them, truth and prediction."""
        decoded = self.network.input.decode(batch["source"]["image"])
        shown = {"image": batch["source"]["image"], "augmented": self.augmented(decoded, keys, "source")}
        outputs = self.network.outputs(variables, decoded)
        if "residual" in outputs:
            seen = self.network.input.normalize(decoded)
            shown["relit"] = self.network.input.denormalize(seen + outputs["residual"])
        prediction = outputs["logits"].argmax(-1).astype(jnp.uint8)
        return shown | {"truth": batch["source"]["label"], "prediction": prediction}
