"""UNIT: unpaired translation of day to night and back, through one latent space (arXiv 1703.00848).

The ``source`` stream is domain a, the day; the ``target`` stream is domain b, the night; both without labels. A step
first trains the discriminators on fresh translations, then the autoencoders against the new discriminators.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nightjax.core.method import Variables
from nightjax.core.optim import accumulate
from nightjax.core.rng import stream_key
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses import translation
from nightjax.methods.translator import Translator, players, to_signed, to_unit
from nightjax.models.backbones.vgg import VGG, VGG16
from nightjax.models.translation_blocks import pad_to_multiple
from nightjax.models.unit import DOMAINS, Discriminators

PyTree = Any

STREAMS = {"a": "source", "b": "target"}
"""Domain to the stream that it comes from."""

OTHER = {"a": "b", "b": "a"}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weight of each term of the generators' loss, the same for both domains; the release of 2018 by default.

    Attributes:
        adversarial: translations pass as real.
        reconstruction: a picture decoded from its own code is itself.
        code: the code is near N(0, I).
        cycle: a picture translated and back is itself.
        cycle_code: the code of a translation is near N(0, I).
        perceptual: a translation has the features of the picture it came from.
    """

    adversarial: float = 1.0
    reconstruction: float = 10.0
    code: float = 0.01
    cycle: float = 10.0
    cycle_code: float = 0.01
    perceptual: float = 1.0

    def total(self, terms: dict[str, jax.Array]) -> jax.Array:
        """The weighted sum of terms named ``<weight>_<domain>``."""
        return sum(getattr(self, name.rpartition("_")[0]) * value for name, value in terms.items())


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """The frozen VGG whose features at relu5_3, at stride 8, the perceptual loss compares.

    Its weights are random until ``train.frozen.vgg`` names a file of them.

    Attributes:
        channels: output channels of its convolutions by group; VGG-16's by default.
        pixels: how pixels enter, by the origin of the weights: key of `losses.translation.PIXELS`.
    """

    channels: tuple[tuple[int, ...], ...] = VGG16
    pixels: str = "caffe_bgr"

    @property
    def model(self) -> VGG:
        """The network; it runs in float32, because half precision breaks the norm of nearly constant channels."""
        return VGG(channels=self.channels, pools=3)


