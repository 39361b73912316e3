# SPDX-License-Identifier: Apache-2.0
"""Coarsely aligned night and day views of one street, and the exact correspondence between them."""

import dataclasses
import math

import numpy as np

from nightjax.core.classes import CITYSCAPES
from nightjax.core.types import IGNORE
from nightjax.nightstreet.camera import Camera, PoseOffset
from nightjax.nightstreet.presets import Knobs
from nightjax.nightstreet.render import render
from nightjax.nightstreet.seeds import named_generator

F = np.float32
STALE, WRONG = 0.20, 0.03  # shares of pairs whose reference is far along the street, or of another street
WRONG_SCENE = 500_000  # seed distance to the other street; inside the split's own range
LATER = 1_000_000_000  # seed distance to another moment of the same street
SAME_SURFACE = 0.05  # relative depth difference below which two views see the same point

EDGE = 0.02  # pixels outside the frame that rounding may cause


@dataclasses.dataclass(frozen=True)
class Misalignment:
    """How the day reference of a pair differs from its night image."""

    night: PoseOffset
    day: PoseOffset
    kind: str  # "near", "stale" or "wrong"


def draw_misalignment(scene_seed: int, scale: float) -> Misalignment:
    """Both poses of a pair: 0.5 m sideways, 3 m along (12 m when stale), 1.5 degrees of yaw, 0.5 of pitch."""
    rng = named_generator(scene_seed, "pose")
    draw = rng.random()
    kind = "wrong" if draw < WRONG * (scale > 0) else "stale" if draw < (WRONG + STALE) * (scale > 0) else "near"
    along = float(rng.uniform(-3, 3))
    if kind == "stale":
        along = math.copysign(float(rng.uniform(3, 12)), along)
    sideways = float(rng.normal(0, 0.5))
    yaw = math.radians(float(rng.uniform(-1.5, 1.5)))
    pitch = math.radians(float(rng.uniform(-0.5, 0.5)))
    day = PoseOffset(scale * sideways, scale * along, scale * yaw, scale * pitch)
    return Misalignment(PoseOffset(), day, kind)


def render_pair(scene_seed: int, *, size: tuple[int, int], knobs: Knobs = Knobs()) -> dict:
    """Renders a night image (or what the knobs have in its place) and its day reference.

    Returns:
        ``night`` and ``day``, each as `render` returns it; ``kind`` (``"near"``, ``"stale"`` or ``"wrong"``);
        ``flow`` float32 [H, W, 2] (dx, dy): night pixel p is the day image's p + flow(p); ``flow_valid`` bool [H, W].
    """
    pose = draw_misalignment(scene_seed, knobs.pose_jitter)
    day_scene = scene_seed + WRONG_SCENE if pose.kind == "wrong" else scene_seed
    day_moment = day_scene + LATER if knobs.dynamics else scene_seed
    shared = {"size": size, "prior_shift": knobs.prior_shift}
    night = render(
        scene_seed,
        knobs.time_of_day,
        dynamic_seed=scene_seed,
        pose_jitter=pose.night,
        sensor_seed=scene_seed,
        knobs=knobs,
        **shared,
    )
    day = render(
        day_scene,
        "day",
        dynamic_seed=day_moment,
        pose_jitter=pose.day,
        sensor_seed=scene_seed + LATER,
        knobs=knobs.source(),
        **shared,
    )
    if pose.kind == "wrong":
        flow, valid = np.zeros((*size, 2), np.float32), np.zeros(size, bool)
    else:
        flow, valid = correspondence(night, day)
    return {"night": night, "day": day, "kind": pose.kind, "flow": flow, "flow_valid": valid}


def correspondence(first: dict, second: dict) -> tuple[np.ndarray, np.ndarray]:
    """Flow from the first view of a street to the second, from depth and pose.

    Returns:
        flow float32 [H, W, 2] (dx, dy) pixels, 0 where invalid; valid bool [H, W]: a static labeled point that the
        second view sees too, inside its frame and not hidden.
    """
    one: Camera = first["meta"]["camera"]
    two: Camera = second["meta"]["camera"]
    height, width = one.size
    sky = np.isinf(first["depth"])
    depth = np.where(sky, F(1), first["depth"])
    point = [depth * one.rays[i] for i in range(3)]
    column, row, ahead = two.project(*(point[i] + F(one.position[i]) for i in range(3)))
    far_column, far_row, far_ahead = two.project_ray(*point)
    column, row = np.where(sky, far_column, column), np.where(sky, far_row, row)
    ahead = np.where(sky, far_ahead, ahead)
    inside = (ahead > 0.5) & (column > -EDGE) & (column < width - 1 + EDGE)
    inside &= (row > -EDGE) & (row < height - 1 + EDGE)
    c = np.clip(np.rint(column), 0, width - 1).astype(np.intp)
    r = np.clip(np.rint(row), 0, height - 1).astype(np.intp)
    seen = second["depth"][r, c]
    with np.errstate(invalid="ignore"):
        same = np.where(sky, np.isinf(seen), np.abs(seen - ahead) < F(SAME_SURFACE) * ahead)
    static = ~first["moving"] & ~second["moving"][r, c]
    known = (first["label"] != IGNORE) & (second["label"][r, c] != IGNORE)
    valid = inside & same & static & known
    grid_row, grid_column = np.indices((height, width), np.float32)
    flow = np.stack([column - grid_column, row - grid_row], -1)
    return np.where(valid[..., None], flow, 0).astype(np.float32), valid


def agreement(first: np.ndarray, second: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Share of equal labels among pixels that are static and labeled in both maps (and ``valid``)."""
    use = ~(
        np.isin(first, (*CITYSCAPES.group("dynamic"), IGNORE)) | np.isin(second, (*CITYSCAPES.group("dynamic"), IGNORE))
    )
    if valid is not None:
        use &= valid
    return float((first == second)[use].mean()) if use.any() else float("nan")


def warp_labels(second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The second view's labels as the first view would see them: nearest neighbor at p + flow(p)."""
    height, width = second.shape
    rows, columns = np.indices((height, width))
    r = np.clip(np.rint(rows + flow[..., 1]), 0, height - 1).astype(np.intp)
    c = np.clip(np.rint(columns + flow[..., 0]), 0, width - 1).astype(np.intp)
    return second[r, c]
