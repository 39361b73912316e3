# SPDX-License-Identifier: Apache-2.0
"""CycleGAN: unpaired translation of day to night and back (arXiv 1703.10593).

The batch's ``source`` is domain a, the day; its ``target`` is domain b, the night; both without labels.
"""

import dataclasses
import functools
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp

from nightjax.core.modules import apply
from nightjax.core.optim import Optimizer
from nightjax.core.ranges import Count
from nightjax.core.rng import stream_key
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Training, gradient_step, total
from nightjax.core.types import Batch, Scalars, Variables
from nightjax.losses import translation
from nightjax.methods.parts.translating import LETTERS, OTHER, STREAMS, Adversarial, Translating, to_signed, to_unit
from nightjax.models.cyclegan import ResnetGenerator, patchgan
from nightjax.models.translation_blocks import pad_to_multiple
from nightjax.ops import image_pool


@dataclasses.dataclass(frozen=True)
class CycleGAN(Translating):
    """CycleGAN with the official settings.

    Attributes:
        model: a generator.
        optimizer: of the generators, and another one of the discriminators.
        training: of the run.
        discriminator_features: channels of a discriminator's first convolution.
        adversarial: kind of the adversarial loss; ``"vanilla"`` is sigmoid cross-entropy.
        cycle: weight, for a and b, of the distance between an image and its translation back.
        identity: weight, in units of ``cycle``, of what a generator changes in an image of its own domain.
        buffer: how many past translations of a domain are kept for its discriminator.
    """

    model: ResnetGenerator
    optimizer: Optimizer
    training: Training
    discriminator_features: Count = 64
    adversarial: Adversarial = "least_squares"
    cycle: tuple[float, float] = (10.0, 10.0)
    identity: float = 0.5
    buffer: int = 50

    domains: ClassVar[tuple[str, ...]] = ("source", "target")
    discriminator_names: ClassVar[tuple[str, ...]] = tuple(f"discriminator_{domain}" for domain in OTHER)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        images = batch["source"]["image"]
        x = jnp.zeros((1, *images.shape[1:]), jnp.float32)
        slots = self.slots(len(images))
        params: dict[str, Any] = {"generators": {}}
        buffers = {}
        for i, domain in enumerate(OTHER):
            key, discriminator_key = jax.random.split(jax.random.fold_in(rng, i))
            params["generators"][f"to_{domain}"] = self.model.init(key, x)["params"]
            params[f"discriminator_{domain}"] = self._discriminator.init(discriminator_key, x)["params"]
            fresh = jnp.zeros((slots, *images.shape[1:]), jnp.float32)
            buffers[f"images_{domain}"] = image_pool.empty_pool(fresh, -(-self.buffer // slots))
        return self.first_state(params, memory=buffers)

    def slots(self, batch: int) -> int:
        """Number of buffers that a domain's is dealt to.

        One for each example of the batch keeps examples on their devices; the official program has 1.
        """
        return batch

    def translate(self, variables: Variables, image: jax.Array, to: str = "night") -> jax.Array:
        """Images in the other domain; see `core.method.Translates`."""
        height, width = image.shape[1:3]
        x = pad_to_multiple(to_signed(image), 2**self.model.downsamplings)
        return to_unit(self._to(variables["params"], LETTERS[to], x)[:, :height, :width])

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        examples = {domain: to_signed(batch[stream]["image"]) for domain, stream in STREAMS.items()}
        buffers = {}
        for domain, origin in OTHER.items():
            fake = self._to(state.params["generators"], domain, examples[origin])
            name = f"images_{domain}"
            draws = self.draws(state, domain, len(fake))
            buffers[name], examples[f"shown_{domain}"] = image_pool.query(state.memory[name], fake, *draws)
        losses = {
            "generators": functools.partial(self.generator_loss, state),
            "discriminators": self.discriminator_loss,
        }
        state, scalars = gradient_step(state, self.players, losses, examples, self.training)
        return state.replace(memory=buffers), scalars

    def draws(self, state: TrainState, domain: str, count: int) -> tuple[jax.Array, jax.Array]:
        """Whether, and which, past translations to this domain are shown: bool and int32 [count]."""
        keys = jax.random.split(stream_key(self.training.seed, state.step, f"pool_{domain}"))
        size = max(state.memory[f"images_{domain}"].image.shape[0], 1)
        return jax.random.bernoulli(keys[0], shape=(count,)), jax.random.randint(keys[1], (count,), 0, size)

    def generator_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """Loss of both generators on one microbatch of images ``a`` and ``b``; see `core.step.Loss`.

        The scalars are the loss and its terms, unweighted, by name: ``<term>_<domain of the image>``.
        """
        del stats, i
        own, terms, loss = params["generators"], {}, 0.0
        cycle = dict(zip(OTHER, self.cycle, strict=True))
        for domain, origin in OTHER.items():
            fake = self._to(own, domain, part[origin])
            scores = self._scores(state.params, domain, fake)
            terms[f"adversarial_{domain}"] = translation.generator_loss([scores], self.adversarial)
            back = self._to(own, origin, fake)
            terms[f"cycle_{origin}"] = translation.reconstruction_loss(back, part[origin])
            loss += terms[f"adversarial_{domain}"] + cycle[origin] * terms[f"cycle_{origin}"]
            if self.identity:
                same = self._to(own, domain, part[domain])
                terms[f"identity_{domain}"] = translation.reconstruction_loss(same, part[domain])
                loss += self.identity * cycle[domain] * terms[f"identity_{domain}"]
        return cast(jax.Array, loss), Outcome(terms | {"loss": loss})

    def discriminator_loss(self, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """Loss of both discriminators: half the sum over what is shown them and real images; see `core.step.Loss`."""
        del stats, i
        losses = {}
        for domain in OTHER:
            fake, real = ([self._scores(params, domain, part[name])] for name in (f"shown_{domain}", domain))
            losses[f"discriminator_{domain}"] = 0.5 * translation.discriminator_loss(fake, real, self.adversarial)
        return total(losses.values()), Outcome(losses)

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name: every image, its translation, and that translated back."""
        own, shown = state.params["generators"], {}
        for domain, stream in STREAMS.items():
            other, x = OTHER[domain], to_signed(batch[stream]["image"])
            there = self._to(own, other, x)
            images = {
                domain: x,
                f"{domain}_to_{other}": there,
                f"{domain}_to_{other}_to_{domain}": self._to(own, domain, there),
            }
            shown |= {name: to_unit(image) for name, image in images.items()}
        return shown

    @property
    def _discriminator(self):
        return patchgan(self.discriminator_features, self.model.dtype)

    def _to(self, own, domain, x):
        return apply(self.model, {"params": own[f"to_{domain}"]}, x)

    def _scores(self, params, domain, x):
        return apply(self._discriminator, {"params": params[f"discriminator_{domain}"]}, x)[-1]
