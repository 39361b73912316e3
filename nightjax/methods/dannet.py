# SPDX-License-Identifier: Apache-2.0
"""DANNet: relighting, adversarial alignment and static pseudo-labels in one stage (arXiv 2104.10834).

Every step passes three domains through one relighting network and one segmentation network: the coarsely aligned day,
the night, and the labeled source. Two discriminators tell the outputs of day and of night from those of the source.
"""

import dataclasses
import functools
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Players, Training, gradient_step
from nightjax.core.types import IGNORE, Batch, Scalars
from nightjax.losses.light import light_loss
from nightjax.losses.segmentation import class_weighted_cross_entropy
from nightjax.losses.static import static_loss
from nightjax.methods.parts.discriminators import Discriminators, outputs_of
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.segmenting import Segmenting
from nightjax.ops.pseudo_label import static_pseudo_label
from nightjax.ops.resize import resize

TARGETS = ("day", "night")
"""Target domains, and names of the discriminators that tell them from the source."""

VIEWS = (*TARGETS, "source")
"""In the order of the official passes, in which running statistics move."""


@dataclasses.dataclass(frozen=True)
class RelightLoss:
    """Weights of the light loss of each domain.

    Attributes:
        source: of relit labeled days.
        target: of relit days and nights of the target.
    """

    source: float = 1.0
    target: float = 0.01


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """The two discriminators and the weight of fooling them.

    Attributes:
        weight: of both adversarial losses.
        discriminators: one for the day, one for the night.
    """

    weight: float = 0.01
    discriminators: Discriminators = Discriminators()


@dataclasses.dataclass(frozen=True)
class StaticLoss:
    """The loss of the night on pseudo-labels of static classes, made of the day.

    Attributes:
        weight: of the loss.
        class_weights: weight of each class in pseudo-label and loss, K numbers or a rule of
            `core.class_weights`; None for 1.
        neighborhood: of the loss, see ``losses.static``.
    """

    weight: float = 1.0
    class_weights: tuple[float, ...] | None = None
    neighborhood: Literal["center", "3x3", "code"] = "center"


