"""AdaptSegNet: adversarial alignment of the output at two levels of DeepLab-v2 (1802.10349)."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses.adversarial import adversarial_loss
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.methods.adversarial import AdversarialMethod
from nightjax.methods.network import Input
from nightjax.models.discriminator import VARIANTS, Discriminator
from nightjax.ops.resize import resize

LEVELS = {"level1": "auxiliary_logits", "level2": "logits"}
"""Discriminator to the model's output it judges; level 1 is the earlier stage."""


@dataclasses.dataclass(frozen=True)
class CaffeInput(Input):
    """Pixels in [0, 255], BGR, minus the mean: the input of weights that come from Caffe."""

    mean: tuple[float, float, float] = (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255)
    std: tuple[float, float, float] = (1 / 255, 1 / 255, 1 / 255)

    def normalize(self, image: jax.Array) -> jax.Array:
        """[0, 1] RGB to BGR around zero."""
        return super().normalize(image)[..., ::-1]


@dataclasses.dataclass(frozen=True)
class AdaptSegNet(AdversarialMethod):
    """AdaptSegNet with the official code's settings of the multi-level vanilla GAN.

    The model has an auxiliary classifier. With both weights of level 1 at 0 it is the single-level
    form, which gives that classifier no gradient: freeze it by a group of the optimiser.

    Attributes:
        segmentation_weights: of the cross-entropy at level 1 and 2.
        adversarial_weights: of the adversarial loss at level 1 and 2.
    """

    discriminator: nn.Module = Discriminator(**VARIANTS["adaptsegnet"])
    segmentation_weights: tuple[float, float] = (0.1, 1.0)
    adversarial_weights: tuple[float, float] = (0.0002, 0.001)
    adversarial: str = "vanilla"

    judges = tuple(LEVELS)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        size = batch["source"]["image"].shape[1:3]
        key, judge_key = jax.random.split(rng)
        variables = self.model.init(key, jnp.zeros((1, *size, 3), jnp.float32), train=False)
        stats = variables.get("batch_stats", {})
        return self.adversarial_state(judge_key, variables["params"], stats, size)

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
        logits = self.predict(self.variables(state), image)
        full = resize(logits, image.shape[1:3], align_corners=True)
        return {
            "source": batch["source"]["image"],
            "truth": batch["source"]["label"],
            "target": image,
            "prediction": full.argmax(-1).astype(jnp.uint8),
        }

    def _student_loss(self, params, stats, part, i, *, state):
        """See ``AdversarialMethod.adversarial_step``."""
        scalars, probs, total = {}, {}, 0.0
        for domain in ("source", "target"):
            image = part[domain]
            outputs, stats = self.student_forward(state, params, stats, image, domain, i)
            probs[domain] = {
                level: jax.nn.softmax(resize(outputs[name], image.shape[1:3], align_corners=True))
                for level, name in LEVELS.items()
            }
            for k, (level, name) in enumerate(LEVELS.items()):
                if domain == "source":
                    loss = pixel_weighted_cross_entropy(
                        outputs[name], part["label"], divisor="valid", align_corners=True
                    )
                    scalars[f"segmentation_{level}"] = loss
                    total += self.segmentation_weights[k] * loss
                else:
                    scores = self.scores(state.params[level], probs[domain][level])
                    loss = adversarial_loss(scores, kind=self.adversarial)
                    scalars[f"adversarial_{level}"] = loss
                    total += self.adversarial_weights[k] * loss
        scalars["loss"] = total
        pairs = {level: (probs["source"][level], probs["target"][level]) for level in LEVELS}
        return total, (stats, scalars, pairs)
