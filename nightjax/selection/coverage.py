# SPDX-License-Identifier: Apache-2.0
"""Which images of a pool are most like a reference set: rankings after the Fréchet distance.

"Semantic image segmentation in the dark with domain adaptation method" (UIT, VNU-HCM, 2021) chose night images "by
FID" without saying how; a distance of sets cannot rank single images, so these are our readings of it. All take
features as rows, sort by name
first, and break ties by name: the order in which images come changes nothing.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy.cluster.vq import kmeans2

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.metrics.fid import Statistics, frechet

Scored = list[tuple[str, float]]
"""(name, score), best first; smaller scores are better."""

DIMENSIONS = 64
"""Of the principal components in which groups are compared: their covariances have few images to come from."""

SHRINKAGE = 0.1
"""Share of the mean variance mixed into covariances of groups and into the Mahalanobis distance."""

GROUP_SIZE, LEAST_GROUP = 50, 8
GREEDY_STEP = 50


def select(rule: str, names: Sequence[str], features: np.ndarray, reference: np.ndarray, count: int) -> Scored:
    """The images of a pool to use.

    Args:
        rule: ``"fid_point"``, ``"fid_maha"``, ``"fid_group"`` or ``"fid_greedy"``; see `RULES`.
        names: of the pool's N images, all different.
        features: [N, D].
        reference: [M, D], of the reference set.
        count: how many; "fid_group" takes whole groups until there are as many.

    Raises:
        UserError: unknown rule, or fewer images than ``count``.
    """
    function = choose(RULES, rule, "selection rule")
    if not 0 < count <= len(names):
        raise UserError(f"cannot select {count} of {len(names)} images: choose a count from 1 to that")
    order = np.argsort(names)
    return function(
        [names[int(i)] for i in order],
        np.asarray(features, np.float64)[order],
        np.asarray(reference, np.float64),
        count,
    )


def point_scores(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Squared distance to the reference's mean [N]: the Fréchet distance of one image, but for a constant."""
    return ((features - reference.mean(0)) ** 2).sum(1)


def mahalanobis_scores(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Squared distance to the reference's mean in units of its covariance, which is made regular by a ridge; [N]."""
    covariance = Statistics.of(reference).covariance
    ridge = SHRINKAGE * np.trace(covariance) / len(covariance)
    factor = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
    return (np.linalg.solve(factor, (features - reference.mean(0)).T) ** 2).sum(0)


def group_scores(
    features: np.ndarray, groups: np.ndarray, reference: np.ndarray, shrinkage: float = SHRINKAGE
) -> dict[int, float]:
    """Fréchet distance of each group of two or more images to the reference, group to score.

    Args:
        features: [N, D].
        groups: integer [N].
        reference: [M, D].
        shrinkage: share of the mean variance in both covariances.
    """
    mean, covariance = _gaussian(reference, shrinkage)
    return {
        int(group): frechet(*_gaussian(features[groups == group], shrinkage), mean, covariance)
        for group in np.unique(groups)
    }


def take_groups(names: Sequence[str], groups: np.ndarray, scores: dict[int, float], count: int) -> Scored:
    """Whole groups in the order of their scores until there are ``count`` images or more."""
    chosen: Scored = []
    for group in sorted(scores, key=lambda group: (scores[group], group)):
        if len(chosen) >= count:
            break
        chosen += [(names[int(i)], scores[group]) for i in np.flatnonzero(groups == group)]
    return chosen


def drives(names: Sequence[str]) -> np.ndarray | None:
    """Groups by the drive in NEXET's file names, ``frame_<drive>_<clip>_...``; None if a name is of another form."""
    found = [match[1] for name in names if (match := re.match(r"(?:.*/)?frame_([0-9a-f-]+)_", name))]
    return np.unique(found, return_inverse=True)[1] if len(found) == len(names) else None


def _select_point(names: list[str], features: np.ndarray, reference: np.ndarray, count: int) -> Scored:
    return _best(names, point_scores(features, reference), count)


def _select_mahalanobis(names: list[str], features: np.ndarray, reference: np.ndarray, count: int) -> Scored:
    return _best(names, mahalanobis_scores(features, reference), count)


def _select_groups(names: list[str], features: np.ndarray, reference: np.ndarray, count: int) -> Scored:
    features, reference = _principal(features, reference)
    groups = drives(names)
    if groups is None:
        clusters = -(-len(names) // GROUP_SIZE)
        groups = kmeans2(features, clusters, minit="++", rng=np.random.default_rng(0))[1]
    groups = _merge_small(features, groups)
    return take_groups(names, groups, group_scores(features, groups, reference), count)


def _select_greedily(names: list[str], features: np.ndarray, reference: np.ndarray, count: int) -> Scored:
    """From the best by point score, drops those that hold the set's Fréchet distance up most, by its first-order
    change."""
    scores = point_scores(features, reference)
    features, reference = _principal(features, reference)
    mean, covariance = _gaussian(reference, 0.0)
    root = _power(covariance, 0.5)
    kept = np.argsort(scores, kind="stable")[: 2 * count]
    while len(kept) > count:
        own_mean, own = _gaussian(features[kept], SHRINKAGE)
        slope = np.eye(len(own)) - root @ _power(root @ own @ root, -0.5) @ root
        deviation = features[kept] - own_mean
        gain = 2 * deviation @ (own_mean - mean) + np.einsum("ni,ij,nj->n", deviation, slope, deviation)
        dropped = np.argsort(-gain, kind="stable")[: min(GREEDY_STEP, len(kept) - count)]
        kept = np.delete(kept, dropped)
    return _best([names[i] for i in kept], scores[kept], count)


RULES: dict[str, Callable[[list[str], np.ndarray, np.ndarray, int], Scored]] = {
    "fid_point": _select_point,
    "fid_maha": _select_mahalanobis,
    "fid_group": _select_groups,
    "fid_greedy": _select_greedily,
}
"""Nearest to the reference's mean; the same in units of its covariance; whole groups (drives, or clusters) by their
Fréchet distance; and one by one, towards the set with the smallest distance."""


def _best(names: Sequence[str], scores: np.ndarray, count: int) -> Scored:
    order = np.lexsort((np.asarray(names), scores))[:count]
    return [(names[int(i)], float(scores[i])) for i in order]


def _gaussian(rows: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    statistics = Statistics.of(rows)
    covariance = statistics.covariance
    level = np.trace(covariance) / len(covariance)
    return statistics.mean, (1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance))


def _principal(features: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the leading principal components of both together."""
    both = Statistics.of(np.concatenate([features, reference]))
    vectors = np.linalg.eigh(both.scatter)[1][:, ::-1][:, :DIMENSIONS]
    return (features - both.mean) @ vectors, (reference - both.mean) @ vectors


def _merge_small(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Groups of fewer than `LEAST_GROUP` join the nearest of the others, if there are others."""
    labels, sizes = np.unique(groups, return_counts=True)
    large = labels[sizes >= LEAST_GROUP]
    if not len(large):
        return np.zeros_like(groups)
    centers = np.stack([features[groups == label].mean(0) for label in large])
    merged = groups.copy()
    for label in labels[sizes < LEAST_GROUP]:
        center = features[groups == label].mean(0)
        merged[groups == label] = large[((centers - center) ** 2).sum(1).argmin()]
    return merged


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    floor = values.max() * len(values) * np.finfo(np.float64).eps
    return (vectors * np.maximum(values, floor) ** exponent) @ vectors.T
