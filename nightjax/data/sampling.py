# SPDX-License-Identifier: Apache-2.0
"""Which record comes at which position of a training stream.

Both rules, a uniform shuffle and rare-class sampling, are pure functions of (seed, position). So a stream resumes at
position n without replaying, and processes that read different positions agree on the whole. The shuffle is grain's:
`fingerprint` shows whether another version of it would give another order.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import grain
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.ranges import Positive

ENDLESS = 2**48
"""Length of an endless stream: far beyond any run, yet every count of batches fits a machine integer."""

COMPARED = 64
"""How many positions of the first two epochs a fingerprint covers."""


class SampledRecord(NamedTuple):
    """Which record to read at one position of a stream, and the class it was drawn for (-1: none)."""

    index: int
    rare_class: int = -1


@dataclasses.dataclass(frozen=True)
class RareClass:
    """Rare-class sampling (DAFormer, section 3.3; used by DSR+FPA and T2S-DA).

    Attributes:
        temperature: of the softmax over one minus the class frequency; small values favor rare classes more strongly.
        min_pixels: a record counts as holding a class if it has more pixels of it than this, at the size of the data
            set's own files: half-size variants count each pixel as four.
        crop_ratio: a crop should keep more than ``min_pixels * crop_ratio`` pixels of the class it was drawn for.
    """

    temperature: Positive = 0.01
    min_pixels: int = 3000
    crop_ratio: float = 0.5

    def __post_init__(self):
        for key in ("min_pixels", "crop_ratio"):
            if not getattr(self, key) >= 0:
                raise UserError(f"rare class sampling: {key} is {getattr(self, key)}; give 0 or more")


def rare_class_probabilities(pixel_counts: np.ndarray, temperature: float) -> np.ndarray:
    """Probability of drawing each class in rare class sampling: ``softmax((1 - f) / temperature)``.

    Source: DAFormer section 3.3 (``get_rcs_class_probs``).

    Args:
        pixel_counts: [N, K] or [K] labeled pixels of each class, per image or summed.
        temperature: above 0; small values draw rare classes more often.

    Returns:
        [K] float64, in class order, summing to 1.

    Raises:
        UserError: if no pixel is labeled or the temperature is not positive.
    """
    counts = np.asarray(pixel_counts, np.float64)
    counts = counts.reshape(-1, counts.shape[-1]).sum(axis=0)
    if counts.sum() <= 0:
        raise UserError("rare class sampling: no labeled pixel was counted; check the labels of the source data")
    if temperature <= 0:
        raise UserError(f"rare class sampling: temperature is {temperature}; give a value above 0, such as 0.01")
    score = (1.0 - counts / counts.sum()) / temperature
    weight = np.exp(score - score.max())
    return weight / weight.sum()


class RareClassSampler:
    """Draws a class, then a record that holds enough of it, anew at every position.

    Classes that no record holds enough of are never drawn.

    Args:
        class_pixels: integer [N, K], pixels of each class in each record.
        rule: temperature and least number of pixels.
        seed: of the stream.

    Raises:
        UserError: no record has enough pixels of any class.
    """

    def __init__(self, class_pixels: np.ndarray, rule: RareClass, seed: int):
        holds = np.asarray(class_pixels) > rule.min_pixels
        weights = rare_class_probabilities(class_pixels, rule.temperature) * holds.any(0)
        if not weights.sum() > 0:
            most = np.asarray(class_pixels).max(initial=0)
            raise UserError(
                f"rare-class sampling: no record has more than min_pixels={rule.min_pixels} pixels of a class "
                f"(the most is {most}): lower min_pixels to fit the image size"
            )
        self.probabilities = weights / weights.sum()
        self._cumulative = np.cumsum(self.probabilities)
        self._records = [np.flatnonzero(column) for column in holds.T]
        self._seed = seed

    def __call__(self, position: int) -> SampledRecord:
        """The record at one position, ``0 <= position < 2**63``."""
        rng = np.random.Generator(np.random.Philox(key=[self._seed, position]))
        # The last class with any weight, not the last class: cumulative sums may end a rounding error below one.
        drawn = int(np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right"))
        records = self._records[drawn]
        return SampledRecord(int(records[rng.integers(len(records))]), drawn)


def shuffled_records(count: int, seed: int) -> grain.MapDataset:
    """Every record once an epoch, in another order each epoch, endlessly; elements are `SampledRecord`."""
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat(ENDLESS // count).map(SampledRecord)


def rare_class_records(class_pixels: np.ndarray, rule: RareClass, seed: int) -> grain.MapDataset:
    """`RareClassSampler` as an endless data set; elements are `SampledRecord`."""
    sampler = RareClassSampler(class_pixels, rule, seed)
    return grain.MapDataset.range(ENDLESS).seed(seed).map(sampler)


def fingerprint(order: grain.MapDataset, count: int) -> dict[str, Any]:
    """What an order of records can be recognized by, JSON-serializable.

    Args:
        order: endless data set of `SampledRecord`.
        count: how many records there are.

    Returns:
        ``sha256`` of the records at the first `COMPARED` positions of the first two epochs, with a random number drawn
        at each as augmentation draws it; ``records``, their number; ``grain`` and ``numpy``, the versions that decide.
    """
    probe = order.random_map(_Probe())
    positions = (*range(COMPARED), *range(count, count + COMPARED))
    text = "\n".join(str(probe[position]) for position in positions)
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "records": count,
        "grain": grain.__version__,
        "numpy": np.__version__,
    }


def check_same_order(name: str, saved: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises `UserError` if a checkpoint's fingerprint is of another order than this process gives.

    Versions may differ as long as they agree on the order.

    Args:
        name: of the stream, for the message.
        saved, found: what `fingerprint` returned then and now.
    """
    if saved["sha256"] == found["sha256"] and saved["records"] == found["records"]:
        return
    again = "or start again in another workdir"
    if saved["records"] != found["records"]:
        raise UserError(
            f"stream {name!r} had {saved['records']} records when the checkpoint was saved and has {found['records']} "
            f"now: restore the data set, {again}"
        )
    if all(saved[package] == found[package] for package in ("grain", "numpy")):
        raise UserError(
            f"stream {name!r} does not draw the records that it drew when the checkpoint was saved: restore the data "
            f"set, {again}"
        )
    raise UserError(
        f"the checkpoint was saved with grain {saved['grain']} and numpy {saved['numpy']}; grain {found['grain']} and "
        f"numpy {found['numpy']} give stream {name!r} another order: pip install grain=={saved['grain']} "
        f"numpy=={saved['numpy']} to continue this run, {again}"
    )


class _Probe(grain.transforms.RandomMap):
    """Writes down a record and the random number that comes with it."""

    def random_map(self, sampled: SampledRecord, rng: np.random.Generator) -> str:
        return f"{sampled.index} {sampled.rare_class} {rng.integers(2**63)}"
