"""The commands that a reader is shown run, on drawn streets and small folders; what is left out says why.

They run in the order in which they are read, in one folder, with two steps of NightStreet's tiny preset in place of
what they ask for.
"""

import contextlib
import importlib.util
import io
import pathlib
import re
import shutil
import time

import cv2
import jax
import numpy as np
import pytest

from nightjax.cli import find
from tests.helpers import miniature, pages, toy

LEFT_OUT = {
    r"\.pth|\.ckpt|\.npz|segformer-b0|styleaug|pretrained/": "needs published weights",
    r"^demo": "serves until Ctrl-C; tests/inference/test_demo_server.py opens its page",
    r"--coordinator|--distributed": "needs several processes; tests/run/test_processes.py starts them",
    r"^study (?!.*--dry_run)": "trains for hours; tests/verbs/test_study.py runs a small one",
    r"^plan .*(--all|v5e|data=)": "compiles published networks for minutes; tests/verbs/test_plan.py has a small one",
    r"^(train|evaluate|submit|convert|bench|calibrate|pairs|enhance) .*(_to_|dark_zurich|acdc|cityscapes|nightcity"
    r"|nexet|bdd100k|camvid|synthia|gta5|RUN\b|DATA\b)": "needs licensed images",
    r"^plan ": "compiles for a GPU, which needs its plugin; tests/verbs/test_plan.py plans for the CPU",
    r"^check --data=camvid": "needs CamVid; tests/builders/test_camvid.py reads a small one",
    r"^select --rule=fid_point (?!.*--features=)": "needs published weights",
    r"--set=data.manual_dir|my_question": "needs a study of the reader's own",
    r"^evaluate .*--data=": "needs licensed images",
}
"""Pattern of a command to the reason why it cannot run in this test."""

MINIATURES = {
    "cityscapes_seg": miniature.make_cityscapes,
    "dark_zurich": miniature.make_dark_zurich,
    "acdc": miniature.make_acdc,
    "nighttime_driving": miniature.make_nighttime_driving,
    "bdd100k_seg": miniature.make_bdd100k,
    "bdd100k_night": miniature.make_bdd100k,
    "nightcity": miniature.make_nightcity,
    "nexet": miniature.make_nexet,
    "gta5": miniature.make_gta5,
    "synthia": miniature.make_synthia,
}
MAKERS = {
    "runs/uawarpc": "uawarpc",
    "runs/unit": "unit",
    "runs/cyclegan": "cyclegan",
    "runs/label2day": "pix2pixhd",
}
"""Runs of another kind than segmentation, and their configs."""

SMALLER = (
    (r"nightstreet/(std|large)(_hard|_easy)?\b", "nightstreet/tiny"),
    (r"nightstreet/(std|large)_", "nightstreet/tiny_"),
    (r"--preset=std", "--preset=tiny"),
    (r"--pairs=\d+", "--pairs=2"),
    (r"--count=\d+", "--count=2"),
    (r"--step=\d+", "--step=2"),
    (r"--size=512,1024", "--size=64,128"),
    (r"--size=540,960", "--size=64,128"),
    (r"night=NIGHT\b", "night=nightstreet/tiny"),
    (r"--prepared=DIR", "--prepared=PREPARED"),
)


EXTRAS = {r"onnx|web": ("onnx", "jax2onnx"), r"tflite|saved_model": ("tensorflow",)}
"""Pattern of a command that writes or reads other formats to the packages that it needs."""