@dataclasses.dataclass(frozen=True)
class Unit(Translator):
    """UNIT with the settings of the 2018 release; see `models.unit` for both forms of the network.

    The model is both autoencoders. Unlike in the other translators, they meet the discriminators after their update.

    Attributes:
        discriminator: of each domain.
        adversarial: ``"least_squares"``, or ``"vanilla"`` for sigmoid cross-entropy.
        weights: of the terms of the loss.
        perceptual: the frozen network; unused if its weight is 0.
        noisy_code_loss: take the code losses of the code with its noise, as in 2017, not of its mean.
    """

    discriminator: Discriminators = Discriminators()
    adversarial: str = "least_squares"
    weights: Weights = Weights()
    perceptual: Perceptual = Perceptual()
    noisy_code_loss: bool = False

    streams = ("source", "target")

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        key, *judge_keys, vgg_key = jax.random.split(rng, 4)
        x = jnp.zeros((1, *batch["source"]["image"].shape[1:]), jnp.float32)
        network = self.discriminator.build()
        params = {"student": self.model.init(key, x)["params"]}
        for domain, judge_key in zip(DOMAINS, judge_keys, strict=True):
            params[f"discriminator_{domain}"] = network.init(judge_key, x)["params"]
        frozen = {"vgg": self.perceptual.model.init(vgg_key, x)} if self.weights.perceptual else {}
        return self.first_state(params, frozen=frozen)

    def translate(self, variables: Variables, image: jax.Array, to: str = "b") -> jax.Array:
        """Pictures in the other domain, from the mean of their code.

        Args:
            variables: of the autoencoders.
            image: uint8 [B, H, W, 3] RGB of any size.
            to: ``"b"`` makes day night, ``"a"`` night day.

        Returns:
            float32 [B, H, W, 3] in [0, 1].
        """
        height, width = image.shape[1:3]
        x = pad_to_multiple(to_signed(image), 2**self.model.downsamplings)
        picture = self._decode_code(variables["params"], self._code(variables["params"], x, OTHER[to]), to)
        return to_unit(picture[:, :height, :width])

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        images = {domain: to_signed(batch[stream]["image"]) for domain, stream in STREAMS.items()}
        return self.step_with_noise(state, images, self.draw_noise(state, images))

    def draw_noise(self, state: TrainState, images: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The noise of one step's codes, N(0, 1), each [B, h, w, C].

        Names: ``judged_<domain>`` on the code of an image in the discriminators' turn, ``direct_<domain>`` in the
        autoencoders', ``cycle_<domain>`` on the code that domain's encoder gives a translation.
        """
        noise = {}
        for domain, image in images.items():
            shape = jax.eval_shape(lambda x: self._code(state.params["student"], x, "a"), image).shape
            for name in (f"judged_{domain}", f"direct_{domain}", f"cycle_{OTHER[domain]}"):
                noise[name] = jax.random.normal(stream_key(self.seed, state.step, name), shape)
        return noise

    def step_with_noise(
        self, state: TrainState, images: dict[str, jax.Array], noise: dict[str, jax.Array]
    ) -> tuple[TrainState, Scalars]:
        """One step of both players.

        Args:
            state: before the step.
            images: ``a`` and ``b``, float32 [B, H, W, 3] in [-1, 1].
            noise: see `draw_noise`.

        Returns:
            The new state and the scalars of both.
        """
        state, judged = self._turn(state, "discriminators", self.discriminator_loss, images | noise)
        state, terms = self._turn(state, "student", self.generator_loss, images | noise)
        rate = self.optimizer.schedule_fn(self.steps)(state.step)
        return state.replace(step=state.step + 1), judged | terms | {"learning_rate": rate}

    def discriminator_loss(
        self, judges: PyTree, state: TrainState, part: dict[str, jax.Array], i: jax.Array | int = 0
    ) -> tuple[jax.Array, Scalars]:
        """Loss of both discriminators.

        Args:
            judges: their parameters by name.
            state: whose autoencoders translate; their gradient stops.
            part: images and noise, as of `step_with_noise`, or a part of them.
            i: number of the part.

        Returns:
            The loss, and it and each domain's by name.
        """
        params, losses = state.params["student"], {}
        for domain in DOMAINS:
            origin = OTHER[domain]
            code = self._code(params, part[origin], origin, self._key(state, f"judged_{origin}", i))
            code += part[f"judged_{origin}"]
            fake = self._decode_code(params, code, domain, self._key(state, f"judged_to_{domain}", i))
            scores = [self._scores(judges, domain, x) for x in (jax.lax.stop_gradient(fake), part[domain])]
            losses[f"discriminator_{domain}"] = translation.discriminator_loss(*scores, self.adversarial)
        total = self.weights.adversarial * sum(losses.values())
        return total, losses | {"loss_discriminators": total}

    def generator_loss(
        self, own: PyTree, state: TrainState, part: dict[str, jax.Array], i: jax.Array | int = 0
    ) -> tuple[jax.Array, Scalars]:
        """Loss of the autoencoders.

        Args:
            own: ``{"student": parameters}``.
            state: whose discriminators and frozen VGG judge.
            part, i: see `discriminator_loss`.

        Returns:
            The loss, and it and its terms, unweighted, by name: ``<term>_<domain>``.
        """
        params, terms = own["student"], {}

        def encode(x, domain, name):
            mean = self._code(params, x, domain, self._key(state, f"encode_{name}_{domain}", i))
            code = mean + part[f"{name}_{domain}"]
            return code, translation.code_loss(code if self.noisy_code_loss else mean)

        def decode(code, domain, name):
            return self._decode_code(params, code, domain, self._key(state, f"decode_{name}_{domain}", i))

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
            if self.weights.perceptual:
                features = self._features(state.frozen["vgg"])
                terms[f"perceptual_{domain}"] = translation.perceptual_loss(features, fakes[domain], part[origin])
        total = self.weights.total(terms)
        return total, terms | {"loss": total}

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`: every image, its translation, and that translated back."""
        params, pictures = state.params["student"], {}
        for domain, stream in STREAMS.items():
            other, x = OTHER[domain], to_signed(batch[stream]["image"])
            there = self._decode_code(params, self._code(params, x, domain), other)
            back = self._decode_code(params, self._code(params, there, other), domain)
            shown = {domain: x, f"{domain}_to_{other}": there, f"{domain}_to_{other}_to_{domain}": back}
            pictures |= {name: to_unit(picture) for name, picture in shown.items()}
        return pictures

    def _code(self, params, x, domain, key=None):
        return self._apply(params, "encode", x, domain, key).astype(jnp.float32)

    def _decode_code(self, params, code, domain, key=None):
        return self._apply(params, "decode", code, domain, key)

    def _apply(self, params, part, x, domain, key):
        """In training with a key, which is that of dropout."""
        rngs = {} if key is None else {"dropout": key}
        return self.model.apply({"params": params}, x, domain, train=key is not None, rngs=rngs, method=part)

    def _scores(self, params, domain, x):
        """Scores of each scale."""
        outputs = self.discriminator.build().apply({"params": params[f"discriminator_{domain}"]}, x)
        return [maps[-1] for maps in outputs]

    def _features(self, variables):
        pixels = translation.PIXELS[self.perceptual.pixels]
        return lambda x: self.perceptual.model.apply(variables, pixels(x))["relu5_3"]

    def _key(self, state, name, i):
        return jax.random.fold_in(stream_key(self.seed, state.step, f"dropout_{name}"), i)

    def _turn(self, state, player, loss_fn, examples):
        """The state after one player's update, and what is to be logged of it."""
        own = players(state.params)[player]

        def grad_fn(carry, part, i):
            grads, terms = jax.grad(loss_fn, has_aux=True)(own, state, part, i)
            return grads, carry, terms

        grads, _, terms = accumulate(grad_fn, (), examples, self.accumulate)
        transform = self.optimizer.build(own, self.steps)
        updates, opt_state = transform.update(grads, state.opt_state[player], own)
        state = state.replace(
            params=state.params | optax.apply_updates(own, updates),
            opt_state=state.opt_state | {player: opt_state},
        )
        return state, dict(terms) | {f"gradient_norm_{player}": optax.tree.norm(grads)}
