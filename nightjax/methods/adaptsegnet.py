"""AdaptSegNet: adversarial alignment of the output at one or two levels (1802.10349)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses.adversarial import adversarial_loss
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.methods.adversarial import AdversarialMethod
from nightjax.models.discriminator import VARIANTS, Discriminator
from nightjax.ops.resize import resize

LEVELS = {"level1": "auxiliary_logits", "level2": "logits"}
"""Discriminator to the model's output it judges; level 1 is the earlier stage."""


@dataclasses.dataclass(frozen=True)
class AdaptSegNet(AdversarialMethod):
    """AdaptSegNet with the official code's settings of the multi-level vanilla GAN.

    A level whose two weights are 0 is not used: the single-level forms have (0, 1) and (0, 0.001),
    or (0, 0.01) for least squares. If the model has an auxiliary classifier all the same, it gets
    no gradient then: freeze it by a group of the optimiser.

    Attributes:
        segmentation_weights: of the cross-entropy at level 1 and 2.
        adversarial_weights: of the adversarial loss at level 1 and 2.
    """

    discriminator: Discriminator = Discriminator(**VARIANTS["adaptsegnet"])
    segmentation_weights: tuple[float, float] = (0.1, 1.0)
    adversarial_weights: tuple[float, float] = (0.0002, 0.001)
    adversarial: str = "vanilla"

    def __post_init__(self):
        super().__post_init__()
        if "level1" in self._levels() and self.model.auxiliary is None:
            raise UserError(
                "AdaptSegNet's level 1 needs a model with an auxiliary classifier, such as deeplab_multi; choose "
                "one, or set "
                "the first of method.segmentation_weights and method.adversarial_weights to 0"
            )

    @property
    def judges(self) -> tuple[str, ...]:
        """See `AdversarialMethod`."""
        return tuple(level for level, (_, weight) in self._levels().items() if weight)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        examples = {
            "source": self.input.decode(batch["source"]["image"]),
            "target": self.input.decode(batch["target"]["image"]),
            "label": batch["source"]["label"],
        }
        loss = functools.partial(self._student_loss, state=state)
        return self.adversarial_step(state, examples, loss)

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        image = batch["target"]["image"]
        x = self.input.normalize(self.input.decode(image))
        outputs = self.model.apply(self.variables(state), x, train=False)
        probs = self._probabilities(outputs, x)
        return {
            "source": batch["source"]["image"],
            "truth": batch["source"]["label"],
            "target": image,
            "prediction": probs["level2"].argmax(-1).astype(jnp.uint8),
            **self.score_panels(state, probs),
        }

    def _student_loss(self, params, stats, part, i, *, state):
        """See ``AdversarialMethod.adversarial_step``."""
        scalars, probs, total = {}, {}, 0.0
        passes, stats = self.student_passes(state, params, stats, {domain: part[domain] for domain in self.streams}, i)
        for domain, outputs in passes.items():
            image = part[domain]
            probs[domain] = self._probabilities(outputs, image)
            for level, (segmentation, adversarial) in self._levels().items():
                if domain == "source":
                    loss = pixel_weighted_cross_entropy(
                        outputs[LEVELS[level]],
                        part["label"],
                        self.label_weight(part["label"]),
                        divisor="valid" if self.class_weights is None else "weights",
                        align_corners=True,
                    )
                    scalars[f"segmentation_{level}"] = loss
                    total += segmentation * loss
                elif adversarial:
                    scores = self.scores(state.params[level], probs[domain][level])
                    loss = adversarial_loss(scores, kind=self.adversarial)
                    scalars[f"adversarial_{level}"] = loss
                    total += adversarial * loss
        scalars["loss"] = total
        pairs = {level: (probs["source"][level], probs["target"][level]) for level in self.judges}
        return total, (stats, scalars, pairs)

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
