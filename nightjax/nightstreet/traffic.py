# SPDX-License-Identifier: Apache-2.0
"""What moves: where vehicles, people and cycles are (generator ``dynamics``)."""

import dataclasses

from nightjax.nightstreet.layout import Street
from nightjax.nightstreet.seeds import named_generator


@dataclasses.dataclass(frozen=True)
class Mover:
    """One road user.

    Attributes:
        kind: ``car truck bus train person bicycle motorcycle``, or ``cyclist biker`` for a rider with the machine.
        x, z: middle of the foot or rear end nearest the camera, world meters.
        toward: faces the camera (headlights seen) or drives away (tail lights seen).
        lit: vehicle lights are on when it is dark.
        side_on: cycles seen from the side.
        seed: of the look.
    """

    kind: str
    x: float
    z: float
    toward: bool
    lit: bool
    side_on: bool
    seed: int


LENGTH = {"car": 4.2, "truck": 8.0, "bus": 11.0, "train": 24.0}
WIDTH = {"car": 1.8, "truck": 2.4, "bus": 2.5, "train": 2.6}


def draw_movers(dynamic_seed: int, street: Street, prior_shift: float) -> list[Mover]:
    """Road users of one moment; vehicles do not stand in each other."""
    rng = named_generator(dynamic_seed, "dynamics")
    busy = float(rng.uniform(0.5, 1.3)) * (1 - 0.35 * prior_shift)
    movers: list[Mover] = []
    taken: list[tuple[float, float, float]] = []

    def add(kind, s, z, *, toward=False, lit=False, side_on=False) -> None:
        length = LENGTH.get(kind, 0.0)
        if length:
            if any(abs(s - s1) < 2.2 and z < stop and z + length > start for s1, start, stop in taken):
                return
            taken.append((s, z - 1.0, z + length + 1.0))
        movers.append(Mover(kind, street.x(s, z), z, toward, lit, side_on, int(rng.integers(2**31))))

    lane = street.road / 2 if street.lanes == 2 else street.road * 0.3
    if street.rails and rng.random() < 0.9:
        add("train", -street.road / 2, float(rng.uniform(26, 70)), toward=True, lit=True)
    for kind, chance in (("bus", 0.28), ("truck", 0.36)):
        if rng.random() < chance:
            toward = bool(rng.random() < 0.4)
            add(kind, (-1 if toward else 1) * lane, float(rng.uniform(24, 65)), toward=toward, lit=True)
        if rng.random() < 0.6 * chance:
            side = 1 if rng.random() < 0.6 else -1
            add(kind, side * (street.road - 1.3), float(rng.uniform(22, 55)), toward=side < 0)
    for side in (-1, 1):
        density = min(float(rng.beta(1.1, 1.9)) * busy, 0.9)
        z = float(rng.uniform(6, 12))
        while z < 75:
            if rng.random() < density and not street.in_junction(z + 2, 3):
                add("car", side * (street.road - 1.0), z, toward=side < 0)
            z += float(rng.uniform(5.4, 7.0))
    for _ in range(rng.poisson(0.9 * busy)):
        add("car", lane, float(rng.uniform(12, 60)), lit=True)
    for _ in range(rng.poisson(1.3 * busy)):
        add("car", -lane, float(rng.uniform(12, 70)), toward=True, lit=True)
    walk = street.road + 0.4, street.road + street.sidewalk - 0.3
    for _ in range(3 + rng.poisson(6.0 * busy)):
        side = 1 if rng.random() < 0.55 else -1
        add("person", side * float(rng.uniform(*walk)), float(rng.uniform(6, 34)), side_on=bool(rng.random() < 0.4))
    for _ in range(rng.poisson(0.7 * busy)):
        add("person", float(rng.uniform(-street.road, street.road)), float(rng.uniform(12, 35)), side_on=True)
    for kind, rate in (("bicycle", 1.3), ("motorcycle", 0.4)):
        for _ in range(rng.poisson(rate)):
            side = 1 if rng.random() < 0.55 else -1
            add(kind, side * (street.road + 0.5), float(rng.uniform(6, 24)), side_on=bool(rng.random() < 0.75))
    for kind, rate in (("cyclist", 0.6), ("biker", 0.22)):
        for _ in range(rng.poisson(rate)):
            across = bool(rng.random() < 0.4)
            s = float(rng.uniform(-3, 4)) if across else street.road - float(rng.uniform(1.8, 2.6))
            add(kind, s, float(rng.uniform(10, 28)), lit=True, side_on=across)
    return movers
