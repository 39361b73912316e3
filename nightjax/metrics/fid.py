# SPDX-License-Identifier: Apache-2.0
"""Fréchet and kernel distance between two sets of images, from the features of any network.

Features come in as rows; everything after the network is float64 on the host. Statistics are sums that merge, so
batches, devices and processes may each see a part. Sources: FID (arXiv 1706.08500), clean-fid (2104.11222), KID
(1801.01401).
"""

import dataclasses
import functools
import operator
import warnings
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from PIL import Image

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.core.types import Size

CHUNK = 2048
"""How many rows are gathered before their scatter is added: one large product costs less than many small ones."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a Fréchet distance needs to know of a set; ``a + b`` describes both sets together.

    Attributes:
        count: n, number of rows.
        mean: [D] float64.
        scatter: [D, D] float64, sum over rows of the outer product of their deviation from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Statistics":
        """Describes the rows of one array [n, D], n at least 1."""
        rows = np.asarray(features, np.float64)
        mean = rows.mean(0)
        rows = rows - mean
        return cls(len(rows), mean, rows.T @ rows)

    def __add__(self, other: "Statistics") -> "Statistics":
        count = self.count + other.count
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.count * other.count / count)
        return Statistics(count, self.mean + step * (other.count / count), scatter)

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance [D, D].

        Raises:
            UserError: there is only one row.
        """
        if self.count < 2:
            raise UserError(f"a covariance needs 2 or more images, got {self.count}: give a larger set")
        return self.scatter / (self.count - 1)


def statistics(batches: Iterable[np.ndarray]) -> "Statistics":
    """Statistics of all rows of some batches [n, D], each read once.

    Raises:
        UserError: there is no row.
    """
    parts = map(Statistics.of, _chunks(batches))
    first = next(parts, None)
    if first is None:
        raise UserError("no images to describe: give a set of 2 or more")
    return functools.reduce(operator.add, parts, first)


def _chunks(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    rows, count = [], 0
    for batch in batches:
        rows.append(batch)
        count += len(batch)
        if count >= CHUNK:
            yield np.concatenate(rows)
            rows, count = [], 0
    if count:
        yield np.concatenate(rows)


def merge_over_processes(own: Statistics) -> "Statistics":
    """Statistics of the rows of all processes of a job, the same on each; D must be equal."""
    if jax.process_count() == 1:
        return own
    numbers = np.concatenate([[own.count], own.mean, own.scatter.ravel()]).astype(np.float64)
    # As bytes: JAX would round float64 to float32 on the way.
    gathered = multihost_utils.process_allgather(numbers.view(np.uint8))
    size = len(own.mean)
    parts = [
        Statistics(int(x[0]), x[1 : size + 1], x[size + 1 :].reshape(size, size)) for x in gathered.view(np.float64)
    ]
    return functools.reduce(operator.add, parts)


def frechet_distance(one: Statistics, other: "Statistics") -> float:
    """Squared Fréchet distance between the Gaussians fitted to two sets, at least 0 up to rounding.

    Compare only numbers of equal n: the estimate is biased upward, at small n by far more than methods differ.

    Raises:
        UserError: a set has fewer than two rows, or the sets' features are of different lengths.
    """
    if len(one.mean) != len(other.mean):
        raise UserError(
            f"features of {len(one.mean)} and of {len(other.mean)} numbers cannot be compared: use one network"
        )
    for part in (one, other):
        if 1 < part.count <= len(part.mean):
            warnings.warn(
                f"{part.count} images for {len(part.mean)} features: the covariance is singular, the distance biased",
                stacklevel=2,
            )
    return frechet(one.mean, one.covariance, other.mean, other.covariance)


def frechet(mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray) -> float:
    """``|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))``.

    The trace of the root is that of ``(R S2 R)^(1/2)``, R the symmetric root of S1: only symmetric eigenvalue problems,
    real and non-negative whatever the rank, unlike the root of the unsymmetric product (pytorch-fid).

    Args:
        mean1, mean2: [D].
        covariance1, covariance2: symmetric [D, D].
    """
    mean1, covariance1, mean2, covariance2 = (
        np.asarray(x, np.float64) for x in (mean1, covariance1, mean2, covariance2)
    )
    values, vectors = np.linalg.eigh(covariance1)
    # Directions in which the first set does not vary; roots of their rounding errors would add up.
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    root = vectors[:, kept] * np.sqrt(values[kept])
    product = root.T @ covariance2 @ root
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0.0)).sum()
    step = mean1 - mean2
    return float(step @ step + np.trace(covariance1) + np.trace(covariance2) - 2 * trace)


