# SPDX-License-Identifier: Apache-2.0
"""The renderer: integer seeds in, image and ground truth out."""

import dataclasses

import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.nightstreet import light, optics, sensor, weather
from nightjax.nightstreet.camera import Camera, PoseOffset
from nightjax.nightstreet.facades import paint_row
from nightjax.nightstreet.ground import paint_ground
from nightjax.nightstreet.layout import Street, draw_street
from nightjax.nightstreet.people import paint_figure
from nightjax.nightstreet.presets import Knobs
from nightjax.nightstreet.props import Lamp, draw_lamps, draw_props, paint_lamp, paint_prop
from nightjax.nightstreet.seeds import named_generator
from nightjax.nightstreet.surfaces import SKY, Surfaces
from nightjax.nightstreet.traffic import LENGTH, Mover, draw_movers
from nightjax.nightstreet.vehicles import paint_vehicle

F = np.float32
TIMES = ("day", "twilight", "night")
LAMP_GLOW = 2.0  # radiance of a lamp's head per unit of its intensity
BONNET_DEPTH = 1.0


@dataclasses.dataclass(frozen=True)
class View:
    """Geometry of one view before any light: surfaces, and what the light needs to know."""

    camera: Camera
    street: Street
    lamps: list[Lamp]
    movers: list[Mover]
    surfaces: Surfaces


def render(
    scene_seed: int,
    time_of_day: str,
    *,
    dynamic_seed: int,
    pose_jitter: PoseOffset = PoseOffset(),
    size: tuple[int, int] = (128, 256),
    sensor_seed: int,
    noise_seed: int | None = None,
    knobs: Knobs = Knobs(),
    prior_shift: float = 0.0,
) -> dict:
    """One photograph of a procedural street, a pure function of its arguments.

    Args:
        scene_seed: street, buildings, static objects, materials, lamps, weather and camera.
        time_of_day: ``"day"``, ``"twilight"`` or ``"night"``; changes nothing but light and sensor.
        dynamic_seed: vehicles, people and cycles.
        pose_jitter: displacement from the scene's nominal camera.
        size: (height, width), multiples of 4.
        sensor_seed: exposure, lens, noise and tone curve.
        noise_seed: of the noise, if it is not the sensor's.
        knobs: strength of each nuisance factor.
        prior_shift: 0 for streets of the day splits, 1 for low, open, bare ones.

    Returns:
        ``image`` uint8 [H, W, 3] RGB; ``label`` uint8 [H, W] train ids and 255; ``depth`` float32 [H, W] meters,
        infinite for the sky; ``invalid`` uint8 [H, W], 1 where a labeled pixel cannot be recognized; ``snr``
        float32 [H, W]; ``moving`` bool [H, W]; ``meta`` dict with the camera, exposure and gain.
    """
    if time_of_day not in TIMES:
        raise UserError(f"time_of_day is {time_of_day!r}; choose one of {', '.join(TIMES)}")
    if size[0] % optics.QUARTER or size[1] % optics.QUARTER:
        raise UserError(f"size is {size}; NightStreet renders heights and widths that are multiples of 4")
    view = draw_view(scene_seed, dynamic_seed, pose_jitter, size, knobs, prior_shift)
    air = light.draw_air(scene_seed, time_of_day, knobs)
    lights = (
        []
        if time_of_day == "day"
        else light.draw_lights(scene_seed, view.street, view.lamps, view.movers, view.camera, knobs)
    )
    scene = (view.surfaces, view.camera, view.street, air, lights)
    if knobs.fog or knobs.rain:
        moment = sensor_seed if noise_seed is None else noise_seed
        outside = weather.draw_weather(scene_seed, knobs)
        clean, left = weather.radiance(outside, *scene)
        clean = weather.fall(outside, clean, moment, sensor_seed)
    else:
        clean, left = light.radiance(*scene), np.ones(size, np.float32)
    rng = named_generator(sensor_seed, "sensor")
    electronics = sensor.draw_sensor(rng, clean, time_of_day, knobs)
    lens = optics.draw_lens(rng, time_of_day == "night", knobs)
    moved = optics.move(clean, view.camera.center, lens.motion * size[1] / 512)
    moved = optics.blur(moved, lens.defocus * size[0])
    seen, scattered = optics.veil(moved, 1 / electronics.exposure, lens)
    noise = rng if noise_seed is None else named_generator(noise_seed, "noise")
    signal, snr = sensor.expose(noise, seen, electronics)
    label = labels_with_void(scene_seed, view.surfaces.label)
    invalid = sensor.invalid_mask(snr, clean, scattered) | (left < weather.CONTRAST) & (view.surfaces.label != SKY)
    return {
        "image": sensor.develop(signal, electronics),
        "label": label,
        "depth": view.surfaces.depth,
        "invalid": (invalid & (label != IGNORE)).astype(np.uint8),
        "snr": snr,
        "moving": view.surfaces.moving,
        "meta": {"camera": view.camera, "exposure": electronics.exposure, "gain": electronics.gain},
    }


