"""Feature networks by name, and the verb that compares two sets."""

import os
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest

from nightjax import fid
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.nightstreet.examples import example
from nightjax.selection import image_features
from nightjax.selection.distances import best_of


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Folders of rendered streets by day, other streets by day, and by night."""
    root = tmp_path_factory.mktemp("sets")
    for name, split, first in (("day", "source_day", 0), ("day2", "source_day", 6), ("night", "val_night", 0)):
        (root / name / "part").mkdir(parents=True)
        for i in range(first, first + 6):
            image = example(split, i, size=(64, 128))["image"]
            cv2.imwrite(str(root / name / "part" / f"{i}.png"), image[..., ::-1])
    return root


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["fid", *map(str, words)])
    cli.run(fid.main)


def test_batches_do_not_change_features():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (20 + i, 30, 3)).astype(np.uint8) for i in range(5)]
    by_two = np.concatenate(list(image_features.describe_with("random", batch=2)(images)))
    at_once = np.concatenate(list(image_features.describe_with("random", batch=8)(images)))
    assert by_two.shape == (5, sum(image_features.RANDOM_WIDTHS))
    np.testing.assert_allclose(by_two, at_once, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*singular")
def test_night_is_farther_from_day_than_another_day(sets, monkeypatch, capsys):
    values = []
    for other in ("day2", "night"):
        call(monkeypatch, sets / "day", sets / other, "--features=random")
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "6 and 6 images, random features, resize pytorch_fid"
        assert lines[1].startswith("random-feature Fréchet distance: ") and lines[2].startswith(
            "random-feature kernel distance: "
        )
        values.append(float(lines[1].split()[-1]))
    assert values[1] > 3 * values[0]


@pytest.mark.filterwarnings("ignore:.*singular")
def test_processes_share_the_pictures(sets, monkeypatch, capsys):
    call(monkeypatch, sets / "day", sets / "night", "--features=random")
    alone = capsys.readouterr().out.splitlines()
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port = sock.getsockname()[1]
    words = [sys.executable, "-m", "nightjax.fid", sets / "day", sets / "night", "--features=random", "--processes=2"]
    env = os.environ | {
        "PYTHONPATH": os.getcwd(),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    processes = [
        subprocess.Popen(
            [*words, f"--coordinator=localhost:{port}", f"--process_id={i}"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs, errors = zip(*(process.communicate(timeout=300) for process in processes), strict=True)
    assert [process.returncode for process in processes] == [0, 0], errors
    first, second = ([line for line in output.splitlines() if not line.startswith("[Gloo]")] for output in outputs)
    assert len(first) == 2 and first[0] == alone[0] and not second  # The kernel distance is left out.
    assert float(first[1].split()[-1]) == pytest.approx(float(alone[1].split()[-1]), rel=1e-3)


@pytest.mark.parametrize(
    "flags,words",
    [
        ((), "pt_inception-2015-12-05-6726825d.pth"),
        (("--features=randon",), "did you mean 'random'"),
        (("--features=random", "--resize=clear"), "did you mean 'clean'"),
        (("--features=random", "--weights=x.pth"), "leave it out"),
        (("--weights=none.pth",), "no weights file"),
        (("--features=random", "--distributed"), "cannot join the other processes"),
    ],
)
def test_wrong_flags_end_in_one_line(sets, flags, words, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_:
        call(monkeypatch, sets / "day", sets / "night", *flags)
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.count("\n") == 1 and words in stderr


@pytest.mark.filterwarnings("ignore:.*singular")
def test_the_best_of_several(sets, tmp_path, monkeypatch, capsys):
    """Each against the last one; equal sets are a tie, and the later is taken."""
    words = [sets / "night", sets / "day2", sets / "day2" / "part"]
    call(monkeypatch, *words, sets / "day", "--features=random")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines[::3]] == [*map(str, words), "best"]
    assert lines[4] == lines[7] and lines[-1] == f"best: {sets / 'day2' / 'part'}"
    cv2.imwrite(str(tmp_path / "alone.png"), np.zeros((64, 128, 3), np.uint8))
    for words, message in (
        ((sets / "day2", tmp_path, sets / "day"), "hold [1, 6] images"),
        ((sets / "day",), "give two sets"),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, *words, "--features=random")
        assert message in capsys.readouterr().err


def test_of_near_distances_the_later_is_taken():
    assert best_of([5.0, 3.05, 3.0, 3.09, 3.1, 9.0], 0.1) == 3
    assert best_of([3.0, 3.09], 0.0) == 0 and best_of([3.0, 3.0], 0.0) == 1


def test_wrong_sets(sets, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, sets / "day", sets / "dusk", "--features=random")
    assert "is no folder" in capsys.readouterr().err


def test_weights_of_another_network(tmp_path):
    np.savez(tmp_path / "w.npz", **{"fc.weight": np.zeros((2, 2))})
    with pytest.raises(UserError, match="missing in the checkpoint"):
        image_features.describe_with("inception", weights=str(tmp_path / "w.npz"))
