"""Every verb that writes, on a disk that is really full: one line, what was there stays, and then it works."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from nightjax.core import checkpoint
from tests.helpers import small_disk

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = "train --config=supervised:data=nightstreet_tiny,steps={steps} --config.eval.every=0"


class Place(NamedTuple):
    """Something that writes to the disk.

    Attributes:
        command: `nightjax` and its flags. ``{disk}`` is the full disk, ``{photos}`` a folder of images, ``{run}`` a run
            on another disk, ``{own}`` a copy of it on the full one.
        rooms: share of what the command writes for which there is room.
    """

    command: str
    rooms: tuple[float, ...] = (0, 0.5)


PLACES = {
    "train, from its start": Place(f"{TRAIN.format(steps=2)} --workdir={{disk}}/new"),
    "train, continued": Place(f"{TRAIN.format(steps=4)} --workdir={{own}} --extend"),
    "preparation": Place(f"{TRAIN.format(steps=2)} --workdir={{disk}}/new --config.data.dir={{disk}}/data"),
    "report of a finished run": Place(f"{TRAIN.format(steps=2)} --workdir={{own}}"),
    "evaluate": Place("evaluate --workdir={own}"),
    "calibrate": Place("calibrate --workdir={own} --images=4"),
    "predict": Place("predict --workdir={run} --input={photos} --output={disk}/masks"),
    "export": Place("export --workdir={run} --output={disk}/shipped --size=64,128"),
    "pseudo-label": Place("pseudo-label --workdir={run} --images={photos} --output={disk}/pseudo"),
    "select": Place("select --rule=his_dark --pool={photos} --count=3 --output={disk}/dark"),
    "convert": Place("convert --input={weights} --config=supervised:data=nightstreet_tiny --output={disk}/imported"),
    "translate": Place(
        "translate --fda=nightstreet/tiny_pairs --fda_split=target_pairs --data=nightstreet/tiny --split=source_day"
        " --name=dark --data_dir={disk}/data"
    ),
}
"""What writes, as a user meets it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, pathlib.Path]:
    """A trained run, its weights, prepared data and photos, on a disk with room."""
    folder = tmp_path_factory.mktemp("world")
    places = {"folder": folder, "run": folder / "run", "photos": folder / "photos", "data": folder / "data"}
    places["photos"].mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        cv2.imwrite(str(places["photos"] / f"{i}.png"), rng.integers(0, 200, (64, 128, 3), np.uint8))
    done = run(f"{TRAIN.format(steps=2)} --workdir={places['run']}", places["data"])
    assert done.returncode == 0, done.stderr
    places["weights"] = folder / "weights.npz"
    done = run(f"convert --export={places['run']} --naming=mmseg --output={places['weights']}", places["data"])
    assert done.returncode == 0, done.stderr
    return places


def run(command: str, data: pathlib.Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"TFDS_DATA_DIR": str(data), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", "nightjax", *command.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def listing(folder: pathlib.Path) -> set[str]:
    """Every file below a folder, with one name for those whose names are drawn or hold the time."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {re.sub(r"[0-9a-f]{32}|events\.out\..*", "*", name) for name in names}


@contextlib.contextmanager
def disk(place: Place, world: dict, folder: pathlib.Path):
    """A small disk on which a place can begin; gives its command."""
    with small_disk.mounted(folder, 200_000) as allowed:
        if not allowed:
            pytest.skip("no file system may be mounted here")
        if "{own}" in place.command:
            shutil.copytree(world["run"], folder / "own", ignore=shutil.ignore_patterns("eval", "report.html"))
        names = world | {"disk": folder, "own": folder / "own"}
        yield place.command.format(**names)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_a_full_disk(name, world, tmp_path):
    place = PLACES[name]
    with disk(place, world, tmp_path / "ample") as command:
        before = shutil.disk_usage(tmp_path / "ample").used
        done = run(command, world["data"])
        assert done.returncode == 0, done.stderr
        written = shutil.disk_usage(tmp_path / "ample").used - before
        assert written > 0
        whole = listing(tmp_path / "ample")
    for share in place.rooms:
        folder = tmp_path / f"room_{share}"
        with disk(place, world, folder) as command:
            before = listing(folder)
            small_disk.leave(folder, int(share * written / 1024))
            done = run(command, world["data"])
            assert done.returncode == 2, (share, done.stdout, done.stderr)
            lines = done.stderr.strip().splitlines()
            assert len(lines) == 1 and lines[0].startswith("nightjax: error: "), done.stderr
            assert re.search("No space left|no room", lines[0]) and str(folder) in lines[0], lines[0]
            after = listing(folder)
            assert before <= after, "what was there is gone"
            assert after <= whole | before, "something unfinished is left"
            if (folder / "own").exists():
                assert not any(checkpoint.faults(folder / "own").values())
            small_disk.resize(folder, 200_000)
            done = run(command, world["data"])
            assert done.returncode == 0, done.stderr
            assert listing(folder) == whole
