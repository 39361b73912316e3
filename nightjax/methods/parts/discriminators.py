# SPDX-License-Identifier: Apache-2.0
"""Discriminators that tell a segmentation network's output on the target from that on the source."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.modules import apply
from nightjax.core.optim import Optimizer
from nightjax.core.ranges import Count
from nightjax.core.step import Outcome, Player
from nightjax.core.types import PyTree
from nightjax.losses.adversarial import adversarial_loss, discriminator_loss
from nightjax.models.discriminator import VARIANTS, Discriminator

ADAM = Optimizer(name="adam", lr=1e-4, schedule="mmseg_poly", power=0.9, weight_decay=0.0, b2=0.99)
"""Of the discriminators in AdaptSegNet and DANNet."""


@dataclasses.dataclass(frozen=True)
class DiscriminatorForm:
    """The network of a discriminator; see `models.discriminator.Discriminator`. The defaults are DANNet's.

    Attributes:
        features: channels of the first convolution.
        multipliers: channels of the first four convolutions in units of ``features``.
        strides: of all five.
    """

    features: Count = 64
    multipliers: tuple[Count, ...] = VARIANTS["dannet"]["multipliers"]
    strides: tuple[Count, ...] = VARIANTS["dannet"]["strides"]

    def __post_init__(self):
        if len(self.strides) != len(self.multipliers) + 1:
            raise UserError(
                f"a discriminator has a stride for each of multipliers={self.multipliers} and one more, not "
                f"strides={self.strides}"
            )

    @property
    def model(self) -> Discriminator:
        """The module."""
        return Discriminator(self.features, self.multipliers, self.strides)


@dataclasses.dataclass(frozen=True)
class Discriminators:
    """One discriminator for each name that a method gives, all under one optimizer.

    Parameters of the segmentation network that get no gradient (auxiliary classifiers, branches that are not summed)
    must be frozen by the optimizer's groups, or they would decay.

    Attributes:
        network: of each discriminator.
        optimizer: of all of them together.
        kind: of the adversarial loss, see ``losses.adversarial``.
    """

    network: DiscriminatorForm = DiscriminatorForm()
    optimizer: Optimizer = ADAM
    kind: Literal["least_squares", "vanilla"] = "least_squares"

    def init(self, key: jax.Array, names: tuple[str, ...], size: tuple[int, ...]) -> dict[str, PyTree]:
        """Parameters by name, for class probabilities of ``size`` (H, W, K)."""
        probs = jnp.zeros((1, *size))
        return {
            name: self.network.model.init(jax.random.fold_in(key, i), probs)["params"] for i, name in enumerate(names)
        }

    def players(self, names: tuple[str, ...]) -> dict[str, Player]:
        """The discriminators as players of a step; none without names."""
        return {"discriminators": Player(self.optimizer, names)} if names else {}

    def scores(self, params: PyTree, probs: jax.Array) -> jax.Array:
        """Output [B, h, w, 1] of the discriminator with these parameters for class probabilities [B, H, W, K]."""
        return apply(self.network.model, {"params": params}, probs)

    def fooling_loss(self, params: PyTree, probs: jax.Array) -> jax.Array:
        """The segmentation network's adversarial loss: its target output should pass as one of the source."""
        return adversarial_loss(self.scores(params, probs), kind=self.kind)

    def losses(self, names: tuple[str, ...]) -> dict[str, Callable]:
        """The discriminators' own loss by player; see `core.step.Loss`.

        It reads ``source_output_<name>`` and ``target_output_<name>``, probabilities that the student's loss hands on.
        """

        def loss(params: dict[str, PyTree], stats: Any, part: dict[str, Any], i: Any) -> tuple[jax.Array, Outcome]:
            del stats, i
            found = {}
            for name in names:
                pair = (part[f"{domain}_output_{name}"] for domain in ("source", "target"))
                scores = [self.scores(params[name], jax.lax.stop_gradient(x)) for x in pair]
                found[f"discriminator_{name}"] = discriminator_loss(*scores, kind=self.kind)
            return sum(found.values(), jnp.zeros(())), Outcome(found)

        return {"discriminators": loss} if names else {}

    def maps(self, params: dict[str, PyTree], probs: dict[str, jax.Array], names: tuple[str, ...]) -> dict[str, Any]:
        """Each discriminator's map of the probabilities it is shown: black for source, white for target."""
        shown = {}
        for name in names:
            scores = self.scores(params[name], probs[name])
            score = jax.nn.sigmoid(scores) if self.kind == "vanilla" else scores
            shown[f"discriminator_{name}"] = jnp.repeat(jnp.clip(score, 0.0, 1.0), 3, axis=-1)
        return shown


def outputs_of(source: dict[str, jax.Array], target: dict[str, jax.Array], names: tuple[str, ...]) -> dict[str, Any]:
    """Probabilities by discriminator, as `Discriminators.losses` reads them."""
    pairs = {"source": source, "target": target}
    return {f"{domain}_output_{name}": probs[name] for domain, probs in pairs.items() for name in names}
