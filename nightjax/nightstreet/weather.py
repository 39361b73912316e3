# SPDX-License-Identifier: Apache-2.0
"""Fog and rain, by day and by night.

Fog follows Koschmieder's law: the light of a surface falls off exponentially with its distance, and light of the air
takes its place. By night the lamps light the air, and each of them gets a halo. Rain wets the ground, which mirrors
what is above it. It also dims the sky, and leaves streaks in the air and drops on the windscreen.
"""

import dataclasses
import math

import numpy as np

from nightjax.nightstreet import light, optics
from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.layout import Street
from nightjax.nightstreet.light import Air, PointLight
from nightjax.nightstreet.presets import Knobs
from nightjax.nightstreet.seeds import named_generator, value_noise
from nightjax.nightstreet.surfaces import ROAD, SIDEWALK, TERRAIN, Surfaces

F = np.float32
CONTRAST = 0.05  # what is left of a contrast at the meteorological optical range
FOG, RAIN = (100.0, 400.0), (600.0, 2000.0)  # meteorological optical range, meters
SHARE = {"down": 0.5, "all": 1.0, "forward": 0.03, "backward": 0.1}  # of a full sphere that a light's beam fills
LAMP_SIZE = 0.3  # meters; keeps a halo finite
FORWARD = 0.8  # mean cosine of the angle by which droplets turn light (Henyey and Greenstein)
STEPS = 16  # of a ray through the light of a lamp
WATER = 0.02  # reflectance of water at normal incidence
MIRRORED = np.geomspace(1.05, 30, 14)  # distances at which a reflection is looked for, over that of the ground


@dataclasses.dataclass(frozen=True)
class Weather:
    """Fog and rain of one scene.

    Attributes:
        extinction: share of the light that a meter of air takes away, 1 / m.
        layer: height of the fog, meters.
        rain: 0 for none, 1 for heavy rain.
        seed: of the puddles.
    """

    extinction: float
    layer: float
    rain: float
    seed: int


def draw_weather(scene_seed: int, knobs: Knobs) -> Weather:
    """The weather of a scene: how thick its fog and how heavy its rain is."""
    rng = named_generator(scene_seed, "weather")
    in_fog, in_rain = (math.exp(rng.uniform(*np.log(reach))) for reach in (FOG, RAIN))
    extinction = -math.log(CONTRAST) * (knobs.fog / in_fog + knobs.rain / in_rain)
    rain = knobs.rain * float(rng.uniform(0.6, 1.0))
    return Weather(extinction, float(rng.uniform(60, 150)), rain, int(rng.integers(2**31)))


def radiance(
    weather: Weather, surfaces: Surfaces, camera: Camera, street: Street, air: Air, lights: list[PointLight]
) -> tuple[np.ndarray, np.ndarray]:
    """As `light.radiance`, in fog and rain.

    Returns:
        The radiance that reaches the lens, float32 [3, H, W]; and the share of a surface's own light that does,
        float32 [H, W].
    """
    air = _overcast(weather, air)
    if not weather.rain:
        return _through(weather, light.radiance(surfaces, camera, street, air, lights), surfaces, camera, air, lights)
    ground = np.isin(surfaces.label, (ROAD, SIDEWALK, TERRAIN)) & (surfaces.normal[1] > F(0.99))
    dark = surfaces.albedo * np.where(ground, F(1 - 0.5 * min(weather.rain, 1)), F(1))
    seen = light.radiance(surfaces, camera, street, air, lights, albedo=dark)
    seen = _mirror(weather, seen, surfaces, camera, air, ground)
    return _through(weather, seen, surfaces, camera, air, lights)


def _overcast(weather: Weather, air: Air) -> Air:
    """The sky closes: no sun, one gray from horizon to zenith, and in rain less of it. The night's sky stays."""
    left = F(1 - 0.5 * min(weather.rain, 1))
    if air.shade_height == 0:
        return dataclasses.replace(air, dome=left * air.dome)
    dome = left * (air.dome + F(0.3) * air.sun)
    gray = np.full(3, F(0.8) * dome.mean(), np.float32)
    return dataclasses.replace(air, dome=dome, sun=np.zeros(3, np.float32), horizon=gray, zenith=F(0.9) * gray)


