# SPDX-License-Identifier: Apache-2.0
"""Pinhole camera: rays, projection and small changes of pose."""

import dataclasses
import math

import numpy as np

from nightjax.nightstreet.seeds import named_generator


@dataclasses.dataclass(frozen=True)
class PoseOffset:
    """Displacement of a camera from the scene's nominal pose: meters and radians."""

    dx: float = 0.0
    dz: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0


class Camera:
    """World axes: x right, y up (ground at 0), z along the street. Depth is measured along the optical axis.

    Attributes:
        position: three Python floats.
        rays: float32 [3, H, W], world direction of every pixel's ray per unit of depth, no component exactly 0.
    """

    def __init__(self, scene_seed: int, size: tuple[int, int], offset: PoseOffset = PoseOffset()):
        rng = named_generator(scene_seed, "camera")
        height, width = size
        self.size = size
        self.focal = float(rng.uniform(0.85, 1.05)) * width
        self.center = (0.5 * width, float(rng.uniform(0.42, 0.52)) * height)
        self.position = (
            float(rng.uniform(0.8, 2.2)) + offset.dx,
            float(rng.uniform(1.2, 1.7)),
            offset.dz,
        )
        yaw = float(rng.normal(0, 0.02)) + offset.yaw
        pitch = float(rng.normal(0, 0.004)) + offset.pitch
        roll = float(rng.normal(0, 0.008))
        self.rotation = _rotation(yaw, pitch, roll)
        u = (np.arange(width, dtype=np.float32) + np.float32(0.5 - self.center[0])) / np.float32(self.focal)
        v = (np.float32(self.center[1] - 0.5) - np.arange(height, dtype=np.float32)) / np.float32(self.focal)
        rows = [np.float32(r[0]) * u[None, :] + np.float32(r[1]) * v[:, None] + np.float32(r[2]) for r in self.rotation]
        rays = np.stack(rows)
        tiny = np.float32(1e-6)
        self.rays = np.where(np.abs(rays) < tiny, tiny, rays)

    def project(self, x, y, z):
        """World points (arrays or floats) to (column, row, depth); column and row are pixel-center coordinates."""
        return self.project_ray(x - self.position[0], y - self.position[1], z - self.position[2])

    def project_ray(self, x, y, z):
        """As `project` for directions from the camera, i.e. points at infinity such as the sky."""
        r = self.rotation
        right = r[0][0] * x + r[1][0] * y + r[2][0] * z
        up = r[0][1] * x + r[1][1] * y + r[2][1] * z
        depth = r[0][2] * x + r[1][2] * y + r[2][2] * z
        safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        column = self.focal * right / safe + self.center[0] - 0.5
        row = self.center[1] - 0.5 - self.focal * up / safe
        return column, row, depth

    def rectangle(self, low, high) -> tuple[slice, slice] | None:
        """Pixels that an axis-aligned world box may cover, or None where it lies behind the camera or outside."""
        near = self.position[2] + 0.7
        if high[2] <= near:
            return None
        z_low = max(low[2], near)
        columns, rows = [], []
        for x in (low[0], high[0]):
            for y in (low[1], high[1]):
                for z in (z_low, high[2]):
                    column, row, depth = self._project_point(x, y, z)
                    if depth <= 0.1:
                        return slice(0, self.size[0]), slice(0, self.size[1])
                    columns.append(column)
                    rows.append(row)
        height, width = self.size
        r0, r1 = max(math.floor(min(rows)), 0), min(math.ceil(max(rows)) + 1, height)
        c0, c1 = max(math.floor(min(columns)), 0), min(math.ceil(max(columns)) + 1, width)
        return (slice(r0, r1), slice(c0, c1)) if r0 < r1 and c0 < c1 else None

    def _project_point(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """`project` of one point in plain floats, which is much faster than arrays of one."""
        r = self.rotation
        x, y, z = x - self.position[0], y - self.position[1], z - self.position[2]
        depth = r[0][2] * x + r[1][2] * y + r[2][2] * z
        scale = self.focal / max(depth, 1e-6)
        column = scale * (r[0][0] * x + r[1][0] * y + r[2][0] * z) + self.center[0] - 0.5
        row = self.center[1] - 0.5 - scale * (r[0][1] * x + r[1][1] * y + r[2][1] * z)
        return column, row, depth


def _rotation(yaw: float, pitch: float, roll: float) -> list[list[float]]:
    """Camera-to-world matrix, rows x, y, z; columns right, up, forward."""
    cy, sy = math.cos(yaw), math.sin(yaw)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    pitch_roll = [[cr, -sr, 0.0], [cp * sr, cp * cr, sp], [-sp * sr, -sp * cr, cp]]
    turn = [[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]]
    return [[sum(turn[i][k] * pitch_roll[k][j] for k in range(3)) for j in range(3)] for i in range(3)]
