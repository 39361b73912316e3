# SPDX-License-Identifier: Apache-2.0
"""Fits how sure a network may be: a temperature, and how often labels are right by their confidence after it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy.optimize

from nightjax.core.types import IGNORE
from nightjax.inference.day_agreement import day_truth
from nightjax.inference.predict import Scores
from nightjax.metrics.calibration import FINE, calibration_error

PIXELS = 2000
"""Pixels of an image that are drawn, or all if there are fewer."""

LIKELIER_RIGHT = 0.5
"""Corrected confidence from which the label of a day counts."""

COLDEST, HOTTEST = 0.05, 20.0
"""Between which a temperature is sought."""

SMALLEST = 1e-12
"""Probabilities below count as this, so that logarithms are finite."""

Score = Callable[[np.ndarray], Scores]
"""An image uint8 [H, W, 3] to what the network says of it, at temperature 1."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Pixels of some images.

    Attributes:
        log: logarithms of the network's probabilities, float32 [N, K].
        truth: class that is taken for true, uint8 [N]; 255 where nothing is known. There the corrected confidence
            says how likely the label is right.
    """

    log: np.ndarray
    truth: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """bool [N]: where something is taken for true."""
        return self.truth != IGNORE

    def temperature(self) -> float:
        """The temperature that makes the true classes likeliest (Guo et al., 2017)."""
        log_known, truth = self.log[self.known], self.truth[self.known]
        own = np.arange(len(truth))

        def loss(log_temperature: float) -> float:
            log = log_known / np.float32(np.exp(log_temperature))
            return float(np.mean(_log_sum(log) - log[own, truth]))

        bounds = (np.log(COLDEST), np.log(HOTTEST))
        found: Any = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
        return float(np.exp(found.x))

    def counts(self, temperature: float) -> np.ndarray:
        """Wrong and right pixels by their confidence at a temperature.

        Where no truth is known, a pixel is right by as much as it is sure, and right pixels are rounded in each bin.

        Returns:
            int64 [FINE, 2], see `metrics.calibration.reliability_counts`.
        """
        log = self.log / np.float32(temperature)
        confidence = np.exp(log.max(axis=1) - _log_sum(log))
        place = np.clip((confidence * FINE).astype(np.int64), 0, FINE - 1)
        right = np.where(self.known, self.log.argmax(axis=1) == self.truth, confidence)
        pixels, rights = (np.bincount(place, weights, FINE) for weights in (None, right))
        rights = np.rint(rights).astype(np.int64)
        return np.stack([pixels - rights, rights], axis=1)

    def facts(self, temperature: float) -> dict[str, float]:
        """What a reader should know of a fit."""
        known = Sample(self.log[self.known], self.truth[self.known])
        before, after = (100 * calibration_error(known.counts(value)) for value in (1.0, temperature))
        right = 100 * float((known.log.argmax(axis=1) == known.truth).mean())
        return {
            "temperature": temperature,
            "pixels": len(known.truth),
            "right": right,
            "ece": before,
            "ece_after": after,
        }


def labeled_sample(score: Score, examples: Iterable[Mapping[str, np.ndarray]]) -> Sample | None:
    """Pixels of labeled images; None if none is labeled.

    Args:
        score: of the network.
        examples: each with ``image`` uint8 [H, W, 3] and ``label`` uint8 [H, W].
    """

    def pixels() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for example in examples:
            found, truth = _probabilities(score(example["image"])), example["label"]
            labeled = truth < found.shape[-1]
            yield found[labeled], truth[labeled]

    return _drawn(pixels())


def night_sample(
    score: Score, pairs: Iterable[Mapping[str, np.ndarray]], moving: tuple[int, ...], day_temperature: float = 1.0
) -> Sample | None:
    """Pixels of unlabeled nights, for which the labels that the network has for their days are taken for true.

    Only labels of days count that are likelier right than wrong, and only where neither label is of a moving class.
    Where nothing counts, nothing is taken for true.

    Args:
        score: of the network.
        pairs: each with ``image``, the night, and ``reference``, the day, uint8 [H, W, 3].
        moving: train ids of classes whose things are elsewhere by day.
        day_temperature: corrects the confidence by day.

    Returns:
        The pixels, or None if days say nothing of any of them.
    """

    def pixels() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for pair in pairs:
            night = score(pair["image"])
            day = dataclasses.replace(score(pair["reference"]), temperature=day_temperature).prediction()
            sure = day.confidence >= LIKELIER_RIGHT
            yield _probabilities(night), day_truth(night.label(), day.label, moving, sure)

    return _drawn(pixels())


def _probabilities(scores: Scores) -> np.ndarray:
    found = scores.prediction(probabilities=True).probabilities
    assert found is not None  # They were asked for.
    return found


def _drawn(images: Iterator[tuple[np.ndarray, np.ndarray]]) -> Sample | None:
    """Some pixels of each image, whose draw is a function of the image's position alone; None if no truth is known."""
    logs, truths = [], []
    for index, (probabilities, truth) in enumerate(images):
        chosen = np.random.default_rng(index).permutation(truth.size)[:PIXELS]
        picked = probabilities.reshape(-1, probabilities.shape[-1])[chosen]
        logs.append(np.log(np.maximum(picked, np.float32(SMALLEST))))
        truths.append(truth.ravel()[chosen])
    found = Sample(np.concatenate(logs), np.concatenate(truths)) if logs else None
    return found if found is not None and found.known.any() else None


def _log_sum(log: np.ndarray) -> np.ndarray:
    """Logarithm of the sum of exponentials over the classes, float32 [N]."""
    top = log.max(axis=1)
    return top + np.log(np.exp(log - top[:, None]).sum(axis=1))
