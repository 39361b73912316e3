# SPDX-License-Identifier: Apache-2.0
"""UNIT: unpaired translation of day to night and back, through one latent space (arXiv 1703.00848).

The batch's ``source`` is domain a, the day; its ``target`` is domain b, the night; both without labels. A step first
trains the discriminators on fresh translations, then the autoencoders against the new discriminators.
"""

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from nightjax.core.classes import CITYSCAPES
from nightjax.core.modules import apply, init
from nightjax.core.optim import Optimizer
from nightjax.core.ranges import Count
from nightjax.core.rng import stream_key
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step, total
from nightjax.core.types import Batch, Scalars, Variables
from nightjax.losses import translation
from nightjax.methods.parts.frozen_segmenter import frozen_segmenter
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.translating import LETTERS, OTHER, STREAMS, Adversarial, Translating, to_signed, to_unit
from nightjax.models.backbones.vgg import VGG, VGG16
from nightjax.models.translation_blocks import pad_to_multiple
from nightjax.models.unit import DOMAINS, Discriminators, SeparateVAEs, SharedVAE


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weight of each term of the generators' loss, the same for both domains; the release of 2018 by default.

    Attributes:
        adversarial: translations pass as real.
        reconstruction: an image decoded from its own code is itself.
        code: the code is near N(0, I).
        cycle: an image translated and back is itself.
        cycle_code: the code of a translation is near N(0, I).
    """

    adversarial: float = 1.0
    reconstruction: float = 10.0
    code: float = 0.01
    cycle: float = 10.0
    cycle_code: float = 0.01


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """A translation has the features of the image it came from, at relu5_3 of a frozen VGG, at stride 8.

    Its weights are random until ``train.frozen.vgg`` names a file of them. With ``segmenter`` the features are those of
    a trained segmentation network, in evaluation mode; ``train.frozen.segmenter`` names its run (ours).

    Attributes:
        weight: of the loss.
        channels: output channels of VGG's convolutions by group; VGG-16's by default.
        pixels: how pixels enter VGG, by the origin of the weights.
        segmenter: the section ``model`` of a segmentation run, whose backbone takes VGG's place; empty for VGG.
        level: which of that backbone's features.
    """

    weight: float = 1.0
    channels: tuple[tuple[Count, ...], ...] = VGG16
    pixels: Literal["caffe_bgr", "imagenet_rgb"] = "caffe_bgr"
    segmenter: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    level: Literal["stage1", "stage2", "stage3", "stage4"] = "stage4"

    @property
    def name(self) -> str:
        """Of the frozen network in the state."""
        return "segmenter" if self.segmenter else "vgg"

    @property
    def model(self) -> VGG:
        """The VGG; it runs in float32, because half precision breaks the norm of nearly constant channels."""
        return VGG(channels=self.channels, pools=3)

    @property
    def network(self) -> SegmentationNetwork:
        """The segmentation network; its head is not used."""
        return frozen_segmenter(self.segmenter, CITYSCAPES, "method.perceptual.segmenter")

    def init(self, key: jax.Array, image: jax.Array) -> dict[str, Variables]:
        """The frozen network's random variables by its name, for images like ``image`` [1, H, W, 3]."""
        if not self.segmenter:
            return {self.name: init(self.model, key, image)}
        variables = self.network.init(key, image.shape[1:])
        return {self.name: {part: {"backbone": tree["backbone"]} for part, tree in variables.items() if tree}}

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Features [B, h, w, C] of images [B, H, W, 3] in [-1, 1]; VGG's have h = H / 8."""
        if not self.segmenter:
            return apply(self.model, variables, translation.PIXELS[self.pixels](image))["relu5_3"]
        network = self.network
        return network.features(variables, network.input.expose(to_unit(image)))[self.level]


