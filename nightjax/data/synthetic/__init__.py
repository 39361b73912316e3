"""NightStreet: streets drawn by NumPy, by day, at dusk and by night, with exact ground truth."""

from nightjax.data.synthetic.camera import PoseOffset
from nightjax.data.synthetic.presets import GAPS, KNOBS_VERSION, NIGHTS, PRESETS, RENDERER_VERSION, SPLITS, Knobs
from nightjax.data.synthetic.render import render

__all__ = ["GAPS", "KNOBS_VERSION", "NIGHTS", "PRESETS", "RENDERER_VERSION", "SPLITS", "Knobs", "PoseOffset", "render"]
