# SPDX-License-Identifier: Apache-2.0
"""Rows of façades, walls, fences and hedges: vertical planes intersected with every ray."""

import numpy as np

from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.layout import OPEN, Row, Street
from nightjax.nightstreet.presets import Knobs, last_to_go, whiten
from nightjax.nightstreet.seeds import hash_unit, value_noise
from nightjax.nightstreet.surfaces import BUILDING, FENCE, SIDEWALK, VEGETATION, WALL, Surfaces

F = np.float32
FLOOR = 3.2  # story height, meters
SHOP_SHARE = 0.3
GAP = 0.22  # between the pickets of a fence, meters
WARM = np.array([1.0, 0.72, 0.4], np.float32)
COOL = np.array([0.75, 0.9, 1.0], np.float32)


def has_shop(row: Row, segment: np.ndarray) -> np.ndarray:
    """Whether the ground floor of a building segment is a lit shop front."""
    return (hash_unit(segment, segment * 0 + 7, row.seed) < F(SHOP_SHARE)) & (row.kind[segment] == BUILDING)


def shop_glow(row: Row, segment: np.ndarray, knobs: Knobs) -> np.ndarray:
    """Radiance of shop windows, float32 [3, n], before ``knobs.lamps``."""
    strength = F(0.15) + F(0.9) * hash_unit(segment, segment * 0 + 9, row.seed) ** 2
    cool = hash_unit(segment, segment * 0 + 8, row.seed) < F(0.5)
    cold, warm = _tones(knobs)
    return strength * np.where(cool, cold, warm)


def _tones(knobs: Knobs) -> list[np.ndarray]:
    """Cool and warm light of shops and windows, float32 [3, 1]."""
    return [whiten(tone, last_to_go(knobs.tint))[:, None] for tone in (COOL, WARM)]


def paint_row(surfaces: Surfaces, camera: Camera, street: Street, row: Row, knobs: Knobs) -> None:
    """Paints one plane where it is nearer than what is there already."""
    index, depth, along, y = _intersect(surfaces, camera, street, row)
    segment = np.clip(np.searchsorted(row.edges, along, side="right") - 1, 0, len(row.kind) - 1)
    kind = row.kind[segment]
    top = row.height[segment]
    plant = kind == VEGETATION
    ragged = value_noise(along * F(0.7), y * F(0.7), row.seed) if plant.any() else np.zeros_like(y)
    top = np.where(plant, top * (F(0.72) + F(0.45) * ragged), top)
    solid = (kind != OPEN) & (y < top) & _not_a_hole(kind, along, y, top, depth / F(camera.focal))
    index, depth, along, y, ragged = (a[solid] for a in (index, depth, along, y, ragged))
    segment, kind = segment[solid], kind[solid]
    albedo = row.albedo[:, segment]
    shade = F(0.75) + F(0.5) * value_noise(along * F(1.7), y * F(1.7), row.seed + 1)
    shade = np.where(kind == VEGETATION, shade * (F(0.35) + F(1.2) * ragged), shade)
    bricks = (kind == WALL) & ((_fraction(y * F(2.0)) < F(0.2)) | (_fraction(along * F(0.6)) < F(0.1)))
    shade = np.where(bricks, shade * F(0.5), shade)
    albedo = albedo * shade
    glow = np.zeros_like(albedo)
    _windows(row, knobs, albedo, glow, depth / F(camera.focal), along, y, segment, kind)
    normal = (F(-np.sign(row.position)), 0.0, 0.0) if row.axis == "s" else (0.0, 0.0, -1.0)
    label = np.where((kind == WALL) & (y < F(0.12)), SIDEWALK, kind)
    surfaces.paint(index, depth, label, albedo, normal, glow)


