"""Cross-entropy on labelled images: source-only, oracle, pre-training and fine-tuning."""

import dataclasses

import jax
import jax.numpy as jnp

from nightjax.core.optim import accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses.light import light_loss
from nightjax.losses.segmentation import focal_mixture
from nightjax.methods.network import NetworkMethod, Photometric, in_turn, out_of_turn


@dataclasses.dataclass(frozen=True)
class FocalMixture:
    """Cross-entropy mixed with the focal loss; attributes as of `focal_mixture`."""

    beta: float = 0.5
    gamma: float = 2.0
    alpha: float = 0.5
    mode: str = "pixel"
    divide_by_batch: bool = False


@dataclasses.dataclass(frozen=True)
class Supervised(NetworkMethod):
    """Supervised training on the ``source`` domain, alone or joined by the ``day`` domain.

    A model with an auxiliary classifier is trained with both. A model with light adaptation (``light`` in the section
    ``model``) gets DANNet's light loss as well, with ``source`` as the night; these weights are NightLab's as
    reconstructed, its paper's are unknown.

    Attributes:
        divisor: ``"valid"`` averages the loss over labelled pixels, ``"all"`` over all pixels.
        loss: None for the cross-entropy, or its mixture with the focal loss.
        photometric: photometric augmentation of the images, or None.
        auxiliary_weight: of the auxiliary classifier's loss.
        joint: train on both domains, one image of each in turn.
        night_light_weight, day_light_weight: of the light loss of each domain.
    """

    divisor: str = "valid"
    loss: FocalMixture | None = None
    photometric: Photometric | None = None
    auxiliary_weight: float = 0.4
    joint: bool = False
    night_light_weight: float = 0.01
    day_light_weight: float = 1.0

    scratch = ("light",)

    @property
    def streams(self) -> tuple[str, ...]:
        """See `Method`."""
        return ("source", "day") if self.joint else ("source",)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        examples = {name: self._images(state, batch, name) | {"label": batch[name]["label"]} for name in self.streams}
        level = self.input.normalize(examples["source"]["image"]).mean()

        def grad_fn(stats, part, i):
            def loss_fn(params):
                image, label = (in_turn([part[name][field] for name in self.streams]) for field in ("image", "label"))
                outputs, new = self.student_forward(state, params["student"], stats, image, "source", i)
                loss, scalars = self._loss(outputs, image, label, level)
                return loss, (new, scalars | {"loss": loss})

            grads, (new, scalars) = jax.grad(loss_fn, has_aux=True)(state.params)
            return grads, new, scalars

        grads, stats, scalars = accumulate(grad_fn, state.batch_stats["student"], examples, self.accumulate)
        return self.update(state, grads, stats, scalars)

    def pixel_loss(self, logits: jax.Array, label: jax.Array, weight: jax.Array | None, divisor: str) -> jax.Array:
        """See `NetworkMethod`."""
        if self.loss is None:
            return super().pixel_loss(logits, label, weight, divisor)
        return focal_mixture(logits, label, weight, divisor=divisor, **dataclasses.asdict(self.loss))

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        image = batch["source"]["image"]
        pictures = {"image": image, "augmented": self._images(state, batch, "source")["image"]}
        x = self.input.normalize(self.input.decode(image))
        outputs = self.model.apply(self.variables(state), x, train=False)
        if "residual" in outputs:
            pictures["relit"] = self.input.denormalize(x + outputs["residual"])
        return {
            **pictures,
            "truth": batch["source"]["label"],
            "prediction": outputs["logits"].argmax(-1).astype(jnp.uint8),
        }

    def _loss(self, outputs, image, label, level):
        """The weighted sum, and its terms where there is more than one."""
        weight = self.label_weight(label)
        loss, scalars = self.segmentation_loss(outputs, label, weight, divisor=self.divisor), {}
        if "auxiliary_logits" in outputs or "residual" in outputs:
            scalars["segmentation"] = loss
        if "auxiliary_logits" in outputs:
            auxiliary = {"logits": outputs["auxiliary_logits"]}
            scalars["auxiliary"] = self.segmentation_loss(auxiliary, label, weight, divisor=self.divisor)
            loss += self.auxiliary_weight * scalars["auxiliary"]
        if "residual" in outputs:
            weights = {"source": self.night_light_weight, "day": self.day_light_weight}
            pairs = (out_of_turn(x, len(self.streams)) for x in (self.input.normalize(image), outputs["residual"]))
            for name, own, residual in zip(self.streams, *pairs, strict=True):
                scalars[f"light_{name}"] = light_loss(own, residual, level)["total"]
                loss += weights[name] * scalars[f"light_{name}"]
        return loss, scalars

    def _images(self, state: TrainState, batch: Batch, name: str) -> dict[str, jax.Array]:
        image = self.input.decode(batch[name]["image"])
        if self.photometric is None:
            return {"image": image}
        stream = "photometric" if name == "source" else f"photometric_{name}"
        return {"image": self.photometric(image, self.key(state, stream))}
