"""CycleGAN: unpaired translation of day to night and back (arXiv 1703.10593).

The ``source`` stream is domain a, the day; the ``target`` stream is domain b, the night; both without labels.
"""

import dataclasses

import jax
import jax.numpy as jnp

from nightjax.core.method import Variables
from nightjax.core.rng import stream_key
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses import translation
from nightjax.methods.translator import Translator, to_signed, to_unit
from nightjax.models.cyclegan import patchgan
from nightjax.models.translation_blocks import pad_to_multiple
from nightjax.ops import image_pool

STREAMS = {"a": "source", "b": "target"}
"""Domain to the stream that it comes from."""

OTHER = {"a": "b", "b": "a"}


@dataclasses.dataclass(frozen=True)
class CycleGAN(Translator):
    """CycleGAN with the official settings.

    Attributes:
        discriminator_features: channels of a discriminator's first convolution.
        adversarial: ``"least_squares"``, or ``"vanilla"`` for sigmoid cross-entropy.
        cycle: weight, for a and b, of the distance between an image and its translation back.
        identity: weight, in units of ``cycle``, of what a generator changes in an image of its own domain.
        pool: how many past translations of a domain are kept for its discriminator.
    """

    discriminator_features: int = 64
    adversarial: str = "least_squares"
    cycle: tuple[float, float] = (10.0, 10.0)
    identity: float = 0.5
    pool: int = 50

    streams = ("source", "target")

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        images = batch["source"]["image"]
        x = jnp.zeros((1, *images.shape[1:]), jnp.float32)
        slots = self.slots(len(images))
        params, pools = {"student": {}}, {}
        for i, domain in enumerate(OTHER):
            key, judge_key = jax.random.split(jax.random.fold_in(rng, i))
            params["student"][f"to_{domain}"] = self.model.init(key, x)["params"]
            params[f"discriminator_{domain}"] = self._judge.init(judge_key, x)["params"]
            fresh = jnp.zeros((slots, *images.shape[1:]), jnp.float32)
            pools[domain] = image_pool.empty_pool(fresh, -(-self.pool // slots))
        return self.first_state(params, bank=pools)

    def slots(self, batch: int) -> int:
        """Pools that a domain's is dealt to. One for each example of the batch keeps examples on their devices; the
        official program has 1."""
        return batch

    def translate(self, variables: Variables, image: jax.Array, to: str = "b") -> jax.Array:
        """Pictures in the other domain.

        Args:
            variables: of the generators.
            image: uint8 [B, H, W, 3] RGB of any size.
            to: ``"b"`` makes day night, ``"a"`` night day.

        Returns:
            float32 [B, H, W, 3] in [0, 1].
        """
        height, width = image.shape[1:3]
        x = pad_to_multiple(to_signed(image), 2**self.model.downsamplings)
        return to_unit(self._to(variables["params"], to, x)[:, :height, :width])

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        examples = {domain: to_signed(batch[stream]["image"]) for domain, stream in STREAMS.items()}
        pools = {}
        for domain, origin in OTHER.items():
            fake = self._to(state.params["student"], domain, examples[origin])
            draws = self.draws(state, domain, len(fake))
            pools[domain], examples[f"shown_{domain}"] = image_pool.query(state.bank[domain], fake, *draws)
        losses = {
            "student": lambda own, part: self.generator_loss(own["student"], state.params, part),
            "discriminators": self.discriminator_loss,
        }
        return self.update(state, losses, examples, bank=pools)

    def draws(self, state: TrainState, domain: str, count: int) -> tuple[jax.Array, jax.Array]:
        """Whether, and which, past translations to this domain are shown: bool and int32 [count]."""
        keys = jax.random.split(stream_key(self.seed, state.step, f"pool_{domain}"))
        size = max(state.bank[domain].image.shape[0], 1)
        return jax.random.bernoulli(keys[0], shape=(count,)), jax.random.randint(keys[1], (count,), 0, size)

    def generator_loss(self, own, judges, part) -> tuple[jax.Array, Scalars]:
        """Loss of both generators.

        Args:
            own: parameters, ``to_a`` and ``to_b``.
            judges: parameters of the discriminators by name.
            part: images ``a`` and ``b``, float32 [B, H, W, 3] in [-1, 1].

        Returns:
            The loss, and it and its terms, unweighted, by name: ``<term>_<domain of the picture>``.
        """
        terms, total = {}, 0.0
        cycle = dict(zip(OTHER, self.cycle, strict=True))
        for domain, origin in OTHER.items():
            fake = self._to(own, domain, part[origin])
            scores = self._scores(judges, domain, fake)
            terms[f"adversarial_{domain}"] = translation.generator_loss([scores], self.adversarial)
            back = self._to(own, origin, fake)
            terms[f"cycle_{origin}"] = translation.reconstruction_loss(back, part[origin])
            total += terms[f"adversarial_{domain}"] + cycle[origin] * terms[f"cycle_{origin}"]
            if self.identity:
                same = self._to(own, domain, part[domain])
                terms[f"identity_{domain}"] = translation.reconstruction_loss(same, part[domain])
                total += self.identity * cycle[domain] * terms[f"identity_{domain}"]
        return total, terms | {"loss": total}

    def discriminator_loss(self, judges, part) -> tuple[jax.Array, Scalars]:
        """Loss of both discriminators: half the sum over what is shown them and real images."""
        losses = {}
        for domain in OTHER:
            scores = [[self._scores(judges, domain, part[name])] for name in (f"shown_{domain}", domain)]
            losses[f"discriminator_{domain}"] = 0.5 * translation.discriminator_loss(*scores, self.adversarial)
        return sum(losses.values()), losses

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`: every image, its translation, and that translated back."""
        own, pictures = state.params["student"], {}
        for domain, stream in STREAMS.items():
            other, x = OTHER[domain], to_signed(batch[stream]["image"])
            there = self._to(own, other, x)
            shown = {
                domain: x,
                f"{domain}_to_{other}": there,
                f"{domain}_to_{other}_to_{domain}": self._to(own, domain, there),
            }
            pictures |= {name: to_unit(picture) for name, picture in shown.items()}
        return pictures

    @property
    def _judge(self):
        return patchgan(self.discriminator_features, self.model.dtype)

    def _to(self, own, domain, x):
        return self.model.apply({"params": own[f"to_{domain}"]}, x)

    def _scores(self, judges, domain, x):
        return self._judge.apply({"params": judges[f"discriminator_{domain}"]}, x)[-1]
