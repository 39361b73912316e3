# SPDX-License-Identifier: Apache-2.0
"""Static objects of a street: lamps, poles, signs, traffic lights, bollards and trees (generator ``static``)."""

import dataclasses

import numpy as np

from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.layout import END, Street
from nightjax.nightstreet.seeds import named_generator, value_noise
from nightjax.nightstreet.solids import Part, paint_cutout
from nightjax.nightstreet.surfaces import POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, Surfaces

F = np.float32
METAL = (0.2, 0.2, 0.2)
SIGN_COLORS = {
    "prohibition": ((0.62, 0.10, 0.09), (0.72, 0.72, 0.70)),
    "warning": ((0.62, 0.10, 0.09), (0.72, 0.72, 0.70)),
    "mandatory": ((0.10, 0.22, 0.58), (0.12, 0.25, 0.60)),
    "parking": ((0.12, 0.24, 0.58), (0.65, 0.66, 0.70)),
    "priority": ((0.70, 0.70, 0.68), (0.75, 0.55, 0.08)),
    "direction": ((0.72, 0.72, 0.70), (0.66, 0.56, 0.12)),
}
LENSES = ((2.4, 0.25, 0.1), (2.2, 1.1, 0.1), (0.15, 2.0, 0.9))
LENS_GLOW = 2.0


@dataclasses.dataclass(frozen=True)
class Lamp:
    """A street lamp: foot and head in world meters."""

    foot: tuple[float, float]
    head: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Prop:
    """Any other static object: kind, foot (x, z), size in meters, and a seed for its look."""

    kind: str
    x: float
    z: float
    height: float
    width: float
    seed: int


def draw_lamps(scene_seed: int, street: Street) -> list[Lamp]:
    """Lamps every 18-32 m, 5.5-8 m high, on one side or alternating."""
    rng = named_generator(scene_seed, "static/lamps")
    spacing, height = float(rng.uniform(18, 32)), float(rng.uniform(5.5, 8))
    side, alternate = (1 if rng.random() < 0.5 else -1), rng.random() < 0.6
    z = float(rng.uniform(-spacing, 0))
    lamps = []
    while z < END - 20:
        s = side * (street.road + 0.5)
        x = street.x(s, z)
        lamps.append(Lamp((x, z), (x - side * 1.2, height, z)))
        side = -side if alternate else side
        z += spacing * (0.5 if alternate else 1.0) * float(rng.uniform(0.95, 1.05))
    return lamps


def draw_props(scene_seed: int, street: Street, prior_shift: float) -> list[Prop]:
    rng = named_generator(scene_seed, "static")
    props: list[Prop] = []

    def add(kind, s, z, height, width):
        props.append(Prop(kind, street.x(s, z), z, height, width, int(rng.integers(2**31))))

    for low, high in street.junctions[:2]:
        for side in (-1, 1):
            if rng.random() < 0.75:
                add("traffic_light", side * (street.road + 0.4), low - 1.0, float(rng.uniform(2.8, 3.4)), 0.46)
        if rng.random() < 0.5:
            add("gantry_light", street.road + 0.5, high + 1.0, 5.6, 0.46)
    if rng.random() < 0.5:
        add("traffic_light", street.road + 0.4, float(rng.uniform(9, 26)), float(rng.uniform(2.8, 3.4)), 0.46)
    for side in (-1, 1):
        for _ in range(int(rng.integers(1, 4))):
            kind = tuple(SIGN_COLORS)[int(rng.integers(len(SIGN_COLORS)))]
            wide = float(rng.uniform(1.2, 1.8)) if kind == "direction" else float(rng.uniform(0.7, 0.95))
            s = side * (street.road + float(rng.uniform(0.4, 1.0)))
            add("sign/" + kind, s, float(rng.uniform(9, 45)), float(rng.uniform(2.2, 3.0)), wide)
        for _ in range(int(rng.integers(0, 3))):
            add("pole", side * (street.road + 0.3), float(rng.uniform(8, 50)), float(rng.uniform(3, 8)), 0.18)
        if rng.random() < 0.2:
            for z in np.arange(float(rng.uniform(6, 10)), 30, float(rng.uniform(2.0, 3.5))):
                add("bollard", side * (street.road + 0.25), float(z), 0.95, 0.16)
        if rng.random() < 0.8 - 0.35 * prior_shift:
            spacing = float(rng.uniform(8, 18))
            for z in np.arange(float(rng.uniform(6, 14)), 110, spacing):
                if rng.random() < 0.8 and not street.in_junction(z, 3):
                    s = side * (street.road + float(rng.uniform(0.7, max(0.8, street.sidewalk - 0.3))))
                    tall, radius = float(rng.uniform(5, 10)), float(rng.uniform(1.6, 3.4))
                    add("tree", s, float(z + rng.uniform(-1.5, 1.5)), tall, radius)
        elif rng.random() < 0.6:
            for z in rng.uniform(8, 90, 3):
                add("tree", side * (abs(street.facade[side > 0]) + 2), float(z), float(rng.uniform(6, 11)), 3.0)
    return props


