# SPDX-License-Identifier: Apache-2.0
"""Light: daylight, dusk and the lamps of the night; radiance of every pixel in linear units.

The unit of irradiance is the ground under a street lamp. Daylight is about a hundred of these (in truth a thousand; the
metering hides the difference), so that lamps and lit windows need no switch: by day they drown.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.facades import has_shop, shop_glow
from nightjax.nightstreet.layout import Street
from nightjax.nightstreet.presets import Knobs, last_to_go, whiten
from nightjax.nightstreet.props import Lamp
from nightjax.nightstreet.seeds import named_generator, value_noise
from nightjax.nightstreet.surfaces import Surfaces
from nightjax.nightstreet.traffic import LENGTH, WIDTH, Mover

F = np.float32
PI = F(np.pi)
SODIUM, WARM_LED, COOL_LED = (1.0, 0.65, 0.33), (1.0, 0.91, 0.78), (0.88, 0.96, 1.0)
SPILL = 0.25  # what a street lamp sends sideways and up, relative to straight down
REACH = 70.0  # lights farther along the street than this are not shone, meters


@dataclasses.dataclass(frozen=True)
class PointLight:
    """A lamp that shines: ``lobe`` is ``"down"``, ``"all"`` or, for headlights, ``"forward"`` and ``"backward"``."""

    position: tuple[float, float, float]
    intensity: np.ndarray  # float32 [3]
    lobe: str
    radius: float  # meters beyond which it is ignored


@dataclasses.dataclass(frozen=True)
class Air:
    """Everything that is not a lamp: dome and sun irradiance [3], sky radiance [3], and haze."""

    dome: np.ndarray
    sun: np.ndarray
    sun_direction: tuple[float, float, float]
    shade_height: float
    horizon: np.ndarray
    zenith: np.ndarray
    clouds: float
    haze: float
    seed: int


def draw_air(scene_seed: int, time_of_day: str, knobs: Knobs) -> Air:
    """Weather and sky of a scene at one time of day."""
    rng = named_generator(scene_seed, "lights/" + time_of_day)
    up = (0.0, 1.0, 0.0)
    none = np.zeros(3, np.float32)
    seed = int(rng.integers(2**31))
    haze = float(rng.uniform(250, 800))
    if time_of_day == "day":
        overcast = rng.random() < 0.4
        dome = 40 * float(rng.uniform(0.6, 1.4)) * np.array([0.92, 1.0, 1.08 if overcast else 1.18])
        late = float(rng.random()) ** 2
        elevation = math.radians(60 - 48 * late)
        azimuth = float(rng.uniform(-math.pi, math.pi))
        across = math.cos(elevation)
        direction = (across * math.sin(azimuth), math.sin(elevation), across * math.cos(azimuth))
        strength = 0.0 if overcast else float(rng.uniform(60, 140))
        sun = strength * np.array([1.0, 0.95 - 0.2 * late, 0.86 - 0.4 * late])
        white = float(rng.uniform(0.5, 1.1)) if overcast else float(rng.uniform(0.3, 0.8))
        horizon = dome * white * np.array([1.02, 1.0, 0.95])
        zenith = horizon if overcast else dome * np.array([0.2, 0.3, 0.5])
        air = (dome, sun, direction, float(rng.uniform(6, 16)), horizon, zenith, float(rng.uniform(0, 0.6)))
    else:
        tint = np.array(SODIUM if rng.random() < 0.5 else COOL_LED)
        tint = 1 + knobs.tint * (tint - 1)
        if time_of_day == "twilight":
            dome = float(rng.uniform(1.0, 5.0)) * np.array([0.8, 0.92, 1.2])
            horizon = dome * np.array([1.1, 0.85, 0.6]) * float(rng.uniform(0.3, 0.8))
            zenith = dome * np.array([0.16, 0.22, 0.36])
        else:
            # Also stands for the light that streets throw back and forth, which is not traced.
            level = float(rng.uniform(0.03, 0.10)) * knobs.ambient
            dome = level * np.array([0.9, 0.95, 1.1])
            horizon = level * float(rng.uniform(0.6, 2.5)) * tint
            zenith = level * float(rng.uniform(0.1, 0.4)) * np.array([0.8, 0.9, 1.2])
        air = (dome, none, up, 0.0, horizon, zenith, float(rng.uniform(0, 0.4)))
    dome, sun, direction, shade_height, horizon, zenith, clouds = air
    dome, sun, horizon, zenith = (np.asarray(light, np.float32) for light in (dome, sun, horizon, zenith))
    return Air(dome, sun, direction, shade_height, horizon, zenith, clouds, haze, seed)


def lamp_intensities(scene_seed: int, lamps: list[Lamp], knobs: Knobs) -> list[np.ndarray]:
    """Luminous intensity [3] of every street lamp: 1 unit of irradiance below it; 5 % are broken."""
    rng = named_generator(scene_seed, "lights/lamps")
    draw = rng.random()
    color = np.array(SODIUM if draw < 0.5 else WARM_LED if draw < 0.75 else COOL_LED)
    color = 1 + knobs.tint * (color - 1)
    strength = float(rng.uniform(0.8, 2.2)) * knobs.lamps
    result = []
    for lamp in lamps:
        working = float(rng.random() >= 0.05)
        own = strength * float(rng.uniform(0.8, 1.2)) * working * lamp.head[1] ** 2
        result.append((own * color / color.mean()).astype(np.float32))
    return result


def draw_lights(
    scene_seed: int, street: Street, lamps: list[Lamp], movers: list[Mover], camera: Camera, knobs: Knobs
) -> list[PointLight]:
    """Street lamps, shops, the own low beam and the lights of other vehicles."""
    lights = []
    for lamp, intensity in zip(lamps, lamp_intensities(scene_seed, lamps, knobs), strict=True):
        if lamp.head[2] < REACH and intensity.any():
            lights.append(PointLight(lamp.head, intensity, "down", 26.0))
    for row in (row for row in street.rows if row.front and knobs.lamps):
        segment = np.arange(len(row.kind))
        glow = shop_glow(row, segment, knobs) * F(knobs.lamps)
        for i in np.flatnonzero(has_shop(row, segment) & (row.edges[:-1] < 45) & (row.edges[1:] > 2)):
            z = float(row.edges[i] + row.edges[i + 1]) / 2
            s = row.position - math.copysign(0.6, row.position)
            lights.append(PointLight((street.x(s, z), 1.8, z), 6 * glow[:, i], "all", 10.0))
    own = named_generator(scene_seed, "lights/own")
    white = whiten(np.array([1.0, 0.95, 0.82], np.float32), last_to_go(knobs.tint))
    beam = white * F(own.uniform(160, 420) * knobs.lamps)
    x, _, z = camera.position
    lights.append(PointLight((x - 0.4, 0.65, z + 1.5), beam, "forward", 55.0))
    for mover in movers:
        if not mover.lit or mover.kind not in LENGTH or mover.z > REACH or not knobs.lamps:
            continue
        if mover.toward:
            place = (mover.x, 0.7, mover.z - 0.1)
            lights.append(PointLight(place, beam * F(0.8), "backward", 30.0))
        else:
            red = np.array([0.9, 0.1, 0.05], np.float32) * F(knobs.lamps)
            lights.append(PointLight((mover.x, 0.7, mover.z - 0.4), red * F(WIDTH[mover.kind] / 2), "all", 5.0))
    return lights


def irradiance(position: Sequence[np.ndarray], normal: Sequence[np.ndarray], light: PointLight) -> np.ndarray:
    """Scalar irradiance (per unit intensity) on surface points, float32; ``position`` and ``normal`` have 3 arrays."""
    vx, vy, vz = (F(light.position[i]) - position[i] for i in range(3))
    square = vx * vx + vy * vy + vz * vz
    distance = np.sqrt(square)
    facing = np.maximum(normal[0] * vx + normal[1] * vy + normal[2] * vz, 0)
    if light.lobe == "down":
        cosine = np.maximum(vy / distance, 0)
        lobe = cosine * np.sqrt(np.sqrt(cosine)) + F(SPILL)
    elif light.lobe == "all":
        lobe = F(1)
    else:
        ahead = -vz if light.lobe == "forward" else vz
        ahead = np.maximum(ahead, F(0.05))
        wide, high = vx / ahead, -vy / ahead  # tangents to the side and above the lamp
        lobe = np.where(ahead > F(0.1), 1, 0) / (1 + (wide * F(2.2)) ** 2) ** 2
        lobe = lobe * np.clip(F(0.6) - high * F(28), F(0.03), 1) / (1 + (high * F(5)) ** 2)
    return lobe * facing / (distance * (square + F(0.5)))


def radiance(
    surfaces: Surfaces,
    camera: Camera,
    street: Street,
    air: Air,
    lights: list[PointLight],
    albedo: np.ndarray | None = None,
) -> np.ndarray:
    """Linear radiance float32 [3, H, W] before lens and sensor; ``albedo`` [3, H, W] in place of the surfaces' own."""
    sky = np.isinf(surfaces.depth)
    depth = np.where(sky, F(0), surfaces.depth)
    position = [F(camera.position[i]) + depth * camera.rays[i] for i in range(3)]
    normal = surfaces.normal
    open_sky = F(0.6) + F(0.4) * normal[1]
    light = air.dome[:, None, None] * open_sky
    if air.sun.any():
        sunlit = np.maximum(sum(normal[i] * F(air.sun_direction[i]) for i in range(3)), 0)
        sunlit = np.where(_street_shade(position, street, air), 0, sunlit)
        light = light + air.sun[:, None, None] * sunlit
    for lamp in lights:
        p, r = lamp.position, lamp.radius
        window = camera.rectangle(tuple(v - r for v in p), tuple(v + r for v in p))
        if window is None:
            continue
        part = irradiance([a[window] for a in position], [a[window] for a in normal], lamp)
        for channel in range(3):
            light[channel][window] += lamp.intensity[channel] * part
    result = (surfaces.albedo if albedo is None else albedo) * light * (1 / PI) + surfaces.glow
    clear = np.exp(depth * F(-1 / air.haze))
    result = result * clear + air.horizon[:, None, None] * F(0.5) * (1 - clear)
    return np.where(sky, sky_radiance(camera, air), result)


def _street_shade(position, street: Street, air: Air) -> np.ndarray:
    """Shadow of the row of façades on the sun's side: one half-plane in the cross-section."""
    toward, rise = air.sun_direction[0], air.sun_direction[1]
    edge = street.facade[1] if toward > 0 else street.facade[0]
    s = position[0] - F(street.curvature) * position[2] * position[2]
    away = np.abs(F(edge) - s)
    return position[1] < F(air.shade_height) - away * F(rise / max(abs(toward), 1e-3))


def sky_radiance(camera: Camera, air: Air) -> np.ndarray:
    """Gradient from horizon to zenith with soft clouds, float32 [3, H, W]."""
    x, y, z = camera.rays
    rise = np.clip(y * F(2.2), 0, 1)
    cloud = value_noise(x / np.maximum(z, F(0.1)) * F(6), rise * F(9), air.seed) * F(air.clouds)
    mix = np.sqrt(rise) * (1 - cloud)
    return air.horizon[:, None, None] + (air.zenith - air.horizon)[:, None, None] * mix
