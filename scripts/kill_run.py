# SPDX-License-Identifier: Apache-2.0
"""Kills a run at random moments and checks that it still ends with the same bits.

    python scripts/kill_run.py --kills=10
    python scripts/kill_run.py --config=configs/dsr_fpa.py:data=nightstreet_tiny --config.train.steps=40
    python scripts/kill_run.py --config.data.workers=2 --kills=20
    python scripts/kill_run.py --stage=prepare --kills=10

The run is started again after every SIGKILL, as a user would, until it ends by itself; then every array of its last
checkpoint is compared with that of a run that nobody interrupted. Every second kill is aimed at a save in progress.

Ten seconds after a kill none of the run's worker processes and none of its shared memory may be left.

--stage kills something else instead: the preparation of NightStreet's tiny set, the evaluation of a finished run, or
the report of one. Then what they wrote is compared, byte by byte, and the run's checkpoints must not have changed.

One line a kill. Without --config a network of a few thousand parameters trains on made-up images.
"""

import dataclasses
import hashlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence

import cv2
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import flags
from attacks import leftovers

from nightjax.core import cli
from nightjax.core.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]

TOY = (
    "data.streams.source.crop=32,48",
    "data.streams.target.crop=32,48",
    "data.streams.target.fields='image','reference'",
    "method.refinement={}",
    "method.feature_distance={}",
    "method.alignment.start_step=10",
    "model.head_channels=8",
    "model.backbone_widths=4,4,8,8",
    "model.backbone_depths=1,1,1,1",
    "model.backbone_dilations=1,1,1,2",
    "model.backbone_stem_features=4",
    "optim.warmup=0",
    "train.steps=300",
    "train.batch=2",
    "train.devices=1",
    "eval.every=0",
    "checkpoint.every=5",
    "log.every=10",
)
"""What makes configs/dsr_fpa.py a run of a few thousand parameters."""


