# SPDX-License-Identifier: Apache-2.0
"""Ground plane: one intersection for every ray, classified in world coordinates."""

import numpy as np

from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.layout import Street
from nightjax.nightstreet.seeds import hash_unit, value_noise
from nightjax.nightstreet.surfaces import ROAD, SIDEWALK, TERRAIN, Surfaces

FAR = 400.0
F = np.float32


def paint_ground(surfaces: Surfaces, camera: Camera, street: Street) -> None:
    """Road, kerb, sidewalk and terrain on the plane y = 0."""
    dx, dy, dz = camera.rays.reshape(3, -1)
    px, py, pz = (F(p) for p in camera.position)
    index = np.flatnonzero(dy < F(-py / FAR))
    depth = -py / dy[index]
    x, z = px + depth * dx[index], pz + depth * dz[index]
    s = x - F(street.curvature) * z * z
    label = ground_label(street, s, z)
    albedo = street.ground_albedo[np.array([0, 1, 2], np.intp)[_material(label)]].T
    fine = value_noise(x * F(2.5), z * F(2.5), street.seed)
    coarse = value_noise(x * F(0.35), z * F(0.35), street.seed + 1)
    shade = F(0.55) + F(0.4) * fine + F(0.5) * coarse
    slabs = (label == SIDEWALK) & ((_fraction(s) < F(0.08)) | (_fraction(z) < F(0.08))) & (depth < 18)
    shade = np.where(slabs, shade * F(0.7), shade)
    albedo = albedo * shade
    albedo = np.where(_markings(street, s, z, label), F(0.55), albedo)
    kerb = (np.abs(np.abs(s) - F(street.road)) < F(0.1)) & (label != ROAD)
    albedo = np.where(kerb, F(0.4), albedo)
    surfaces.paint(index, depth, label, albedo, (0.0, 1.0, 0.0))


def ground_label(street: Street, s: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Train ids of ground points: lateral coordinate and z, float32 arrays of one shape."""
    side = np.abs(s)
    right = s > 0
    strip = np.where(right, F(street.terrain[1]), F(street.terrain[0]))
    edge = F(street.road + street.sidewalk)
    label = np.where(side < F(street.road), ROAD, SIDEWALK).astype(np.uint8)
    label[(side >= edge) & (strip > 0)] = TERRAIN
    behind = np.where(right, F(street.facade[1]), F(-street.facade[0])) + F(0.3)
    label[(side > behind) & (hash_unit(np.floor(z * F(0.05)), right, street.seed) < F(0.6))] = TERRAIN
    for low, high in street.junctions:
        across = (z > F(low)) & (z < F(high))
        label[across & (side > F(street.road))] = SIDEWALK
        label[(z > F(low + 2)) & (z < F(high - 2))] = ROAD
    return label


def _material(label):
    return np.where(label == ROAD, 0, np.where(label == SIDEWALK, 1, 2))


def _fraction(x):
    return x - np.floor(x)


def _markings(street: Street, s, z, label) -> np.ndarray:
    """White paint: center dashes, lane dashes, edge lines, zebra crossings before junctions; dull rails."""
    dash = _fraction(z * F(1 / 6)) < F(0.5)
    side = np.abs(s)
    paint = (side < F(0.08)) & dash
    if street.lanes == 4:
        paint |= (np.abs(side - F(street.road / 2)) < F(0.07)) & dash
    paint |= np.abs(side - F(street.road - 0.35)) < F(0.06)
    if street.rails:
        paint |= np.abs(np.abs(s + F(street.road / 2)) - F(0.72)) < F(0.05)
    for low, high in street.junctions:
        paint &= ~((z > F(low - 1)) & (z < F(high + 1)))
        zebra = (z > F(low - 3.6)) & (z < F(low - 0.8)) & (side < F(street.road - 0.4))
        paint |= zebra & (_fraction(s) < F(0.5))
    return paint & (label == ROAD)