def paint_lamp(surfaces: Surfaces, camera: Camera, lamp: Lamp, glow: np.ndarray) -> None:
    """Post, arm and luminous head; ``glow`` is the head's radiance [3]."""
    x, z = lamp.foot
    reach, height = lamp.head[0] - x, lamp.head[1]

    def shape(a, y):
        part = np.where((np.abs(a) < F(0.1)) & (y < F(height)), 1, 0)
        inside = np.where(a * F(reach) > 0, np.abs(a), F(9))
        part = np.where((np.abs(y - F(height)) < F(0.07)) & (inside < F(abs(reach))), 1, part)
        head = (np.abs(y - F(height - 0.12)) < F(0.14)) & (np.abs(a - F(reach)) < F(0.46))
        return np.where(head, 2, part)

    parts = (Part(POLE, METAL), Part(POLE, (0.4, 0.4, 0.4), glow))
    paint_cutout(surfaces, camera, (x, z), (abs(reach) + 0.5, 0.0, height + 0.2), shape, parts)


def paint_prop(surfaces: Surfaces, camera: Camera, prop: Prop) -> None:
    kind = prop.kind.split("/")[0]
    {
        "traffic_light": _paint_traffic_light,
        "gantry_light": _paint_gantry_light,
        "sign": _paint_sign,
        "pole": _paint_post,
        "bollard": _paint_post,
        "tree": _paint_tree,
    }[kind](surfaces, camera, prop)


def _paint_post(surfaces, camera, prop) -> None:
    half = prop.width / 2
    value = 0.08 + 0.35 * (prop.seed % 97) / 97

    def shape(a, y):
        return ((np.abs(a) < F(half)) & (y > 0) & (y < F(prop.height))).astype(np.int8)

    place, extent = (prop.x, prop.z), (half, 0.0, prop.height)
    paint_cutout(surfaces, camera, place, extent, shape, (Part(POLE, (value,) * 3),), round_=True)


def _lens_parts(seed: int) -> tuple[Part, ...]:
    """Mast, housing, and three lenses of which one is lit."""
    lit = (seed >> 3) % 3 if seed % 5 else 0
    housing = 0.05 if seed % 3 else 0.12
    lenses = tuple(
        Part(TRAFFIC_LIGHT, (0.06, 0.06, 0.06), np.array(LENSES[i]) * LENS_GLOW if i == lit else None) for i in range(3)
    )
    return (Part(POLE, METAL), Part(TRAFFIC_LIGHT, (housing,) * 3), *lenses)


def _housing(part, a, y, middle, half):
    """Adds a housing of height 3.2 * half, centered on (0, middle), with its lenses."""
    part = np.where((np.abs(a) < F(half)) & (np.abs(y - F(middle)) < F(2.6 * half)), 2, part)
    for i in range(3):
        away = a * a + (y - F(middle + (1 - i) * 1.65 * half)) ** 2
        part = np.where(away < F((0.68 * half) ** 2), 3 + i, part)
    return part