def write_toy(folder: pathlib.Path) -> list[str]:
    """Writes made-up images, and returns the flags of a run that trains on them."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels", "references"):
        (folder / part).mkdir(parents=True)
    for i in range(8):
        label = cv2.resize(rng.integers(0, 19, (4, 6), np.uint8), (48, 32), interpolation=cv2.INTER_NEAREST)
        image = rng.integers(0, 100, (32, 48, 3), np.uint8) + 8 * label[..., None]
        for part, pixels in (("images", image), ("labels", label), ("references", 255 - image)):
            cv2.imwrite(str(folder / part / f"{i}.png"), pixels)
    settings = [f"--config.{item}" for item in (f"data.manual_dir={folder}", *TOY)]
    return [f"--config={ROOT}/configs/dsr_fpa.py:data=folder", *settings]


def arrays(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint, and its step."""
    step = max(path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Orbax would rather be told the sharding; there is one device.
        leaves = jax.tree_util.tree_leaves_with_path(checkpointer.restore((step / "state").resolve()))
    return {"step": np.asarray(int(step.name))} | {jax.tree_util.keystr(p): np.asarray(x) for p, x in leaves}


def environment(scratch: pathlib.Path) -> dict[str, str]:
    """Of a process whose traces can be told from those of others."""
    return os.environ | {"TMPDIR": str(scratch)}


def being_saved(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any("tmp" in path.name for path in folder.iterdir())


def kill(process: subprocess.Popen, scratch: pathlib.Path) -> None:
    """Kills a process, whose TMPDIR is ``scratch``.

    Raises:
        SystemExit: something of it is left.
    """
    workers = leftovers.descendants(process.pid)
    process.kill()
    process.wait()
    if left := leftovers.after(workers, scratch):
        raise SystemExit(f"NOT gone {leftovers.SECONDS:.0f} s after the kill: {left}")


def kill_once(command: list[str], workdir: pathlib.Path, log, wait: float, in_save: bool) -> str | None:
    """Starts the run, kills it after its first step plus ``wait`` seconds (in the save after that, if asked).

    Returns:
        What was hit, or None if the run ended before.

    Raises:
        UserError: the run failed by itself.
        SystemExit: something of it is left after the kill.
    """
    log.seek(0)
    log.truncate()
    scratch = workdir.parent
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(scratch))
    due = None
    while process.poll() is None:
        now = time.perf_counter()
        if due is None and b"first step" in pathlib.Path(log.name).read_bytes():
            due = now + wait
        saving = being_saved(workdir)
        if due is not None and now >= due and (saving or not in_save):
            kill(process, scratch)
            return "during a save" if saving else "between saves"
        time.sleep(0.0005)
    if process.returncode:
        raise UserError(f"the run failed: {pathlib.Path(log.name).read_text().strip()[-300:]}")
    return None


@dataclasses.dataclass(frozen=True)
class Stage:
    """Something that is killed and started again, besides training.

    Attributes:
        words: of its command; ``{folder}`` is where it writes.
        results: patterns of the files that must be the same after it, below the folder.
        run: whether the folder is a finished run when it begins.
    """

    words: Sequence[str]
    results: Sequence[str]
    run: bool


STAGES = {
    "prepare": Stage(
        (
            "nightjax.main",
            "--config=supervised:data=nightstreet_tiny,steps=2",
            "--config.data.dir={folder}",
            "--workdir={folder}/run",
        ),
        ("nightstreet/**/*.array_record*", "nightstreet/**/features.json"),
        run=False,
    ),
    "evaluate": Stage(
        ("nightjax.evaluate", "--workdir={folder}"), ("eval/**/*.json", "checkpoints/**/*", "config.json"), run=True
    ),
    "report": Stage(("nightjax.main", "--workdir={folder}"), ("eval/**/*.json", "checkpoints/**/*"), run=True),
}
"""Name to what is killed. A finished run that is started again evaluates and writes its report."""


def kill_stage(stage: Stage, config: list[str], root: pathlib.Path, kills: int, moments: random.Random) -> None:
    """Kills a stage so many times, lets it end, and compares what it wrote with that of one that nobody killed.

    Raises:
        UserError: it failed by itself.
        SystemExit: something differs or is damaged.
    """
    straight, killed = root / "straight", root / "killed"
    words = lambda folder: [word.replace("{folder}", str(folder)) for word in stage.words]
    flags_of_run = config if stage.words[0] == "nightjax.main" and stage.run else []
    command = lambda folder: [sys.executable, "-m", *words(folder), *flags_of_run]
    if stage.run:
        subprocess.run(
            [sys.executable, "-m", "nightjax.main", *config, f"--workdir={straight}"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        shutil.copytree(straight, killed)
    began = time.perf_counter()
    ended = subprocess.run(command(straight), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        raise UserError(f"it fails by itself: {ended.stderr.strip()[-300:]}")
    took = time.perf_counter() - began
    number = 0
    while number < kills:
        wait = moments.uniform(0.2, 1.0) * took
        began = time.perf_counter()
        process = subprocess.Popen(
            command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(root)
        )
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            kill(process, root)
            number += 1
            print(f"kill {number}: after {wait:.2f} of {took:.2f} s", flush=True)
        else:  # It was faster than before, and is killed earlier from now on.
            took = time.perf_counter() - began
    ended = subprocess.run(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        raise SystemExit(f"NOT whole after the kills: {ended.stderr.strip()[-300:]}")
    if drafts := [path for pattern in ("incomplete.*", "*.partial", ".lock") for path in killed.rglob(pattern)]:
        raise SystemExit(f"NOT tidied up: {[str(path.relative_to(killed)) for path in drafts[:3]]}")
    expected, found = (contents(folder, stage.results) for folder in (straight, killed))
    if expected != found:
        different = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        raise SystemExit(f"NOT equal: {len(different)} files differ, such as {different[:3]}")
    print(f"the same {len(expected)} files after {kills} kills")


def contents(folder: pathlib.Path, patterns: Sequence[str]) -> dict[str, str]:
    """Relative name to SHA-256 of the files that match."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main(argv: Sequence[str]) -> None:
    """Kills, restarts and compares."""
    values = flags.FlagValues()
    flags.DEFINE_integer("kills", 10, "How often to kill.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of the moments.", flag_values=values)
    flags.DEFINE_float("longest", 1.0, "Seconds from the first step within which to kill.", flag_values=values)
    flags.DEFINE_enum("stage", "train", ["train", *STAGES], "What to kill.", flag_values=values)
    own = flags.FlagValues()
    flags.DEFINE_string("config", None, "Config of the run; by default a toy.", flag_values=own)
    rest = own(argv, known_only=True)
    overrides = [word for word in rest if word.startswith("--config.")]
    flags.DEFINE_string("config", None, own["config"].help, flag_values=values)
    cli.parse(values, [word for word in rest if word not in overrides], __doc__)
    moments = random.Random(values.seed)
    with tempfile.TemporaryDirectory() as scratch, open(pathlib.Path(scratch) / "log.txt", "w+b") as log:
        root = pathlib.Path(scratch)
        config = [f"--config={own.config}"] if own.config else write_toy(root / "toy")
        if values.stage != "train":
            toy = () if own.config else ("--config.train.steps=4", "--config.method.alignment.start_step=1")
            kill_stage(STAGES[values.stage], [*config, *overrides, *toy], root, values.kills, moments)
            return
        command = [sys.executable, "-m", "nightjax.main", *config, *overrides]
        straight, killed = root / "straight", root / "killed"
        began = time.perf_counter()
        ended = subprocess.run(
            [*command, f"--workdir={straight}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if ended.returncode:
            raise UserError(f"the run ends by itself: {ended.stderr.strip()[-300:]}")
        print(f"uninterrupted run: {time.perf_counter() - began:.0f} s", flush=True)
        for number in range(1, values.kills + 1):
            wait = moments.uniform(0, values.longest)
            hit = kill_once([*command, f"--workdir={killed}"], killed, log, wait, in_save=number % 2 == 0)
            if hit is None:
                raise UserError(f"the run ended before kill {number}: more steps, fewer --kills or a smaller --longest")
            folder = killed / "checkpoints"
            left = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
            print(f"kill {number}: {wait:.2f} s after the first step, {hit}; checkpoints {left}", flush=True)
        subprocess.run([*command, f"--workdir={killed}"], stdout=subprocess.DEVNULL, check=True)
        expected, found = arrays(straight), arrays(killed)
    different = [name for name in expected if name not in found or not np.array_equal(expected[name], found[name])]
    if different or expected.keys() != found.keys():
        raise SystemExit(f"NOT equal: {len(different)} of {len(expected)} arrays differ, such as {different[:3]}")
    print(f"bit-equal after {values.kills} kills: {len(expected)} arrays at step {expected['step']}")


if __name__ == "__main__":
    cli.run(main)
