# SPDX-License-Identifier: Apache-2.0
"""pix2pixHD: paired translation of label maps or images (arXiv 1711.11585)."""

import dataclasses
import functools
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.errors import UserError
from nightjax.core.modules import apply, init
from nightjax.core.optim import Optimizer
from nightjax.core.ranges import Count
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step
from nightjax.core.types import Batch, Scalars, Variables
from nightjax.losses import translation
from nightjax.losses.feature_matching import feature_matching_loss, vgg_loss
from nightjax.methods.parts.translating import Adversarial, Translating, to_signed, to_unit
from nightjax.models.backbones.vgg import VGG
from nightjax.models.pix2pixhd import LocalEnhancer, multiscale, one_hot_labels
from nightjax.models.translation_blocks import pad_to_multiple

PAIRS = {"label": ("source", "label", "image"), "image": ("target", "image", "reference")}
"""What is translated to its domain, the field there, and the field of the image that it should become: labels to the
images they belong to, or nights to days."""

VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
PIXELS = translation.PIXELS | {"official": lambda image: image}
"""How [-1, 1] pixels enter VGG-19; the official program feeds them as they are, which its weights were not made for."""


@dataclasses.dataclass(frozen=True)
class VGGLoss:
    """The loss on features of a frozen VGG, whose weights are random until ``train.frozen.vgg`` names a file of them.

    Attributes:
        channels: output channels of its convolutions by group; VGG-19's by default.
        pixels: how pixels enter, by the origin of the weights.
    """

    channels: tuple[tuple[Count, ...], ...] = VGG19
    pixels: Literal["imagenet_rgb", "caffe_bgr", "official"] = "imagenet_rgb"

    @property
    def model(self) -> VGG:
        """The network."""
        return VGG(channels=self.channels)

    def features(self, variables: Variables, image: jax.Array) -> dict[str, jax.Array]:
        """Of images [B, H, W, 3] in [-1, 1]."""
        return apply(self.model, variables, PIXELS[self.pixels](image))


@dataclasses.dataclass(frozen=True)
class Pix2PixHD(Translating):
    """pix2pixHD with the official settings, without instance maps.

    Attributes:
        model: the generator.
        optimizer: of the generator, and another one of the discriminators.
        training: of the run.
        translates: labels to images or nights to days, see `PAIRS`.
        discriminator_features: channels of a discriminator's first convolution.
        scales: discriminators, each at half the resolution of the one before.
        adversarial: kind of the adversarial loss; ``"vanilla"`` is sigmoid cross-entropy.
        feature_weight: of the feature matching loss, and of the VGG loss.
        vgg: the VGG loss, or None.
        classes: of the labels that are translated.
    """

    model: nn.Module
    optimizer: Optimizer
    training: Training
    translates: Literal["label", "image"] = "label"
    discriminator_features: Count = 64
    scales: Count = 2
    adversarial: Adversarial = "least_squares"
    feature_weight: float = 10.0
    vgg: VGGLoss | None = VGGLoss()
    classes: ClassSet = CITYSCAPES

    discriminator_names: ClassVar[tuple[str, ...]] = ("discriminator",)
    pretrained: ClassVar[tuple[str, ...]] = ("vgg",)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that a batch must hold, by name."""
        return PAIRS[self.translates][:1]

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        condition, target = jax.eval_shape(lambda batch: tuple(self._pair(batch).values()), batch)
        condition, target = (jnp.zeros((1, *x.shape[1:]), jnp.float32) for x in (condition, target))
        keys = jax.random.split(rng, 3)
        pair = jnp.concatenate([condition, target], axis=-1)
        params = {
            "generators": self.model.init(keys[0], condition)["params"],
            "discriminator": self._discriminator.init(keys[1], pair)["params"],
        }
        return self.first_state(params, {} if self.vgg is None else {"vgg": init(self.vgg.model, keys[2], target)})

    def translate(self, variables: Variables, image: jax.Array, to: str = "day") -> jax.Array:
        """Images [B, H, W, 3] float32 in [0, 1] of what the method translates; there is one direction.

        Args:
            variables: of the generator.
            image: uint8, labels [B, H, W] or RGB images [B, H, W, 3] of any size.
            to: without effect.
        """
        del to
        if image.ndim != (3 if self.translates == "label" else 4):
            given = "labels: use nightjax pairs" if self.translates == "label" else "images, not labels"
            raise UserError(f"this pix2pixhd run translates {given}")
        height, width = image.shape[1:3]
        halvings = self.model.downsamplings + isinstance(self.model, LocalEnhancer)
        x = pad_to_multiple(self._condition(image), 2**halvings)
        return to_unit(apply(self.model, {"params": variables["params"]}, x)[:, :height, :width])

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        losses = {
            "generators": functools.partial(self.generator_loss, state),
            "discriminators": functools.partial(self.discriminator_loss, state),
        }
        return gradient_step(state, self.players, losses, self._pair(batch), self.training)

    def generator_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """Loss of the generator on one microbatch; see `core.step.Loss`.

        It reads ``condition`` [B, H, W, C] and ``target`` [B, H, W, 3], float32 in [-1, 1]; the scalars are the loss
        and its terms, unweighted.
        """
        del stats, i
        fake = apply(self.model, {"params": params["generators"]}, part["condition"])
        discriminator = state.params["discriminator"]
        outputs = [self._judged(discriminator, part["condition"], x) for x in (fake, part["target"])]
        terms = {
            "adversarial": translation.generator_loss([maps[-1] for maps in outputs[0]], self.adversarial),
            "feature_matching": feature_matching_loss(*outputs),
        }
        if self.vgg is not None:
            terms["vgg"] = vgg_loss(*(self.vgg.features(state.frozen["vgg"], x) for x in (fake, part["target"])))
        total = terms["adversarial"] + self.feature_weight * (terms["feature_matching"] + terms.get("vgg", 0.0))
        return total, Outcome(terms | {"loss": total})

    def discriminator_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """Half the sum over generated and real images, summed over scales; see `core.step.Loss`."""
        del stats, i
        fake = apply(self.model, {"params": state.params["generators"]}, part["condition"])
        scores = {
            name: [
                maps[-1] for maps in self._judged(params["discriminator"], part["condition"], jax.lax.stop_gradient(x))
            ]
            for name, x in (("fake", fake), ("real", part["target"]))
        }
        total = 0.5 * translation.discriminator_loss(scores["fake"], scores["real"], self.adversarial)
        return total, Outcome({"discriminator": total})

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        domain, given, wanted = PAIRS[self.translates]
        given, wanted = batch[domain][given], batch[domain][wanted]
        return {"given": given, "wanted": wanted, "translation": self.translate(self.variables(state), given)}

    def _pair(self, batch: Batch) -> dict[str, jax.Array]:
        domain, given, wanted = PAIRS[self.translates]
        return {"condition": self._condition(batch[domain][given]), "target": to_signed(batch[domain][wanted])}

    def _condition(self, given: jax.Array) -> jax.Array:
        return one_hot_labels(given, len(self.classes)) if self.translates == "label" else to_signed(given)

    def _judged(self, params, condition, image):
        """What the discriminator of each scale gives for an image beside its condition."""
        return apply(self._discriminator, {"params": params}, jnp.concatenate([condition, image], axis=-1))

    @property
    def _discriminator(self):
        return multiscale(self.discriminator_features, self.scales, self.model.dtype)