def _paint_traffic_light(surfaces, camera, prop) -> None:
    half = prop.width / 2
    middle = prop.height - 2.6 * half

    def shape(a, y):
        return _housing(np.where((np.abs(a) < F(0.08)) & (y > 0) & (y < F(prop.height)), 1, 0), a, y, middle, half)

    paint_cutout(surfaces, camera, (prop.x, prop.z), (half, 0.0, prop.height), shape, _lens_parts(prop.seed))


def _paint_gantry_light(surfaces, camera, prop) -> None:
    """A tall mast with an arm over the road that carries the housing 4 m to the left."""
    half, reach = prop.width / 2, 4.0

    def shape(a, y):
        mast = (np.abs(a) < F(0.11)) & (y > 0) & (y < F(prop.height))
        arm = (np.abs(y - F(prop.height)) < F(0.08)) & (a < 0) & (a > F(-reach))
        return _housing(np.where(mast | arm, 1, 0), a + F(reach), y, prop.height - 2.0 * half, half)

    extent = (reach + half, 0.0, prop.height + 0.3)
    paint_cutout(surfaces, camera, (prop.x, prop.z), extent, shape, _lens_parts(prop.seed))


def _paint_sign(surfaces, camera, prop) -> None:
    kind = prop.kind.split("/")[1]
    half, middle = prop.width / 2, prop.height
    rim, face = SIGN_COLORS[kind]

    def outline(a, y, half):
        """Signed reach: positive inside."""
        b = y - F(middle)
        if kind in ("prohibition", "mandatory"):
            return F(half) - np.sqrt(a * a + b * b)
        if kind == "warning":
            return np.minimum(b + F(half * 0.8), (F(half) - b) * F(0.5) - np.abs(a) + F(0.1 * half))
        if kind == "priority":
            return F(half) - (np.abs(a) + np.abs(b))
        return np.minimum(F(half) - np.abs(a), F(half if kind == "parking" else half * 0.6) - np.abs(b))

    def shape(a, y):
        part = np.where((np.abs(a) < F(0.07)) & (y > 0) & (y < F(middle)), 1, 0)
        reach = outline(a, y, half)
        return np.where(reach > F(0.24 * half), 3, np.where(reach > 0, 2, part))

    parts = (Part(POLE, METAL), Part(TRAFFIC_SIGN, rim), Part(TRAFFIC_SIGN, face))
    paint_cutout(surfaces, camera, (prop.x, prop.z), (half * 1.2, 0.0, middle + half * 1.2), shape, parts)


def _paint_tree(surfaces, camera, prop) -> None:
    """Trunk and a ragged crown, both vegetation."""
    radius, top, seed = prop.width, prop.height, prop.seed
    middle, tall = top - radius * 1.05, radius * 1.15
    value = 0.07 + 0.1 * (seed % 89) / 89
    warm = 0.75 + 0.5 * (seed % 83) / 83 if seed % 4 == 0 else 0.75
    parts = (
        Part(VEGETATION, (0.13, 0.10, 0.08)),
        Part(VEGETATION, (value * warm, value, value * 0.55)),
    )

    def shape(a, y):
        part = np.where((np.abs(a) < F(0.04 * top)) & (y > 0) & (y < F(middle)), 1, 0)
        away = (a / F(radius)) ** 2 + ((y - F(middle)) / F(tall)) ** 2
        return np.where(away < F(0.45) + F(0.75) * value_noise(a * F(1.4), y * F(1.4), seed), 2, part)

    def shade(a, y):
        return F(0.35) + F(1.2) * value_noise(a * F(2.3), y * F(2.3), seed + 1)

    extent = (radius * 1.1, 0.0, top + radius * 0.4)
    paint_cutout(surfaces, camera, (prop.x, prop.z), extent, shape, parts, round_=True, shade=shade)
