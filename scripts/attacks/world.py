# SPDX-License-Identifier: Apache-2.0
"""A small world to attack: data, a finished run, an export, weights, a prepared data set, each made by its own verb."""

import contextlib
import io
import json
import pathlib

import cv2
import numpy as np

from nightjax import export, main
from nightjax.core import config as configs
from nightjax.data import sources
from nightjax.run import loaded, settings

SIZE = (32, 48)

TOY = {
    "data.streams.source.crop": SIZE,
    "model.backbone_widths": (4, 4, 8, 8),
    "model.backbone_depths": (1, 1, 1, 1),
    "model.backbone_dilations": (1, 1, 1, 2),
    "model.backbone_stem_features": 4,
    "model.head_channels": 8,
    "optim.warmup": 0,
    "train.steps": 2,
    "train.batch": 2,
    "train.devices": 1,
    "eval.every": 0,
    "checkpoint.every": 1,
    "log.every": 1,
}
"""What makes a config of nightjax's own a run of a few thousand parameters."""

OWN = """import json, os
from ml_collections import ConfigDict
from nightjax.core.config import from_json
def get_config():
    return ConfigDict(from_json(open(os.path.join(os.path.dirname(__file__), "cfg.json")).read()).to_dict())
"""
"""A user's own config file, which reads its values from ``cfg.json`` beside it."""


def build(root: pathlib.Path) -> pathlib.Path:
    """Makes a world: ``data/``, ``run/`` of two steps, ``cfg.py``, ``shipped/``, ``tf/``, ``weights.npz``, lists."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        label = cv2.resize(rng.integers(0, 19, (4, 6), np.uint8), SIZE[::-1], interpolation=cv2.INTER_NEAREST)
        image = rng.integers(0, 100, (*SIZE, 3), np.uint8) + 8 * label[..., None]
        for part, pixels in (("images", image), ("labels", label), ("references", 255 - image)):
            folder = root / "data" / part / "train"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"frame_{i:02d}.png"), pixels)
    config = settings.override(settings.load("supervised:data=folder"), {"data.manual_dir": str(root / "data"), **TOY})
    write_config(root, config.to_dict())
    run = f"--workdir={root}/run"
    with contextlib.redirect_stdout(io.StringIO()):
        main.main(["train", f"--config={root}/cfg.py", run])
        export.main(
            [
                "export",
                run,
                f"--output={root}/shipped",
                f"--size={SIZE[0]},{SIZE[1]}",
                "--to=stablehlo",
                "--platforms=cpu",
            ]
        )
        sources.open_source("nightstreet/tiny", "source_day", data_dir=str(root / "tf"))
    state = loaded.load(root / "run").variables["params"]
    np.savez(root / "weights.npz", **{str(i): np.asarray(leaf) for i, leaf in enumerate(_leaves(state))})
    (root / "list.csv").write_text("name,score\ntrain/frame_00,1\n")
    (root / "published.json").write_text('{"paper": {"run": 1.0}}')
    return root


def write_config(root: pathlib.Path, config: dict) -> None:
    """Writes a user's own config file with these values."""
    (root / "cfg.py").write_text(OWN)
    (root / "cfg.json").write_text(json.dumps(config))


def keys(node: dict, prefix: str = "") -> dict[str, object]:
    """Dotted key of every section and setting to its value."""
    found = {}
    for name, value in node.items():
        found[prefix + name] = value
        if isinstance(value, dict):
            found |= keys(value, f"{prefix}{name}.")
    return found


def resolved(root: pathlib.Path) -> dict:
    """The config of the world's run."""
    return configs.from_json((root / "run" / "config.json").read_text()).to_dict()


def _leaves(tree: dict) -> list:
    return [leaf for value in tree.values() for leaf in (_leaves(value) if isinstance(value, dict) else [value])]
