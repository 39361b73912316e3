"""UAWarpC's own training: dense matching of day and night without labels (Refign, arXiv 2207.06825).

One image of a pair is warped by a known random flow. The matcher has to find that flow directly (warp supervision) and
by the way over the other image of the pair (W-bipath). The second is what teaches it to match day with night. What it
then knows aligns the day in DSR+FPA (``aligner=uawarpc``).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.optim import accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses.matching import balanced, bipath, warp_supervision
from nightjax.methods.network import NetworkMethod, Photometric, in_turn, out_of_turn
from nightjax.models.matcher import Matcher
from nightjax.ops.resize import resize
from nightjax.ops.synthetic_flow import random_flow
from nightjax.ops.warp import flow_confidence, flow_warp

PyTree = Any


@dataclasses.dataclass(frozen=True)
class MatcherTraining(NetworkMethod):
    """Self-supervised training of a `Matcher` on coarsely aligned pairs; reads no label and no flow.

    Attributes:
        homography, bend: of the random flows; see `ops.synthetic_flow.random_flow`.
        photometric: change of the warped image's colours and sharpness, or None.
        visible_from: first step at which W-bipath leaves out pixels that look hidden (the official second stage).
    """

    model: Matcher
    homography: float = 0.15
    bend: float = 0.05
    photometric: Photometric | None = Photometric(jitter_probability=1.0, jitter_strength=0.4, blur_probability=0.2)
    visible_from: int = 0

    streams = ("target",)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        image = jnp.zeros((1, *batch["target"]["image"].shape[1:]), jnp.float32)
        variables = self.model.init(rng, image, image)
        params = {"student": variables["params"]}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={"student": variables["batch_stats"]},
            opt_state={"student": self.optimizer.build(params, self.steps).init(params)},
        )

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""

        def grad_fn(stats, part, i):
            loss = lambda params: self._loss(state, params["student"], stats, part)
            grads, (new, scalars) = jax.grad(loss, has_aux=True)(state.params)
            return grads, new, scalars

        examples = self.triplets(state, batch)
        grads, stats, scalars = accumulate(grad_fn, state.batch_stats["student"], examples, self.accumulate)
        return self.update(state, grads, stats, scalars)

    def triplets(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """A warped image, the image it was made of and the other one of each pair; night or day by chance.

        Returns:
            ``warped``, ``image``, ``other`` [B, H, W, 3] float32, normalised; ``flow`` [B, H, W, 2]: pixel p of
            ``warped`` is p + flow(p) of ``image``; ``valid`` [B, H, W] bool, where that lies inside.
        """
        night, day = (self.input.decode(batch["target"][name]) for name in ("image", "reference"))
        swap = jax.random.bernoulli(self.key(state, "swap"), shape=(len(night), 1, 1, 1))
        image, other = jnp.where(swap, day, night), jnp.where(swap, night, day)
        flow = random_flow(
            self.key(state, "flow"), len(night), night.shape[1:3], homography=self.homography, bend=self.bend
        )
        changed = image
        if self.photometric is not None:
            changed = self.photometric(image, self.key(state, "photometric"))
        warped, valid = flow_warp(self.input.normalize(changed), flow)
        pair = {"image": self.input.normalize(image), "other": self.input.normalize(other)}
        return pair | {"warped": warped, "flow": flow, "valid": valid}

    def _loss(self, state: TrainState, params: PyTree, stats: PyTree, part: dict[str, jax.Array]):
        levels, updated = self.model.apply(
            {"params": params, "batch_stats": stats}, part, method=_match_triplets, mutable=["batch_stats"]
        )
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
        return scalars["loss"], (updated["batch_stats"], scalars)

    def match(self, variables: Variables, image: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where the image's pixels lie in the reference.

        Args:
            variables: of the matcher.
            image, reference: uint8 [B, H, W, 3] RGB.

        Returns:
            Flow [B, H, W, 2] (dx, dy) in pixels, and its probability [B, H, W] of being right within one pixel.
        """
        pair = (self.input.normalize(self.input.decode(x)) for x in (image, reference))
        found = self.model.apply(variables, *pair)
        return found["flow"], flow_confidence(found["logvar"])[..., 0]

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """See `Method`; a matcher names no classes."""
        raise UserError("a matcher predicts no classes: score its run with nightjax match, use it with aligner=uawarpc")

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`: ``warped`` shows the day as seen from the night's place."""
        target = batch["target"]
        flow, confidence = self.match(self.variables(state), target["image"], target["reference"])
        warped, _ = flow_warp(target["reference"].astype(jnp.float32) / 255, flow)
        return {"image": target["image"], "reference": target["reference"], "warped": warped, "confidence": confidence}


def _match_triplets(model: Matcher, part: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], ...]:
    """Levels from warped to image, warped to other, and other to image, in one pass that shares its norm statistics."""
    warped = part["warped"]
    found = [out_of_turn(x, 3) for x in model.features(in_turn([warped, part["image"], part["other"]]))]

    def side(*places):
        return tuple(in_turn([maps[i] for i in places]) for maps in found)

    levels = model.match(side(0, 0, 2), side(1, 2, 1), warped.shape[1:3], train=True)
    split = {name: out_of_turn(x, 3) for name, x in levels.items()}
    return tuple({name: maps[i] for name, maps in split.items()} for i in range(3))
