# SPDX-License-Identifier: Apache-2.0
"""Day, twilight and night by brightness, and how dark or how like a reference an image's histogram is.

Sources: the rule of the ``solesensei/day2night`` project, used by "Semantic image segmentation in the dark with domain
    adaptation
method" (UIT, VNU-HCM, 2021); what the thesis leaves open is decided here and said so.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.data.imagefiles import BrokenFile, read_image

NIGHT_MAX, DAY_MIN = 60.0, 68.0
"""Brightness up to which it is night, and above which it is day; twilight between."""

COVERED_MAX = 5.0
"""Darker images show a covered lens."""

BINS = 64


def brightness(image: np.ndarray) -> float:
    """Mean of all values of a uint8 image [H, W, 3], over pixels and channels, 0..255."""
    return float(np.mean(image, dtype=np.float64))


def file_brightness(path: str) -> float | None:
    """`brightness` of an image file, or None if it cannot be read."""
    try:
        return brightness(read_image(path))
    except BrokenFile:
        return None


def time_of_day(gamma: float, night_max: float = NIGHT_MAX, day_min: float = DAY_MIN) -> str:
    """``"night"``, ``"twilight"`` or ``"day"`` for a brightness."""
    return "night" if gamma <= night_max else "twilight" if gamma <= day_min else "day"


def otsu_threshold(gammas: Sequence[float]) -> int:
    """Brightness up to which an image belongs to the darker class: the largest between-class variance of 256 bins
    (Otsu 1979).

    Where several are equally good, as between two spikes, it is the middle one.
    """
    counts = np.bincount(np.clip(np.floor(gammas), 0, 255).astype(int), minlength=256).astype(np.float64)
    below = counts.cumsum()
    above = below[-1] - below
    mass = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = mass / below - (mass[-1] - mass) / above
    variance = np.nan_to_num(below * above * gap**2)
    return int(np.flatnonzero(variance >= variance.max() * (1 - 1e-12)).mean())


def split_day_night(
    gammas: Mapping[str, float],
    official: Mapping[str, str] | None = None,
    policy: str = "",
    night_max: float = NIGHT_MAX,
    day_min: float = DAY_MIN,
) -> dict[str, list[str]]:
    """Separates images into day, twilight and night.

    Args:
        gammas: name to brightness.
        official: name to the data set's own ``"day"``, ``"twilight"`` or ``"night"``.
        policy: ``"agree"`` keeps the images whose brightness and own label agree (default with labels: on NEXET one
            night in five is as bright as a day); ``"brightness"`` ignores labels (default without); ``"otsu"`` finds
            the threshold itself, with twilight up to 4 from it.
        night_max, day_min: of the first two.

    Returns:
        ``"day"``, ``"twilight"`` and ``"night"`` to sorted names.

    Raises:
        UserError: unknown policy, or "agree" without labels.
    """
    policy = policy or ("agree" if official else "brightness")
    choose({"agree": 0, "brightness": 0, "otsu": 0}, policy, "policy")
    if policy == "agree" and not official:
        raise UserError(
            "policy=agree compares brightness with the data set's labels, and there are none: use brightness or otsu"
        )
    if policy == "otsu":
        threshold = otsu_threshold(list(gammas.values()))
        # A brightness of just below threshold + 1 is in the last dark bin.
        night_max, day_min = np.nextafter(threshold - 4.0, 0), threshold + 4.0
    parts = {"day": [], "twilight": [], "night": []}
    for name in sorted(gammas):
        found = time_of_day(gammas[name], night_max, day_min)
        if policy != "agree" or (official or {}).get(name) == found:
            parts[found].append(name)
    return parts


def is_training(name: str, share: float = 0.75) -> bool:
    """Whether an image belongs to the training part: a fixed function of its name alone."""
    return zlib.crc32(name.encode()) < share * 2**32


def luminance_histogram(image: np.ndarray) -> np.ndarray:
    """Share of the pixels in each of 64 bins of ``0.299 R + 0.587 G + 0.114 B``, float64 [64], for uint8 [H, W, 3]
    RGB."""
    red, green, blue = (image[..., c].astype(np.int32) for c in range(3))
    thousandths = 299 * red + 587 * green + 114 * blue  # Exact: neither OpenCV's rounding nor a float's moves a pixel.
    counts = np.bincount(thousandths.ravel() // (1000 * 256 // BINS), minlength=BINS)
    return counts / counts.sum()


def earth_movers_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Between histograms [..., N] of mass 1, in bins."""
    return np.abs(np.cumsum(one, -1) - np.cumsum(other, -1)).sum(-1)


def select_darkest(
    gammas: Mapping[str, float], count: int, official: Mapping[str, str] | None = None
) -> list[tuple[str, float]]:
    """The darkest nights, (name, brightness), darkest first; ties by name (``his_dark``).

    Args:
        gammas: name to brightness.
        count: how many, fewer if there are not as many nights.
        official: name to time of day, where known; other times are left out.
    """
    nights = [
        (name, gamma)
        for name, gamma in gammas.items()
        if COVERED_MAX <= gamma <= NIGHT_MAX and (official or {}).get(name, "night") == "night"
    ]
    return sorted(nights, key=lambda item: (item[1], item[0]))[:count]


def select_by_histogram(
    histograms: Mapping[str, np.ndarray], reference: np.ndarray, count: int
) -> list[tuple[str, float]]:
    """The images whose `luminance_histogram` is nearest to a reference [64], (name, distance in bins)
    (``his_ref``)."""
    scores = {name: float(earth_movers_distance(histogram, reference)) for name, histogram in histograms.items()}
    return sorted(scores.items(), key=lambda item: (item[1], item[0]))[:count]
