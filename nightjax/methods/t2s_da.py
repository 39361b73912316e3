"""T2S-DA: pulling target to source (arXiv 2305.13752).

DACS self-training, and a contrast between two domains: features of a pseudo-target image, which is the source image
translated to the look of the target and so keeps its label, are pulled to the source prototype of their class and
pushed away from source and target features of other classes. Classes on which the teacher is unsure weigh more.

Certain is the structure, from the abstract and the method's figure: student, teacher and projection head under one
moving average; pseudo-target queries, as many for every class; source prototypes; as many negatives from either domain;
a dynamic re-weighting. Every formula and constant is a decision of ours: the paper's body and its training code could
not be read.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.state import TrainState
from nightjax.core.types import IGNORE, NUM_CLASSES, Batch, Scalars
from nightjax.methods.dacs import Dacs, Terms
from nightjax.methods.network import Outputs, in_turn, out_of_turn
from nightjax.methods.pulling import Contrast, Keys, Pulling
from nightjax.models.hrda import HRDA
from nightjax.models.projection import ProjectionHead
from nightjax.models.style import EMBEDDING, StyleRandomizer
from nightjax.ops.class_cells import class_means, class_similarity
from nightjax.ops.fourier import fourier_adapt
from nightjax.ops.pseudo_label import pseudo_label
from nightjax.ops.resize import resize, resize_nearest

PyTree = Any
Examples = dict[str, jax.Array]
TRANSLATIONS = {"fda": "fourier_adapt", "style": "StyleRandomizer", "none": ""}


@dataclasses.dataclass(frozen=True)
class T2sDa(Dacs):
    """T2S-DA. The fields of `Dacs` hold too; without pulling loss and ``translated_weight`` it is `Dacs`.

    The teacher sees source and target in two passes, not in one batch of both: each domain has norm statistics of its
        own, and
    the pseudo-labels stay those of `Dacs`.

    Attributes:
        translation: of the source into a pseudo-target image: ``"fda"`` (Fourier domain adaptation to the target image
            of the batch), ``"style"`` (the style randomiser), or ``"none"``: the queries are the source's own features.
        fda_beta: see `fourier_adapt`.
        style_strength: share of the random style in the style's embedding.
        translated_weight: of a cross-entropy on the pseudo-target images.
        real_target_queries: draws as many queries from the target images, under their pseudo-labels; both losses are
            averaged.
        feature: what is projected: ``"penultimate"``, which the classifier reads, or a stage such as ``"stage4"``.
        cell: pixels between neighbouring cells, at least. Finer features are thinned: published networks have theirs at
            a quarter or an eighth of the image, and more cells cost time while as many are drawn.
        pull: the pulling loss.
    """

    translation: str = "fda"
    fda_beta: float = 0.01
    style_strength: float = 0.5
    translated_weight: float = 0.0
    real_target_queries: bool = False
    feature: str = "penultimate"
    cell: int = 4
    pull: Pulling = Pulling()

    scratch = ("projection",)

    def __post_init__(self):
        super().__post_init__()
        choose(TRANSLATIONS, self.translation, "method.translation")
        if self.cell < 1:
            raise UserError(f"method.cell={self.cell} must be 1 pixel or more")
        if self.translated_weight and self.translation == "none":
            raise UserError(
                "method.translated_weight needs translated images: set method.translation, or the weight to 0"
            )

    @property
    def translates(self) -> bool:
        """Whether pseudo-target images are made."""
        return self.translation != "none" and bool(self.pull.weight or self.translated_weight)

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        state = super().init(rng, batch)
        if not (self.pull.weight or self.translated_weight):
            return state
        images, *size = batch["source"]["image"].shape
        image = jnp.zeros((1, *size), jnp.float32)
        if self.translates and self.translation == "style":
            style = StyleRandomizer().init(jax.random.fold_in(rng, 2), image, jnp.zeros((1, EMBEDDING)))
            state = state.replace(frozen=state.frozen | {"style": style})
        if not self.pull.weight:
            return state
        network = self.variables(state).values()
        features = jax.eval_shape(lambda: self.features_to_pull(self.forward(*network, image, rng)[0], 1))
        head = ProjectionHead(self.pull.channels).init(
            jax.random.fold_in(rng, 1), jnp.zeros((1, 2, 2, features.shape[-1]))
        )
        params = {"student": state.params["student"] | {"projection": head["params"]}}
        state = state.replace(
            params=params,
            opt_state={"student": self.optimizer.build(params, self.steps).init(params)},
            memory=self.pull.memory(),
            bank=self.pull.empty_ring(images),
        )
        return self._with_copies(state)

    def prepare(self, state: TrainState, teacher: Variables, batch: Batch) -> tuple[Examples, TrainState, Scalars]:
        """As in `Dacs`, with pseudo-target images and the teacher's keys of both domains."""
        if not (self.pull.weight or self.translated_weight):
            return super().prepare(state, teacher, batch)
        source, target = (self.input.decode(batch[domain]["image"]) for domain in ("source", "target"))
        outputs, stats = self.teacher_forward(state, teacher, target)
        logits = resize(outputs["logits"].astype(jnp.float32), target.shape[1:3], align_corners=False)
        targets = self._label(target, jax.nn.softmax(logits))
        examples, bank = self.mix(state, batch, targets)
        state = state.replace(teacher=teacher | {"batch_stats": stats}, bank=bank)
        if self.translates:
            examples["translated"] = self.translate(state, source, target)
        if self.real_target_queries:
            examples["target"] = target
        keys, state, scalars = self.remember(state, source, batch["source"]["label"], outputs)
        return examples | keys, state, {"pseudo_weight": targets.share.mean()} | scalars

    def translate(self, state: TrainState, source: jax.Array, target: jax.Array) -> jax.Array:
        """Pseudo-target images of source images, both [B, H, W, 3] float32 in [0, 1]."""
        return (
            self.stylise(state, source) if self.translation == "style" else fourier_adapt(source, target, self.fda_beta)
        )

    def stylise(self, state: TrainState, image: jax.Array) -> jax.Array:
        """Each image [B, H, W, 3] in a random style."""
        noise = jax.random.normal(self.key(state, "style"), (image.shape[0], EMBEDDING))
        return StyleRandomizer().apply(state.frozen["style"], image, noise, strength=self.style_strength)

    def remember(
        self, state: TrainState, source: jax.Array, label: jax.Array, outputs: Outputs
    ) -> tuple[Examples, TrainState, Scalars]:
        """The teacher's keys of both domains, and what they leave in memory.

        Args:
            state: with this step's teacher.
            source: [B, H, W, 3] images.
            label: [B, H, W] of the source.
            outputs: the teacher's on the target images.

        Returns:
            ``source_keys``, ``target_keys`` [B, h, w, D], without the head's last layer, and ``source_cells``,
            ``target_cells`` [B, h, w], their labels; the state; and scalars to log.
        """
        if not self.pull.weight:
            return {}, state, {}
        batch = source.shape[0]
        source_outputs, _ = self.teacher_forward(state, state.teacher, source, self.context_only())
        near, far = (self.features_to_pull(x, batch) for x in (source_outputs, outputs))
        labels = (resize_nearest(x, near.shape[1:3]) for x in (label, outputs["logits"].astype(jnp.float32)))
        near, far, cells, logits = (self.thin(x, source) for x in (near, far, *labels))
        target_cells, confidence = pseudo_label(jax.nn.softmax(logits))
        # The domains alternate in one batch: the head's norm sees both, no example changes device.
        teacher = state.teacher["params"]
        near_keys, far_keys = out_of_turn(self.project(teacher, in_turn([near, far])), 2)
        trusted = jnp.where(confidence >= self.pull.negative_confidence, target_cells, IGNORE).astype(jnp.uint8)
        memory = self.pull.remember(state.memory, self.keys(teacher, near_keys, cells), target_cells, confidence)
        bank = self.pull.push(state.bank, self.key(state, "ring"), self.keys(teacher, far_keys, trusted))
        examples = {"source_keys": near_keys, "source_cells": cells, "target_keys": far_keys, "target_cells": trusted}
        scalars = {"confidence": memory["confidence"].mean()} | self._similarity(near, cells, far, target_cells)
        return examples, state.replace(memory=memory, bank=bank), scalars

    def _similarity(self, source, source_cells, target, target_cells) -> Scalars:
        """Cosines of target features to source prototypes, by train id, each with whether it is known; the report draws
        them."""
        prototypes, count = class_means(source, source_cells)
        *cosines, known = class_similarity(target, target_cells, prototypes, count > 0)
        return {
            f"similarity/{kind}/{k:02d}": jnp.stack([cosine[k], known[k].astype(jnp.float32)])
            for k in range(NUM_CLASSES)
            for kind, cosine in zip(("own", "other"), cosines, strict=True)
        }

    def context_only(self) -> jax.Array | None:
        """The offset that gives HRDA one detail window rather than all, where only its context view counts."""
        return jnp.zeros(2, jnp.int32) if isinstance(self.model, HRDA) else None

    def features_to_pull(self, outputs: Outputs, batch: int) -> jax.Array:
        """[B, h, w, C] of a pass; HRDA's head reads all views of an image, the first of which is the context."""
        if self.feature not in outputs:
            known = ", ".join(sorted(outputs))
            raise UserError(f"method.feature={self.feature!r} is nothing that this network gives; choose from {known}")
        x = outputs[self.feature]
        return x.reshape(batch, -1, *x.shape[1:])[:, 0]

    def thin(self, x: jax.Array, image: jax.Array) -> jax.Array:
        """Of features or labels [B, h, w, ...] of images [B, H, W, 3], a cell every ``cell`` pixels or more."""
        step = max(1, self.cell * x.shape[1] // image.shape[1])
        return x[:, ::step, ::step]

    def project(self, params: PyTree, features: jax.Array) -> jax.Array:
        """Features [B, h, w, C] through a network's projection head but its last layer, [B, h, w, D]."""
        head = ProjectionHead(self.pull.channels, features.dtype)
        return head.apply({"params": params["projection"]}, features, method="hidden", mutable=["batch_stats"])[0]

    def keys(self, params: PyTree, projected: jax.Array, label: jax.Array) -> Keys:
        """Keys or queries of these cells, with the last layer of the same network's head."""
        head = ProjectionHead(self.pull.channels)
        return Keys(projected, label, functools.partial(head.apply, {"params": params["projection"]}, method="last"))

    def losses(self, state: TrainState, params: PyTree, stats: PyTree, part: dict, i) -> tuple[Terms, PyTree]:
        """The terms of `Dacs`, the pulling loss and, if asked for, a cross-entropy on the pseudo-target images."""
        source, terms, stats = self.source_losses(state, params, stats, part, i)
        more, stats = self.translated_losses(state, params, stats, part, i, source)
        _, mixed, stats = self.mixed_losses(state, params, stats, part, i)
        return terms | more | mixed, stats

    def translated_losses(
        self, state: TrainState, params: PyTree, stats: PyTree, part: dict, i, outputs: Outputs
    ) -> tuple[Terms, PyTree]:
        """The terms on the pseudo-target images; without such, on the source, whose ``outputs`` are given."""
        if self.translates:
            outputs, stats = self.student_forward(state, params, stats, part["translated"], "translated", i)
        terms, label = {}, part["source_label"]
        if self.translated_weight:
            loss = self.segmentation_loss(outputs, label, self.label_weight(label))
            terms["loss_translated"] = self.translated_weight * loss
        if not self.pull.weight:
            return terms, stats
        source = self.keys(state.teacher["params"], part["source_keys"], part["source_cells"])
        target = self.target_keys(state, part)
        contrast = self.pull.contrast(self.key(state, "negatives", i), state.memory, source, target)
        loss = self.pull_queries(
            state, params, outputs, part["source"], part["source_cells"], contrast, "translated", i
        )
        if self.real_target_queries:
            outputs, stats = self.student_forward(state, params, stats, part["target"], "target", i)
            loss += self.pull_queries(
                state, params, outputs, part["target"], part["target_cells"], contrast, "target", i
            )
            loss /= 2
        terms["loss_pull"] = jnp.where(state.step >= self.pull.start_step, self.pull.weight * loss, 0.0)
        return terms, stats

    def target_keys(self, state: TrainState, part: dict) -> Keys:
        """Target keys to draw negatives from: this batch's, or the ring's, which holds this batch too."""
        if not self.pull.ring:
            return self.keys(state.teacher["params"], part["target_keys"], part["target_cells"])
        return Keys(*(jnp.moveaxis(state.bank[name], 0, 1) for name in ("key", "label")))

    def pull_queries(
        self,
        state: TrainState,
        params: PyTree,
        outputs: Outputs,
        image: jax.Array,
        cells: jax.Array,
        contrast: Contrast,
        name: str,
        i,
    ) -> jax.Array:
        """The pulling loss of queries drawn from the student's pass ``name`` over ``image``, labelled ``cells``."""
        features = self.thin(self.features_to_pull(outputs, len(image)), image)
        queries = self.keys(params, self.project(params, features), cells)
        return self.pull.loss(self.key(state, f"queries_{name}", i), queries, contrast)

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        pictures = super().panels(state, batch)
        if self.translates:
            source, target = (self.input.decode(batch[domain]["image"]) for domain in ("source", "target"))
            pictures["translated"] = self.translate(state, source, target)
        return pictures