def kernel_distance(
    one: np.ndarray, other: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID: unbiased squared maximum mean discrepancy with the kernel ``(x.y / D + 1)^3``; usable at small n too.

    Args:
        one, other: features [n, D] and [m, D].
        subsets: number of random subsets to average over.
        size: rows in each; at most n and m are taken.
        seed: of the subsets.

    Returns:
        Mean and standard deviation over the subsets.

    Raises:
        UserError: a set has fewer than two rows.
    """
    size = min(size, len(one), len(other))
    if size < 2:
        raise UserError(f"a kernel distance needs 2 or more images, got {size}: give a larger set")
    subsets = 1 if size == len(one) == len(other) else subsets  # They would all be the same.
    rng = np.random.default_rng(seed)
    draw = lambda features: np.asarray(features[rng.choice(len(features), size, replace=False)], np.float64)
    values = [_discrepancy(draw(one), draw(other)) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    n = len(x)
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    others = lambda k: (k.sum() - np.trace(k)) / (n * (n - 1))
    return others(kernel(x, x)) + others(kernel(y, y)) - 2 * kernel(x, y).mean()


def resize(image: np.ndarray, size: Size, rule: str) -> np.ndarray:
    """Resizes one image for a feature network, not keeping its aspect ratio.

    Distances of features under different rules cannot be compared.

    Args:
        image: uint8 [H, W, 3].
        size: (height, width).
        rule: ``"pytorch_fid"``, bilinear with half-pixel centers and without antialiasing; or ``"clean"``, Pillow's
            antialiased bicubic on float channels, clipped to 0..255, never rounded.

    Returns:
        float32 [h, w, 3] in 0..255.

    Raises:
        UserError: the rule is unknown.
    """
    function, _ = choose(RESIZE_RULES, rule, "resize rule")
    return function(np.asarray(image, np.float32), tuple(size))


def network_input(image: np.ndarray, size: Size, rule: str) -> np.ndarray:
    """Resizes and scales to about -1..1, as the program behind the rule does; float32 [h, w, 3]."""
    middle = RESIZE_RULES[rule][1]
    return resize(image, size, rule) / np.float32(middle) - 1


def _resize_pytorch_fid(image: np.ndarray, size: Size) -> np.ndarray:
    for axis, after in enumerate(size):
        before = image.shape[axis]
        # Coordinates in float32, whose rounding torch has too.
        scale, half = np.float32(before) / np.float32(after), np.float32(0.5)
        position = np.maximum(scale * (np.arange(after, dtype=np.float32) + half) - half, 0)
        low = position.astype(np.int32)
        share = np.expand_dims(position - low.astype(np.float32), tuple(range(1, image.ndim - axis)))
        low, high = (image.take(index, axis) for index in (low, np.minimum(low + 1, before - 1)))
        image = low + (high - low) * share
    return image


def _resize_clean(image: np.ndarray, size: Size) -> np.ndarray:
    channels = [
        Image.fromarray(image[..., c]).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        for c in range(image.shape[-1])
    ]
    return np.stack([np.asarray(channel) for channel in channels], -1).clip(0, 255)


RESIZE_RULES = {"pytorch_fid": (_resize_pytorch_fid, 127.5), "clean": (_resize_clean, 128.0)}
"""Name to the function and the gray value that becomes 0."""
