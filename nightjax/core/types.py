# SPDX-License-Identifier: Apache-2.0
"""Vocabulary shared by every part: shapes, ids and the nested types that cross module borders.

Shape letters used throughout: ``B`` batch, ``H W`` pixels, ``h w`` feature cells, ``C`` channels, ``K`` classes, ``N``
prototypes or anchors. Images are NHWC.

A batch is a dict of domains. Every domain is a dict with, where it applies::

    image      [B, H, W, 3] uint8, RGB
    label      [B, H, W]    uint8, train ids, 255 = ignore
    reference  [B, H, W, 3] uint8, day view, coarsely aligned with ``image`` (same crop and flip)
    flow       [B, H, W, 2] float32 (dx, dy) pixels: pixel p of ``image`` is seen at p + flow(p) in ``reference``
    flow_valid [B, H, W]    bool, where ``flow`` is known and not occluded
    mask       [B]          float32, 1 for a real example and 0 for padding
    index      [B]          int64, position of the record in its data source
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

PyTree = Any
"""Nested dicts, tuples and dataclasses of arrays."""

IGNORE = 255
"""Label value of pixels that belong to no class."""

Batch = Mapping[str, Mapping[str, Any]]
"""Domain name to arrays, as above."""

Variables = dict[str, Any]
"""What a network's ``apply`` needs: ``{"params": ..., "batch_stats": ...}``."""


class Weighted(NamedTuple):
    """A logged mean with the number of items behind it.

    Attributes:
        value: float32 scalar.
        weight: float32 scalar; steps of weight 0 are left out of the logged mean.
    """

    value: Any
    weight: Any


Scalars = Mapping[str, Any]
"""Name to a float32 scalar or a `Weighted`, logged by the loop."""

Size = tuple[int, ...]
"""Height and width. Always two numbers: a checker cannot count those of ``x.shape[1:3]``."""
