# SPDX-License-Identifier: Apache-2.0
"""Camera electronics: metering, Poisson-Gaussian noise, tone curve and the invalid mask."""

import dataclasses

import numpy as np

from nightjax.nightstreet.presets import Knobs

F = np.float32
LUMINANCE = (0.2126, 0.7152, 0.0722)
# k and r of noise variance k * gain * L + (r * gain)**2, in units of white. A pixel of the standard size stands for
# some sixty of a real camera, so these are a quarter of a small sensor's.
SHOT, READ = 0.00015, 0.0003
DAY_TARGET, TWILIGHT_TARGET = 0.17, 0.10
LONGEST = 0.6  # exposure without gain, in 1 / radiance unit
INVALID_SNR = 4.5
TABLE = 8192


@dataclasses.dataclass(frozen=True)
class Sensor:
    """One exposure's electronics: exposure (gain included) in 1 / radiance, gain, color and tone."""

    exposure: float
    gain: float
    white_balance: np.ndarray  # float32 [3]
    contrast: float
    vignette: float
    noise: float


def luminance(image: np.ndarray) -> np.ndarray:
    """[3, H, W] to [H, W]."""
    return np.asarray(sum(F(LUMINANCE[i]) * image[i] for i in range(3)))


def draw_sensor(rng: np.random.Generator, radiance: np.ndarray, time_of_day: str, knobs: Knobs) -> Sensor:
    """Meters the scene: center-weighted log mean to a target, with limited gain by night."""
    diversity = knobs.exposure_diversity
    bias = float(rng.uniform(-1, 1)) * diversity
    night_target = float(np.exp(_spread(rng, np.log(0.0063), np.log(0.0266), diversity)))
    target = {"day": DAY_TARGET, "twilight": TWILIGHT_TARGET, "night": night_target}[time_of_day]
    level = metered(radiance)
    exposure = target * 2.0**bias / level
    cap = LONGEST * _spread(rng, 6, 14, diversity)
    exposure = min(exposure, cap)
    balance = 1 + diversity * np.array([1.0, 0.25, -1.0]) * float(rng.normal(0, 0.05))
    if time_of_day != "day":
        balance = balance * auto_white(radiance, _spread(rng, 0.2, 0.7, diversity))
    return Sensor(
        exposure=exposure,
        gain=max(1.0, exposure / LONGEST),
        white_balance=balance.astype(np.float32),
        contrast=1 + diversity * float(rng.uniform(-0.25, 0.35)),
        vignette=diversity * float(rng.uniform(0, 0.5)),
        noise=knobs.noise,
    )


def _spread(rng: np.random.Generator, low: float, high: float, diversity: float) -> float:
    """A uniform draw, moved to the middle as ``diversity`` falls to 0."""
    drawn = float(rng.uniform(low, high))
    return drawn + (1 - diversity) * ((low + high) / 2 - drawn)


def metered(radiance: np.ndarray) -> float:
    """Center-weighted geometric mean of luminance."""
    _, height, width = radiance.shape
    rows = 1 - np.abs(np.linspace(-0.8, 0.8, height)) ** 2
    columns = 1 - np.abs(np.linspace(-0.8, 0.8, width)) ** 2
    weight = rows[:, None] * columns[None, :]
    value = np.log(luminance(radiance).astype(np.float64) + 1e-5)
    return float(np.exp((weight * value).sum() / weight.sum()))


def auto_white(radiance: np.ndarray, strength: float) -> np.ndarray:
    """Partial gray-world correction [3] with the green gain near 1."""
    mean = np.minimum(radiance, 1.0).mean((1, 2), dtype=np.float64) + 1e-6
    gains = (mean[1] / mean) ** strength
    return np.clip(gains, 0.5, 2.5)


def noise_sigma(signal: np.ndarray, gain: float) -> np.ndarray:
    """Standard deviation of a signal in units of white: sqrt(k * gain * L + (r * gain)**2)."""
    return np.sqrt(F(SHOT * gain) * np.maximum(signal, 0) + F((READ * gain) ** 2))


def expose(rng: np.random.Generator, radiance: np.ndarray, sensor: Sensor) -> tuple[np.ndarray, np.ndarray]:
    """Radiance [3, H, W] to the sensor's signal in units of white with noise, and the SNR [H, W] of luminance.

    The SNR is infinite where there is no noise.
    """
    signal = radiance * F(sensor.exposure)
    _, height, width = signal.shape
    if sensor.vignette:
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        signal = signal * (1 - F(0.5 * sensor.vignette) * (x * x + y * y))
    sigma = F(sensor.noise) * noise_sigma(signal, sensor.gain)
    bright = luminance(signal)
    sigma_bright = F(sensor.noise) * noise_sigma(bright, sensor.gain)
    snr = np.divide(bright, sigma_bright, out=np.full_like(bright, np.inf), where=sigma_bright > 0)
    grain = rng.standard_normal(signal.shape, dtype=np.float32)
    signal = signal + sigma * grain
    if sensor.gain > 3:
        rows = rng.standard_normal((1, height, 1), dtype=np.float32)
        signal = signal + F(sensor.noise * 0.4 * READ * sensor.gain) * rows
    return signal, snr


def develop(signal: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Denoiser-like chroma blur, white balance, clipping, contrast and sRGB curve: uint8 [H, W, 3]."""
    signal = np.minimum(signal, F(1.0))
    if sensor.gain > 1.5:
        gray = luminance(signal)
        chroma = _box3(signal - gray)
        signal = gray + chroma
    signal = np.clip(signal * sensor.white_balance[:, None, None], 0, 1)
    index = (signal * F(TABLE - 1) + F(0.5)).astype(np.intp)
    return tone_table(sensor.contrast)[index].transpose(1, 2, 0).copy()


def tone_table(contrast: float) -> np.ndarray:
    """uint8 [TABLE]: linear signal to sRGB, contrast as a power about middle gray."""
    x = np.arange(TABLE) / (TABLE - 1)
    x = np.minimum(0.18 * (x / 0.18) ** contrast, 1.0)
    y = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.round(255 * y).astype(np.uint8)


def invalid_mask(snr: np.ndarray, signal: np.ndarray, scattered: np.ndarray) -> np.ndarray:
    """bool [H, W]: luminance SNR too low, or drowned in glare; cleaned by a 3x3 majority.

    Args:
        snr: float32 [H, W] of the noise-free radiance.
        signal, scattered: radiance [3, H, W] without glare, and the glare.
    """
    bad = (snr < F(INVALID_SNR)) | (luminance(scattered) > 4 * luminance(signal))
    return _box3(bad[None].astype(np.float32))[0] > 0.5


def _box3(image: np.ndarray) -> np.ndarray:
    """3x3 mean of [C, H, W] with repeated borders."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) * F(1 / 9)
