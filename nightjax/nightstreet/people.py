# SPDX-License-Identifier: Apache-2.0
"""Pedestrians, cycles and riders as flat figures."""

import numpy as np

from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.seeds import named_generator
from nightjax.nightstreet.solids import Part, paint_cutout
from nightjax.nightstreet.surfaces import BICYCLE, MOTORCYCLE, PERSON, RIDER, Surfaces
from nightjax.nightstreet.traffic import Mover

F = np.float32
CYCLE_LAMP = (1.5, 0.12, 0.06)


def paint_figure(surfaces: Surfaces, camera: Camera, mover: Mover) -> None:
    """A person, a parked cycle, or a rider over a cycle."""
    rng = named_generator(mover.seed, "look")
    skin, coat, legs = _clothes(rng)
    label = PERSON if mover.kind == "person" else RIDER
    body = (Part(label, skin), Part(label, coat), Part(label, legs))
    place = (mover.x, mover.z)
    if mover.kind == "person":
        tall = float(rng.uniform(1.5, 1.95))
        stride = 0.1 if mover.side_on else 0.03

        def shape(a, y):
            return standing(a, y, tall, stride)

        paint_cutout(surfaces, camera, place, (0.36, 0.0, tall), shape, body, moving=True, round_=True)
        return
    motor = mover.kind in ("motorcycle", "biker")
    machine = MOTORCYCLE if motor else BICYCLE
    frame = rng.choice([0.05, 0.12, 0.3]) * (1 + rng.uniform(-0.4, 0.4, 3))
    lamp = CYCLE_LAMP if mover.lit else None
    parts = (*body, Part(machine, (0.04, 0.04, 0.04)), Part(machine, frame), Part(machine, (0.4, 0.05, 0.04), lamp))
    ridden = mover.kind in ("cyclist", "biker")

    def shape(a, y):
        part = (cycle_side if mover.side_on else cycle_rear)(a, y, motor)
        return riding(part, a, y, mover.side_on) if ridden else part

    extent = (1.05 if mover.side_on else 0.42, 0.0, 1.85 if ridden else 1.15)
    paint_cutout(surfaces, camera, place, extent, shape, parts, moving=True, round_=True)


def _clothes(rng):
    skin = np.array([0.42, 0.3, 0.24]) * float(rng.uniform(0.35, 1.1))
    coat = float(rng.choice([0.05, 0.1, 0.2, 0.4])) * (1 + 0.8 * rng.uniform(-0.5, 0.7, 3))
    legs = float(rng.choice([0.04, 0.08, 0.15])) * (1 + 0.4 * rng.uniform(-0.5, 0.5, 3))
    return skin, coat, legs


def standing(a, y, tall, stride):
    """1 head, 2 coat, 3 legs."""
    v = y / F(tall)
    part = np.where((v < F(0.5)) & (np.abs(np.abs(a) - F(stride + 0.08) * (F(1) - v)) < F(0.085)) & (v > 0), 3, 0)
    torso = (v > F(0.46)) & (v < F(0.86)) & (np.abs(a) < F(0.17) + F(0.12) * (v - F(0.46)))
    part = np.where(torso, 2, part)
    return np.where(a * a + (y - F(0.925 * tall)) ** 2 < F((0.075 * tall) ** 2), 1, part)


def riding(part, a, y, side_on):
    """Adds a sitting body over a cycle's parts."""
    lean = F(0.25) * (y - F(0.9)) if side_on else F(0)
    b = a - lean
    torso = (y > F(0.85)) & (y < F(1.48)) & (np.abs(b) < F(0.22))
    leg = (y > F(0.35)) & (y <= F(0.9)) & (np.abs(np.abs(a) - F(0.0 if side_on else 0.16)) < F(0.1))
    part = np.where(leg, 3, part)
    part = np.where(torso, 2, part)
    return np.where(b * b + (y - F(1.62)) ** 2 < F(0.15**2), 1, part)


def cycle_side(a, y, motor):
    """4 wheels, 5 frame, 6 lamp, seen from the side."""
    radius, base = (0.32, 0.68) if motor else (0.36, 0.55)
    away = (np.abs(a) - F(base)) ** 2 + (y - F(radius)) ** 2
    part = np.where(away < F(radius**2), 4, 0)
    part = np.where(away < F((0.55 * radius) ** 2), 5, part)
    if motor:
        hull = (a / F(0.75)) ** 2 + ((y - F(0.66)) / F(0.3)) ** 2 < 1
        fork = (np.abs(a - F(0.5)) < F(0.07)) & (y > F(0.3)) & (y < F(1.1))
    else:
        slope = np.abs(y - F(0.62) - F(0.25) * a) < F(0.07)
        hull = (slope | (np.abs(y - F(0.4) + F(0.1) * a) < F(0.05))) & (np.abs(a) < F(0.55))
        fork = ((np.abs(a - F(0.48)) < F(0.05)) | (np.abs(a + F(0.25)) < F(0.05))) & (y > F(0.3)) & (y < F(0.98))
    part = np.where(hull | fork, 5, part)
    return np.where((np.abs(a + F(base + 0.22)) < F(0.09)) & (np.abs(y - F(0.75)) < F(0.09)), 6, part)


def cycle_rear(a, y, motor):
    """As :func:`cycle_side`, seen from behind."""
    wheel = 0.12 if motor else 0.07
    part = np.where((np.abs(a) < F(wheel)) & (y > 0) & (y < F(0.7)), 4, 0)
    if motor:
        part = np.where((np.abs(a) < F(0.26)) & (np.abs(y - F(0.72)) < F(0.22)), 5, part)
    bar = (np.abs(y - F(1.0)) < F(0.06)) & (np.abs(a) < F(0.34))
    part = np.where(bar, 5, part)
    return np.where((np.abs(a) < F(0.09)) & (np.abs(y - F(0.72)) < F(0.08)), 6, part)
