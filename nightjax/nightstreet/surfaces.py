# SPDX-License-Identifier: Apache-2.0
"""What every pixel sees: depth, class, albedo, normal and own light. Painters write into one of these."""

import numpy as np

(
    ROAD,
    SIDEWALK,
    BUILDING,
    WALL,
    FENCE,
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
    TERRAIN,
    SKY,
    PERSON,
    RIDER,
    CAR,
    TRUCK,
    BUS,
    TRAIN,
    MOTORCYCLE,
    BICYCLE,
) = range(19)

FACING_CAMERA = (0.0, 0.0, -1.0)


class Surfaces:
    """Visible surfaces of one view.

    Attributes:
        depth: float32 [H, W], meters along the optical axis, infinite for the sky.
        label: uint8 [H, W], train ids.
        albedo, normal, glow: float32 [3, H, W]; glow is emitted radiance, in units of a street lamp's irradiance.
        moving: bool [H, W], pixels drawn from the generator ``dynamics``.
    """

    def __init__(self, size: tuple[int, int]):
        self.depth = np.full(size, np.inf, np.float32)
        self.label = np.full(size, SKY, np.uint8)
        self.albedo = np.zeros((3, *size), np.float32)
        self.normal = np.zeros((3, *size), np.float32)
        self.glow = np.zeros((3, *size), np.float32)
        self.moving = np.zeros(size, bool)

    def paint(self, index, depth, label, albedo, normal, glow=None, moving: bool = False) -> None:
        """Overwrites pixels; the caller has done the depth test.

        Args:
            index: int [n], flat pixel numbers.
            depth: float32 [n].
            label: uint8 scalar or [n].
            albedo, normal, glow: [3] or [3, n]; glow None means none.
            moving: whether the surface belongs to the dynamics.
        """
        self.depth.reshape(-1)[index] = depth
        self.label.reshape(-1)[index] = label
        self.moving.reshape(-1)[index] = moving
        for target, value in ((self.albedo, albedo), (self.normal, normal), (self.glow, glow)):
            flat = target.reshape(3, -1)
            for channel in range(3):
                flat[channel, index] = 0.0 if value is None else value[channel]
