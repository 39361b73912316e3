"""NightLab (2204.05538): training of the region level and of the detector of hard regions, stage by stage.

Every stage is a run of its own that starts from the one before: the image level (``supervised``), ``regions``,
    ``detector``
(the RDN baseline), ``hdm``, and if wanted ``all``. Predictions are of the two levels together once the detector is
trained.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.config import choose
from nightjax.core.optim import accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses.detection import proposal_losses, relabel
from nightjax.methods.two_level import TwoLevel, pixels_of
from nightjax.ops import boxes, regions
from nightjax.ops.anchors import inside_image, match_anchors, sample_anchors

PyTree = Any

STAGES = {
    "regions": ("region",),
    "detector": ("detector",),
    "hdm": ("detector",),
    "all": ("image", "region", "detector"),
}
"""Stage to the networks it trains; the others rest, in evaluation mode."""


@dataclasses.dataclass(frozen=True)
class NightLab(TwoLevel):
    """NightLab's training. Losses of the two segmenters are those of `Supervised`.

    Attributes:
        stage: key of `STAGES`; ``"hdm"`` and ``"all"`` relabel the detector's positives.
        crops: regions an image that the region level learns from (ours).
        proposal_share: share of them that the detector finds rather than the labels (ours: half, once it is trained).
        by_class: of those from labels, draw a class that the image has first, then one of its parts; otherwise any
            part, and frequent classes such as poles take most (ours).
        jitter_scale: range of the factor on the sides of those from labels (ours).
        jitter_shift: their shift at most, in sides (ours).
        anchors: that the detector learns from, an image.
        positives: share of them that may be positive.
        relabelled: K, positives an image that hardness detection judges, by objectness; the rest is ignored (ours).
        hard_only: judge by the hard classes alone (ours: by all).
    """

    stage: str = "regions"
    crops: int = 4
    proposal_share: float = 0.0
    by_class: bool = True
    jitter_scale: tuple[float, float] = (0.8, 1.25)
    jitter_shift: float = 0.1
    anchors: int = 256
    positives: float = 0.5
    relabelled: int = 16
    hard_only: bool = False

    def __post_init__(self):
        super().__post_init__()
        choose(STAGES, self.stage, "method.stage")

    @property
    def trained(self) -> tuple[str, ...]:
        """See `TwoLevel`."""
        return STAGES[self.stage]

    @property
    def detects(self) -> bool:
        """See `TwoLevel`: the region level learns first, from labels alone."""
        return self.stage != "regions" or self.proposal_share > 0

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`. Networks learn from their own losses alone, at the weights from before the step."""
        steps = {"image": self._image_step, "region": self._region_step, "detector": self._detector_step}
        params, stats, opt_state, scalars = {}, {}, {}, {}
        for name in self.trained:
            alone = state.replace(
                params={"student": state.params["student"][name]},
                batch_stats={"student": state.batch_stats["student"][name]},
                opt_state={"student": state.opt_state[name]},
            )
            alone, logged = steps[name](alone, batch, self.variables(state))
            params[name], stats[name] = alone.params["student"], alone.batch_stats["student"]
            opt_state[name] = alone.opt_state["student"]
            scalars |= {key if len(self.trained) == 1 else f"{name}_{key}": value for key, value in logged.items()}
        if len(self.trained) > 1:
            scalars["loss"] = sum(scalars[f"{name}_loss"] for name in self.trained)
        state = state.replace(
            step=state.step + 1,
            params={"student": state.params["student"] | params},
            batch_stats={"student": state.batch_stats["student"] | stats},
            opt_state=opt_state,
        )
        return self.with_shared_light(state), scalars

    def _image_step(self, state, batch, variables):
        """One step of the image level on whole images."""
        del variables
        return super().train_step(state, batch)

    def _region_step(self, state, batch, variables):
        """One step of the region level on regions of every image."""
        examples = {name: self.training_regions(state, variables, batch[name], name) for name in self.streams}
        return super().train_step(state, examples)

    def training_regions(self, state: TrainState, variables: PyTree, domain: PyTree, name: str) -> PyTree:
        """Regions of a domain's images as examples: image [B * crops, S, S, 3] float32 in 0..255 and label.

        An image without hard regions gives itself, whole.
        """
        image, label = domain["image"], domain["label"]
        size = image.shape[1:3]
        found, kind, valid = self.true_regions(label, self.context)
        detected = round(self.crops * self.proposal_share)
        kind = kind if self.by_class else None
        drawn = draw(self.key(state, f"regions_{name}"), found, valid, self.crops - detected, size, kind)
        drawn = self._jittered(self.key(state, f"jitter_{name}"), drawn, size)
        if detected:
            found, _, valid = self.detect(variables, image)
            more = draw(self.key(state, f"proposals_{name}"), found, valid, detected, size)
            drawn = jnp.concatenate([drawn, more], 1)
        cut = self.crop(image, drawn)
        labels = regions.crop_label(label, drawn, self.region_size, keep_aspect=self.keep_aspect)
        return {"image": cut.reshape(-1, *cut.shape[2:]), "label": labels.reshape(-1, *labels.shape[2:])}

    def _jittered(self, key, found, size):
        scale_key, shift_key = jax.random.split(key)
        low, high = np.log(self.jitter_scale)
        factor = jnp.exp(jax.random.uniform(scale_key, (*found.shape[:2], 1), minval=low, maxval=high))
        shift = jax.random.uniform(shift_key, (*found.shape[:2], 2), minval=-1.0, maxval=1.0) * self.jitter_shift
        sides = found[..., 2:] - found[..., :2]
        centre = (found[..., :2] + found[..., 2:]) / 2 + shift * sides
        found = jnp.concatenate([centre - factor * sides / 2, centre + factor * sides / 2], -1)
        return boxes.region_of(found, size, min_side=self.min_side)

    def _detector_step(self, state, batch, variables):
        """One step of the detector on the labelled nights."""
        examples = {name: batch["source"][name] for name in ("image", "label")}

        def grad_fn(stats, examples, i):
            loss = lambda params: self._detector_loss(
                params["student"], stats, examples, self.key(state, "anchors", i), variables
            )
            grads, (stats, scalars) = jax.grad(loss, has_aux=True)(state.params)
            return grads, stats, scalars

        grads, stats, scalars = accumulate(grad_fn, state.batch_stats["student"], examples, self.accumulate)
        return dataclasses.replace(self, optimizer=self.detector_optimizer).update(state, grads, stats, scalars)

    def _detector_loss(self, params, stats, examples, key, variables):
        x, size = self._detector_view(self._detector_pixels(examples["image"]))
        image_size = examples["image"].shape[1:3]
        outputs, new = self.network.apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
        )
        logits, code = jnp.concatenate(outputs["logits"], 1), jnp.concatenate(outputs["code"], 1)
        anchors = jnp.concatenate(self.network.anchors(x.shape[1:3]))
        inside = inside_image(anchors, size)
        context = self.context if self.context_in_target else 1.0
        found, _, there = self.true_regions(examples["label"], context)
        truth = boxes.inclusive(found / pixels_of(size, image_size))

        def assign(key, truth, there):
            index, label = match_anchors(boxes.box_iou(truth, anchors), there)
            label = jnp.where(inside, label, -1)
            target = boxes.encode_boxes(truth[index], anchors)
            return label, target, sample_anchors(key, label, self.anchors, self.positives)

        label, target, sampled = jax.vmap(assign)(jax.random.split(key, len(x)), truth, there)
        scalars = {}
        if self.stage != "detector":
            decided = jax.lax.stop_gradient((logits, code))
            label, kept = self._relabelled(*decided, label, sampled, anchors, size, examples, variables)
            scalars["kept"] = kept
        objectness, offsets = proposal_losses(logits, code, label, target, sampled)
        scalars |= {
            "objectness": objectness,
            "offsets": offsets,
            "loss": objectness + offsets,
            "positives": jnp.mean((sampled & (label > 0)).sum(-1), dtype=jnp.float32),
        }
        return scalars["loss"], (new.get("batch_stats", stats), scalars)

    def _relabelled(self, logits, code, label, sampled, anchors, size, examples, variables):
        """Labels after hardness detection, and the share of judged positives that it keeps.

        Positives that are not among the best `relabelled` get -1.
        """
        image = examples["image"]
        positive = sampled & (label > 0)

        def pick(logits, code, positive):
            best, index = boxes.largest(jnp.where(positive, logits, -jnp.inf), self.relabelled)
            box = boxes.clip_boxes(boxes.decode_boxes(code[index], anchors[index]), size)
            return box, index, best > -jnp.inf

        box, index, judged = jax.vmap(pick)(logits, code, positive)
        sides = (box[..., 2:] - box[..., :2] + 1) * pixels_of(size, image.shape[1:3])[:2]
        found = jnp.round(self.detected_regions(box, size, image.shape[1:3]))
        wins, _, _ = regions.region_gain(
            self.segment_regions(variables, image, found),
            self.image_level(variables, image).argmax(-1),
            examples["label"],
            found,
            self.hard_classes if self.hard_only else None,
            keep_aspect=self.keep_aspect,
        )
        wins &= judged & (sides.min(-1) >= regions.LEAST_SIDE)
        wins = jax.lax.stop_gradient(wins)
        spread = jax.vmap(lambda index, values: jnp.zeros(label.shape[1], bool).at[index].max(values))
        label = jnp.where(positive & ~spread(index, judged), -1, relabel(label, spread(index, wins) | ~positive))
        return label, wins.sum() / jnp.maximum(judged.sum(), 1)


def draw(
    key: jax.Array, found: jax.Array, valid: jax.Array, count: int, size: tuple[int, int], kind: jax.Array | None = None
) -> jax.Array:
    """Some of the regions of each image, with replacement; the whole image where there are none.

    Args:
        key: of the draw.
        found: [B, G, 4].
        valid: bool [B, G].
        count: C.
        size: (H, W) of the image.
        kind: classes int [B, G]: each class is then as likely as another, and so is each region of a class; None for
            all regions alike.

    Returns:
        [B, C, 4].
    """
    some = valid.any(-1)[:, None]
    chance = jnp.zeros(valid.shape)
    if kind is not None:
        same = (kind[:, :, None] == kind[:, None]) & valid[:, None]
        chance = -jnp.log(jnp.maximum(same.sum(-1), 1))
    chance = jnp.where(valid | ~some, chance, -jnp.inf)
    index = jax.random.categorical(key, chance[:, None], shape=(len(found), count))
    drawn = jnp.take_along_axis(found, index[..., None], axis=1)
    whole = jnp.array([0, 0, size[1], size[0]], jnp.float32)
    return jnp.where(some[..., None], drawn, whole)
