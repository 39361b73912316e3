"""NightLab's inference (2204.05538): an image level, a detector of hard regions, and a region level that looks closer.

The paper's body and code are not public; this is a reconstruction from its supplementary. A setting that no source
states is marked *ours* where it is described.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.optim import Optimizer
from nightjax.core.state import TrainState
from nightjax.core.types import NUM_CLASSES, Batch
from nightjax.methods.network import Input
from nightjax.methods.supervised import Supervised
from nightjax.models.detector import Detector, Proposals, build_detector, proposal_input_size
from nightjax.ops import boxes, regions
from nightjax.ops.resize import resize, resize_nearest

PyTree = Any
NETWORKS = ("image", "region", "detector")
"""Parts of the student: two segmenters of one architecture, and the detector."""

DETECTED, TRUE = (255, 60, 50), (70, 220, 90)
"""Colours of frames in panels."""


@dataclasses.dataclass(frozen=True)
class TwoLevel(Supervised):
    """The three networks and the prediction that they make together, one compiled program an image shape.

    All of them see the image itself: a region is cut out before light adaptation. Sizes are pixels of the image.

    Attributes:
        hard_classes: train ids that the region level may overrule.
        start: what ``train.init`` names: ``"image"``, a run of one segmenter, from which both levels start, or
            ``"levels"``, a run of this method.
        detector: key of `models.detector.VARIANTS`. Ours: the paper says only that it is maskrcnn-benchmark's.
        detector_input: how pixels enter the detector; None for ``input``.
        detector_short_side: images are resized for the detector so that the short side is this, by maskrcnn-benchmark's
            rule; 0 leaves them at their size (ours).
        proposals: from anchors to boxes.
        unweight: take the logarithm of `class_weights` off the logits of both levels wherever they predict: trained
            under weights, a softmax estimates weight times probability, and a merge that can only add hard classes adds
            too many (ours). Without weights there is nothing to take off.
        score: of a box above which it counts (ours).
        max_regions: the best so many count (ours).
        region_size: side to which regions are resampled (ours).
        keep_aspect: resample the long side to it and fill up the short one; otherwise both become ``region_size``
            (ours).
        antialias: along sides that shrink (ours).
        share_light: both levels relight by the image level's network; otherwise the region level has its own, which
            starts from it (ours: the paper has one symbol for both).
        min_side: to which smaller regions are grown (ours).
        context: factor on the sides of boxes from labels (ours).
        context_in_target: the detector learns boxes with their context, and what it finds is not grown again (ours).
        min_area: pixels of the smallest part of a label map that makes a box (ours: 64 at 512x1024).
        max_boxes: the largest so many parts make boxes (ours).
        merge_iou: boxes of different classes that overlap by more are joined (ours).
    """

    hard_classes: tuple[int, ...] = ()
    start: str = "image"
    detector: str = "resnet50"
    detector_optimizer: Optimizer = Optimizer(
        name="sgd", lr=0.01, schedule="multistep", warmup=500, milestones=(18_000,), weight_decay=1e-4
    )
    detector_input: Input | None = None
    detector_short_side: int = 0
    proposals: Proposals = Proposals()
    unweight: bool = True
    score: float = 0.5
    max_regions: int = 20
    region_size: int = 512
    keep_aspect: bool = False
    antialias: bool = True
    share_light: bool = False
    min_side: float = 64.0
    context: float = 2.0
    context_in_target: bool = True
    min_area: int = 64
    max_boxes: int = 64
    merge_iou: float = 0.7

    trained = NETWORKS
    """The networks that a step updates, each under an optimiser of its own."""

    detects = True
    """Whether the detector has learnt anything. If not, predictions are of the image level."""

    def __post_init__(self):
        super().__post_init__()
        choose({"image": 0, "levels": 0}, self.start, "method.start")
        wrong = [c for c in self.hard_classes if not 0 <= c < NUM_CLASSES]
        if wrong or not self.hard_classes:
            raise UserError(
                f"method.hard_classes={self.hard_classes} must be train ids, 0 to {NUM_CLASSES - 1}, at least one"
            )
        if self.share_light and getattr(self.model, "light", None) is None:
            raise UserError("method.share_light needs light adaptation to share: add light=1 to the config's arguments")

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        x = jnp.zeros((1, *batch["source"]["image"].shape[1:]), jnp.float32)
        models = {"image": self.model, "region": self.model, "detector": self.network}
        inputs = {"image": x, "region": x, "detector": self._detector_view(x)[0]}
        found = {}
        for key, (name, model) in zip(jax.random.split(rng, len(models)), models.items(), strict=True):
            found[name] = model.init(key, inputs[name], train=False)
        params = {name: variables["params"] for name, variables in found.items()}
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params={"student": params},
            batch_stats={"student": {name: variables.get("batch_stats", {}) for name, variables in found.items()}},
            opt_state={
                name: self.optimizer_of(name)
                .build({"student": params[name]}, self.steps)
                .init({"student": params[name]})
                for name in self.trained
            },
        )
        return self.with_shared_light(state)

    def with_shared_light(self, state: TrainState) -> TrainState:
        """With ``share_light``, the state in which the region level has the image level's relighting network."""
        if not self.share_light:
            return state

        def put(student: PyTree) -> PyTree:
            light = jax.tree.map(jnp.copy, student["image"].get("light", {}))  # Donated buffers must not be shared.
            return student | {"region": student["region"] | ({"light": light} if light else {})}

        return state.replace(
            params={"student": put(state.params["student"])}, batch_stats={"student": put(state.batch_stats["student"])}
        )

    @property
    def network(self) -> Detector:
        """The detector's network."""
        return build_detector(self.detector)

    def optimizer_of(self, name: str) -> Optimizer:
        """Settings of a network's optimiser; the paths of its parameters begin with ``student/``, as in a run of its
        own."""
        return self.detector_optimizer if name == "detector" else self.optimizer

    def initial_variables(self, state: TrainState) -> Variables:
        """What `with_weights` takes from the run that ``train.init`` names."""
        return self.variables(state) if self.start == "levels" else part(self.variables(state), "image")

    def with_weights(self, state: TrainState, variables: Variables) -> TrainState:
        """See `NetworkMethod`."""
        if self.start == "image":
            own = self.variables(state)
            variables = {
                key: {name: own[key][name] | tree for name in ("image", "region")} for key, tree in variables.items()
            }
        return self.with_shared_light(super().with_weights(state, variables))

    def predict(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Merged logits [B, H, W, K] at the image's size; see `Method`."""
        if not self.detects:
            return self.image_level(variables, image)
        found, _, valid = self.detect(variables, image)
        return self.merge(variables, image, found, valid)

    def predict_as(self, name: str, variables: Variables, image: jax.Array, label: jax.Array) -> jax.Array:
        """Other predictions: ``"image_level"`` alone, or merged with regions around the truth (``"oracle_boxes"``).

        True regions have no score: the largest parts make them, and of those the smallest region, the closest look, is
            on top
        (ours).

        Args:
            name: of the prediction.
            variables, image: as of `predict`.
            label: [B, H', W'] train ids.

        Raises:
            UserError: no such prediction.
        """
        choose({"image_level": 0, "oracle_boxes": 0}, name, "eval set's prediction")
        if name == "image_level":
            return self.segment(variables, "image", image)
        return self.merge(variables, image, *self.oracle_regions(resize_nearest(label, image.shape[1:3])))

    def oracle_regions(self, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Regions around the largest parts, the smallest region first: [B, M, 4] in whole pixels and bool [B, M]."""
        found, _, valid = (x[:, : self.max_regions] for x in self.true_regions(label, self.context))
        found = jnp.round(found)
        area = (found[..., 2:] - found[..., :2]).prod(-1)
        order = jnp.argsort(jnp.where(valid, area, jnp.inf), axis=1, stable=True)
        return jnp.take_along_axis(found, order[..., None], axis=1), jnp.take_along_axis(valid, order, axis=1)

    def segment(self, variables: Variables, name: str, image: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] of one segmenter alone for images [B, H, W, 3] in 0..255; see `unweight`."""
        logits = super().predict(part(variables, name), image)
        if not self.unweight or self.class_weights is None:
            return logits
        weights = np.asarray(self.class_weights, np.float32)
        return logits - np.log(np.where(weights > 0, weights, 1))

    def image_level(self, variables: Variables, image: jax.Array) -> jax.Array:
        """Logits [B, H, W, K] of the image level alone, at the image's size."""
        return resize(self.segment(variables, "image", image), image.shape[1:3], align_corners=False)

    def segment_regions(self, variables: Variables, image: jax.Array, found: jax.Array) -> jax.Array:
        """Logits [B, M, h, w, K] of the region level for regions [B, M, 4], all in one pass."""
        cut = self.crop(image, found)
        logits = self.segment(variables, "region", cut.reshape(-1, *cut.shape[2:]))
        return logits.reshape(*cut.shape[:2], *logits.shape[1:])

    def crop(self, image: jax.Array, found: jax.Array) -> jax.Array:
        """Regions [B, M, 4] of images [B, H, W, 3] at the region level's size, float32 in 0..255."""
        options = {"antialias": self.antialias, "keep_aspect": self.keep_aspect}
        return regions.crop(image.astype(jnp.float32), found, self.region_size, **options)

    def merge(self, variables: Variables, image: jax.Array, found: jax.Array, valid: jax.Array) -> jax.Array:
        """Merged logits [B, H, W, K]: see `ops.regions.merge_regions`."""
        logits, closer = self.image_level(variables, image), self.segment_regions(variables, image, found)
        return regions.merge_regions(logits, closer, found, valid, self.hard_classes, keep_aspect=self.keep_aspect)

    def detect(self, variables: Variables, image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The regions to look at: the best boxes above the score, after a suppression over all levels.

        Returns:
            Half-open regions [B, M, 4] in whole pixels, the best first; their scores [B, M]; bool [B, M].
        """
        x, size = self._detector_view(self._detector_pixels(image))
        outputs = self.network.apply(part(variables, "detector"), x, train=False)
        anchors = self.network.anchors(x.shape[1:3])

        def choose_boxes(logits, code):
            box, score, valid = self.proposals(logits, code, anchors, size)
            valid = boxes.nms(box, score, self.proposals.threshold, valid & (score > self.score))
            return boxes.best_boxes(box, score, valid, self.max_regions)

        box, score, valid = jax.vmap(choose_boxes)(outputs["logits"], outputs["code"])
        return jnp.round(self.detected_regions(box, size, image.shape[1:3])), score, valid

    def detected_regions(self, box: jax.Array, size: tuple[int, int], image_size: tuple[int, int]) -> jax.Array:
        """Regions of an image for boxes [..., 4] in pixels of the detector's view of ``size``."""
        context = 1.0 if self.context_in_target else self.context
        found = boxes.half_open(box) * pixels_of(size, image_size)
        return boxes.region_of(found, image_size, context=context, min_side=self.min_side)

    def true_regions(self, label: jax.Array, context: float) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Regions around the parts of the hard classes, the largest part first.

        Returns:
            Half-open regions [B, G, 4]; the classes int32 [B, G], of joined boxes that of the largest part; bool [B,
            G].
        """
        least = self.min_side if context != 1.0 else 0.0

        def one(label):
            box, kind, area = regions.label_boxes(
                label, self.hard_classes, count=self.max_boxes, min_area=self.min_area
            )
            box = boxes.region_of(boxes.half_open(box), label.shape, context=context, min_side=least)
            box, valid = boxes.merge_overlapping(boxes.inclusive(box), kind, area > 0, self.merge_iou)
            order = jnp.argsort(~valid, stable=True)
            return boxes.half_open(box)[order], kind[order], valid[order]

        return jax.vmap(one)(label)

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        variables, image, label = self.variables(state), batch["source"]["image"], batch["source"]["label"]
        true, _, there = self.true_regions(label, self.context)
        frames = regions.draw_regions(image, true, there, TRUE)
        name, (found, valid) = "oracle_boxes", self.oracle_regions(label)
        if self.detects:
            name, (found, _, valid) = "prediction", self.detect(variables, image)
            frames = regions.draw_regions(frames, found, valid, DETECTED)
        return {
            "image": image,
            "truth": label,
            "regions": frames,
            "image_level": self.image_level(variables, image).argmax(-1).astype(jnp.uint8),
            name: self.merge(variables, image, found, valid).argmax(-1).astype(jnp.uint8),
        }

    def _detector_pixels(self, image: jax.Array) -> jax.Array:
        enter = self.detector_input or self.input
        return enter.normalize(enter.decode(image))

    def _detector_view(self, x: jax.Array) -> tuple[jax.Array, tuple[int, int]]:
        """Normalised images at the detector's size, with a border of zeros, and their size without it."""
        size = x.shape[1:3]
        if self.detector_short_side:
            longest = round(self.detector_short_side * 1333 / 800)
            size = proposal_input_size(size, self.detector_short_side, longest)
            x = resize(x, size, align_corners=False)
        border = [(0, -length % self.network.multiple) for length in size]
        return jnp.pad(x, ((0, 0), *border, (0, 0))), size


def pixels_of(size: tuple[int, int], image_size: tuple[int, int]) -> jax.Array:
    """Pixels of an image to one of its view of ``size`` (H, W), for the four numbers of a region."""
    return jnp.array([image_size[1] / size[1], image_size[0] / size[0]] * 2, jnp.float32)


def part(variables: Variables, name: str) -> Variables:
    """One network's variables out of the student's."""
    return {key: tree[name] for key, tree in variables.items()}