@dataclasses.dataclass(frozen=True)
class Unit(Translating):
    """UNIT with the settings of the 2018 release; see `models.unit` for both forms of the network.

    Attributes:
        model: both autoencoders.
        optimizer: of the autoencoders, and another one of the discriminators.
        training: of the run.
        discriminator: of each domain.
        adversarial: kind of the adversarial loss; ``"vanilla"`` is sigmoid cross-entropy.
        weights: of the terms of the loss.
        perceptual: the perceptual loss, or None.
        noisy_code_loss: take the code losses of the code with its noise, as in 2017, not of its mean.
    """

    model: SeparateVAEs | SharedVAE
    optimizer: Optimizer
    training: Training
    discriminator: Discriminators = Discriminators()
    adversarial: Adversarial = "least_squares"
    weights: Weights = Weights()
    perceptual: Perceptual | None = Perceptual()
    noisy_code_loss: bool = False

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    pretrained: ClassVar[tuple[str, ...]] = ("vgg", "segmenter")
    discriminator_names: ClassVar[tuple[str, ...]] = tuple(f"discriminator_{domain}" for domain in DOMAINS)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        key, *discriminator_keys, vgg_key = jax.random.split(rng, 4)
        x = jnp.zeros((1, *batch["source"]["image"].shape[1:]), jnp.float32)
        network = self.discriminator.build()
        params = {"generators": self.model.init(key, x)["params"]}
        for name, own_key in zip(self.discriminator_names, discriminator_keys, strict=True):
            params[name] = network.init(own_key, x)["params"]
        frozen = {} if self.perceptual is None else self.perceptual.init(vgg_key, x)
        return self.first_state(params, frozen)

    def translate(self, variables: Variables, image: jax.Array, to: str = "night") -> jax.Array:
        """Images in the other domain, from the mean of their code; see `core.method.Translates`."""
        height, width = image.shape[1:3]
        x, domain = pad_to_multiple(to_signed(image), 2**self.model.downsamplings), LETTERS[to]
        translated = self._decode(variables["params"], self._code(variables["params"], x, OTHER[domain]), domain)
        return to_unit(translated[:, :height, :width])

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        images = {domain: to_signed(batch[stream]["image"]) for domain, stream in STREAMS.items()}
        return self.step_with_noise(state, images, self.draw_noise(state, images))

    def draw_noise(self, state: TrainState, images: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The noise of one step's codes, N(0, 1), each [B, h, w, C].

        Names: ``judged_<domain>`` on the code of an image in the discriminators' turn, ``direct_<domain>`` in the
        autoencoders', ``cycle_<domain>`` on the code that domain's encoder gives a translation.
        """
        noise = {}
        for domain, image in images.items():
            shape = jax.eval_shape(lambda x: self._code(state.params["generators"], x, "a"), image).shape
            for name in (f"judged_{domain}", f"direct_{domain}", f"cycle_{OTHER[domain]}"):
                noise[name] = jax.random.normal(stream_key(self.training.seed, state.step, name), shape)
        return noise

    def step_with_noise(
        self, state: TrainState, images: dict[str, jax.Array], noise: dict[str, jax.Array]
    ) -> tuple[TrainState, Scalars]:
        """One step: the discriminators, then the autoencoders.

        Args:
            state: before the step.
            images: ``a`` and ``b``, float32 [B, H, W, 3] in [-1, 1].
            noise: see `draw_noise`.

        Returns:
            The new state and the scalars of both.
        """
        losses = {"discriminators": functools.partial(self.discriminator_loss, state)}
        state, judged = gradient_step(state, self.players, losses, images | noise, self.training, last=False)
        losses = {"generators": functools.partial(self.generator_loss, state)}
        state, terms = gradient_step(state, self.players, losses, images | noise, self.training)
        return state, judged | terms

    def discriminator_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """Loss of both discriminators on one microbatch of images and noise; see `core.step.Loss`.

        The autoencoders of ``state`` translate; their gradient stops.
        """
        del stats
        generators, losses = state.params["generators"], {}
        for domain in DOMAINS:
            origin = OTHER[domain]
            code = self._code(generators, part[origin], origin, self._key(state, f"judged_{origin}", i))
            code += part[f"judged_{origin}"]
            fake = self._decode(generators, code, domain, self._key(state, f"judged_to_{domain}", i))
            judged, real = (self._scores(params, domain, x) for x in (jax.lax.stop_gradient(fake), part[domain]))
            losses[f"discriminator_{domain}"] = translation.discriminator_loss(judged, real, self.adversarial)
        loss = self.weights.adversarial * total(losses.values())
        return loss, Outcome(losses | {"loss_discriminators": loss})

    def generator_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """Loss of the autoencoders on one microbatch; see `core.step.Loss`.

        The scalars are the loss and its terms, unweighted, by name: ``<term>_<domain>``.
        """
        del stats
        generators, terms = params["generators"], {}

        def encode(x, domain, name):
            mean = self._code(generators, x, domain, self._key(state, f"encode_{name}_{domain}", i))
            code = mean + part[f"{name}_{domain}"]
            return code, translation.code_loss(code if self.noisy_code_loss else mean)

        def decode(code, domain, name):
            return self._decode(generators, code, domain, self._key(state, f"decode_{name}_{domain}", i))

        codes, fakes = {}, {}
        for domain in DOMAINS:
            codes[domain], terms[f"code_{domain}"] = encode(part[domain], domain, "direct")
            terms[f"reconstruction_{domain}"] = translation.reconstruction_loss(
                decode(codes[domain], domain, "direct"), part[domain]
            )
        for domain in DOMAINS:  # A term of a translation is named by the domain it is in.
            origin = OTHER[domain]
            fakes[domain] = decode(codes[origin], domain, "fake")
            scores = self._scores(state.params, domain, fakes[domain])
            terms[f"adversarial_{domain}"] = translation.generator_loss(scores, self.adversarial)
            code, terms[f"cycle_code_{domain}"] = encode(fakes[domain], domain, "cycle")
            terms[f"cycle_{origin}"] = translation.reconstruction_loss(decode(code, origin, "cycle"), part[origin])
            if self.perceptual is not None:
                features = functools.partial(self.perceptual.features, state.frozen[self.perceptual.name])
                terms[f"perceptual_{domain}"] = translation.perceptual_loss(features, fakes[domain], part[origin])
        weights = dataclasses.asdict(self.weights)
        if self.perceptual is not None:
            weights["perceptual"] = self.perceptual.weight
        loss = total(weights[name.rpartition("_")[0]] * value for name, value in terms.items())
        return loss, Outcome(terms | {"loss": loss})

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name: every image, its translation, and that translated back."""
        params, shown = state.params["generators"], {}
        for domain, stream in STREAMS.items():
            other, x = OTHER[domain], to_signed(batch[stream]["image"])
            there = self._decode(params, self._code(params, x, domain), other)
            back = self._decode(params, self._code(params, there, other), domain)
            own = {domain: x, f"{domain}_to_{other}": there, f"{domain}_to_{other}_to_{domain}": back}
            shown |= {name: to_unit(image) for name, image in own.items()}
        return shown

    def _code(self, params, x, domain, key=None):
        return self._apply(params, "encode", x, domain, key).astype(jnp.float32)

    def _decode(self, params, code, domain, key=None):
        return self._apply(params, "decode", code, domain, key)

    def _apply(self, params, part, x, domain, key):
        """In training with a key, which is that of dropout."""
        rngs = {} if key is None else {"dropout": key}
        return apply(self.model, {"params": params}, x, domain, train=key is not None, rngs=rngs, method=part)

    def _scores(self, params, domain, x):
        """Scores of each scale."""
        outputs = apply(self.discriminator.build(), {"params": params[f"discriminator_{domain}"]}, x)
        return [maps[-1] for maps in outputs]

    def _key(self, state, name, i):
        return self.training.key(state, f"dropout_{name}", i)