@dataclasses.dataclass(frozen=True)
class Dannet(Segmenting):
    """DANNet with the official code's settings.

    The network relights (``relight`` in the section ``model``), by a module that starts from scratch when the run named
    by ``train.init`` has none. Each part can be left out: the relighting by a model without it, the others by None. The
    class weights at test are the evaluation's, see `metrics.protocol.EvalSet`.

    Attributes:
        network: relighting and segmentation.
        optimizer: of both.
        training: of the run.
        class_weights: weight of each class in the segmentation loss, K numbers or a rule of
            `core.class_weights`; None for 1.
        normalizer: of the segmentation loss, see `class_weighted_cross_entropy`.
        target_size: (H, W) that target logits are upsampled to; None for the image's size.
        relight: weights of the light loss.
        adversarial: alignment of the outputs, or None.
        static: pseudo-labels of static classes, or None.
        form: of light loss and pseudo-label, the official code's or the paper's.
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    class_weights: tuple[float, ...] | None = None
    normalizer: Literal["weights", "paper", "valid", "all"] = "weights"
    target_size: tuple[int, int] | None = None
    relight: RelightLoss = RelightLoss()
    adversarial: AdversarialLoss | None = AdversarialLoss()
    static: StaticLoss | None = StaticLoss()
    form: Literal["official", "paper"] = "official"

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    optional_init: ClassVar[tuple[str, ...]] = ("relight",)

    def __post_init__(self):
        if self.static is not None and not self.static_classes:
            raise UserError(
                "method.static needs classes that do not move: take some out of classes.groups.dynamic, or set "
                "method.static=None"
            )

    @property
    def static_classes(self) -> tuple[int, ...]:
        """Train ids that pseudo-labels may have, road to sky of Cityscapes' classes."""
        return self.network.classes.outside("dynamic")

    @property
    def discriminator_names(self) -> tuple[str, ...]:
        """Names of the discriminators."""
        return () if self.adversarial is None else TARGETS

    @property
    def players(self) -> Players:
        """The segmentation network, and the discriminators together."""
        own = super().players
        return (
            own if self.adversarial is None else own | self.adversarial.discriminators.players(self.discriminator_names)
        )

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        key, discriminator_key = jax.random.split(rng)
        size = batch["source"]["image"].shape[1:]
        student, others = self.network.init(key, size), {}
        if self.adversarial is not None:
            output = (*size[:2], len(self.network.classes))
            others = self.adversarial.discriminators.init(discriminator_key, self.discriminator_names, output)
        return self.first_state(student, others)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        examples = self._images(batch)
        level = self.network.input.normalize(examples["night"]).mean()
        examples["label"] = batch["source"]["label"]
        losses = {"student": functools.partial(self.student_loss, state, level)}
        if self.adversarial is not None:
            losses |= self.adversarial.discriminators.losses(self.discriminator_names)
        return gradient_step(state, self.players, losses, examples, self.training)

    def student_loss(self, state, level, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """All terms of the segmentation network on one microbatch; see `core.step.Loss`."""
        scalars, logits, total = {}, {}, 0.0
        variables = {"params": params["student"], "batch_stats": stats["student"]}
        images = {view: part[view] for view in VIEWS}
        passes, new = self.network.student_passes(variables, images, self.training.keys(state, i))
        for view, outputs in passes.items():
            image, is_source = part[view], view == "source"
            if "residual" in outputs:
                x = self.network.input.normalize(image)
                light = light_loss(x, outputs["residual"], level, form=self.form)
                scalars |= {f"{name}_{view}": light[name] for name in ("tv", "ssim", "exposure")}
                total += (self.relight.source if is_source else self.relight.target) * light["total"]
            size = None if is_source else self.target_size
            logits[view] = resize(outputs["logits"], size or image.shape[1:3], align_corners=True)
        probs = {view: jax.nn.softmax(value) for view, value in logits.items()}
        if self.adversarial is not None:
            for name in self.discriminator_names:
                loss = self.adversarial.discriminators.fooling_loss(state.params[name], probs[name])
                scalars[f"adversarial_{name}"] = loss
                total += self.adversarial.weight * loss
        if self.static is not None:
            label = self._pseudo_label(logits["day"], logits["night"])
            weights = self._or_ones(self.static.class_weights)[np.asarray(self.static_classes)]
            loss = static_loss(
                logits["night"], label, weights, static=self.static_classes, neighborhood=self.static.neighborhood
            )
            scalars |= {"static": loss, "pseudo_labeled": (label != IGNORE).mean(dtype=jnp.float32)}
            total += self.static.weight * loss
        scalars["segmentation"] = class_weighted_cross_entropy(
            logits["source"], part["label"], self._or_ones(self.class_weights), normalizer=self.normalizer
        )
        scalars["loss"] = total + scalars["segmentation"]
        pairs = outputs_of(dict.fromkeys(self.discriminator_names, probs["source"]), probs, self.discriminator_names)
        return scalars["loss"], Outcome(scalars, {"student": new}, pairs)

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        variables, shown, logits = self.variables(state), {}, {}
        for view, image in self._images(batch).items():
            outputs = self.network.outputs(variables, image)
            shown[view] = image
            if "residual" in outputs:
                x = self.network.input.normalize(image)
                shown[f"{view}_relit"] = self.network.input.denormalize(x + outputs["residual"])
                shown[f"{view}_residual"] = self._residual_image(outputs["residual"])
            logits[view] = resize(outputs["logits"], image.shape[1:3], align_corners=True)
        shown |= {
            "truth": batch["source"]["label"],
            "pseudo_label": self._pseudo_label(logits["day"], logits["night"]),
            "prediction": logits["night"].argmax(-1).astype(jnp.uint8),
        }
        if self.adversarial is None:
            return shown
        probs = {name: jax.nn.softmax(x) for name, x in logits.items()}
        return shown | self.adversarial.discriminators.maps(state.params, probs, self.discriminator_names)

    def _pseudo_label(self, day: jax.Array, night: jax.Array) -> jax.Array:
        weights = self._or_ones(None if self.static is None else self.static.class_weights)
        fixed = jax.lax.stop_gradient((day, night))
        return static_pseudo_label(*fixed, weights, form=self.form, static=self.static_classes)

    def _images(self, batch: Batch) -> dict[str, jax.Array]:
        """Images [B, H, W, 3] float32 in [0, 1] by view."""
        images = self.network.decode(batch)
        return {
            "day": images["target"]["reference"],
            "night": images["target"]["image"],
            "source": images["source"]["image"],
        }

    def _residual_image(self, residual: jax.Array) -> jax.Array:
        """Gray where the relighting adds nothing; the network's range (-1, 1) fills [0, 1]."""
        return (residual[..., ::-1] if self.network.input.order == "bgr" else residual) / 2.0 + 0.5

    def _or_ones(self, class_weights: tuple[float, ...] | None) -> jax.Array:
        ones = class_weights is None
        return jnp.ones(len(self.network.classes)) if ones else jnp.asarray(class_weights, jnp.float32)
