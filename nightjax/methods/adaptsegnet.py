# SPDX-License-Identifier: Apache-2.0
"""AdaptSegNet: adversarial alignment of the output at one or two levels (arXiv 1802.10349)."""

import dataclasses
import functools
from typing import ClassVar, cast

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Players, Training, gradient_step
from nightjax.core.types import Batch, Scalars
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.methods.parts.discriminators import DiscriminatorForm, Discriminators, outputs_of
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.segmenting import Segmenting
from nightjax.models.discriminator import VARIANTS
from nightjax.ops.resize import resize

LEVELS = {"level1": "auxiliary_logits", "level2": "logits"}
"""Discriminator to the network's output it judges; level 1 is the earlier stage."""


@dataclasses.dataclass(frozen=True)
class AdaptSegNet(Segmenting):
    """AdaptSegNet with the official code's settings of the multi-level vanilla GAN.

    A level whose two weights are 0 is not used: the single-level forms have (0, 1) and (0, 0.001), or (0, 0.01) for
    least squares. If the network has an auxiliary classifier all the same, it gets no gradient then: freeze it by a
    group of the optimizer.

    Attributes:
        network: the segmentation network.
        optimizer: of the segmentation network.
        training: of the run.
        class_weights: weight of each class in the cross-entropy, K numbers or a rule of
            `core.class_weights`; None for 1.
        segmentation_weights: of the cross-entropy at level 1 and 2.
        adversarial_weights: of the adversarial loss at level 1 and 2.
        discriminators: one for each level that is used.
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    class_weights: tuple[float, ...] | None = None
    segmentation_weights: tuple[float, float] = (0.1, 1.0)
    adversarial_weights: tuple[float, float] = (0.0002, 0.001)
    discriminators: Discriminators = Discriminators(DiscriminatorForm(**VARIANTS["adaptsegnet"]), kind="vanilla")

    domains: ClassVar[tuple[str, ...]] = ("source", "target")

    def __post_init__(self):
        if "level1" in self._levels() and self.network.model.auxiliary is None:
            raise UserError(
                "AdaptSegNet's level 1 needs a model with an auxiliary classifier, such as deeplab_multi; choose one, "
                "or set the first of method.segmentation_weights and method.adversarial_weights to 0"
            )

    @property
    def discriminator_names(self) -> tuple[str, ...]:
        """The levels that have a discriminator."""
        return tuple(level for level, (_, weight) in self._levels().items() if weight)

    @property
    def players(self) -> Players:
        """The segmentation network, and the discriminators together."""
        return super().players | self.discriminators.players(self.discriminator_names)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        key, discriminator_key = jax.random.split(rng)
        size = batch["source"]["image"].shape[1:]
        student = self.network.init(key, size)
        output = (*size[:2], len(self.network.classes))
        return self.first_state(student, self.discriminators.init(discriminator_key, self.discriminator_names, output))

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        images = self.network.decode(batch)
        examples = {domain: images[domain]["image"] for domain in self.domains} | {"label": batch["source"]["label"]}
        losses = {"student": functools.partial(self.student_loss, state)} | self.discriminators.losses(
            self.discriminator_names
        )
        return gradient_step(state, self.players, losses, examples, self.training)

    def student_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """All terms of the segmentation network on one microbatch; see `core.step.Loss`."""
        scalars, probs, total = {}, {}, 0.0
        variables = {"params": params["student"], "batch_stats": stats["student"]}
        images = {domain: part[domain] for domain in self.domains}
        passes, new = self.network.student_passes(variables, images, self.training.keys(state, i))
        weight = SegmentationLoss(self.class_weights).label_weight(part["label"])
        for domain, outputs in passes.items():
            probs[domain] = self._probabilities(outputs, part[domain])
            for level, (segmentation, adversarial) in self._levels().items():
                if domain == "source":
                    loss = pixel_weighted_cross_entropy(
                        outputs[LEVELS[level]],
                        part["label"],
                        weight,
                        normalizer="valid" if self.class_weights is None else "weights",
                        align_corners=True,
                    )
                    scalars[f"segmentation_{level}"] = loss
                    total += segmentation * loss
                elif adversarial:
                    loss = self.discriminators.fooling_loss(state.params[level], probs[domain][level])
                    scalars[f"adversarial_{level}"] = loss
                    total += adversarial * loss
        scalars["loss"] = total
        pairs = outputs_of(probs["source"], probs["target"], self.discriminator_names)
        return cast(jax.Array, total), Outcome(scalars, {"student": new}, pairs)

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        image = batch["target"]["image"]
        decoded = self.network.input.decode(image)
        probs = self._probabilities(self.network.outputs(self.variables(state), decoded), decoded)
        return {
            "source": batch["source"]["image"],
            "truth": batch["source"]["label"],
            "target": image,
            "prediction": probs["level2"].argmax(-1).astype(jnp.uint8),
            **self.discriminators.maps(state.params, probs, self.discriminator_names),
        }

    def _levels(self) -> dict[str, tuple[float, float]]:
        """Weight of the cross-entropy and of the adversarial loss of every level that is used."""
        weights = zip(self.segmentation_weights, self.adversarial_weights, strict=True)
        return {level: pair for level, pair in zip(LEVELS, weights, strict=True) if any(pair)}

    def _probabilities(self, outputs, image):
        """Level to class probabilities [B, H, W, K] at the size of the image."""
        return {
            level: jax.nn.softmax(resize(outputs[LEVELS[level]], image.shape[1:3], align_corners=True))
            for level in self._levels()
        }
