# SPDX-License-Identifier: Apache-2.0
"""The street of a scene: cross-section, junctions and rows of façades (generators ``layout`` and ``materials``)."""

import dataclasses

import numpy as np

from nightjax.nightstreet.seeds import named_generator
from nightjax.nightstreet.surfaces import BUILDING, FENCE, SKY, VEGETATION, WALL

END = 170.0  # the skyline closes the street here, meters
START = -30.0
OPEN = SKY  # kind of a segment that is not there


@dataclasses.dataclass(frozen=True)
class Row:
    """Surfaces on one vertical plane, cut into segments.

    Attributes:
        axis: ``"s"`` for a plane along the street at lateral ``position``, ``"z"`` for one across it at that z.
        position: meters.
        inner: for planes across the street, lateral distance within which they are absent.
        edges: float32 [n + 1], increasing coordinate along the plane.
        kind: uint8 [n], train id of the surface, or OPEN.
        height: float32 [n], meters.
        albedo: float32 [3, n].
        seed: of the texture.
        front: whether it borders the street itself.
    """

    axis: str
    position: float
    inner: float
    edges: np.ndarray
    kind: np.ndarray
    height: np.ndarray
    albedo: np.ndarray
    seed: int
    front: bool


@dataclasses.dataclass(frozen=True)
class Street:
    """Cross-section in lateral coordinate s = x - curvature * z**2, and what stands along it. Meters."""

    curvature: float
    road: float  # half-width
    sidewalk: float  # width
    terrain: tuple[float, float]  # width of the strip left and right of the street, 0 for none
    facade: tuple[float, float]  # lateral position of the façades, left (negative) and right
    lanes: int
    rails: bool
    junctions: tuple[tuple[float, float], ...]
    rows: tuple[Row, ...]
    ground_albedo: np.ndarray  # float32 [3, 3]: road, sidewalk, terrain
    seed: int  # of textures

    def x(self, s: float, z: float) -> float:
        """Lateral coordinate to world x."""
        return s + self.curvature * z * z

    def in_junction(self, z: float, margin: float = 0.0) -> bool:
        return any(low - margin < z < high + margin for low, high in self.junctions)


def draw_street(scene_seed: int, prior_shift: float) -> Street:
    """Street of a scene; ``prior_shift`` in [0, 1] moves the layout towards lower, opener and barer streets."""
    rng = named_generator(scene_seed, "layout")
    paint = named_generator(scene_seed, "materials")
    road = float(rng.uniform(3.6, 6.2))
    sidewalk = float(rng.uniform(2.2, 4.2))
    left, right = (float(rng.uniform(1.5, 5.0)) if rng.random() < 0.65 else 0.0 for _ in range(2))
    facade = (-(road + sidewalk + left), road + sidewalk + right)
    junctions = _draw_junctions(rng)
    tall = float(rng.uniform(0.9, 1.4)) * (1 - 0.3 * prior_shift)
    rows = []
    for side in range(2):
        green = float(rng.beta(1.0, 1.6)) * (1 - 0.35 * prior_shift)
        rows.append(_draw_row(rng, paint, "s", facade[side], junctions, tall, green, front=True))
        back = facade[side] + (1 if side else -1) * float(rng.uniform(6, 12))
        rows.append(_draw_row(rng, paint, "s", back, junctions, tall, green, front=False))
    inner = min(-facade[0], facade[1])
    for _, z in junctions:
        rows.append(_draw_row(rng, paint, "z", z, (), tall, 0.15, front=False, inner=inner))
    rows.append(_draw_row(rng, paint, "z", END, (), tall * 1.3, 0.35, front=False))
    return Street(
        curvature=float(np.clip(rng.normal(0, 0.0007), -0.0018, 0.0018)),
        road=road,
        sidewalk=sidewalk,
        terrain=(left, right),
        facade=facade,
        lanes=2 if road < 4.8 else 4,
        rails=bool(rng.random() < 0.5),
        junctions=junctions,
        rows=tuple(rows),
        ground_albedo=_ground_albedo(paint),
        seed=int(paint.integers(2**31)),
    )


