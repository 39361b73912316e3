"""Tiny data, configs and runs made of the real parts, for tests of the loops."""

import signal
from unittest import mock

import cv2
import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from nightjax import methods
from nightjax.core import checkpoint, hooks, sharding
from nightjax.core import config as configs
from nightjax.core.config import to_json
from nightjax.run import settings, start
from nightjax.train import train

SIZE = (32, 48)

METHODS = {
    "supervised": {"photometric": {}},
    "dacs": {},
    "dsr_fpa": {"alignment": {"start_step": 1}, "bank": {"every": 2}},
    "t2s_da": {},
    "distill": {"teacher": {"model": {}}},
    "dannet": {"adversarial": {"discriminators": {"network": {"features": 2}}}},
    "adaptsegnet": {
        "segmentation_weights": (0.0, 1.0),
        "adversarial_weights": (0.0, 0.001),
        "discriminators": {
            "network": {"features": 2, "multipliers": (1, 2, 4, 8), "strides": (2, 2, 2, 2, 2)},
        },
    },
}
"""Settings of the methods."""

SELF_TRAINING = {"teacher": {"decay": 0.9}, "feature_distance": {}, "pseudo_labels": {"threshold": 0.1}}
"""Settings of the methods with an EMA teacher."""


def write_folder(root, *, split="train", count=6, size=SIZE, seed=0, references=False):
    """A folder data set: blocks of a few classes, colored by class, with noise."""
    rng = np.random.default_rng(seed)
    parts = ["images", "labels"] + (["references"] if references else [])
    for part in parts:
        (root / part / split).mkdir(parents=True, exist_ok=True)
    colors = rng.integers(0, 255, (19, 3))
    for i in range(count):
        blocks = rng.choice([0, 2, 5, 6, 8, 10, 11, 12, 13, 17, 18, 255], (4, 6)).astype(np.uint8)
        label = cv2.resize(blocks, size[::-1], interpolation=cv2.INTER_NEAREST)
        image = colors[np.minimum(label, 18)] + rng.normal(0, 10, (*size, 3))
        image = np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(str(root / "images" / split / f"frame_{i:02d}.png"), image)
        cv2.imwrite(str(root / "labels" / split / f"frame_{i:02d}.png"), label)
        if references:
            cv2.imwrite(str(root / "references" / split / f"frame_{i:02d}.png"), np.clip(image * 1.5, 0, 255))
    return root


def config(root, method="supervised", *, steps=4, batch=4, **overrides):
    """A config on the folder data set of `write_folder`, with a network of a few thousand parameters."""
    source = {"dataset": "folder", "split": "train", "crop": SIZE, "fields": ("image", "label")}
    streams = {"source": source}
    if method != "supervised":
        streams["target"] = source | {"fields": ("image", "reference")}
    if method == "uawarpc":
        streams.pop("source")
    section = {"name": method, **METHODS.get(method, {})}
    if method in ("dacs", "dsr_fpa", "t2s_da"):
        section = configs.merged(SELF_TRAINING, section)
    model = {
        "backbone": "resnet_tiny",
        "head": "fpn",
        "dtype": "float32",
        "backbone_widths": (4, 4, 8, 8),
        "backbone_depths": (1, 1, 1, 1),
        "backbone_dilations": (1, 1, 1, 2),
        "backbone_stem_features": 4,
        "head_channels": 8,
    }
    if method == "uawarpc":
        model = {"variant": "uawarpc_tiny", "dtype": "float32"}
    if method == "dannet":
        model |= {"relight": True, "relight_features": 2, "relight_blocks": 0}
    sets = {"val": {"dataset": "folder", "split": "train", "batch": 4}}
    plain = {
        "seed": 0,
        "method": section,
        "model": model,
        "optim": {"name": "adamw", "lr": 1e-3, "warmup": 0},
        "train": {"steps": steps, "batch": batch, "devices": 1},
        "data": {"streams": streams, "manual_dir": str(root)},
        "eval": {"every": 0, "sets": {} if method == "uawarpc" else sets},
        "checkpoint": {"every": 2, "keep": 10, "best": ""},
        "log": {"every": 1},
    }
    complete = settings.complete(ConfigDict(plain))
    return settings.override(complete, {key.replace("__", "."): value for key, value in overrides.items()})


def train_until(config, workdir, step):
    """Trains until SIGTERM comes, which it does between ``step`` and the next, whatever the machine is busy with."""
    ask = hooks.StopSignal.__call__

    def ask_after_signal(self, now):
        if now == step:
            signal.raise_signal(signal.SIGTERM)
        return ask(self, now)

    with mock.patch.object(hooks.StopSignal, "__call__", ask_after_signal):
        assert train(config, workdir) == {}


def saved_state(workdir, step):
    """Every array of a checkpoint, by name, whatever devices it was saved from."""
    folder = (workdir / "checkpoints" / f"{step:07d}" / "state").resolve()
    with ocp.PyTreeCheckpointer() as checkpointer:
        names = checkpointer.metadata(folder).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names)
        tree = checkpointer.restore(folder, ocp.args.PyTreeRestore(restore_args=as_numpy))
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def untrained_run(workdir, config):
    """A run's folder with its first state as checkpoint of step 0, made without training."""
    method = methods.build(config)
    mesh = sharding.make_mesh(jax.devices()[:1])
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(to_json(config))
    saver = checkpoint.Checkpointer(workdir)
    saver.save(0, start.first_state(config, method, mesh), {}, {})
    saver.close()
    return workdir
