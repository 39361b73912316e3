"""The contrast of T2S-DA on key maps: what is remembered, what is drawn, what is lost (spec of `t2s_da`)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE, NUM_CLASSES
from nightjax.losses import pull
from nightjax.ops.class_cells import Draw, class_means, draw_cells, sort_by_class, take_cells

PyTree = Any
NEGATIVES_FROM = {"both": ("source", "target"), "source": ("source",)}


def same(x: jax.Array) -> jax.Array:
    """x: the last layer of keys that have been through it."""
    return x


class Keys(NamedTuple):
    """Keys or queries of all cells, of which a few are drawn or averaged: only those go through the head's last layer.

    Attributes:
        hidden: [B, h, w, C] what the last layer reads; [B, N, S, C] of the ring.
        label: [B, h, w] of each cell, 255 = to be left out.
        last: the linear layer, [..., C] to [..., D].
    """

    hidden: jax.Array
    label: jax.Array
    last: Callable[[jax.Array], jax.Array] = same

    def means(self) -> tuple[jax.Array, jax.Array]:
        """Mean of each class [K, D] and its number of cells [K]; see `class_means`."""
        mean, count = class_means(self.hidden, self.label)
        return self.last(mean), count

    def take(self, draw: Draw) -> jax.Array:
        """The drawn cells, [K, M, D]; see `take_cells`."""
        return self.last(take_cells(self.hidden, draw))


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


@dataclasses.dataclass(frozen=True)
class Pulling:
    """Settings of the pulling loss, and its parts.

    Attributes:
        weight: of the loss; 0 switches everything off.
        start_step: first step with it.
        temperature: of the contrast.
        channels: of the projection head.
        queries: M, cells drawn for every class.
        negatives: N, cells they are pushed from.
        negatives_from: ``"both"`` domains, half and half, or the ``"source"``.
        per_query: draws negatives for every query instead of once a class (memory grows M times).
        negative_confidence: the teacher's, from which a target cell may be a negative.
        exponent: of the class weights; 0 for equal ones.
        seen_only: ``present_only`` of `confidence_weights`.
        confidence_decay: of the teacher's mean confidence in each class.
        prototype_decay: cap of the decay of running prototypes; None for those of the batch.
        ring: batches whose target keys are remembered as negatives; 0 for those of the batch alone.
        ring_cells: cells remembered of each image.
    """

    weight: float = 0.1
    start_step: int = 0
    temperature: float = 0.2
    channels: int = 256
    queries: int = 256
    negatives: int = 50
    negatives_from: str = "both"
    per_query: bool = False
    negative_confidence: float = 0.0
    exponent: float = 0.5
    seen_only: bool = False
    confidence_decay: float = 0.99
    prototype_decay: float | None = None
    ring: int = 0
    ring_cells: int = 256

    def __post_init__(self):
        domains = choose(NEGATIVES_FROM, self.negatives_from, "method.pull.negatives_from")
        least = {"channels": 1, "queries": 1, "negatives": 1, "ring": 0, "ring_cells": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UserError(f"method.pull.{name}={getattr(self, name)} must be {number} or more")
        if self.negatives % len(domains):
            raise UserError(f"method.pull.negatives={self.negatives} must be even, for half come from either domain")
        if self.temperature <= 0:
            raise UserError(f"method.pull.temperature={self.temperature} must be above 0; 0.2 is usual")

    def memory(self) -> dict[str, jax.Array]:
        """The tables of a run that begins: the teacher's confidence [K] and, if they run on, prototypes [K, D]."""
        tables = {"confidence": jnp.zeros((NUM_CLASSES,), jnp.float32)}
        if self.prototype_decay is not None:
            tables["prototypes"] = jnp.zeros((NUM_CLASSES, self.channels), jnp.float32)
            tables["prototypes_seen"] = jnp.zeros((NUM_CLASSES,), jnp.int32)
        return tables

    def empty_ring(self, batch: int) -> dict[str, jax.Array]:
        """Target keys of the last batches, oldest first, with all labels to be ignored yet; nothing without a ring."""
        if not self.ring:
            return {}
        shape = (self.ring, batch, self.ring_cells)
        return {"key": jnp.zeros((*shape, self.channels), jnp.float32), "label": jnp.full(shape, IGNORE, jnp.uint8)}

    def remember(self, memory: PyTree, keys: Keys, label: jax.Array, confidence: jax.Array) -> PyTree:
        """The tables after a step.

        Args:
            memory: see `memory`; other entries stay.
            keys: of the source.
            label: [B, h, w] pseudo-labels of the target.
            confidence: [B, h, w] their score.
        """
        mean, count = class_means(confidence[..., None], label)
        known = pull.update_confidence(memory["confidence"], mean[:, 0], count > 0, self.confidence_decay)
        memory = memory | {"confidence": known}
        if self.prototype_decay is None:
            return memory
        mean, count = keys.means()
        prototypes, seen = pull.running_means(
            memory["prototypes"], memory["prototypes_seen"], mean, count > 0, self.prototype_decay
        )
        return memory | {"prototypes": prototypes, "prototypes_seen": seen}

    def push(self, ring: PyTree, key: jax.Array, keys: Keys) -> PyTree:
        """The ring with random cells of the target instead of its oldest."""
        if not self.ring:
            return ring
        batch, height, width, channels = keys.hidden.shape
        place = jax.random.randint(key, (batch, self.ring_cells), 0, height * width)
        rows = jnp.take_along_axis(keys.hidden.reshape(batch, -1, channels), place[..., None], axis=1)
        new = {
            "key": keys.last(rows).astype(jnp.float32),
            "label": jnp.take_along_axis(keys.label.reshape(batch, -1), place, axis=1),
        }
        return {name: jnp.concatenate([ring[name][1:], x[None]]) for name, x in new.items()}

    def contrast(self, key: jax.Array, memory: PyTree, source: Keys, target: Keys | None) -> Contrast:
        """Source prototypes, and negatives of every class.

        Args:
            key: random key.
            memory: after `remember`.
            source: its keys.
            target: its keys, or those of the ring. None where negatives come from the source alone.
        """
        mean, count = source.means()
        usable = count > 0
        if self.prototype_decay is not None:
            mean, usable = memory["prototypes"], memory["prototypes_seen"] > 0
        domains = [source, target][: len(NEGATIVES_FROM[self.negatives_from])]
        sets, number = [], self.negatives // len(domains)
        for i, keys in enumerate(domains):
            cells = sort_by_class(keys.label)
            draws = number * (self.queries if self.per_query else 1)
            taken = keys.take(draw_cells(jax.random.fold_in(key, i), cells, draws, others=True))
            sets.append(taken.reshape(NUM_CLASSES, -1, number, self.channels))
            usable &= cells.others.sum(axis=0) > 0
        negatives = jnp.concatenate(sets, axis=2)
        weight = pull.confidence_weights(memory["confidence"], self.exponent, present_only=self.seen_only)
        return Contrast(mean, negatives if self.per_query else negatives[:, 0], usable, weight)

    def loss(self, key: jax.Array, queries: Keys, contrast: Contrast) -> jax.Array:
        """The pulling loss of cells drawn from the student's queries, without its weight."""
        cells = sort_by_class(queries.label)
        query = queries.take(draw_cells(key, cells, self.queries))
        present = (cells.count.sum(axis=0) > 0) & contrast.usable
        return pull.pull_loss(
            query, contrast.prototype, contrast.negatives, present, contrast.weight, temperature=self.temperature
        )
