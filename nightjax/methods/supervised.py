"""Cross-entropy on labelled images: source-only, oracle, pre-training and fine-tuning."""

import dataclasses

import jax
import jax.numpy as jnp

from nightjax.core.optim import accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.methods.network import NetworkMethod, Photometric


@dataclasses.dataclass(frozen=True)
class Supervised(NetworkMethod):
    """Supervised training on the ``source`` domain.

    Attributes:
        divisor: ``"valid"`` averages the loss over labelled pixels, ``"all"`` over all pixels.
        photometric: photometric augmentation of the images, or None.
    """

    divisor: str = "valid"
    photometric: Photometric | None = None

    streams = ("source",)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        examples = {"image": self._images(state, batch), "label": batch["source"]["label"]}

        def grad_fn(stats, part, i):
            def loss_fn(params):
                outputs, new = self.student_forward(state, params["student"], stats, part["image"], "source", i)
                weight = self.label_weight(part["label"])
                loss = self.segmentation_loss(outputs, part["label"], weight, divisor=self.divisor)
                return loss, (new, {"loss": loss})

            grads, (new, scalars) = jax.grad(loss_fn, has_aux=True)(state.params)
            return grads, new, scalars

        grads, stats, scalars = accumulate(grad_fn, state.batch_stats["student"], examples, self.accumulate)
        return self.update(state, grads, stats, scalars)

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        image = batch["source"]["image"]
        return {
            "image": image,
            "augmented": self._images(state, batch),
            "truth": batch["source"]["label"],
            "prediction": self.predict(self.variables(state), image).argmax(-1).astype(jnp.uint8),
        }

    def _images(self, state: TrainState, batch: Batch) -> jax.Array:
        image = self.input.decode(batch["source"]["image"])
        if self.photometric is None:
            return image
        return self.photometric(image, self.key(state, "photometric"))