def _intersect(surfaces: Surfaces, camera: Camera, street: Street, row: Row):
    """Pixels, depth, coordinate along the plane and height of all hits in front of the present surface."""
    dx, dy, dz = camera.rays.reshape(3, -1)
    px, py, pz = (F(p) for p in camera.position)
    before = surfaces.depth.reshape(-1)
    if row.axis == "z":
        depth = (F(row.position) - pz) / dz
        index = np.flatnonzero((dz > F(0.02)) & (depth > F(1)) & (depth < before))
        depth = depth[index]
        z = np.full_like(depth, row.position)
        along = px + depth * dx[index] - F(street.curvature) * z * z
        y = py + depth * dy[index]
        keep = (np.abs(along) >= F(row.inner)) & (y > 0)
    else:
        depth = _curved_plane(street.curvature, row.position, dx, dz, px, pz)
        index = np.flatnonzero((depth > F(1)) & (depth < before))
        depth = depth[index]
        along = pz + depth * dz[index]
        y = py + depth * dy[index]
        keep = (y > 0) & (along < row.edges[-1]) & (along > row.edges[0])
    return index[keep], depth[keep], along[keep], y[keep]


def _curved_plane(curvature, position, dx, dz, px, pz):
    """Smallest positive depth where a ray meets x - curvature * z**2 = position; infinite where it never does."""
    k = F(curvature)
    if k == 0:
        k = F(1e-9)
    a = -k * dz * dz
    b = dx - 2 * k * pz * dz
    c = px - k * pz * pz - F(position)
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    q = F(-0.5) * (b + np.where(b < 0, -root, root))
    near, far = c / np.where(q == 0, F(1e-9), q), q / np.where(a == 0, F(-1e-9), a)
    infinite = F(np.inf)
    near = np.where(near > 0, near, infinite)
    far = np.where(far > 0, far, infinite)
    return np.where(b * b - 4 * a * c < 0, infinite, np.minimum(near, far))


def _not_a_hole(kind, along, y, top, footprint):
    """Fences are pickets between two rails, closed where a pixel is wider than a gap; all else is closed."""
    rails = (np.abs(y - F(0.25)) < F(0.08)) | (np.abs(y - top + F(0.12)) < F(0.1))
    return (kind != FENCE) | (footprint > F(GAP)) | rails | (_fraction(along * F(0.5 / GAP)) < F(0.55))


def _windows(row: Row, knobs: Knobs, albedo, glow, footprint, along, y, segment, kind) -> None:
    """Window grids and shop fronts, written into ``albedo`` and ``glow`` of building pixels."""
    house = np.flatnonzero((kind == BUILDING) & (footprint < F(0.9)))
    along, y, segment = along[house], y[house], segment[house]
    spacing = F(1.8) + F(1.8) * hash_unit(segment, segment * 0 + 1, row.seed)
    column, story = np.floor(along / spacing), np.floor(y / F(FLOOR))
    u, v = along / spacing - column, y / F(FLOOR) - story
    pane = (story > 0) & (np.abs(u - F(0.5)) < F(0.24)) & (np.abs(v - F(0.55)) < F(0.27))
    shop = (story < 1) & has_shop(row, segment) & (np.abs(u - F(0.5)) < F(0.42)) & (np.abs(v - F(0.46)) < F(0.32))
    door = (story < 1) & ~shop & (np.abs(u - F(0.5)) < F(0.2)) & (v < F(0.7)) & (v > F(0.05))
    draw = hash_unit(column, story + segment * 16, row.seed + 2)
    lit = pane & (draw < F(0.26))
    cold, warm = _tones(knobs)
    tone = np.where(hash_unit(column, story, row.seed + 3) < F(0.65), warm, cold)
    albedo[:, house] = np.where(pane | shop | door, F(0.04) + F(0.1) * draw, albedo[:, house])
    light = lit * (F(0.03) + F(1.4) * draw) * tone
    sold = shop_glow(row, segment, knobs) * (F(0.4) + F(0.8) * draw) * F(last_to_go(knobs.lamps))
    glow[:, house] = np.where(shop, sold, light)


def _fraction(x):
    return x - np.floor(x)
