"""DANNet: relighting, adversarial alignment and static pseudo-labels in one stage (2104.10834).

Every step passes three domains through one relighting network and one segmentation network: the
coarsely aligned day, the night, and the labelled source. Two discriminators tell the outputs of day
and of night from those of the source.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nightjax.core.method import Variables
from nightjax.core.state import TrainState
from nightjax.core.types import NUM_CLASSES, Batch, Scalars
from nightjax.losses.adversarial import adversarial_loss
from nightjax.losses.light import light_loss
from nightjax.losses.segmentation import class_weighted_cross_entropy
from nightjax.losses.static import static_loss
from nightjax.methods.adversarial import AdversarialMethod
from nightjax.models.relight import LightNet
from nightjax.ops.pseudo_label import static_pseudo_label
from nightjax.ops.resize import resize

PyTree = Any

TARGETS = ("day", "night")
"""Target domains, and names of the discriminators that tell them from the source."""

STATIC = 11
"""Number of leading train ids, road to sky, that pseudo-labels may have."""


@dataclasses.dataclass(frozen=True)
class Dannet(AdversarialMethod):
    """DANNet with the official code's settings.

    The student's parameters are those of the model and, under ``light``, of the relighting network.
    ``class_weights`` are those of the segmentation and static losses and of the pseudo-label.

    Attributes:
        relight: whether images are relit at all.
        light: the relighting network.
        target_size: (H, W) that target logits are upsampled to; None for the image's size.
        test_class_weights: factors on the logits at prediction, K numbers; None for 1.
        source_light_weight, target_light_weight: of the light loss of each domain.
        adversarial_weight: of the two adversarial losses.
        static_weight: of the static loss.
        form: of light loss and pseudo-label, ``"official"`` or ``"paper"``.
        divisor: of the segmentation loss, ``"weights"`` or ``"paper"``.
        neighbourhood: of the static loss, see ``losses.static``.
    """

    relight: bool = True
    light: nn.Module = LightNet()
    target_size: tuple[int, int] | None = None
    test_class_weights: tuple[float, ...] | None = None
    source_light_weight: float = 1.0
    target_light_weight: float = 0.01
    adversarial_weight: float = 0.01
    static_weight: float = 1.0
    form: str = "official"
    divisor: str = "weights"
    neighbourhood: str = "center"

    judges = TARGETS

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        size = batch["source"]["image"].shape[1:3]
        key, light_key, judge_key = jax.random.split(rng, 3)
        x = jnp.zeros((1, *size, 3), jnp.float32)
        variables = self.model.init(key, x, train=False)
        light = self.light.init(light_key, x)
        student = variables["params"] | {"light": light["params"]}
        stats = variables.get("batch_stats", {}) | {"light": light["batch_stats"]}
        return self.adversarial_state(judge_key, student, stats, size)

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """See `Method`."""
        x = self.input.normalize(self.input.decode(image))
        outputs, _, _ = self._relit_pass(variables["params"], variables["batch_stats"], x, None)
        logits = outputs["logits"].astype(jnp.float32)
        if self.test_class_weights is None:
            return logits
        return logits * jnp.asarray(self.test_class_weights, jnp.float32)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        examples = self._images(batch)
        level = examples["night"].mean()
        examples["label"] = batch["source"]["label"]
        loss = functools.partial(self._student_loss, state=state, level=level)
        return self.adversarial_step(state, examples, loss)

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        variables, pictures, logits = self.variables(state), {}, {}
        for domain, x in self._images(batch).items():
            outputs, residual, _ = self._relit_pass(*variables.values(), x, None)
            pictures[domain] = self._displayed(x)
            pictures[f"{domain}_relit"] = self._displayed(x + residual)
            pictures[f"{domain}_residual"] = (residual + 1.0) / 2.0
            logits[domain] = resize(outputs["logits"], x.shape[1:3], align_corners=True)
        for domain in TARGETS:
            scores = self.scores(state.params[domain], jax.nn.softmax(logits[domain]))
            pictures[f"discriminator_{domain}"] = jnp.broadcast_to(
                jnp.clip(scores, 0.0, 1.0), (*scores.shape[:3], 3)
            )
        return pictures | {
            "truth": batch["source"]["label"],
            "pseudo_label": self._pseudo_label(logits["day"], logits["night"]),
            "prediction": logits["night"].argmax(-1).astype(jnp.uint8),
        }

    def _student_loss(self, params, stats, part, i, *, state, level):
        """See ``AdversarialMethod.adversarial_step``."""
        scalars, logits, total = {}, {}, 0.0
        for domain in (*TARGETS, "source"):
            x = part[domain]
            key = self.key(state, f"dropout_{domain}", i)
            outputs, residual, stats = self._relit_pass(params, stats, x, key)
            if self.relight:
                light = light_loss(x, residual, level, form=self.form)
                scalars |= {f"{name}_{domain}": light[name] for name in ("tv", "ssim", "exposure")}
                source = domain == "source"
                weight = self.source_light_weight if source else self.target_light_weight
                total += weight * light["total"]
            size = x.shape[1:3] if domain == "source" else self.target_size or x.shape[1:3]
            logits[domain] = resize(outputs["logits"], size, align_corners=True)
        probs = {domain: jax.nn.softmax(value) for domain, value in logits.items()}
        for domain in TARGETS:
            scores = self.scores(state.params[domain], probs[domain])
            loss = adversarial_loss(scores, kind=self.adversarial)
            scalars[f"adversarial_{domain}"] = loss
            total += self.adversarial_weight * loss
        scalars["static"] = static_loss(
            logits["night"],
            self._pseudo_label(logits["day"], logits["night"]),
            self._class_weights()[:STATIC],
            neighbourhood=self.neighbourhood,
        )
        scalars["segmentation"] = class_weighted_cross_entropy(
            logits["source"], part["label"], self._class_weights(), divisor=self.divisor
        )
        scalars["loss"] = total + scalars["segmentation"] + self.static_weight * scalars["static"]
        pairs = {domain: (probs["source"], probs[domain]) for domain in TARGETS}
        return scalars["loss"], (stats, scalars, pairs)

    def _relit_pass(self, params, stats, x, key):
        """Outputs for relit images, the residual and new statistics; evaluation without a key."""
        light = {"params": params["light"], "batch_stats": stats["light"]}
        model = {"params": _without_light(params), "batch_stats": _without_light(stats)}
        if key is None:
            residual = self.light.apply(light, x) if self.relight else jnp.zeros_like(x)
            return self.model.apply(model, x + residual, train=False), residual, stats
        options = {"train": True, "mutable": ["batch_stats"]}
        residual = jnp.zeros_like(x)
        if self.relight:
            residual, light = self.light.apply(light, x, **options)
        outputs, new = self.model.apply(model, x + residual, rngs={"dropout": key}, **options)
        stats = new.get("batch_stats", {}) | {"light": light["batch_stats"]}
        return outputs, residual, stats

    def _pseudo_label(self, day: jax.Array, night: jax.Array) -> jax.Array:
        return static_pseudo_label(
            *jax.lax.stop_gradient((day, night)),
            self._class_weights(),
            form=self.form,
            static=STATIC,
        )

    def _class_weights(self) -> jax.Array:
        if self.class_weights is None:
            return jnp.ones(NUM_CLASSES)
        return jnp.asarray(self.class_weights, jnp.float32)

    def _images(self, batch: Batch) -> dict[str, jax.Array]:
        """Normalised images by domain."""
        images = {
            "day": batch["target"]["reference"],
            "night": batch["target"]["image"],
            "source": batch["source"]["image"],
        }
        return {k: self.input.normalize(self.input.decode(x)) for k, x in images.items()}

    def _displayed(self, x: jax.Array) -> jax.Array:
        return jnp.clip(x * jnp.asarray(self.input.std) + jnp.asarray(self.input.mean), 0.0, 1.0)


def _without_light(tree: PyTree) -> PyTree:
    return {name: value for name, value in tree.items() if name != "light"}
