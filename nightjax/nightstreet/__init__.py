# SPDX-License-Identifier: Apache-2.0
"""NightStreet: streets drawn by NumPy, by day, at dusk and by night, with exact ground truth."""

from nightjax.nightstreet.camera import PoseOffset
from nightjax.nightstreet.presets import (
    CONDITIONS,
    GAPS,
    KNOBS_VERSION,
    NIGHTS,
    PRESETS,
    RENDERER_VERSION,
    SPLITS,
    WEATHERS,
    Knobs,
)
from nightjax.nightstreet.render import render

__all__ = [
    "CONDITIONS",
    "GAPS",
    "KNOBS_VERSION",
    "NIGHTS",
    "PRESETS",
    "RENDERER_VERSION",
    "SPLITS",
    "WEATHERS",
    "Knobs",
    "PoseOffset",
    "render",
]
