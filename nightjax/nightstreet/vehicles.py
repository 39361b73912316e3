# SPDX-License-Identifier: Apache-2.0
"""Cars, trucks, buses and trams as painted boxes."""

import numpy as np

from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.presets import Knobs, last_to_go, whiten
from nightjax.nightstreet.seeds import named_generator
from nightjax.nightstreet.solids import paint_box
from nightjax.nightstreet.surfaces import BUS, CAR, TRAIN, TRUCK, Surfaces
from nightjax.nightstreet.traffic import LENGTH, WIDTH, Mover

F = np.float32
LABEL = {"car": CAR, "truck": TRUCK, "bus": BUS, "train": TRAIN}
HEADLIGHT = np.array([14.0, 13.0, 11.0], np.float32)
TAILLIGHT = np.array([1.8, 0.12, 0.06], np.float32)
GLASS, TYRE, PLATE = 0.05, 0.03, 0.6
CABIN_GLOW = np.array([0.22, 0.2, 0.16], np.float32)  # lit inside of buses and trams


def paint_vehicle(surfaces: Surfaces, camera: Camera, mover: Mover, knobs: Knobs) -> None:
    """Boxes of one vehicle; ``mover.z`` is the end nearest the camera."""
    rng = named_generator(mover.seed, "look")
    body = _body_color(rng, mover.kind)
    half, length = WIDTH[mover.kind] / 2, LENGTH[mover.kind]
    x, z = mover.x, mover.z
    for low, high, look in _boxes(mover, rng, body, half, length, knobs):
        corner = (x + low[0], low[1], z + low[2]), (x + high[0], high[1], z + high[2])
        paint_box(surfaces, camera, *corner, LABEL[mover.kind], look, moving=True)


def _body_color(rng, kind) -> np.ndarray:
    value = float(rng.choice([0.04, 0.07, 0.15, 0.3, 0.5]))
    tint = {
        "car": np.array([1.0, 1.0, 1.0]) + 0.6 * (rng.random() < 0.35) * rng.uniform(-0.8, 0.8, 3),
        "truck": np.array([1.0, 1.0, 1.0]) + 0.25 * rng.uniform(-1, 1, 3),
        "bus": np.array([[1.4, 1.1, 0.3], [1.3, 0.5, 0.4], [1.1, 1.1, 1.0]][int(rng.integers(3))]),
        "train": np.array([[1.3, 0.4, 0.35], [0.4, 0.6, 1.2], [0.5, 1.0, 0.5]][int(rng.integers(3))]),
    }[kind]
    if kind != "car":
        value = float(rng.uniform(0.2, 0.5))
    return np.clip(value * tint, 0.02, 0.8).astype(np.float32)


def _boxes(mover: Mover, rng, body, half, length, knobs):
    """(low, high, look) relative to the foot of the near end."""
    lights = _end_lights(mover, half, knobs)
    if mover.kind == "car":
        roof, waist = float(rng.uniform(1.4, 1.75)), 0.88
        start, stop = (0.35, 3.0) if not mover.toward else (1.1, 3.9)
        inset = half - 0.12
        yield (-half, 0.0, 0.0), (half, waist, length), _lower_body(body, lights, half, length, waist)
        yield (-inset, waist, start), (inset, roof, stop), _cabin(body, waist, roof, inset)
    elif mover.kind == "truck":
        cab, cargo = (0.0, 2.2) if mover.toward else (length - 2.2, length), float(rng.uniform(3.0, 3.6))
        hold = (2.3, length) if mover.toward else (0.0, length - 2.3)
        load = np.clip(body * rng.uniform(0.7, 1.6), 0.03, 0.8).astype(np.float32)
        yield (-half, 0.0, 0.0), (half, 0.95, length), _lower_body(body * F(0.4), lights, half, length, 0.95)
        yield (-half, 0.95, cab[0]), (half, 2.6, cab[1]), _cabin(body, 1.2, 2.5, half)
        yield (-half, 0.95, hold[0]), (half, cargo, hold[1]), _plain(load)
    else:
        top = 3.1 if mover.kind == "bus" else 3.5
        yield (-half, 0.0, 0.0), (half, 1.1, length), _lower_body(body, lights, half, length, 1.1)
        lit = whiten(CABIN_GLOW, last_to_go(knobs.tint)) * F(mover.lit)
        yield (-half, 1.1, 0.0), (half, top, length), _saloon(body, top, lit, mover.kind == "train")


def _end_lights(mover: Mover, half, knobs: Knobs):
    """(lateral position, height, half-width, glow) of lamps on the near end."""
    wide = mover.kind in ("bus", "truck", "train")
    lamp = whiten(HEADLIGHT, last_to_go(knobs.tint)) if mover.toward else TAILLIGHT
    glow = lamp * F(last_to_go(knobs.lamps) if mover.lit else 0.0)
    return half - 0.3, 0.68, 0.19 if wide else 0.17, glow, mover.toward


def _lower_body(body, lights, half, length, waist):
    position, height, size, glow, toward = lights
    lamp = np.array([0.6, 0.6, 0.6] if toward else [0.35, 0.03, 0.02], np.float32)

    def look(face, u, y):
        albedo = np.repeat(body[:, None], len(u), 1)
        shine = np.zeros((3, len(u)), np.float32)
        albedo[:, y < F(0.22)] = TYRE
        if face == "side":
            for axle in (-0.31 * length, 0.3 * length):
                albedo[:, (u - F(axle)) ** 2 + (y - F(0.33)) ** 2 < F(0.34**2)] = TYRE
        elif face == "end":
            inside = (np.abs(np.abs(u) - F(position)) < F(size)) & (np.abs(y - F(height)) < F(0.6 * size))
            albedo[:, inside] = lamp[:, None]
            shine[:, inside] = glow[:, None]
            albedo[:, (np.abs(u) < F(0.26)) & (np.abs(y - F(0.5)) < F(0.07))] = PLATE
        return albedo, shine

    return look


def _cabin(body, bottom, top, half):
    def look(face, u, y):
        albedo = np.repeat(body[:, None], len(u), 1)
        if face != "top":
            glass = (y > F(bottom + 0.04)) & (y < F(top - 0.1))
            glass &= (np.abs(u) < F(half - 0.12)) if face == "end" else (np.abs(np.abs(u) - F(0.65)) < F(0.56))
            albedo[:, glass] = GLASS
        return albedo, np.zeros_like(albedo)

    return look


def _plain(color):
    def look(face, u, y):
        albedo = np.repeat(color[:, None], len(u), 1)
        if face == "end":
            albedo[:, np.abs(u) < F(0.04)] *= F(0.4)
        return albedo, np.zeros_like(albedo)

    return look


def _saloon(body, top, lit, tram):
    """Windows all round, a band of second color, and on trams a lit destination panel and a pale roof line."""

    def look(face, u, y):
        albedo = np.repeat(body[:, None], len(u), 1)
        shine = np.zeros_like(albedo)
        if face != "top":
            glass = (y > F(1.25)) & (y < F(top - 0.65))
            if face == "side":
                glass &= u / F(1.5) - np.floor(u / F(1.5)) < F(0.82)
            else:
                glass &= np.abs(u) < F(1.05)
            albedo[:, glass] = GLASS
            shine[:, glass] = lit[:, None]
            if tram:
                albedo[:, y > F(top - 0.25)] = 0.45
            if face == "end":
                board = (np.abs(u) < F(0.7)) & (y > F(top - 0.5)) & (y < F(top - 0.25))
                shine[:, board] = 3 * lit[:, None]
        return albedo, shine

    return look
