# SPDX-License-Identifier: Apache-2.0
"""Lens: motion, defocus, glare, star streaks and ghosts, on linear radiance."""

import dataclasses
import math

import numpy as np

from nightjax.nightstreet.presets import Knobs

F = np.float32
CLIP = 4.0  # highlights above this many times the sensor's white feed the glare
GLARE_WIDTHS = ((0.008, 0.5), (0.025, 0.3), (0.07, 0.2))  # standard deviation over height, weight
QUARTER = 4


@dataclasses.dataclass(frozen=True)
class Lens:
    """One exposure's optics: share of highlight energy that is scattered, streaks, motion in pixels at 512 columns."""

    glare: float
    rays: int
    angle: float
    ghosts: int
    motion: float
    defocus: float  # standard deviation over height


def draw_lens(rng: np.random.Generator, night: bool, knobs: Knobs) -> Lens:
    """``rng`` is the generator ``sensor``; no knob changes how much is drawn from it."""
    glare = float(rng.uniform(0.03, 0.08)) * knobs.glare
    starry = rng.random() < 0.15
    rays = int(rng.integers(2, 5)) if starry else 0
    angle = float(rng.uniform(0, math.pi))
    ghosts = int(rng.integers(0, 4))
    motion = float(rng.uniform(0, 6) if night else rng.uniform(0, 1)) * knobs.blur
    return Lens(glare, rays, angle, ghosts, motion, float(rng.uniform(0.001, 0.004)) * knobs.blur)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Separable Gaussian on [3, H, W] with mirrored borders; energy is kept."""
    if sigma < 0.15:
        return image
    radius = max(1, math.ceil(3 * sigma))
    taps = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    total = sum(taps)
    for axis in (1, 2):
        length = image.shape[axis]
        width = [(0, 0), (0, 0), (0, 0)]
        width[axis] = (radius, radius)
        padded = np.pad(image, width, mode="symmetric")
        result = np.zeros_like(image)
        for i, tap in enumerate(taps):
            part = padded[:, i : i + length] if axis == 1 else padded[:, :, i : i + length]
            result += F(tap / total) * part
        image = result
    return image


def shrink(image: np.ndarray) -> np.ndarray:
    """Mean over QUARTER x QUARTER blocks; height and width are multiples of QUARTER."""
    c, h, w = image.shape
    return image.reshape(c, h // QUARTER, QUARTER, w // QUARTER, QUARTER).mean((2, 4), dtype=np.float32)


def enlarge(image: np.ndarray) -> np.ndarray:
    """Bilinear enlargement by QUARTER with repeated borders, so that block sums stay."""
    for axis in (1, 2):
        n = image.shape[axis]
        position = (np.arange(n * QUARTER, dtype=np.float32) + F(0.5)) / F(QUARTER) - F(0.5)
        image = sample(image, position, axis)
    return image


def sample(image: np.ndarray, position: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along one axis at float32 positions, clamped to the border."""
    last = image.shape[axis] - 1
    position = np.clip(position, 0, last)
    low = np.minimum(position.astype(np.int32), max(last - 1, 0))
    weight = position - low
    shape = [1, 1, 1]
    shape[axis] = -1
    first = np.take(image, low, axis)
    return first + (np.take(image, np.minimum(low + 1, last), axis) - first) * weight.reshape(shape)


def move(image: np.ndarray, center: tuple[float, float], pixels: float) -> np.ndarray:
    """Radial motion blur: mean of three zoomed copies about the vanishing point (column, row)."""
    if pixels < 0.1:
        return image
    _, height, width = image.shape
    reach = pixels / (0.5 * width)
    total = image.copy()
    for scale in (1 - reach, 1 - 0.5 * reach):
        rows = (np.arange(height, dtype=np.float32) - F(center[1])) * F(scale) + F(center[1])
        columns = (np.arange(width, dtype=np.float32) - F(center[0])) * F(scale) + F(center[0])
        total += sample(sample(image, rows, 1), columns, 2)
    return total * F(1 / 3)


def veil(image: np.ndarray, white: float, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """Scatters part of the highlights.

    Args:
        image: float32 [3, H, W] radiance.
        white: radiance that saturates the sensor.

    Returns:
        Image with glare, and the scattered light alone, both [3, H, W]; the sum over pixels is kept but for ghosts.
    """
    bright = np.minimum(np.maximum(image - F(white), 0), F(CLIP * 10 * white))
    if lens.glare <= 0 or not bright.any():
        return image, np.zeros_like(image)
    small = shrink(bright)
    height = small.shape[1]
    scattered = np.zeros_like(small)
    for sigma, weight in GLARE_WIDTHS:
        scattered += F(weight) * blur(small, sigma * height)
    if lens.rays:
        streak = _streaks(small, lens)
        scattered = F(0.7) * scattered + F(0.3) * streak
    for i in range(lens.ghosts):
        ghost = small[:, ::-1, ::-1]
        scattered = scattered + F(0.015 / (i + 1)) * blur(np.roll(ghost, 2 * i, 1), 1.0 + i)
    spread = F(lens.glare) * enlarge(scattered)
    return image - F(lens.glare) * bright + spread, spread


def _streaks(small: np.ndarray, lens: Lens) -> np.ndarray:
    """Rays of a star around every highlight: shifted copies that fall off, on 2 * lens.rays directions."""
    length = max(3, small.shape[1] // 4)
    weights = [1 / (1 + i) for i in range(1, length)]
    total = 2 * lens.rays * sum(weights)
    result = np.zeros_like(small)
    for ray in range(2 * lens.rays):
        angle = lens.angle + math.pi * ray / lens.rays
        for i, weight in enumerate(weights, 1):
            shift = round(i * math.sin(angle)), round(i * math.cos(angle))
            result += F(weight / total) * np.roll(small, shift, (1, 2))
    return result
