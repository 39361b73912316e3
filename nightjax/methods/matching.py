# SPDX-License-Identifier: Apache-2.0
"""UAWarpC's own training: dense matching of day and night without labels (Refign, arXiv 2207.06825).

One image of a pair is warped by a known random flow. The matcher has to find that flow directly (warp supervision) and
on the way over the other image of the pair (W-bipath). The second is what teaches it to match day with night. What it
then knows aligns the day in DSR+FPA (``aligner=uawarpc``).
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from nightjax.core.method import ReportSection, Task
from nightjax.core.modules import apply
from nightjax.core.optim import Optimizer
from nightjax.core.stacks import Stack
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Player, Players, Training, first_opt_state, gradient_step
from nightjax.core.types import Batch, Scalars, Variables
from nightjax.losses.matching import balanced, bipath, warp_supervision
from nightjax.methods.parts.network import InputNormalization, deinterleave, interleave
from nightjax.methods.parts.photometric import ColorJitter, GaussianBlur, Photometric
from nightjax.models.matcher import Matcher
from nightjax.ops.resize import resize
from nightjax.ops.synthetic_flow import random_flow
from nightjax.ops.warp import flow_confidence, flow_warp

AUGMENTATION = Photometric(ColorJitter(probability=1.0, strength=0.4), GaussianBlur(probability=0.2))


@dataclasses.dataclass(frozen=True)
class MatcherTraining:
    """Self-supervised training of a `Matcher` on coarsely aligned pairs; reads no label and no flow.

    Attributes:
        model: the matcher.
        optimizer: of the matcher.
        training: of the run.
        input: how pixels enter the matcher.
        homography, bend: of the random flows; see `ops.synthetic_flow.random_flow`.
        photometric: change of the warped image's colors and sharpness, or None.
        visible_from: first step at which W-bipath leaves out pixels that look hidden (the official second stage).
    """

    model: Matcher
    optimizer: Optimizer
    training: Training
    input: InputNormalization = InputNormalization()
    homography: float = 0.15
    bend: float = 0.05
    photometric: Photometric | None = AUGMENTATION
    visible_from: int = 0

    task: ClassVar[Task] = "matching"
    networks: ClassVar[tuple[str, ...]] = ("matcher",)
    stacks: ClassVar[tuple[Stack, ...]] = ()
    optional_init: ClassVar[tuple[str, ...]] = ()
    pretrained: ClassVar[tuple[str, ...]] = ()
    report_sections: ClassVar[tuple[ReportSection, ...]] = ()
    domains: ClassVar[tuple[str, ...]] = ("target",)

    @property
    def players(self) -> Players:
        """The matcher under its optimizer."""
        return {"matcher": Player(self.optimizer, ("matcher",))}

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        image = jnp.zeros((1, *batch["target"]["image"].shape[1:]), jnp.float32)
        variables = self.model.init(rng, image, image)
        params = {"matcher": variables["params"]}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={"matcher": variables["batch_stats"]},
            opt_state=first_opt_state(self.players, params, self.training.steps),
        )

    def variables(self, state: TrainState, network: str = "") -> Variables:
        """Parameters and batch statistics of one of ``networks``; of the default one for ``""``."""
        del network  # There is only one.
        return {"params": state.params["matcher"], "batch_stats": state.batch_stats["matcher"]}

    def initial(self, state: TrainState) -> dict[str, Variables]:
        """What ``train.init`` replaces: network name in the other run's checkpoint to variables."""
        return {"matcher": self.variables(state)}

    def with_initial(self, state: TrainState, networks: dict[str, Variables]) -> TrainState:
        """The first state with these weights of another run; modules that are not given stay."""
        given = networks["matcher"]
        return state.replace(
            params={"matcher": state.params["matcher"] | given["params"]},
            batch_stats={"matcher": state.batch_stats["matcher"] | given["batch_stats"]},
        )

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log."""
        losses = {"matcher": functools.partial(self.matcher_loss, state)}
        return gradient_step(state, self.players, losses, self.triplets(state, batch), self.training)

    def triplets(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """A warped image, the image it was made of and the other one of each pair; night or day by chance.

        Returns:
            ``warped``, ``image``, ``other`` [B, H, W, 3] float32, normalized; ``flow`` [B, H, W, 2]: pixel p of
            ``warped`` is p + flow(p) of ``image``; ``valid`` [B, H, W] bool, where that lies inside.
        """
        keys = self.training.keys(state)
        night, day = (self.input.decode(batch["target"][name]) for name in ("image", "reference"))
        swap = jax.random.bernoulli(keys("swap"), shape=(len(night), 1, 1, 1))
        image, other = jnp.where(swap, day, night), jnp.where(swap, night, day)
        flow = random_flow(keys("flow"), len(night), night.shape[1:3], homography=self.homography, bend=self.bend)
        changed = image
        if self.photometric is not None:
            changed = self.photometric(image, keys("photometric"))
        warped, valid = flow_warp(self.input.normalize(changed), flow)
        pair = {"image": self.input.normalize(image), "other": self.input.normalize(other)}
        return pair | {"warped": warped, "flow": flow, "valid": valid}

    def matcher_loss(self, state, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The loss on one microbatch of triplets; see `core.step.Loss`."""
        del i  # Nothing is random in the matcher.
        variables = {"params": params["matcher"], "batch_stats": stats["matcher"]}
        levels, updated = apply(self.model, variables, part, method=_match_triplets, mutable=["batch_stats"])
        direct, first, second = levels
        supervised = warp_supervision(direct, part["flow"], part["valid"])
        visible_only = state.step >= self.visible_from
        around = bipath(first, second, part["flow"], part["valid"], visible_only)
        truth = resize(part["flow"], direct["flow1"].shape[1:3], align_corners=False)
        scalars = {
            "loss": balanced(supervised, around),
            "loss_warp_supervision": supervised,
            "loss_bipath": around,
            "synthetic_error": jnp.linalg.norm(direct["flow1"] - truth, axis=-1).mean(),
        }
        return scalars["loss"], Outcome(scalars, {"matcher": updated["batch_stats"]})

    def match(self, variables: Variables, image: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Flow [B, H, W, 2] in pixels from ``image`` to ``reference``, and its probability [B, H, W] of being right."""
        found = apply(self.model, variables, self.input(image), self.input(reference))
        return found["flow"], flow_confidence(found["logvar"])[..., 0]

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name: ``warped`` shows the day as seen from the night's place."""
        target = batch["target"]
        flow, confidence = self.match(self.variables(state), target["image"], target["reference"])
        warped, _ = flow_warp(target["reference"].astype(jnp.float32) / 255, flow)
        return {"image": target["image"], "reference": target["reference"], "warped": warped, "confidence": confidence}


def _match_triplets(model: Matcher, part: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], ...]:
    """Levels from warped to image, warped to other, and other to image, in one pass that shares its norm statistics."""
    warped = part["warped"]
    found = [deinterleave(x, 3) for x in model.features(interleave([warped, part["image"], part["other"]]))]

    def side(*places):
        return tuple(interleave([maps[i] for i in places]) for maps in found)

    levels = model.match(side(0, 0, 2), side(1, 2, 1), warped.shape[1:3], train=True)
    split = {name: deinterleave(x, 3) for name, x in levels.items()}
    return tuple({name: maps[i] for name, maps in split.items()} for i in range(3))
