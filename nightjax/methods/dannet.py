"""DANNet: relighting, adversarial alignment and static pseudo-labels in one stage (2104.10834).

Every step passes three domains through one relighting network and one segmentation network: the
coarsely aligned day, the night, and the labelled source. Two discriminators tell the outputs of day
and of night from those of the source.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from nightjax.core.state import TrainState
from nightjax.core.types import IGNORE, NUM_CLASSES, Batch, Scalars
from nightjax.losses.adversarial import adversarial_loss
from nightjax.losses.light import light_loss
from nightjax.losses.segmentation import class_weighted_cross_entropy
from nightjax.losses.static import static_loss
from nightjax.methods.adversarial import AdversarialMethod
from nightjax.ops.pseudo_label import static_pseudo_label
from nightjax.ops.resize import resize

TARGETS = ("day", "night")
"""Target domains, and names of the discriminators that tell them from the source."""

DOMAINS = (*TARGETS, "source")
"""In the order of the official passes, in which running statistics move."""

STATIC = 11
"""Number of leading train ids, road to sky, that pseudo-labels may have."""


@dataclasses.dataclass(frozen=True)
class Dannet(AdversarialMethod):
    """DANNet with the official code's settings.

    The model has light adaptation (``light`` in the section ``model``), whose network starts from
    scratch when the run named by ``train.init`` has none. Each part can be left out: the relighting
    by such a model, the others by weights of 0. The class weights at test are the evaluation's, see
    `metrics.protocol.EvalSet`.

    Attributes:
        target_size: (H, W) that target logits are upsampled to; None for the image's size.
        static_class_weights: weight of each class in pseudo-label and static loss, K numbers; None
            for 1. The official code has the same for ``class_weights``.
        source_light_weight, target_light_weight: of the light loss of each domain.
        adversarial_weight: of the two adversarial losses.
        static_weight: of the static loss.
        form: of light loss and pseudo-label, ``"official"`` or ``"paper"``.
        divisor: of the segmentation loss, ``"weights"`` or ``"paper"``.
        neighbourhood: of the static loss, see ``losses.static``.
    """

    target_size: tuple[int, int] | None = None
    static_class_weights: tuple[float, ...] | None = None
    source_light_weight: float = 1.0
    target_light_weight: float = 0.01
    adversarial_weight: float = 0.01
    static_weight: float = 1.0
    form: str = "official"
    divisor: str = "weights"
    neighbourhood: str = "center"

    scratch = ("light",)

    @property
    def judges(self) -> tuple[str, ...]:
        """See `AdversarialMethod`."""
        return TARGETS if self.adversarial_weight else ()

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        examples = self._images(batch)
        level = self.input.normalize(examples["night"]).mean()
        examples["label"] = batch["source"]["label"]
        loss = functools.partial(self._student_loss, state=state, level=level)
        return self.adversarial_step(state, examples, loss)

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        variables, pictures, logits = self.variables(state), {}, {}
        for domain, image in self._images(batch).items():
            x = self.input.normalize(image)
            outputs = self.model.apply(variables, x, train=False)
            pictures[domain] = image
            if "residual" in outputs:
                pictures[f"{domain}_relit"] = self.input.denormalize(x + outputs["residual"])
                pictures[f"{domain}_residual"] = self._residual_picture(outputs["residual"])
            logits[domain] = resize(outputs["logits"], x.shape[1:3], align_corners=True)
        return {
            **pictures,
            "truth": batch["source"]["label"],
            "pseudo_label": self._pseudo_label(logits["day"], logits["night"]),
            "prediction": logits["night"].argmax(-1).astype(jnp.uint8),
            **self.score_panels(state, {name: jax.nn.softmax(x) for name, x in logits.items()}),
        }

    def _student_loss(self, params, stats, part, i, *, state, level):
        """See ``AdversarialMethod.adversarial_step``."""
        scalars, logits, total = {}, {}, 0.0
        passes, stats = self.student_passes(state, params, stats, {domain: part[domain] for domain in DOMAINS}, i)
        for domain, outputs in passes.items():
            image = part[domain]
            if "residual" in outputs:
                x, source = self.input.normalize(image), domain == "source"
                light = light_loss(x, outputs["residual"], level, form=self.form)
                scalars |= {f"{name}_{domain}": light[name] for name in ("tv", "ssim", "exposure")}
                weight = self.source_light_weight if source else self.target_light_weight
                total += weight * light["total"]
            size = None if domain == "source" else self.target_size
            logits[domain] = resize(outputs["logits"], size or image.shape[1:3], align_corners=True)
        probs = {domain: jax.nn.softmax(value) for domain, value in logits.items()}
        for judge in self.judges:
            scores = self.scores(state.params[judge], probs[judge])
            loss = adversarial_loss(scores, kind=self.adversarial)
            scalars[f"adversarial_{judge}"] = loss
            total += self.adversarial_weight * loss
        if self.static_weight:
            label = self._pseudo_label(logits["day"], logits["night"])
            weights = _or_ones(self.static_class_weights)[:STATIC]
            loss = static_loss(logits["night"], label, weights, neighbourhood=self.neighbourhood)
            scalars |= {"static": loss, "pseudo_labelled": (label != IGNORE).mean(dtype=jnp.float32)}
            total += self.static_weight * loss
        scalars["segmentation"] = class_weighted_cross_entropy(
            logits["source"], part["label"], _or_ones(self.class_weights), divisor=self.divisor
        )
        scalars["loss"] = total + scalars["segmentation"]
        pairs = {judge: (probs["source"], probs[judge]) for judge in self.judges}
        return scalars["loss"], (stats, scalars, pairs)

    def _pseudo_label(self, day: jax.Array, night: jax.Array) -> jax.Array:
        return static_pseudo_label(
            *jax.lax.stop_gradient((day, night)),
            _or_ones(self.static_class_weights),
            form=self.form,
            static=STATIC,
        )

    def _images(self, batch: Batch) -> dict[str, jax.Array]:
        """Images [B, H, W, 3] float32 in [0, 1] by domain."""
        images = {
            "day": batch["target"]["reference"],
            "night": batch["target"]["image"],
            "source": batch["source"]["image"],
        }
        return {domain: self.input.decode(image) for domain, image in images.items()}

    def _residual_picture(self, residual: jax.Array) -> jax.Array:
        """Grey where the relighting adds nothing; the network's range (-1, 1) fills [0, 1]."""
        return (residual[..., ::-1] if self.input.order == "bgr" else residual) / 2.0 + 0.5


def _or_ones(class_weights: tuple[float, ...] | None) -> jax.Array:
    return jnp.ones(NUM_CLASSES) if class_weights is None else jnp.asarray(class_weights, jnp.float32)
