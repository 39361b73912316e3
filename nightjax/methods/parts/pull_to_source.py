# SPDX-License-Identifier: Apache-2.0
"""What T2S-DA and its generalization have in common: the projection head, the teacher's keys, the pulling loss."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.state import TrainState
from nightjax.core.types import IGNORE, PyTree, Scalars, Variables, Weighted
from nightjax.methods.parts.network import Outputs, RandomKeys, SegmentationNetwork, deinterleave, interleave
from nightjax.methods.parts.pulling import Contrast, Keys, Pulling
from nightjax.methods.parts.source_terms import StudentPasses, Terms
from nightjax.methods.parts.translation import Translation
from nightjax.models.projection import ProjectionHead
from nightjax.ops.class_cells import class_means, class_similarity
from nightjax.ops.pseudo_label import pseudo_label
from nightjax.ops.resize import resize_nearest

Examples = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class PullToSource:
    """The contrast between two domains on the features of one network.

    Attributes:
        network: of student and teacher.
        pull: settings of the loss.
    """

    network: SegmentationNetwork
    pull: Pulling

    def head(self, key: jax.Array, student: Variables, size: tuple[int, ...]) -> PyTree:
        """Parameters of a new projection head for a student that sees images of ``size`` (H, W, 3)."""
        image = jnp.zeros((1, *size), jnp.float32)
        width = jax.eval_shape(lambda: self.pull.features(self.network.forward(student, image, key)[0], 1)).shape[-1]
        head = ProjectionHead(self.pull.channels).init(jax.random.fold_in(key, 1), jnp.zeros((1, 2, 2, width)))
        return head["params"]

    def remember(
        self, state: TrainState, keys: RandomKeys, source: jax.Array, label: jax.Array, outputs: Outputs
    ) -> tuple[Examples, TrainState, Scalars]:
        """The teacher's keys of both domains, and what they leave in memory.

        Args:
            state: with this step's teacher.
            keys: of the step's random streams.
            source: [B, H, W, 3] images in [0, 1].
            label: [B, H, W] of the source.
            outputs: the teacher's on the target images (or on what stands for them).

        Returns:
            ``source_keys``, ``target_keys`` [B, h, w, D], without the head's last layer, and ``source_cells``,
            ``target_cells`` [B, h, w], their labels; the state; and scalars to log.
        """
        pull, batch = self.pull, source.shape[0]
        teacher = {"params": state.teacher["params"], "batch_stats": state.teacher["batch_stats"]}
        source_outputs, _ = self.network.teacher_pass(state.whole(teacher), source, keys, context_only=True)
        ours, theirs = (pull.features(x, batch) for x in (source_outputs, outputs))
        labels = (resize_nearest(x, ours.shape[1:3]) for x in (label, outputs["logits"].astype(jnp.float32)))
        ours, theirs, cells, logits = (pull.subsample(x, source) for x in (ours, theirs, *labels))
        target_cells, confidence = pseudo_label(jax.nn.softmax(logits))
        # The domains alternate in one batch: the head's norm sees both, no example changes device.
        params = state.teacher["params"]
        source_keys, target_keys = deinterleave(pull.project(params, interleave([ours, theirs])), 2)
        enough = confidence >= pull.negatives.min_confidence
        trusted = jnp.where(enough, target_cells, IGNORE).astype(jnp.uint8)
        memory = pull.remember(state.memory, pull.keys(params, source_keys, cells), target_cells, confidence)
        memory = pull.push(memory, keys("ring"), pull.keys(params, target_keys, trusted))
        examples = {
            "source_keys": source_keys,
            "source_cells": cells,
            "target_keys": target_keys,
            "target_cells": trusted,
        }
        scalars = {"confidence": memory["confidence"].mean()} | similarity(
            ours, cells, theirs, target_cells, len(self.network.classes)
        )
        return examples, state.replace(memory=memory), scalars

    def contrast(self, state: TrainState, part: Examples, key: jax.Array) -> Contrast:
        """Prototypes and negatives of one microbatch."""
        params = state.teacher["params"]
        source = self.pull.keys(params, part["source_keys"], part["source_cells"])
        if self.pull.queue is None:
            target = self.pull.keys(params, part["target_keys"], part["target_cells"])
        else:  # It holds this batch too.
            queue = state.memory["key_queue"]
            target = Keys(jnp.moveaxis(queue.key, 0, 1), jnp.moveaxis(queue.label, 0, 1))
        return self.pull.contrast(key, state.memory, source, target)

    def loss(
        self, params: PyTree, outputs: Outputs, image: jax.Array, cells: jax.Array, contrast: Contrast, key: jax.Array
    ) -> jax.Array:
        """The pulling loss of queries drawn from the student's ``outputs`` on ``image``, labeled ``cells``."""
        features = self.pull.subsample(self.pull.features(outputs, len(image)), image)
        queries = self.pull.keys(params, self.pull.project(params, features), cells)
        return self.pull.loss(key, queries, contrast)


def similarity(
    source: jax.Array, source_cells: jax.Array, target: jax.Array, target_cells: jax.Array, num_classes: int
) -> dict[str, Weighted]:
    """Cosines of target features to source prototypes, by train id; the report draws them.

    Args:
        source, target: features [B, h, w, C].
        source_cells, target_cells: labels [B, h, w].
        num_classes: K.

    Returns:
        ``similarity/own/<id>``, to the prototype of the same class, and ``similarity/other/<id>``, to the nearest other
        one; classes that do not occur have weight 0.
    """
    prototypes, count = class_means(source, source_cells, num_classes)
    *cosines, known = class_similarity(target, target_cells, prototypes, count > 0)
    return {
        f"similarity/{kind}/{k:02d}": Weighted(cosine[k], known[k].astype(jnp.float32))
        for k in range(num_classes)
        for kind, cosine in zip(("own", "other"), cosines, strict=True)
    }


def check_translation_has_use(translation: Translation | None, pull: Pulling | None) -> None:
    """Raises UserError where translated images would enter no loss."""
    if pull is None and translation is not None and not translation.weight:
        raise UserError(
            "method.translation has no effect without a pulling loss: set method.translation.weight above 0, or "
            "method.translation=None"
        )


def translated_terms(
    passes: StudentPasses,
    translation: Translation | None,
    pulling: PullToSource | None,
    stats: PyTree,
    part: dict[str, Any],
    outputs: Outputs | None,
) -> tuple[Terms, PyTree]:
    """The terms on the pseudo-target images; without such, on the source, whose ``outputs`` are given then."""
    state, keys, terms = passes.state, passes.keys, {}
    if translation is not None:
        outputs, stats = passes.run(stats, part["translated"], "translated")
        if translation.weight:
            terms["loss_translated"] = translation.weight * passes.loss.on_labels(outputs, part["source_label"])
    if pulling is None:
        return terms, stats
    pull = pulling.pull
    assert outputs is not None
    contrast = pulling.contrast(state, part, keys("negatives"))
    loss = pulling.loss(
        passes.params, outputs, part["source"], part["source_cells"], contrast, keys("queries_translated")
    )
    if pull.real_target:
        outputs, stats = passes.run(stats, part["target"], "target")
        loss += pulling.loss(
            passes.params, outputs, part["target"], part["target_cells"], contrast, keys("queries_target")
        )
        loss /= 2
    terms["loss_pull"] = jnp.where(state.step >= pull.start_step, pull.weight * loss, 0.0)
    return terms, stats