def reason(verb, words):
    missing = [
        name
        for pattern, names in EXTRAS.items()
        if verb in ("export", "bench") and re.search(pattern, " ".join(words))
        for name in names
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        return f"needs {missing[0]}, which is not installed"
    line = " ".join([verb, *words])
    return next((why for pattern, why in LEFT_OUT.items() if re.search(pattern, line)), None)


def smaller(verb, words):
    """The same command with two steps, on NightStreet's tiny preset."""
    found = []
    for word in words:
        for pattern, text in SMALLER:
            word = re.sub(pattern, text, word)
        if word.startswith("--config=") and verb in ("train", "plan"):
            name, _, arguments = word.partition(":")
            given = [a for a in arguments.split(",") if a and not re.match(r"data=nightstreet|steps=", a)]
            if not any(a.startswith("data=") for a in given):
                given.append("data=nightstreet_tiny")
            if verb == "train":
                given.append("steps=2")
            word = f"{name}:{','.join(given)}"
        found.append(word)
    if verb == "train" and "--print_config" not in words:
        found = [word for word in found if not re.match(r"--config\.(train\.(steps|batch)|eval\.every)=", word)]
        found += ["--config.train.batch=2", "--config.train.devices=1", "--config.eval.every=0"]
        found += ["--config.train.steps=4"] if "--extend" in words else []
    return found


def furnish(folder):
    """What the commands take for granted: photos, a drive, folders of one's own."""
    for name in ("my_day", "my_night", "my_night_labeled", "my_labeled", "my_data", "DAYS", "NIGHTS", "NIGHT"):
        toy.write_folder(folder / name, size=(96, 160), references=True)
    for name in ("my_photos", "my_nights", "my_other_nights", "POOL", "REFERENCE", "drive_frames", "translated/images"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            frame = miniature.scene(number, size=(96, 160), night=True)
            cv2.imwrite(str(folder / name / f"{number:03d}.png"), frame)
    (folder / "selected").mkdir()
    (folder / "selected" / "selected.csv").write_text("name,score\n000,1\n001,2\n")
    (folder / "runs").mkdir()
    (folder / "runs" / "published.json").write_text('{"paper": {"run": 1.0}}')
    for name in ("night.jpg", "a.jpg", "b.png"):
        cv2.imwrite(str(folder / name), miniature.scene(0, size=(96, 160), night=True))
    video = cv2.VideoWriter(str(folder / "drive.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 96))
    for number in range(4):
        video.write(np.ascontiguousarray(miniature.scene(number, size=(96, 160), night=True)))
    video.release()
    for name, make in MINIATURES.items():
        make(folder / "DATA" / name)
    shutil.copytree(folder / "DATA", folder / "DIR")
    shutil.copytree(folder / "my_day", folder / "DIR", dirs_exist_ok=True)


def call(verb, words):
    """Runs a command in this process; what it prints is kept back."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            find(verb).main([f"nightjax {verb}", *words])
    finally:
        jax.clear_caches()


def stand_in(words):
    """Makes the runs and the selection that a command reads and that no earlier one has made."""
    if "--list=selected/fid/selected.csv" in words:
        pool = ["--pool=nightstreet/tiny_pairs@target_pairs", "--reference=my_nights"]
        call("select", ["--rule=fid_point", "--features=random", "--count=2", "--output=selected/fid", *pool])
    for name in re.findall(r"runs/[\w-]+", " ".join(words)):
        folder = pathlib.Path(name)
        if folder.exists():
            continue
        if name in MAKERS:
            call("train", smaller("train", [f"--config={MAKERS[name]}", f"--workdir={name}"]))
        else:
            shutil.copytree("runs/dsr_fpa", folder)


def run(verb, words):
    if verb == "train":
        kept = [word for word in words if word.startswith("--workdir=")]
        stand_in([word for word in words if word not in kept])
        if kept and "--extend" not in words:
            shutil.rmtree(kept[0].partition("=")[2], ignore_errors=True)
    else:
        stand_in(words)
    try:
        call(verb, smaller(verb, words))
    except SystemExit as end:  # The check of a small copy says that most of a published set is not there.
        if (verb, end.code) != ("check", 2) or "DIR" not in words[-1] and "DATA" not in words[-1]:
            raise


@pytest.mark.slow
def test_every_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    furnish(tmp_path)
    call("train", smaller("train", ["--config=dsr_fpa", "--workdir=runs/dsr_fpa"]))
    (prepared,) = (tmp_path / "tfds").glob("nightstreet/tiny/*")
    (tmp_path / "PREPARED").symlink_to(prepared)
    done, left, failed = set(), 0, []
    for place, verb, words in pages.commands():
        line = " ".join([verb, *words])
        if line in done:
            continue
        done.add(line)
        if why := reason(verb, words):
            left += 1
            with capsys.disabled():
                print(f"left out, {why}: {line}", flush=True)
            continue
        began, end = time.monotonic(), "ran"
        try:
            run(verb, words)
        except (Exception, SystemExit) as error:
            end = f"FAILED {type(error).__name__}: {error}"[:500]
            failed.append(f"{place}: {line}: {end}")
        with capsys.disabled():
            print(f"{end} in {time.monotonic() - began:.0f} s: {line}", flush=True)
    assert not failed, "\n".join(failed)
    assert left < len(done) / 2
