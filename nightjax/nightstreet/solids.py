# SPDX-License-Identifier: Apache-2.0
"""Painting of single objects: flat cut-outs facing along the street, and axis-aligned boxes."""

from collections.abc import Callable, Sequence

import numpy as np

from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.surfaces import FACING_CAMERA, Surfaces

F = np.float32
NEAREST = 0.7  # meters in front of the camera within which nothing is drawn


class Part:
    """Look of one part of an object: train id, albedo [3], glow [3]."""

    def __init__(
        self, label: int, albedo: Sequence[float] | np.ndarray, glow: Sequence[float] | np.ndarray | None = None
    ):
        self.label = label
        self.albedo = np.asarray(albedo, np.float32)
        self.glow = np.zeros(3, np.float32) if glow is None else np.asarray(glow, np.float32)


def paint_cutout(
    surfaces: Surfaces,
    camera: Camera,
    place: tuple[float, float],
    extent: tuple[float, float, float],
    shape: Callable[[np.ndarray, np.ndarray], np.ndarray],
    parts: Sequence[Part],
    *,
    moving: bool = False,
    round_: bool = False,
    shade: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> None:
    """A flat object in the plane z = place[1].

    Args:
        place: (x, z) of the object's foot, meters.
        extent: (half-width, bottom, top), meters.
        shape: (lateral a, height y) float32 arrays to an int array: 0 for nothing, i for ``parts[i - 1]``.
        moving: whether it belongs to the dynamics.
        round_: bends the normal like a cylinder's, so that light from the side is seen.
        shade: (a, y) to a factor on the albedo.
    """
    x0, z0 = place
    half, bottom, top = extent
    if z0 - camera.position[2] < NEAREST:
        return
    window = camera.rectangle((x0 - half, bottom, z0), (x0 + half, top, z0))
    if window is None:
        return
    dx, dy, dz = (camera.rays[i][window] for i in range(3))
    px, py, pz = camera.position
    depth = F(z0 - pz) / dz
    a = F(px - x0) + depth * dx
    y = F(py) + depth * dy
    part = shape(a, y)
    seen = (part > 0) & (depth < surfaces.depth[window]) & (depth > 0)
    index = _flat(window, camera.size)[seen]
    if not index.size:
        return
    part, a, y = part[seen], a[seen], y[seen]
    table_albedo = np.stack([p.albedo for p in parts], 1)
    table_glow = np.stack([p.glow for p in parts], 1)
    labels = np.array([p.label for p in parts], np.uint8)
    albedo = table_albedo[:, part - 1]
    if shade is not None:
        albedo = albedo * shade(a, y)
    normal = FACING_CAMERA
    if round_:
        side = np.clip(a / F(half), -1, 1) * F(0.8)
        normal = (side, F(0.2), -np.sqrt(F(0.96) - side * side))
    surfaces.paint(index, depth[seen], labels[part - 1], albedo, normal, table_glow[:, part - 1], moving)


def paint_box(
    surfaces: Surfaces,
    camera: Camera,
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    label: int,
    look: Callable[[str, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    *,
    moving: bool = False,
) -> None:
    """An axis-aligned box, seen from outside.

    Args:
        low, high: world corners, meters.
        label: train id.
        look: (face ``"side" | "end" | "top"``, horizontal coordinate on the face, height) to albedo [3, n] and
            glow [3, n]; the horizontal coordinate is measured from the box's middle.
    """
    window = camera.rectangle(low, high)
    if window is None or low[2] - camera.position[2] < NEAREST:
        return
    rays = camera.rays[:, window[0], window[1]]
    enter = leave = axis = np.empty(0)
    for i in range(3):
        one = F(low[i] - camera.position[i]) / rays[i]
        two = F(high[i] - camera.position[i]) / rays[i]
        near, far = np.minimum(one, two), np.maximum(one, two)
        if i == 0:
            enter, leave, axis = near, far, np.zeros(near.shape, np.uint8)
        else:
            axis = np.where(near > enter, np.uint8(i), axis)
            enter, leave = np.maximum(enter, near), np.minimum(leave, far)
    seen = (enter < leave) & (enter > 0) & (enter < surfaces.depth[window])
    flat = _flat(window, camera.size)
    middle = [(low[i] + high[i]) / 2 for i in range(3)]
    for i, face in enumerate(("side", "top", "end")):
        hit = seen & (axis == i)
        index = flat[hit]
        if not index.size:
            continue
        depth = enter[hit]
        across = 2 if face == "side" else 0
        u = F(camera.position[across] - middle[across]) + depth * rays[across][hit]
        y = F(camera.position[1]) + depth * rays[1][hit]
        albedo, glow = look(face, u, y)
        normal = [0.0, 0.0, 0.0]
        normal[i] = 1.0 if camera.position[i] > middle[i] else -1.0
        surfaces.paint(index, depth, label, albedo, normal, glow, moving)


def _flat(window, size):
    rows = np.arange(window[0].start, window[0].stop)
    columns = np.arange(window[1].start, window[1].stop)
    return rows[:, None] * size[1] + columns[None, :]