def _mirror(
    weather: Weather, seen: np.ndarray, surfaces: Surfaces, camera: Camera, air: Air, ground: np.ndarray
) -> np.ndarray:
    """Adds what the wet ground mirrors: the pixel of ``seen`` that the mirrored ray meets first, or the sky."""
    height, width = ground.shape
    ray, depth = camera.rays[:, ground], surfaces.depth[ground]
    point = [F(camera.position[i]) + depth * ray[i] for i in range(3)]
    found = np.repeat(air.horizon[:, None], depth.size, 1)
    looking = np.ones(depth.shape, bool)
    for times in MIRRORED:
        further = depth * F(times - 1)
        column, row, ahead = camera.project(*(point[i] + further * (-ray[i] if i == 1 else ray[i]) for i in range(3)))
        inside = (ahead > 0) & (column > -0.5) & (column < width - 0.5) & (row > -0.5) & (row < height - 0.5)
        c = np.rint(np.clip(column, 0, width - 1)).astype(np.intp)
        r = np.rint(np.clip(row, 0, height - 1)).astype(np.intp)
        hit = looking & inside & (surfaces.depth[r, c] <= ahead) & ~ground[r, c]
        found[:, hit] = seen[:, r[hit], c[hit]]
        looking &= ~hit
    image = seen.copy()
    image[:, ground] = found
    image = optics.blur(image, 0.006 * height)
    cosine = -ray[1] / np.sqrt((ray * ray).sum(0))
    share = F(WATER) + F(1 - WATER) * (1 - cosine) ** 5
    puddles = value_noise(point[0] * F(0.4), point[2] * F(0.4), weather.seed)
    film = np.clip(F(weather.rain) * (F(0.3) + puddles), 0, 1)
    result = seen.copy()
    result[:, ground] += film * share * image[:, ground]
    return result


def _through(
    weather: Weather, seen: np.ndarray, surfaces: Surfaces, camera: Camera, air: Air, lights: list[PointLight]
) -> tuple[np.ndarray, np.ndarray]:
    """What is left of surfaces and sky behind the air, and the air's own light; see `radiance`."""
    length = np.sqrt((camera.rays * camera.rays).sum(0))
    unit = camera.rays / length
    to_sky = F(weather.layer) / np.maximum(unit[1], F(0.02))
    distance = np.where(np.isinf(surfaces.depth), to_sky, surfaces.depth * length)
    left = np.exp(F(-weather.extinction) * distance)
    result = seen * left + air.horizon[:, None, None] * (1 - left)
    for lamp in lights:
        result += lamp.intensity[:, None, None] * _halo(weather.extinction, lamp, camera, unit, distance)
    return result, left


def _halo(extinction: float, lamp: PointLight, camera: Camera, unit: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Light of a lamp, per unit of intensity, that the air along each ray scatters to the camera, once; [H, W].

    The ray is divided into equal angles as seen from the lamp, which absorbs the inverse square of the distance.
    """
    to = [F(lamp.position[i] - camera.position[i]) for i in range(3)]
    along = to[0] * unit[0] + to[1] * unit[1] + to[2] * unit[2]
    aside = np.sqrt(np.maximum(sum(t * t for t in to) - along * along, 0) + F(LAMP_SIZE**2))
    first = -np.arctan(along / aside)
    step = (np.arctan((distance - along) / aside) - first) * F(1 / STEPS)
    total = np.zeros_like(step)
    for i in range(STEPS):
        angle = first + (i + F(0.5)) * step
        sine, cosine = np.sin(angle), np.cos(angle)
        way = along + aside * (sine + 1) / np.maximum(cosine, F(1e-3))
        phase = F(1 - FORWARD**2) / (F(1 + FORWARD**2) + F(2 * FORWARD) * sine) ** F(1.5)
        total += phase * np.exp(F(-extinction) * way)
    return F(extinction * SHARE[lamp.lobe] / (4 * math.pi)) * total * step / aside


def fall(weather: Weather, radiance: np.ndarray, moment: int, windscreen: int) -> np.ndarray:
    """Streaks in the air, and drops on the windscreen that show the scene upside down.

    Args:
        weather: of the scene.
        radiance: float32 [3, H, W].
        moment: seed of the streaks.
        windscreen: seed of the drops.
    """
    _, height, width = radiance.shape
    rng = named_generator(moment, "rain")
    count = round(400 * weather.rain)
    steps = max(2, round(0.09 * height))
    top = rng.uniform((-0.1, 0), (1, 1), (count, 2)) * (height, width)
    length, slant = rng.uniform(0.3, 1, count), rng.normal(0, 0.15)
    depth = rng.uniform(0.04, 0.2, count)
    part = np.arange(steps)[:, None]
    rows = np.rint(top[:, 0] + part * length).astype(int)
    columns = np.rint(top[:, 1] + part * length * slant).astype(int)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    veil = np.zeros((height, width), np.float32)
    np.maximum.at(veil, (rows[inside], columns[inside]), np.broadcast_to(depth, rows.shape)[inside].astype(np.float32))
    soft = optics.blur(radiance, 0.04 * height)
    result = radiance + veil * (F(1.3) * soft - radiance)
    rng = named_generator(windscreen, "drops")
    y, x = np.indices((height, width), np.float32)
    for _ in range(round(14 * weather.rain * rng.random())):
        row, column, radius = rng.uniform((0, 0, 0.01), (1, 1, 0.04)) * (height, width, height)
        inside = (y - F(row)) ** 2 + (x - F(column)) ** 2 < F(radius) ** 2
        r = np.clip(np.rint(F(row) - 6 * (y[inside] - F(row))), 0, height - 1).astype(np.intp)
        c = np.clip(np.rint(F(column) - 6 * (x[inside] - F(column))), 0, width - 1).astype(np.intp)
        result[:, inside] = F(0.3) * result[:, inside] + F(0.7) * soft[:, r, c]
    return result
