"""Whatever a user gets wrong ends in one clear line on standard error and exit code 2."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import jax
import numpy as np
import pytest
from etils import epath

from nightjax import evaluate, main, predict
from nightjax.core import checkpoint, cli
from nightjax.core.errors import UserError
from nightjax.train import train
from tests.helpers import toy

VERBS = {"main": main.main, "evaluate": evaluate.main, "predict": predict.main}
CONFIG = """from tests.helpers import toy
def get_config():
    config = toy.config({data!r}, {method!r}, steps=2)
    {change}
    return config
"""


class Case(NamedTuple):
    """One mistake.

    Attributes:
        words: file, key, value or remedy that the line must name, however it is put; ``{run}`` and the like stand for
            paths of the world.
        verb: key of `VERBS`.
        flags: of the command; by default those of a correct one.
        prepare: what happens to the world before.
        change: line of Python inside the config file's ``get_config``.
        method: of the config file.
    """

    words: Sequence[str]
    verb: str = "main"
    flags: str = ""
    prepare: Callable | None = None
    change: str = "pass"
    method: str = "supervised"


TRAIN = "--config={world}/cfg.py --workdir={world}/new"
CONTINUE = "--config={world}/cfg.py --workdir={run}"
EVALUATE = "--workdir={run} --manual_dir={data}"
PREDICT = "--workdir={run} --input={data}/images/train/frame_00.png --output={world}/out"


def set_key(key, value):
    """A config line that sets a key, new or of another type too."""
    names = "".join(f"[{name!r}]" for name in key.split("."))
    return f"with config.unlocked(), config.ignore_type(): config{names} = {value!r}"


def write(path, content):
    """Writes text or bytes into a file of the world."""

    def prepare(world):
        (world / path).parent.mkdir(parents=True, exist_ok=True)
        (world / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def truncate(pattern, share=0.5):
    """Cuts off the ends of all files that match."""

    def prepare(world):
        files = [path for path in world.glob(pattern) if path.is_file()]
        assert files, pattern
        for path in files:
            path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return prepare


def remove(pattern):
    """Deletes files and folders."""

    def prepare(world):
        paths = list(world.glob(pattern))
        assert paths, pattern
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return prepare


def label(value, size=toy.SIZE):
    """Replaces every label."""

    def prepare(world):
        for path in (world / "data" / "labels" / "train").iterdir():
            cv2.imwrite(str(path), np.full(size, value, np.uint8))

    return prepare


def same_stems(world):
    for suffix in (".png", ".jpg"):
        write(f"pictures/night{suffix}", b"")(world)


def in_config(section, name, value):
    """Edits a run's config.json."""

    def prepare(world):
        path = world / "run" / "config.json"
        config = json.loads(path.read_text())
        config[section][name] = value
        path.write_text(json.dumps(config))

    return prepare


def host(changes):
    """Edits what a checkpoint remembers beside its arrays, as a version without manifests wrote it."""

    def prepare(world):
        folder = world / "run" / "checkpoints" / "0000002"
        (folder / "manifest.json").unlink()
        (path,) = (one for one in (folder / "host").iterdir() if one.read_bytes().startswith(b"{"))
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return prepare


