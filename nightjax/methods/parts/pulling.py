# SPDX-License-Identifier: Apache-2.0
"""The pulling loss of T2S-DA on maps of projected features: what is remembered, what is drawn, what is compared."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.modules import apply
from nightjax.core.ranges import Decay, Share
from nightjax.core.state import ExampleBuffer
from nightjax.core.types import IGNORE, PyTree
from nightjax.losses import pull
from nightjax.methods.parts.network import Outputs
from nightjax.models.projection import ProjectionHead
from nightjax.ops.class_cells import Draw, class_means, draw_cells, sort_by_class, take_cells

DOMAINS = {"both": ("source", "target"), "source": ("source",)}


class Keys(NamedTuple):
    """Keys or queries of all cells. Only the few that are drawn or averaged go through the head's last layer.

    Attributes:
        hidden: [B, h, w, C] what the last layer reads; [B, N, S, C] of the key queue, which has been through it.
        label: [B, h, w] of each cell, 255 = left out.
        last: the linear last layer, [..., C] to [..., D]; None for keys that have been through it.
    """

    hidden: jax.Array
    label: jax.Array
    last: Callable[[jax.Array], jax.Array] | None = None

    def project(self, hidden: jax.Array) -> jax.Array:
        """Hidden features through the last layer."""
        return hidden if self.last is None else self.last(hidden)

    def means(self, num_classes: int) -> tuple[jax.Array, jax.Array]:
        """Mean of each class [K, D] and its number of cells [K]; see `class_means`."""
        mean, count = class_means(self.hidden, self.label, num_classes)
        return self.project(mean), count

    def take(self, draw: Draw) -> jax.Array:
        """The drawn cells, [K, M, D]; see `take_cells`."""
        return self.project(take_cells(self.hidden, draw))


class Contrast(NamedTuple):
    """What queries are compared with.

    Attributes:
        prototype: [K, D] of the source.
        negatives: [K, N, D], or [K, M, N, D] for a set a query.
        usable: [K] bool, classes with a prototype and with negatives from every domain asked for.
        weight: [K] float32, of each class in the loss.
    """

    prototype: jax.Array
    negatives: jax.Array
    usable: jax.Array
    weight: jax.Array


class KeyQueue(ExampleBuffer):
    """Target keys of the last batches, oldest first.

    Attributes:
        key: [N, B, S, D] float32, S cells of each image.
        label: [N, B, S] uint8, 255 for those not filled yet.
    """

    key: jax.Array
    label: jax.Array


@dataclasses.dataclass(frozen=True)
class Negatives:
    """The cells that queries are pushed from.

    Attributes:
        count: N, cells of other classes for every class.
        domains: ``"both"``, half and half, or the ``"source"``.
        per_query: draws negatives for every query instead of once a class (memory grows M times).
        min_confidence: the teacher's, from which a target cell may be a negative.
    """

    count: int = 50
    domains: Literal["both", "source"] = "both"
    per_query: bool = False
    min_confidence: Share = 0.0


@dataclasses.dataclass(frozen=True)
class QueueSize:
    """How many target keys are remembered as negatives.

    Attributes:
        batches: N.
        cells: S, of each image.
    """

    batches: int = 1
    cells: int = 256


@dataclasses.dataclass(frozen=True)
class Pulling:
    """Settings of the pulling loss, and its pieces.

    Attributes:
        weight: of the loss.
        start_step: first step with it.
        feature: what is projected: ``"penultimate"``, which the classifier reads, or a stage such as ``"stage4"``.
        spacing: pixels between neighboring cells, at least. Finer features are subsampled: published networks have
            theirs at a quarter or an eighth of the image, and more cells cost time while as many are drawn.
        temperature: of the contrast.
        channels: of the projection head.
        queries: M, cells drawn for every class.
        real_target: draws as many queries from the target images, under their pseudo-labels; both losses are averaged.
        negatives: what they are pushed from.
        exponent: of the class weights; 0 for equal ones.
        seen_only: ``present_only`` of `confidence_weights`.
        confidence_decay: of the teacher's mean confidence in each class.
        prototype_decay: cap of the decay of running prototypes; None for those of the batch.
        queue: target keys of past batches, or None for those of the batch alone.
    """

    weight: float = 0.1
    start_step: int = 0
    feature: str = "penultimate"
    spacing: int = 4
    temperature: float = 0.2
    channels: int = 256
    queries: int = 256
    real_target: bool = False
    negatives: Negatives = Negatives()
    exponent: float = 0.5
    seen_only: bool = False
    confidence_decay: Decay = 0.99
    prototype_decay: Decay | None = None
    queue: QueueSize | None = None

    def __post_init__(self):
        least = {"channels": self.channels, "queries": self.queries, "spacing": self.spacing}
        least["negatives.count"] = self.negatives.count
        if self.queue is not None:
            least |= {"queue.batches": self.queue.batches, "queue.cells": self.queue.cells}
        for name, number in least.items():
            if number < 1:
                raise UserError(f"method.pull.{name}={number} must be 1 or more")
        if self.negatives.count % len(DOMAINS[self.negatives.domains]):
            raise UserError(
                f"method.pull.negatives.count={self.negatives.count} must be even: half come from either domain"
            )
        if self.temperature <= 0:
            raise UserError(f"method.pull.temperature={self.temperature} must be above 0; 0.2 is usual")

    def tables(self, num_classes: int) -> dict[str, jax.Array]:
        """The tables of a run that begins: the teacher's confidence [K] and, if they run on, prototypes [K, D]."""
        tables = {"confidence": jnp.zeros((num_classes,), jnp.float32)}
        if self.prototype_decay is not None:
            tables["prototypes"] = jnp.zeros((num_classes, self.channels), jnp.float32)
            tables["prototypes_seen"] = jnp.zeros((num_classes,), jnp.int32)
        return tables

    def empty_queue(self, batch: int) -> dict[str, KeyQueue]:
        """``key_queue`` of a run that begins; nothing without a queue."""
        if self.queue is None:
            return {}
        shape = (self.queue.batches, batch, self.queue.cells)
        keys, labels = jnp.zeros((*shape, self.channels), jnp.float32), jnp.full(shape, IGNORE, jnp.uint8)
        return {"key_queue": KeyQueue(keys, labels)}

    def features(self, outputs: Outputs, batch: int) -> jax.Array:
        """What is projected of a pass, [B, h, w, C]; HRDA's head reads all views of an image, the context first."""
        if self.feature not in outputs:
            known = ", ".join(sorted(outputs))
            raise UserError(f"method.pull.feature={self.feature!r} is no output of this network; choose from {known}")
        x = outputs[self.feature]
        return x.reshape(batch, -1, *x.shape[1:])[:, 0]

    def subsample(self, x: jax.Array, image: jax.Array) -> jax.Array:
        """Of features or labels [B, h, w, ...] of images [B, H, W, 3], a cell every ``spacing`` pixels or more."""
        step = max(1, self.spacing * x.shape[1] // image.shape[1])
        return x[:, ::step, ::step]

    def project(self, params: PyTree, features: jax.Array) -> jax.Array:
        """Features [B, h, w, C] through a network's projection head but its last layer, [B, h, w, D]."""
        head = ProjectionHead(self.channels, features.dtype)
        return apply(head, {"params": params["projection"]}, features, method="hidden", mutable=["batch_stats"])[0]

    def keys(self, params: PyTree, projected: jax.Array, label: jax.Array) -> Keys:
        """Keys or queries of these cells, with the last layer of the same network's head."""
        head = ProjectionHead(self.channels)
        return Keys(projected, label, functools.partial(apply, head, {"params": params["projection"]}, method="last"))

    def remember(self, memory: dict[str, Any], keys: Keys, label: jax.Array, confidence: jax.Array) -> dict[str, Any]:
        """The tables after a step.

        Args:
            memory: of the state; entries that are no tables stay.
            keys: of the source.
            label: [B, h, w] pseudo-labels of the target.
            confidence: [B, h, w] their score.
        """
        num_classes = len(memory["confidence"])
        mean, count = class_means(confidence[..., None], label, num_classes)
        known = pull.update_confidence(memory["confidence"], mean[:, 0], count > 0, self.confidence_decay)
        memory = memory | {"confidence": known}
        if self.prototype_decay is None:
            return memory
        mean, count = keys.means(num_classes)
        prototypes, seen = pull.running_means(
            memory["prototypes"], memory["prototypes_seen"], mean, count > 0, self.prototype_decay
        )
        return memory | {"prototypes": prototypes, "prototypes_seen": seen}

    def push(self, memory: dict[str, Any], key: jax.Array, keys: Keys) -> dict[str, Any]:
        """The memory whose queue has random cells of the target instead of its oldest."""
        if self.queue is None:
            return memory
        batch, height, width, channels = keys.hidden.shape
        place = jax.random.randint(key, (batch, self.queue.cells), 0, height * width)
        rows = jnp.take_along_axis(keys.hidden.reshape(batch, -1, channels), place[..., None], axis=1)
        new_key = keys.project(rows).astype(jnp.float32)
        new_label = jnp.take_along_axis(keys.label.reshape(batch, -1), place, axis=1)
        queue = memory["key_queue"]
        append = lambda old, new: jnp.concatenate([old[1:], new[None]])
        return memory | {"key_queue": KeyQueue(append(queue.key, new_key), append(queue.label, new_label))}

    def contrast(self, key: jax.Array, memory: dict[str, Any], source: Keys, target: Keys | None) -> Contrast:
        """Source prototypes, and negatives of every class.

        Args:
            key: random key.
            memory: after `remember`.
            source: its keys.
            target: its keys, or those of the queue. None where negatives come from the source alone.
        """
        num_classes = len(memory["confidence"])
        mean, count = source.means(num_classes)
        usable = count > 0
        if self.prototype_decay is not None:
            mean, usable = memory["prototypes"], memory["prototypes_seen"] > 0
        domains = [source, target][: len(DOMAINS[self.negatives.domains])]
        sets, number = [], self.negatives.count // len(domains)
        for i, keys in enumerate(domains):
            cells = sort_by_class(keys.label, num_classes)
            draws = number * (self.queries if self.negatives.per_query else 1)
            taken = keys.take(draw_cells(jax.random.fold_in(key, i), cells, draws, others=True))
            sets.append(taken.reshape(num_classes, -1, number, self.channels))
            usable &= cells.others.sum(axis=0) > 0
        negatives = jnp.concatenate(sets, axis=2)
        weight = pull.confidence_weights(memory["confidence"], self.exponent, present_only=self.seen_only)
        return Contrast(mean, negatives if self.negatives.per_query else negatives[:, 0], usable, weight)

    def loss(self, key: jax.Array, queries: Keys, contrast: Contrast) -> jax.Array:
        """The pulling loss of cells drawn from the student's queries, without its weight."""
        cells = sort_by_class(queries.label, len(contrast.weight))
        query = queries.take(draw_cells(key, cells, self.queries))
        present = (cells.count.sum(axis=0) > 0) & contrast.usable
        return pull.pull_loss(
            query, contrast.prototype, contrast.negatives, present, contrast.weight, temperature=self.temperature
        )
