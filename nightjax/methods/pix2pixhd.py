"""pix2pixHD: paired translation of label maps or images (arXiv 1711.11585)."""

import dataclasses

import jax
import jax.numpy as jnp

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses import translation
from nightjax.losses.feature_matching import feature_matching_loss, vgg_loss
from nightjax.methods.translator import Translator, to_signed, to_unit
from nightjax.models.backbones.vgg import VGG
from nightjax.models.pix2pixhd import LocalEnhancer, multiscale, one_hot_labels
from nightjax.models.translation_blocks import pad_to_multiple

PAIRS = {"label": ("source", "label", "image"), "image": ("target", "image", "reference")}
"""What is translated to its stream, the field there, and the field of the picture that it should become: labels to the
images they belong to, or nights to days."""

VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
PIXELS = translation.PIXELS | {"official": lambda image: image}
"""How [-1, 1] pixels enter VGG-19; the official program feeds them as they are, which its weights were not made for."""


@dataclasses.dataclass(frozen=True)
class Pix2PixHD(Translator):
    """pix2pixHD with the official settings, without instance maps.

    VGG's weights are random until ``train.frozen.vgg`` names a file of them.

    Attributes:
        translates: key of `PAIRS`.
        discriminator_features: channels of a discriminator's first convolution.
        scales: discriminators, each at half the resolution of the one before.
        adversarial: ``"least_squares"``, or ``"vanilla"`` for sigmoid cross-entropy.
        feature_weight: of the feature matching loss, and of the VGG loss.
        vgg: whether there is a VGG loss.
        vgg_channels: output channels of VGG-19's convolutions by group.
        pixels: key of `PIXELS`.
    """

    translates: str = "label"
    discriminator_features: int = 64
    scales: int = 2
    adversarial: str = "least_squares"
    feature_weight: float = 10.0
    vgg: bool = True
    vgg_channels: tuple[tuple[int, ...], ...] = VGG19
    pixels: str = "imagenet_rgb"

    def __post_init__(self):
        choose(PAIRS, self.translates, "method.translates")
        choose(PIXELS, self.pixels, "method.pixels")

    @property
    def streams(self) -> tuple[str, ...]:
        """See `Method`."""
        return PAIRS[self.translates][:1]

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        condition, target = jax.eval_shape(lambda batch: tuple(self._pair(batch).values()), batch)
        condition, target = (jnp.zeros((1, *x.shape[1:]), jnp.float32) for x in (condition, target))
        keys = jax.random.split(rng, 3)
        pair = jnp.concatenate([condition, target], axis=-1)
        params = {
            "student": self.model.init(keys[0], condition)["params"],
            "discriminator": self._judge.init(keys[1], pair)["params"],
        }
        return self.first_state(params, frozen={"vgg": self._vgg.init(keys[2], target)} if self.vgg else {})

    def translate(self, variables: Variables, image: jax.Array, to: str = "") -> jax.Array:
        """Pictures of what the method translates.

        Args:
            variables: of the generator.
            image: uint8, labels [B, H, W] or RGB images [B, H, W, 3] of any size.
            to: without effect, there is one direction.

        Returns:
            float32 [B, H, W, 3] in [0, 1].
        """
        del to
        if image.ndim != (3 if self.translates == "label" else 4):
            given = "labels: use nightjax pairs" if self.translates == "label" else "images, not labels"
            raise UserError(f"this pix2pixhd run translates {given}")
        height, width = image.shape[1:3]
        halvings = self.model.downsamplings + isinstance(self.model, LocalEnhancer)
        x = pad_to_multiple(self._condition(image), 2**halvings)
        return to_unit(self.model.apply(variables, x)[:, :height, :width])

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        losses = {
            "student": lambda own, part: self.generator_loss(own["student"], state, part),
            "discriminators": lambda own, part: self.discriminator_loss(own["discriminator"], state, part),
        }
        return self.update(state, losses, self._pair(batch))

    def generator_loss(self, own, state, part) -> tuple[jax.Array, Scalars]:
        """Loss of the generator.

        Args:
            own: its parameters.
            state: whose discriminators and frozen VGG judge.
            part: ``condition`` [B, H, W, C] and ``target`` [B, H, W, 3], float32 in [-1, 1].

        Returns:
            The loss, and it and its terms, unweighted, by name.
        """
        fake = self.model.apply({"params": own}, part["condition"])
        judge = state.params["discriminator"]
        outputs = [self._judged(judge, part["condition"], x) for x in (fake, part["target"])]
        terms = {
            "adversarial": translation.generator_loss([maps[-1] for maps in outputs[0]], self.adversarial),
            "feature_matching": feature_matching_loss(*outputs),
        }
        if self.vgg:
            terms["vgg"] = vgg_loss(*(self._features(state.frozen["vgg"], x) for x in (fake, part["target"])))
        total = terms["adversarial"] + self.feature_weight * (terms["feature_matching"] + terms.get("vgg", 0.0))
        return total, terms | {"loss": total}

    def discriminator_loss(self, own, state, part) -> tuple[jax.Array, Scalars]:
        """Loss of the discriminators: half the sum over generated and real pictures, summed over scales."""
        fake = self.model.apply({"params": state.params["student"]}, part["condition"])
        scores = {
            name: [maps[-1] for maps in self._judged(own, part["condition"], jax.lax.stop_gradient(x))]
            for name, x in (("fake", fake), ("real", part["target"]))
        }
        total = 0.5 * translation.discriminator_loss(scores["fake"], scores["real"], self.adversarial)
        return total, {"discriminator": total}

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        stream, given, wanted = PAIRS[self.translates]
        given, wanted = batch[stream][given], batch[stream][wanted]
        return {"given": given, "wanted": wanted, "translation": self.translate(self.variables(state), given)}

    def _pair(self, batch: Batch) -> dict[str, jax.Array]:
        stream, given, wanted = PAIRS[self.translates]
        return {"condition": self._condition(batch[stream][given]), "target": to_signed(batch[stream][wanted])}

    def _condition(self, given: jax.Array) -> jax.Array:
        return one_hot_labels(given) if self.translates == "label" else to_signed(given)

    def _judged(self, params, condition, picture):
        """What the discriminator of each scale gives for a picture beside its condition."""
        return self._judge.apply({"params": params}, jnp.concatenate([condition, picture], axis=-1))

    def _features(self, variables, picture):
        return self._vgg.apply(variables, PIXELS[self.pixels](picture))

    @property
    def _judge(self):
        return multiscale(self.discriminator_features, self.scales, self.model.dtype)

    @property
    def _vgg(self):
        return VGG(channels=self.vgg_channels)
