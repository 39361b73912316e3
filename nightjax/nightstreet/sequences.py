# SPDX-License-Identifier: Apache-2.0
"""Short drives through a street at night, with the exact flow from each frame to the one before."""

from collections.abc import Iterator

from nightjax.nightstreet.camera import PoseOffset
from nightjax.nightstreet.pairs import LATER, correspondence
from nightjax.nightstreet.presets import Knobs
from nightjax.nightstreet.render import render

METERS = 0.4
"""How far the camera drives in a frame: 36 km/h at 25 frames a second."""


def render_drive(
    scene_seed: int,
    frames: int,
    *,
    time_of_day: str = "night",
    size: tuple[int, int] = (128, 256),
    knobs: Knobs = Knobs(),
    prior_shift: float | None = None,
    meters: float = METERS,
) -> Iterator[dict]:
    """Renders a drive along a street in which nothing else moves, frame by frame.

    Exposure, lens and tone stay those of the scene, as metered in each frame; the noise is new in every frame.

    Args:
        scene_seed: of the street.
        frames: how many.
        time_of_day, size, knobs: of `render`.
        prior_shift: of `render`; by default the knobs'.
        meters: from frame to frame.

    Yields:
        What `render` returns, with ``flow`` float32 [H, W, 2] (dx, dy), which leads from each pixel to where the frame
        before shows the same point, and ``flow_valid`` bool [H, W], False in the first frame.
    """
    before = None
    for frame in range(frames):
        view = render(
            scene_seed,
            time_of_day,
            dynamic_seed=scene_seed,
            sensor_seed=scene_seed,
            noise_seed=scene_seed + LATER + frame,
            pose_jitter=PoseOffset(dz=meters * frame),
            size=size,
            knobs=knobs,
            prior_shift=knobs.prior_shift if prior_shift is None else prior_shift,
        )
        flow, valid = correspondence(view, before or view)
        yield view | {"flow": flow, "flow_valid": valid & (before is not None)}
        before = view