def _draw_junctions(rng) -> tuple[tuple[float, float], ...]:
    junctions = []
    z = float(rng.uniform(18, 60))
    while z < END - 30:
        width = float(rng.uniform(8, 13))
        junctions.append((z, z + width))
        z += width + float(rng.uniform(38, 70))
    return tuple(junctions)


def _draw_row(rng, paint, axis, position, junctions, tall, green, *, front, inner=0.0) -> Row:
    """Segments of 8-26 m; a front row mixes walls, fences, hedges and gaps, a back row is closed."""
    low, high = (START, END) if axis == "s" else (-110.0, 110.0)
    edges, kinds, heights, colors = [low], [], [], []

    def close(edge, kind, height):
        edges.append(edge)
        kinds.append(kind)
        heights.append(height)
        colors.append(_surface_albedo(paint, kind))

    for start, stop in _between(low, high, junctions):
        if start > edges[-1]:
            close(start, OPEN, 0.0)
        while edges[-1] < stop:
            edge = edges[-1] + float(rng.uniform(8, 26))
            edge = stop if edge > stop - 5 else edge
            close(edge, *_draw_segment(rng, tall, green, front))
    return Row(
        axis,
        position,
        inner,
        np.array(edges, np.float32),
        np.array(kinds, np.uint8),
        np.array(heights, np.float32),
        np.array(colors, np.float32).T.copy(),
        int(paint.integers(2**31)),
        front,
    )


def _between(low, high, gaps):
    for start, stop in gaps:
        yield low, start
        low = stop
    yield low, high


def _draw_segment(rng, tall, green, front) -> tuple[int, float]:
    draw = rng.random()
    if front:
        share_green, share_wall, share_fence, share_open = 0.30 * green, 0.13, 0.25, 0.04
    else:
        share_green, share_wall, share_fence, share_open = 0.6 * green, 0.0, 0.0, 0.02
    if draw < share_green:
        return VEGETATION, float(rng.uniform(1.5, 4.0) if front and rng.random() < 0.4 else rng.uniform(5, 12))
    draw -= share_green
    if draw < share_wall:
        return WALL, float(rng.uniform(1.5, 3.0))
    draw -= share_wall
    if draw < share_fence:
        return FENCE, float(rng.uniform(1.2, 1.9))
    draw -= share_fence
    if draw < share_open:
        return OPEN, 0.0
    return BUILDING, float(rng.uniform(7, 22)) * tall


def _surface_albedo(paint, kind) -> np.ndarray:
    """Overlapping, low-chroma colors: gray and earthen façades, green-brown plants."""
    value = float(paint.uniform(0.10, 0.42))
    if kind == VEGETATION:
        base = np.array([0.75, 1.0, 0.55]) * float(paint.uniform(0.07, 0.18))
        base *= 1 + np.array([0.5, 0.0, 0.1]) * float(paint.random() < 0.25)
    elif kind == FENCE:
        base = np.array([1.0, 0.95, 0.9]) * float(paint.uniform(0.06, 0.4))
    elif kind == WALL:
        base = np.array([1.0, 0.78, 0.64]) * float(paint.uniform(0.12, 0.34))
    else:
        warm = float(paint.uniform(-0.05, 0.25))
        base = value * np.array([1 + 0.4 * warm, 1.0, 1 - warm])
    return base * (1 + 0.05 * paint.standard_normal(3))


def _ground_albedo(paint) -> np.ndarray:
    road = float(paint.uniform(0.09, 0.22)) * np.array([1.0, 1.0, 1.02])
    sidewalk = float(paint.uniform(0.14, 0.34)) * np.array([1.03, 1.0, 0.95])
    terrain = float(paint.uniform(0.09, 0.2)) * np.array([0.95, 1.0, 0.6])
    return (np.stack([road, sidewalk, terrain]) * (1 + 0.04 * paint.standard_normal((3, 3)))).astype(np.float32)
