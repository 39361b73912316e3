"""DACS self-training as DAFormer runs it.

A mean teacher labels the target, and classes of the source are pasted onto it.

Facts: DAFormer (arXiv 2111.14887) and ``mmseg/models/uda/dacs.py`` of its official repository.
DSR+FPA and T2S-DA build on the parts below.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nightjax.core.ema import ema_update
from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.core.optim import accumulate
from nightjax.core.state import TrainState
from nightjax.core.types import Batch, Scalars
from nightjax.losses.feature import feature_distance
from nightjax.methods.network import NetworkMethod, Outputs, Photometric
from nightjax.ops import mixing, pseudo_label
from nightjax.ops.resize import resize

PyTree = Any
Terms = dict[str, jax.Array]


class Targets(NamedTuple):
    """What the teacher says about the target images.

    Attributes:
        image: [B, H, W, 3] float32 in [0, 1], the images to paste onto.
        label: [B, H, W] uint8, the likeliest class of every pixel.
        confidence: [B, H, W] float32, its score.
        share: [B] float32, the weight of the pseudo-labels.
    """

    image: jax.Array
    label: jax.Array
    confidence: jax.Array
    share: jax.Array


@dataclasses.dataclass(frozen=True)
class Dacs(NetworkMethod):
    """Self-training by class-wise mixing.

    Attributes:
        teacher_decay: cap of the teacher's decay.
        threshold: confidence from which a pixel counts into the weight of the pseudo-labels.
        share_scope: ``"batch"`` or ``"image"``; see `pseudo_label.confident_share`.
        mask_mode: how the classes to paste are drawn; see `mixing.select_classes`.
        mask_include_ignore: whether the ignore value may be drawn.
        ignore_top, ignore_bottom: rows whose pseudo-label gets no weight.
        mixed_weight: weight of the loss on mixed images; 0.8 for HRDA in DSR+FPA.
        photometric: strong augmentation of the mixed images, or None.
        source_photometric: the same for the source images, or None (the papers use none).
        feature_weight: weight of the feature distance to the initial network; 0 switches it off.
        feature_min_ratio: share from which a cell takes its majority label there.
    """

    teacher_decay: float = 0.999
    threshold: float = 0.968
    share_scope: str = "batch"
    mask_mode: str = "dacs"
    mask_include_ignore: bool = True
    ignore_top: int = 0
    ignore_bottom: int = 0
    mixed_weight: float = 1.0
    photometric: Photometric | None = Photometric()
    source_photometric: Photometric | None = None
    feature_weight: float = 0.005
    feature_min_ratio: float = 0.75

    streams = ("source", "target")

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 <= self.teacher_decay < 1.0:
            raise UserError(f"method.teacher_decay={self.teacher_decay} must be at least 0 and below 1")

    def init(self, rng: jax.Array, batch: Batch) -> TrainState:
        """See `Method`."""
        sizes = {name: domain["image"].shape[1:3] for name, domain in batch.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(
                f"data.streams: crops of {sizes}; objects of one are pasted onto the other, so make them one size"
            )
        state = super().init(rng, batch)
        return self._with_copies(state)

    def with_weights(self, state: TrainState, variables: Variables) -> TrainState:
        """The first state with these weights in student, teacher and the frozen copy."""
        return self._with_copies(super().with_weights(state, variables))

    def _with_copies(self, state: TrainState) -> TrainState:
        copy = lambda tree: jax.tree.map(jnp.copy, tree)  # Donated buffers must not be shared.
        student = self.variables(state)
        frozen = {"initial": copy(student)} if self.feature_weight else {}
        return state.replace(teacher=copy(student), frozen=state.frozen | frozen)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        """See `Method`."""
        student = state.params["student"]
        teacher = {
            "params": ema_update(state.teacher["params"], student, state.step, self.teacher_decay),
            "batch_stats": state.teacher["batch_stats"],
        }
        examples, state, scalars = self.prepare(state, teacher, batch)

        def grad_fn(stats, part, i):
            def loss_fn(params):
                terms, new_stats = self.losses(state, params["student"], stats, part, i)
                return sum(terms.values()), (new_stats, terms)

            grads, (new_stats, terms) = jax.grad(loss_fn, has_aux=True)(state.params)
            return grads, new_stats, terms

        grads, stats, terms = accumulate(grad_fn, state.batch_stats["student"], examples, self.accumulate)
        return self.update(state, grads, stats, {"loss": sum(terms.values())} | terms | scalars)

    def prepare(
        self, state: TrainState, teacher: Variables, batch: Batch
    ) -> tuple[dict[str, jax.Array], TrainState, Scalars]:
        """All of a step that needs no gradient.

        Args:
            state: before the step.
            teacher: moved towards the student already.
            batch: of the step.

        Returns:
            What the losses see, split like the batch; the state with its new teacher, bank and
            memory; and scalars to log.
        """
        targets, teacher_stats = self.targets(state, teacher, batch)
        examples, bank = self.mix(state, batch, targets)
        state = state.replace(teacher=teacher | {"batch_stats": teacher_stats}, bank=bank)
        return examples, state, {"pseudo_weight": targets.share.mean()}

    def targets(self, state: TrainState, teacher: Variables, batch: Batch) -> tuple[Targets, PyTree]:
        """Pseudo-labels of the target images, and the teacher's new running statistics."""
        image = self.input.decode(batch["target"]["image"])
        logits, stats = self.teacher_logits(state, teacher, image)
        return self._label(image, jax.nn.softmax(logits)), stats

    def teacher_logits(self, state: TrainState, teacher: Variables, image: jax.Array) -> tuple[jax.Array, PyTree]:
        """Logits at image size; batch statistics in the norms, dropout off (spec D6)."""
        outputs, stats = self.teacher_forward(state, teacher, image)
        logits = outputs["logits"].astype(jnp.float32)
        return resize(logits, image.shape[1:3], align_corners=False), stats

    def teacher_forward(
        self,
        state: TrainState,
        teacher: Variables,
        image: jax.Array,
        detail_offset: jax.Array | None = None,
    ) -> tuple[Outputs, PyTree]:
        """`forward` of the teacher: batch statistics in the norms, dropout off."""
        return self.forward(
            teacher["params"],
            teacher["batch_stats"],
            image,
            self.key(state, "teacher"),
            deterministic=True,
            detail_offset=detail_offset,
        )

    def _label(self, image: jax.Array, scores: jax.Array) -> Targets:
        label, confidence = pseudo_label.pseudo_label(scores)
        share = pseudo_label.confident_share(confidence, self.threshold, scope=self.share_scope)
        return Targets(image, label, confidence, share)

    def mix(self, state: TrainState, batch: Batch, targets: Targets) -> tuple[dict[str, jax.Array], PyTree]:
        """What the losses see: source and mixed images, labels and weights; and the new bank."""
        source, source_label = self.input.decode(batch["source"]["image"]), batch["source"]["label"]
        selected = self.selected_classes(state, source_label)
        mask = mixing.class_mask(source_label, selected)
        image = mixing.mix(mask, source, targets.image)
        if self.photometric is not None:
            image = self.photometric(image, self.key(state, "photometric"))
        if self.source_photometric is not None:
            source = self.source_photometric(source, self.key(state, "source_photometric"))
        weight = mixing.mixed_weight(mask, targets.share, ignore_top=self.ignore_top, ignore_bottom=self.ignore_bottom)
        if self.class_weights is not None:
            weight = mixing.mix(mask, self.label_weight(source_label), weight)
        examples = {
            "source": source,
            "source_label": source_label,
            "mixed": image,
            "mixed_label": mixing.mix(mask, source_label, targets.label),
            "mixed_weight": weight,
        }
        return examples, state.bank

    def selected_classes(self, state: TrainState, label: jax.Array) -> jax.Array:
        """The classes of each source image to paste, bool [B, 20]."""
        return mixing.select_classes(
            self.key(state, "classes"),
            label,
            mode=self.mask_mode,
            include_ignore=self.mask_include_ignore,
        )

    def losses(self, state: TrainState, params: PyTree, stats: PyTree, part: dict, i) -> tuple[Terms, PyTree]:
        """All weighted terms on one part of the batch, and the student's new running statistics."""
        _, terms, stats = self.source_losses(state, params, stats, part, i)
        _, mixed_terms, stats = self.mixed_losses(state, params, stats, part, i)
        return terms | mixed_terms, stats

    def source_losses(self, state, params, stats, part, i) -> tuple[Outputs, Terms, PyTree]:
        """Cross-entropy on the source and the feature distance to the initial network."""
        outputs, stats = self.student_forward(state, params, stats, part["source"], "source", i)
        label = part["source_label"]
        terms = {"loss_source": self.segmentation_loss(outputs, label, self.label_weight(label))}
        if self.feature_weight:
            initial = self.features(state.frozen["initial"], part["source"])
            distance = feature_distance(
                outputs["stage4"],
                initial["stage4"],
                part["source_label"],
                min_ratio=self.feature_min_ratio,
            )
            terms["loss_feature_distance"] = self.feature_weight * distance
        return outputs, terms, stats

    def mixed_losses(self, state, params, stats, part, i) -> tuple[Outputs, Terms, PyTree]:
        """Weighted cross-entropy on the mixed images."""
        outputs, stats = self.student_forward(state, params, stats, part["mixed"], "mixed", i)
        loss = self.segmentation_loss(outputs, part["mixed_label"], part["mixed_weight"])
        return outputs, {"loss_mixed": self.mixed_weight * loss}, stats

    def panels(self, state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        """See `Method`."""
        targets, _ = self.targets(state, self.variables(state, "teacher"), batch)
        examples, _ = self.mix(state, batch, targets)
        target = batch["target"]
        pictures = {
            "source": batch["source"]["image"],
            "truth": batch["source"]["label"],
            "target": target["image"],
        }
        if "reference" in target:
            pictures["reference"] = target["reference"]
        return pictures | {
            "pseudo_label": targets.label,
            "confidence": targets.confidence,
            "mixed": examples["mixed"],
            "mixed_label": examples["mixed_label"],
            "mixed_weight": examples["mixed_weight"],
            "prediction": self.predict(self.variables(state), target["image"]).argmax(-1).astype(jnp.uint8),
        }
