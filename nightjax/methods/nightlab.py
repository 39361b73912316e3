# SPDX-License-Identifier: Apache-2.0
"""NightLab (2204.05538): training of the region level and of the detector of hard regions, stage by stage.

Every stage is a run of its own that starts from the one before: the image level (``supervised``), ``regions``,
``detector`` (the RDN baseline), ``hdm``, and if wanted ``all``. Predictions are of the two levels together once the
detector is trained.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError, choose
from nightjax.core.method import PredictionTable, ReportSection, Task
from nightjax.core.modules import init
from nightjax.core.optim import Optimizer
from nightjax.core.stacks import Stack, stacks_of
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Player, Players, Training, first_opt_state, gradient_step
from nightjax.core.types import Batch, PyTree, Scalars, Size, Variables
from nightjax.losses.detection import relabel
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.region_detector import RegionDetector
from nightjax.methods.parts.region_geometry import RegionGeometry, RegionSampling, draw_regions, pixels_of
from nightjax.methods.parts.supervision import RelightWeights, Supervision
from nightjax.methods.parts.two_level import LEVELS, NETWORKS, TwoLevel, only, with_shared_relighting
from nightjax.ops import boxes, regions

STAGES = {"regions": ("region",), "detector": ("detector",), "hdm": ("detector",), "all": NETWORKS}
"""Stage to the networks it trains; the others rest, in evaluation mode."""

DETECTED, TRUE = (255, 60, 50), (70, 220, 90)
"""Colors of frames in visualizations."""


@dataclasses.dataclass(frozen=True)
class NightLab:
    """NightLab's training. The losses of the two segmenters are those of `Supervised`.

    Attributes:
        network: of image level and region level.
        optimizer: of each of them.
        training: of the run.
        loss: of both levels.
        photometric: augmentation of their images, or None.
        joint: train on the domains ``source`` and ``day``, one image of each in turn.
        relight: weights of the light loss.
        stage: which networks learn; ``"hdm"`` and ``"all"`` relabel the detector's positives.
        start: what ``train.init`` names: a run of one segmenter, from which both levels start (``"image"``), or a run
            of this method (``"levels"``).
        hard_classes: train ids that the region level may overrule.
        logit_adjustment: take the logarithm of the loss's class weights off the logits of both levels wherever they
            predict: trained under weights, a softmax estimates weight times probability (Menon et al., arXiv
            2007.07314), and a merge that can only add hard classes adds too many (ours). Without weights there is
            nothing to take off.
        share_relighting: both levels relight by the image level's module; otherwise the region level has its own, which
            starts from it (ours: the paper has one symbol for both).
        detector: of hard regions.
        geometry: of regions.
        sampling: of the regions that the region level learns from.
    """

    network: SegmentationNetwork
    optimizer: Optimizer
    training: Training
    loss: SegmentationLoss = SegmentationLoss(normalizer="valid")
    photometric: Photometric | None = None
    joint: bool = False
    relight: RelightWeights = RelightWeights()
    stage: Literal["regions", "detector", "hdm", "all"] = "regions"
    start: Literal["image", "levels"] = "image"
    hard_classes: tuple[int, ...] = ()
    logit_adjustment: bool = True
    share_relighting: bool = False
    detector: RegionDetector = RegionDetector()
    geometry: RegionGeometry = RegionGeometry()
    sampling: RegionSampling = RegionSampling()

    task: ClassVar[Task] = "segmentation"
    networks: ClassVar[tuple[str, ...]] = ("levels",)
    predictions: ClassVar[tuple[str, ...]] = ("image_level", "oracle_boxes")
    optional_init: ClassVar[tuple[str, ...]] = ("relight",)
    pretrained: ClassVar[tuple[str, ...]] = ()
    report_sections: ClassVar[tuple[ReportSection, ...]] = (
        PredictionTable(
            (("image_level", "image level"), ("", "merged"), ("oracle_boxes", "true regions")), "method.hard_classes"
        ),
    )

    def __post_init__(self):
        count = len(self.network.classes)
        wrong = [c for c in self.hard_classes if not 0 <= c < count]
        if wrong or not self.hard_classes:
            raise UserError(
                f"method.hard_classes={self.hard_classes} must be train ids, 0 to {count - 1}, at least one"
            )
        if self.share_relighting and self.network.model.relight is None:
            raise UserError(
                "method.share_relighting needs a network that relights: add relight=1 to the config's arguments"
            )

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that a batch must hold, by name."""
        return ("source", "day") if self.joint else ("source",)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Stacks of equal blocks among the parameters, see `core.stacks`; those of both levels."""
        return tuple(stack for name in LEVELS for stack in stacks_of(self.network.model, name))

    @property
    def players(self) -> Players:
        """The networks of the stage, each under an optimizer of its own."""
        stacks = stacks_of(self.network.model)
        every = {name: Player(self.optimizer, (name,), stacks) for name in LEVELS}
        every["detector"] = Player(self.detector.optimizer, ("detector",))
        return {name: every[name] for name in STAGES[self.stage]}

    @property
    def detects(self) -> bool:
        """Whether the detector has learned anything; if not, predictions are of the image level."""
        return self.stage != "regions" or self.sampling.detected > 0

    @property
    def levels(self) -> TwoLevel:
        """The prediction."""
        adjustment = self.loss.class_weights if self.logit_adjustment else None
        return TwoLevel(self.network, self.detector, self.geometry, self.hard_classes, adjustment)

    @property
    def supervision(self) -> Supervision:
        """Examples and loss of both levels."""
        return Supervision(self.network, self.domains, self.loss, self.relight, self.photometric)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """Makes the first state; of the batch only the shapes are used."""
        size = batch["source"]["image"].shape[1:]
        keys = dict(zip(NETWORKS, jax.random.split(rng, len(NETWORKS)), strict=True))
        found = {name: self.network.init(keys[name], size) for name in LEVELS}
        view = self.detector.view(jnp.zeros((1, *size), jnp.float32))[0]
        found["detector"] = init(self.detector.model, keys["detector"], view, train=False)
        params = {name: variables["params"] for name, variables in found.items()}
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={name: variables.get("batch_stats", {}) for name, variables in found.items()},
            opt_state=first_opt_state(self.players, params, self.training.steps),
        )
        return self._shared(state)

    def initial(self, state: TrainState) -> dict[str, Variables]:
        """What ``train.init`` replaces: network name in the other run's checkpoint to variables."""
        variables = self.variables(state)
        if self.start == "image":
            return {"student": only(variables, "image")}
        return {name: only(variables, name) for name in NETWORKS}

    def with_initial(self, state: TrainState, networks: dict[str, Variables]) -> TrainState:
        """The first state with these weights of another run; modules that are not given stay."""
        if self.start == "image":
            networks = {name: networks["student"] for name in LEVELS}

        def put(field: str, trees: dict[str, PyTree]) -> dict[str, PyTree]:
            return trees | {name: trees[name] | variables[field] for name, variables in networks.items()}

        params, stats = put("params", state.params), put("batch_stats", state.batch_stats)
        return self._shared(state.replace(params=params, batch_stats=stats))

    def variables(self, state: TrainState, network: str = "") -> Variables:
        """Parameters and batch statistics of all three networks, by network."""
        del network  # There is one way to evaluate: all together.
        return {"params": state.params, "batch_stats": state.batch_stats}

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Merged logits [B, H, W, K] at the image's size; see `core.method.Segments`."""
        if not self.detects:
            return self.levels.image_level(variables, image)
        return self.levels.merge(variables, image, *self.levels.detect(variables, image))

    def predict_as(self, name: str, variables: Variables, image: jax.Array, label: jax.Array) -> jax.Array:
        """Other predictions: ``"image_level"`` alone, or merged with regions around the truth (``"oracle_boxes"``)."""
        choose(dict.fromkeys(self.predictions), name, "eval set's prediction")
        if name == "image_level":
            return self.levels.segment(variables, "image", image)
        return self.levels.oracle(variables, image, label)

    def penultimate(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Of the image level; see `core.method.Segments`."""
        return self.network.penultimate(only(variables, "image"), image)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """One update: the next state, and float32 scalars for the log.

        Networks learn from their own losses alone, at the weights from before the step.
        """
        variables, keys = self.variables(state), self.training.keys(state)
        losses, examples = {}, {}
        for name in STAGES[self.stage]:
            if name == "detector":
                examples[name] = {field: batch["source"][field] for field in ("image", "label")}
                losses[name] = functools.partial(self.detector_loss, state, variables)
                continue
            seen = batch
            if name == "region":
                seen = {
                    domain: self.training_regions(state, variables, batch[domain], domain) for domain in self.domains
                }
            examples[name] = self.supervision.examples(seen, keys)
            losses[name] = functools.partial(self.level_loss, state, name, self.supervision.level(examples[name]))
        state, scalars = gradient_step(state, self.players, losses, examples, self.training)
        if len(losses) > 1:
            scalars["loss"] = sum(scalars[f"{name}_loss"] for name in losses)
        return self._shared(state), scalars

    def level_loss(self, state, name, level, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The loss of image level or region level on one microbatch; see `core.step.Loss`."""
        variables = {"params": params[name], "batch_stats": stats[name]}
        loss, scalars, new = self.supervision(variables, part[name], level, self.training.keys(state, i))
        return loss, Outcome(self._named(name, scalars | {"loss": loss}), {name: new})

    def training_regions(
        self, state: TrainState, variables: Variables, fields: Mapping[str, Any], domain: str
    ) -> dict[str, jax.Array]:
        """Regions of a domain's images as examples: image [B * C, S, S, 3] float32 in 0..255 and label.

        An image without hard regions gives itself, whole.
        """
        image, label, keys = fields["image"], fields["label"], self.training.keys(state)
        size = image.shape[1:3]
        true = self.geometry.true_regions(label, self.hard_classes, self.geometry.context)
        drawn = self.sampling.from_labels(keys, domain, true, size, self.geometry.min_side)
        if self.sampling.detections:
            found, valid = self.levels.detect(variables, image)
            more = draw_regions(keys(f"proposals_{domain}"), found, valid, self.sampling.detections, size)
            drawn = jnp.concatenate([drawn, more], 1)
        cut, labels = self.geometry.crop(image, drawn), self.geometry.crop_label(label, drawn)
        return {"image": cut.reshape(-1, *cut.shape[2:]), "label": labels.reshape(-1, *labels.shape[2:])}

    def detector_loss(self, state, variables, params, stats, part, i) -> tuple[jax.Array, Outcome]:
        """The loss of the detector on one microbatch of labeled nights; see `core.step.Loss`."""
        own, part = {"params": params["detector"], "batch_stats": stats["detector"]}, part["detector"]
        image_size = part["image"].shape[1:3]

        def truth(size: Size) -> tuple[jax.Array, jax.Array]:
            context = self.geometry.context if self.geometry.context_in_target else 1.0
            found, _, there = self.geometry.true_regions(part["label"], self.hard_classes, context)
            return boxes.inclusive(found / pixels_of(size, image_size)), there

        relabeled = None if self.stage == "detector" else functools.partial(self.relabeled, variables, part)
        pixels = self.detector.pixels(part["image"], self.network.input)
        key = self.training.key(state, "anchors", i)
        loss, scalars, new = self.detector.loss(own, pixels, truth, key, relabeled)
        return loss, Outcome(self._named("detector", scalars), {"detector": new})

    def relabeled(self, variables, part, logits, code, label, sampled, anchors, size) -> tuple[jax.Array, jax.Array]:
        """Labels after hardness detection, and the share of judged positives that it keeps.

        Positives that are not among the best get -1.
        """
        image, rule = part["image"], self.detector.relabeling
        positive = sampled & (label > 0)

        def pick(logits, code, positive):
            best, index = boxes.largest(jnp.where(positive, logits, -jnp.inf), rule.count)
            box = boxes.clip_boxes(boxes.decode_boxes(code[index], anchors[index]), size)
            return box, index, best > -jnp.inf

        box, index, judged = jax.vmap(pick)(logits, code, positive)
        sides = (box[..., 2:] - box[..., :2] + 1) * pixels_of(size, image.shape[1:3])[:2]
        found = jnp.round(self.geometry.detected(box, size, image.shape[1:3]))
        wins, _, _ = regions.region_gain(
            self.levels.segment_regions(variables, image, found),
            self.levels.image_level(variables, image).argmax(-1),
            part["label"],
            found,
            self.hard_classes if rule.hard_only else None,
            keep_aspect=self.geometry.keep_aspect,
        )
        wins &= judged & (sides.min(-1) >= regions.LEAST_SIDE)
        wins = jax.lax.stop_gradient(wins)
        spread = jax.vmap(lambda index, values: jnp.zeros(label.shape[1], bool).at[index].max(values))
        label = jnp.where(positive & ~spread(index, judged), -1, relabel(label, spread(index, wins) | ~positive))
        return label, wins.sum() / jnp.maximum(judged.sum(), 1)

    def visualizations(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """Images of one batch by name, uint8 labels or colors in [0, 1]."""
        variables, image, label = self.variables(state), batch["source"]["image"], batch["source"]["label"]
        true, _, there = self.geometry.true_regions(label, self.hard_classes, self.geometry.context)
        frames = regions.draw_regions(image, true, there, TRUE)
        name, (found, valid) = "oracle_boxes", self.geometry.oracle_regions(label, self.hard_classes)
        if self.detects:
            name, (found, valid) = "prediction", self.levels.detect(variables, image)
            frames = regions.draw_regions(frames, found, valid, DETECTED)
        return {
            "image": image,
            "truth": label,
            "regions": frames,
            "image_level": self.levels.image_level(variables, image).argmax(-1).astype(jnp.uint8),
            name: self.levels.merge(variables, image, found, valid).argmax(-1).astype(jnp.uint8),
        }

    def _named(self, name: str, scalars: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Scalars with the network's name in front where several networks learn."""
        alone = len(self.players) == 1
        return scalars if alone else {f"{name}_{key}": value for key, value in scalars.items()}

    def _shared(self, state: TrainState) -> TrainState:
        """The state in which, if so wanted, both levels have one relighting module."""
        if not self.share_relighting:
            return state
        params, stats = with_shared_relighting(state.params), with_shared_relighting(state.batch_stats)
        return state.replace(params=params, batch_stats=stats)