def draw_view(scene_seed, dynamic_seed, pose_jitter, size, knobs, prior_shift) -> View:
    """All surfaces of one view; nothing in it depends on the time of day."""
    camera = Camera(scene_seed, size, pose_jitter)
    street = draw_street(scene_seed, prior_shift)
    lamps = draw_lamps(scene_seed, street)
    movers = draw_movers(dynamic_seed, street, prior_shift)
    surfaces = Surfaces(size)
    paint_ground(surfaces, camera, street)
    for row in street.rows:
        paint_row(surfaces, camera, street, row, knobs)
    for prop in draw_props(scene_seed, street, prior_shift):
        paint_prop(surfaces, camera, prop)
    for lamp, intensity in zip(lamps, light.lamp_intensities(scene_seed, lamps, knobs), strict=True):
        paint_lamp(surfaces, camera, lamp, F(LAMP_GLOW) * intensity)
    for mover in movers:
        if mover.kind in LENGTH:
            paint_vehicle(surfaces, camera, mover, knobs)
        else:
            paint_figure(surfaces, camera, mover)
    _paint_bonnet(scene_seed, surfaces)
    return View(camera, street, lamps, movers, surfaces)


def _paint_bonnet(scene_seed: int, surfaces: Surfaces) -> None:
    """In a quarter of the scenes, the own car's bonnet along the lower border, labeled 255."""
    rng = named_generator(scene_seed, "bonnet")
    present, rise, value = rng.random() < 0.25, float(rng.uniform(0.03, 0.09)), float(rng.uniform(0.03, 0.3))
    if not present:
        return
    height, width = surfaces.label.shape
    x = (np.arange(width, dtype=np.float32) + F(0.5)) / F(width) - F(0.5)
    top = F(height) * (F(1 - rise) + F(0.5) * x * x)
    covered = np.arange(height, dtype=np.float32)[:, None] + F(0.5) > top[None, :]
    index = np.flatnonzero(covered)
    surfaces.paint(index, BONNET_DEPTH, IGNORE, (value,) * 3, (0.0, 1.0, 0.0))


def labels_with_void(scene_seed: int, label: np.ndarray) -> np.ndarray:
    """In a tenth of the scenes, an unannotated ellipse of 255."""
    rng = named_generator(scene_seed, "void")
    present, u, v, a, b = rng.random() < 0.1, *rng.uniform((0, 0.3, 0.04, 0.04), (1, 1, 0.14, 0.2)).tolist()
    if not present:
        return label
    height, width = label.shape
    x = (np.arange(width, dtype=np.float32) + F(0.5)) / F(width) - F(u)
    y = (np.arange(height, dtype=np.float32) + F(0.5)) / F(height) - F(v)
    inside = (x * F(1 / a))[None, :] ** 2 + (y * F(1 / b))[:, None] ** 2 < 1
    return np.where(inside, np.uint8(IGNORE), label)