def flip(world):
    """Flips one bit of a checkpoint's arrays."""
    path = max((world / "run/checkpoints/0000002/state").glob("**/d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def read_only(path):
    """Makes a folder in which nothing can be written, by root either."""

    def prepare(world):
        (world / path).mkdir(exist_ok=True)
        return refuse(type(epath.Path()), "write_bytes", errno.EACCES)

    return prepare


CASES = {
    # Flags and configs.
    "no config": Case(["--config", "configs/dsr_fpa.py"], flags="--workdir={world}/new"),
    "no config but a key": Case(["--config"], flags="--config.train.steps=3"),
    "config without file": Case(["nowhere.py", "exist"], flags="--config=nowhere.py"),
    "config is no python": Case(["config.json", "Python"], flags="--config={run}/config.json"),
    "config with a syntax error": Case(
        ["cfg.py", "SyntaxError", "line 1"], prepare=write("cfg.py", "def get_config(:\n"), flags=TRAIN
    ),
    "config that raises": Case(["cfg.py", "line 4", "NameError", "'nothing'"], change="nothing"),
    "config that imports what is not there": Case(
        ["line 1", "ModuleNotFoundError", "night_jax"], prepare=write("cfg.py", "import night_jax\n"), flags=TRAIN
    ),
    "config without get_config": Case(
        ["AttributeError", "get_config"], prepare=write("cfg.py", "x = 1\n"), flags=TRAIN
    ),
    "config returns a dict": Case(["ConfigDict", "dict"], change="return {}"),
    "unknown config argument": Case(
        ["'dat'", "'data'"],
        flags="--config=configs/dsr_fpa.py:dat=nightstreet",
    ),
    "config argument without value": Case(["'fast'", "key=value"], flags="--config=configs/dsr_fpa.py:fast"),
    "unknown data name": Case(["nightstret", "'nightstreet"], flags="--config=configs/dsr_fpa.py:data=nightstret"),
    "unknown model name": Case(["resnet81", "'resnet18'"], flags="--config=configs/dsr_fpa.py:model=resnet81"),
    "unknown flag": Case(["workdri", "workdir"], flags="--config={world}/cfg.py --workdri=x"),
    "word that is no flag": Case(["'fast'", "flag"], flags=TRAIN + " fast"),
    "unknown key": Case(["'train.stpes'", "'steps'"], flags=TRAIN + " --config.train.stpes=3"),
    "key inside a number": Case(["'train.steps.x'", "section"], flags=TRAIN + " --config.train.steps.x=3"),
    "key of wrong type": Case(["train.steps='many'", "int"], flags=TRAIN + " --config.train.steps=many"),
    "section given as text": Case(["train='fast'", "section"], flags=TRAIN + " --config.train=fast"),
    "processes without a coordinator": Case(["--coordinator=HOST:PORT"], flags=TRAIN + " --distributed"),
    # Methods, models, optimizers.
    "unknown method": Case(["method.name='dsr'", "'dsr_fpa'"], flags=TRAIN + " --config.method.name=dsr"),
    "unknown method setting": Case(
        ["method.alignment.wieght", "'weight'"],
        change=set_key("method.alignment.wieght", 0.1),
        method="dsr_fpa",
    ),
    "method setting of wrong type": Case(["method.joint=3", "bool"], change=set_key("method.joint", 3)),
    "method setting that is no choice": Case(
        ["method.loss.normalizer='vaild'", "'valid'"], flags=TRAIN + " --config.method.loss.normalizer=vaild"
    ),
    "part that cannot be off": Case(["method.loss"], flags=TRAIN + " --config.method.loss=None"),
    "unknown backbone": Case(["resnet_tny", "'resnet_tiny'"], flags=TRAIN + " --config.model.backbone=resnet_tny"),
    "unknown model option": Case(["'head_chanels'", "'head_channels'"], change=set_key("model.head_chanels", 8)),
    "unknown dtype": Case(["model.dtype='float16'", "bfloat16"], flags=TRAIN + " --config.model.dtype=float16"),
    "unknown optimiser": Case(["optim.name='lion'", "adamw"], flags=TRAIN + " --config.optim.name=lion"),
    "optimiser group that matches nothing": Case(
        ["optim.groups", "'encoder/'", "'backbone/"],
        change=set_key("optim.groups", ({"pattern": "encoder/", "lr": 0.1},)),
    ),
    "method without its domain": Case(
        ["'target'", "'source'"],
        change="config.unlock(); del config.data.streams['target']",
        method="dacs",
    ),
    "reference missing": Case(
        ["'dsr_fpa'", "'reference'"],
        change="config.data.streams.target.fields = ('image',)",
        method="dsr_fpa",
    ),
    "no such network to evaluate": Case(["'teacher'"], flags=TRAIN + " --config.eval.network=teacher"),
    "best of an unknown set": Case(["checkpoint.best='vla'", "'val'"], flags=TRAIN + " --config.checkpoint.best=vla"),
    "switch that is neither on nor off": Case(
        ["exposure=maybe", "0 or 1"],
        flags="--config=configs/supervised.py:exposure=maybe --workdir={world}/new",
    ),
    "argument without effect": Case(
        ["'photometric'"], flags="--config=configs/dannet.py:photometric=1 --workdir={world}/new"
    ),
    "matcher that is not asked": Case(
        ["matcher=runs/x", "aligner=uawarpc"],
        flags="--config=configs/dsr_fpa.py:matcher=runs/x --workdir={world}/new",
    ),
    "baseline without scores": Case(
        ["{world}/data", "no evaluation"], flags=TRAIN + " --config.log.baseline={world}/data"
    ),
    # Numbers, devices.
    "rate below 0": Case(["optim.lr=-1.0", "below 0"], flags=TRAIN + " --config.optim.lr=-1.0"),
    "warm-up beyond the end": Case(
        ["optim.warmup=9", "steps=N"],
        flags=TRAIN + " --config.optim.warmup=9 --config.train.steps=4",
    ),
    "weights of too few classes": Case(
        ["loss.class_weights", "2", "19"], flags=TRAIN + " --config.method.loss.class_weights=1.0,2.0"
    ),
    "bank never": Case(
        ["method.bank.every=0", "1 or more"], method="dsr_fpa", flags=TRAIN + " --config.method.bank.every=0"
    ),
    "teacher that never learns": Case(
        ["method.teacher.decay=1.0", "below 1"], method="dsr_fpa", flags=TRAIN + " --config.method.teacher.decay=1.0"
    ),
    "crops of two sizes": Case(
        ["crops", "one size"], method="dsr_fpa", flags=TRAIN + " --config.data.streams.target.crop=(32,32)"
    ),
    "no steps": Case(["train.steps=0", "1 or more"], flags=TRAIN + " --config.train.steps=0"),
    "no batch": Case(["train.batch=0", "1 or more"], flags=TRAIN + " --config.train.batch=0"),
    "log never": Case(["log.every=0", "1 or more"], flags=TRAIN + " --config.log.every=0"),
    "batch not divisible by devices": Case(
        ["train.batch=6", "4 device", "multiple of 4"],
        flags=TRAIN + " --config.train.batch=6 --config.train.devices=4",
    ),
    "batch not divisible by parts": Case(["train.accumulate=3"], flags=TRAIN + " --config.train.accumulate=3"),
    "more devices than there are": Case(
        ["train.devices=99", f"{jax.device_count()} device"], flags=TRAIN + " --config.train.devices=99"
    ),
    "loss not finite": Case(
        ["step ", "not finite", "train/frame_0", "optim.lr", "no checkpoint yet"],
        flags=TRAIN
        + " --config.optim.name=sgd --config.optim.lr=100 --config.method.loss.class_weights="
        + 19 * "1e12,",
    ),
    "steps beyond counting": Case(
        ["train.steps=99999999999999999999", "at most"], flags=TRAIN + " --config.train.steps=99999999999999999999"
    ),
    "seed below 0": Case(["seed=-1", "0 or more"], flags=TRAIN + " --config.seed=-1"),
    "rate beyond sense": Case(["optim.lr=1e+30", "at most"], flags=TRAIN + " --config.optim.lr=1e30"),
    "rate that ends higher": Case(["optim.min_lr=0.1", "optim.lr"], flags=TRAIN + " --config.optim.min_lr=0.1"),
    "memory of the whole past": Case(["optim.b1=1.0", "below 1"], flags=TRAIN + " --config.optim.b1=1.0"),
    "group with a rate below 0": Case(
        ["optim.groups", "-1.0", "below 0"], change=set_key("optim.groups", ({"pattern": "backbone", "lr": -1.0},))
    ),
    "profile of fewer steps than none": Case(["log.profile_steps=-1"], flags=TRAIN + " --config.log.profile_steps=-1"),
    "head without channels": Case(
        ["model.head_channels=0", "network"], flags=TRAIN + " --config.model.head_channels=0"
    ),
    "widths of too few stages": Case(
        ["model.backbone_widths=(4, 4)"], flags=TRAIN + " --config.model.backbone_widths=4,4"
    ),
    "channels below 0": Case(["model.head_channels=-8"], flags=TRAIN + " --config.model.head_channels=-8"),
    "weights that are no numbers": Case(
        ["method.loss.class_weights", "finite"],
        change="config.unlock(); config.method.loss = {'class_weights': 19 * (float('nan'),)}",
    ),
    "windows of nothing": Case(["eval.sets.val.window[0]=0"], change=set_key("eval.sets.val.window", (0, 0))),
    "crop beyond all images": Case(
        ["crop=(9000000, 48)", "65536"], change=set_key("data.streams.source.crop", (9_000_000, 48))
    ),
    "section that is none": Case(["checkpoint=None", "section"], change=set_key("checkpoint", None)),
    "section missing": Case(["'train'", "missing"], change="config.unlock(); del config['train']"),
    "streams that are none": Case(["data.streams"], change=set_key("data.streams", None)),
    "method without a name": Case(["method.name=None"], change=set_key("method.name", None)),
    "data set of no path": Case(["'folder:'", "/PATH"], flags=TRAIN + " --config.data.streams.source.dataset=folder:"),
    # Run folders and checkpoints.
    "workdir of another config": Case(
        ["optim.lr=0.001", "0.5", "--workdir"], flags=CONTINUE + " --config.optim.lr=0.5"
    ),
    "file in place of the workdir": Case(["--workdir", "new"], prepare=write("new", "a file")),
    "file in the workdir's path": Case(
        ["--workdir"],
        prepare=write("new", "a file"),
        flags="--config={world}/cfg.py --workdir={world}/new/run",
    ),
    "read-only workdir": Case(["--workdir={world}/new", "Permission denied"], prepare=read_only("new")),
    "read-only workdir, evaluate": Case(["Permission denied"], "evaluate", prepare=read_only("run"), flags=EVALUATE),
    "config.json cut off": Case(["config.json", "damaged"], prepare=truncate("run/config.json"), flags=CONTINUE),
    "config.json of something else": Case(
        ["config.json", "damaged", "'data'"], prepare=write("run/config.json", '{"model": {}}'), flags=CONTINUE
    ),
    "config.json without sections": Case(
        ["config.json", "damaged", "model is no section"],
        "evaluate",
        prepare=write("run/config.json", '{"model": 5}'),
        flags=EVALUATE,
    ),
    "config.json is a list": Case(
        ["config.json", "damaged"], "evaluate", prepare=write("run/config.json", "[1, 2]"), flags=EVALUATE
    ),
    "checkpoint cut off": Case(
        ["checkpoints/0000002", "damaged"], prepare=truncate("run/checkpoints/*/state/**/d/*"), flags=CONTINUE
    ),
    "checkpoint without arrays": Case(
        ["checkpoints/0000002", "damaged"], prepare=remove("run/checkpoints/*/state"), flags=CONTINUE
    ),
    "empty folder in place of a checkpoint": Case(
        ["checkpoints/0000009", "empty or damaged", "--step=last_good"],
        prepare=lambda world: (world / "run" / "checkpoints" / "0000009").mkdir(),
        flags=CONTINUE,
    ),
    "checkpoint beyond the end": Case(
        ["step 9", "train.steps=2"],
        prepare=lambda world: (world / "run/checkpoints/0000002").rename(world / "run/checkpoints/0000009"),
        flags=CONTINUE,
    ),
    "clock that is none": Case(
        ["checkpoints/0000002", "clock", "[5]"],
        prepare=host({"clock": [5]}),
        flags=CONTINUE,
    ),
    "position below 0": Case(
        ["checkpoints/0000002", "'source'", "next_index=-1"],
        prepare=host({"streams": {"source": {"next_index": -1}}}),
        flags=CONTINUE,
    ),
    "file in place of the checkpoints": Case(
        ["{run}/checkpoints is a file"],
        prepare=lambda world: [step(world) for step in (remove("run/checkpoints"), write("run/checkpoints", "x"))],
        flags=CONTINUE,
    ),
    "config.json too deep": Case(
        ["config.json", "damaged", "deep"], "evaluate", prepare=write("run/config.json", 100_000 * "["), flags=EVALUATE
    ),
    "config.json is a pipe": Case(
        ["config.json", "pipe"],
        "predict",
        prepare=lambda world: [remove("run/config.json")(world), os.mkfifo(world / "run/config.json")],
        flags=PREDICT,
    ),
    "config.json with a number for a section": Case(
        ["config.json", "eval.sets=3", "section"], "evaluate", prepare=in_config("eval", "sets", 3), flags=EVALUATE
    ),
    "config.json without a network": Case(
        ["config.json", "model.backbone"], "predict", prepare=in_config("model", "backbone", None), flags=PREDICT
    ),
    "config.json with a folder that is a number": Case(
        ["config.json", "data.manual_dir=5", "str"], prepare=in_config("data", "manual_dir", 5), flags=CONTINUE
    ),
    "one bit of a checkpoint": Case(
        ["checkpoints/0000002", "damaged", "another content", "--step=last_good"], prepare=flip, flags=CONTINUE
    ),
    "one bit of a checkpoint, predict": Case(
        ["checkpoints/0000002", "damaged", "--step=last_good"], "predict", prepare=flip, flags=PREDICT
    ),
    "no checkpoint is good": Case(["none", "[2]"], "predict", prepare=flip, flags=PREDICT + " --step=last_good"),
    "step in other digits": Case(["step ²", "[2]"], "evaluate", flags=EVALUATE + " --step=²"),
    "data position cut off": Case(
        ["checkpoints/0000002", "damaged"], prepare=truncate("run/checkpoints/*/host/*"), flags=CONTINUE
    ),
    "checkpoint cut off, evaluate": Case(
        ["checkpoints/0000002", "damaged"],
        "evaluate",
        prepare=truncate("run/checkpoints/*/state/**/d/*"),
        flags=EVALUATE,
    ),
    "checkpoint metadata cut off, predict": Case(
        ["checkpoints/0000002", "damaged"], "predict", prepare=truncate("run/checkpoints/*/state/_*"), flags=PREDICT
    ),
    "checkpoint of another model": Case(
        ["checkpoints/0000002", "another model"],
        flags=TRAIN + " --config.train.init={run}",
        change=set_key("model.head_channels", 12),
    ),
    "init from nothing": Case(["nowhere", "no checkpoint"], flags=TRAIN + " --config.train.init=nowhere"),
    "evaluate without workdir": Case(["--workdir"], "evaluate", flags="--step=3"),
    "evaluate no run": Case(["{data}", "no run", "config.json"], "evaluate", flags="--workdir={data}"),
    "predict no run": Case(["{world}/nowhere", "no run"], "predict", flags=PREDICT + " --workdir={world}/nowhere"),
    "no checkpoint yet": Case(
        ["{run}", "no checkpoint"], "evaluate", prepare=remove("run/checkpoints"), flags=EVALUATE
    ),
    "no checkpoint of that step": Case(["step 7", "[2]"], "evaluate", flags=EVALUATE + " --step=7"),
    "step is no number": Case(["step last", "[2]"], "evaluate", flags=EVALUATE + " --step=last"),
    "teacher where there is none": Case(["'teacher'", "student"], "predict", flags=PREDICT + " --network=teacher"),
    "no such stage": Case(
        ("no network can be built with", "model.head_stages", "stage9"),
        change="config.model.head_stages = ('stage1', 'stage9')",
    ),
    "disk full": Case(
        ["No space left on device"],
        prepare=lambda world: refuse(checkpoint.ocp.CheckpointManager, "save", errno.ENOSPC),
    ),
    # Pictures to predict.
    "device in place of a picture": Case(
        ["/dev/zero", "device"], "predict", flags=PREDICT.replace("{data}/images/train/frame_00.png", "/dev/zero")
    ),
    "size beyond everything": Case(["--size=1000000,1000000"], "predict", flags=PREDICT + " --size=1000000,1000000"),
    "picture missing": Case(["nowhere.png", "exist"], "predict", flags=PREDICT + " --input=nowhere.png"),
    "picture cut off": Case(
        ["frame_00.png", "damaged"], "predict", prepare=truncate("data/images/train/frame_00.png"), flags=PREDICT
    ),
    "picture empty": Case(
        ["frame_00.png", "empty"], "predict", prepare=truncate("data/images/train/frame_00.png", 0), flags=PREDICT
    ),
    "no picture": Case(
        ["frame_00.png", "not an image"],
        "predict",
        prepare=write("data/images/train/frame_00.png", "text"),
        flags=PREDICT,
    ),
    "empty folder": Case(
        ["no image", ".jpg"],
        "predict",
        prepare=write("pictures/readme.md", ""),
        flags=PREDICT + " --input={world}/pictures",
    ),
    "two pictures of one name": Case(
        ["night.jpg", "night.png", "night_*.png"],
        "predict",
        prepare=same_stems,
        flags=PREDICT + " --input={world}/pictures",
    ),
    "size of one number": Case(["--size=540", "height,width"], "predict", flags=PREDICT + " --size=540"),
    "size of nothing": Case(["--size=0,960", "height,width"], "predict", flags=PREDICT + " --size=0,960"),
    "scales are words": Case(["--scales=1,big"], "predict", flags=PREDICT + " --scales=1,big"),
    "smoothed scales": Case(["--smooth", "one scale"], "predict", flags=PREDICT + " --smooth --flip"),
    "scales are negative": Case(["--scales=-1"], "predict", flags=PREDICT + " --scales=-1"),
    "output is a file": Case(["File exists", "out"], "predict", prepare=write("out", "a file"), flags=PREDICT),
    # Data sets.
    "label id 19": Case(["label id 19", "frame_0"], prepare=label(19)),
    "label id 19, evaluate": Case(["label id 19", "frame_00"], "evaluate", prepare=label(19), flags=EVALUATE),
    "label of another size": Case(["24x16", "48x32", "frame_0"], prepare=label(0, (16, 24))),
    "training image cut off": Case(["frame_03", "truncated"], prepare=truncate("data/images/train/frame_03.png")),
    "training image cut off, in a worker process": Case(
        ["frame_03", "truncated"],
        prepare=truncate("data/images/train/frame_03.png"),
        flags=TRAIN + " --config.data.workers=1",
    ),
    "training image is none": Case(
        ["frame_00", "PNG"],
        "evaluate",
        prepare=write("data/images/train/frame_00.png", "text"),
        flags=EVALUATE,
    ),
    "no label": Case(["frame_0", "'label'"], prepare=remove("data/labels/train/*")),
    "no reference": Case(["frame_0", "'reference'"], prepare=remove("data/references"), method="dacs"),
    "empty data set": Case(["no records"], prepare=remove("data/images/train/*")),
    "manual_dir missing": Case(["manual_dir"], flags=TRAIN + " --config.data.manual_dir="),
    "manual_dir is no folder": Case(["nowhere/images"], flags=TRAIN + " --config.data.manual_dir=nowhere"),
    "manual_dir without data": Case(
        ["{data}", "download"],
        flags="--config=configs/supervised.py:data=camvid_day_to_dusk --workdir={world}/new "
        "--config.data.dir={world}/tfds --config.data.manual_dir={data}",
    ),
    "manual_dir not given": Case(
        ["camvid", "manual_dir"],
        flags="--config=configs/supervised.py:data=camvid_day_to_dusk --workdir={world}/new "
        "--config.data.dir={world}/tfds",
    ),
    "unknown data set": Case(
        ["'nightstret/std'", "'nightstreet'"],
        flags=TRAIN + " --config.data.streams.source.dataset=nightstret/std",
    ),
    "unknown split": Case(["'trian'", "'train'"], flags=TRAIN + " --config.data.streams.source.split=trian"),
    "unknown split to evaluate": Case(["'trian'"], flags=TRAIN + " --config.eval.sets.val.split=trian"),
    "unknown field": Case(["'lable'"], change="config.data.streams.source.fields = ('image', 'lable')"),
    "unknown stream setting": Case(
        ["data.streams.source.crp", "'crop'"], change=set_key("data.streams.source.crp", (8, 8))
    ),
    "crop of nothing": Case(
        ["'source'", "crop=(0, 0)", "(height, width)"], change="config.data.streams.source.crop = (0, 0)"
    ),
    "negative crop": Case(["crop=(32, -48)"], change="config.data.streams.source.crop = (32, -48)"),
    "crop of one number": Case(["crop=(32,)", "2"], change="config.data.streams.source.crop = (32,)"),
    "size of nothing to train at": Case(["resize=(0, 48)"], change=set_key("data.streams.source.resize", (0, 48))),
    "crop resized to nothing": Case(
        ["crop_resize=(-1, 8)"], change=set_key("data.streams.source.crop_resize", (-1, 8))
    ),
    "scales in the wrong order": Case(
        ["scale_range=(2.0, 0.5)", "(smallest, largest)"],
        change=set_key("data.streams.source.scale_range", (2.0, 0.5)),
    ),
    "scale of nothing": Case(["scale_range=(0.0, 1.0)"], change=set_key("data.streams.source.scale_range", (0, 1))),
    "share in percent": Case(["max_class_share=75.0"], change=set_key("data.streams.source.max_class_share", 75)),
    "two images of one name": Case(
        ["frame_00.jpg", "frame_00.png"], prepare=write("data/images/train/frame_00.jpg", "")
    ),
    "labels.json of something else": Case(["{data}/labels.json", "an object"], prepare=write("data/labels.json", "[]")),
    "fewer pixels than none for rare-class sampling": Case(
        ["min_pixels", "-1"], change=set_key("data.streams.source.rare_class", {"min_pixels": -1})
    ),
    "too few labels for rare-class sampling": Case(
        ["min_pixels=3000"], change=set_key("data.streams.source.rare_class", {})
    ),
}


def refuse(owner, name, code):
    """Makes a function fail as the system does; the test undoes it."""

    def fail(*_args, **_kwargs):
        raise OSError(code, os.strerror(code), "state")

    patch = pytest.MonkeyPatch()
    patch.setattr(owner, name, fail)
    return patch


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A data set and a run of two steps on it, to be copied for every case."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    root = tmp_path_factory.mktemp("template")
    toy.write_folder(root / "data", references=True)
    train(toy.config(root / "data", steps=2), root / "run")
    return root


@pytest.fixture
def world(template, tmp_path):
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_line_and_exit_code_2(case, world, monkeypatch, capsys):
    code = CONFIG.format(data=str(world / "data"), method=case.method, change=case.change)
    (world / "cfg.py").write_text(code)
    undo = case.prepare(world) if case.prepare else None
    places = {"world": world, "run": world / "run", "data": world / "data"}
    argv = ["nightjax", *(case.flags or TRAIN).format(**places).split()]
    monkeypatch.setattr(sys, "argv", argv)
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as exit_:
            cli.run(VERBS[case.verb])
    finally:
        if isinstance(undo, pytest.MonkeyPatch):
            undo.undo()
    assert_one_line(capsys.readouterr().err, exit_.value.code, [word.format(**places) for word in case.words])


def assert_one_line(stderr, code, words):
    assert code == 2
    assert stderr.startswith("nightjax: error: ") and stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    assert len(stderr) < 600, stderr
    for word in words:
        assert word in stderr, stderr


def test_a_refused_config_leaves_the_workdir_free(world, monkeypatch):
    """Correcting a mistake is not another run."""
    config = toy.config(world / "data", steps=2)
    with pytest.raises(UserError, match="no split"):
        train(toy.config(world / "data", steps=2, data__streams__source__split="trian"), world / "new")
    train(config, world / "new")


@pytest.mark.parametrize(
    ("command", "environment", "words"),
    [
        (["-m", "nightjax.main", "--config=nowhere.py"], {}, ["nowhere.py", "exist"]),
        (
            ["-m", "nightjax.predict", "--workdir={run}", "--input={data}", "--output={world}/out"],
            {"JAX_PLATFORMS": "tpu"},
            ["'tpu'", "JAX_PLATFORMS"],
        ),
    ],
)
def test_one_line_from_a_real_process(command, environment, words, world):
    command = [word.format(world=world, run=world / "run", data=world / "data") for word in command]
    done = subprocess.run(
        [sys.executable, *command], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert_one_line(done.stderr, done.returncode, words)


def test_a_defect_of_ours_keeps_its_traceback():
    assert cli.explain(ZeroDivisionError("division by zero")) is None
    assert cli.explain(OSError("no number")) is None


def test_an_unknown_store_and_a_dead_reader_are_one_line():
    assert "begin with ftp:// are not known" in (cli.explain(KeyError("ftp://")) or "")
    died = RuntimeError("Worker process was terminated unexpectedly with exit code -9. Search the logs above.")
    assert "ended with code -9" in (cli.explain(died) or "") and "data.workers" in (cli.explain(died) or "")


def test_memory_that_ran_out_is_one_line():
    line = cli.explain(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12000000000 bytes."))
    assert "12 GB" in line and "train.batch" in line and "--size" in line
    assert "memory ran out" in cli.explain(MemoryError())


def test_a_mistake_wrapped_by_a_reader_is_found():
    wrapped = RuntimeError("worker 3 failed")
    wrapped.__cause__ = UserError("frame_01 is damaged")
    assert cli.explain(wrapped) == "frame_01 is damaged"
