"""Feature networks by name, and the script that compares two sets."""

import sys

import cv2
import numpy as np
import pytest

from nightjax import image_features
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.data.synthetic.examples import example
from scripts import fid as script


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
    cli.run(script.main)


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
        assert lines[0] == "6 and 6 pictures, random features, resize pytorch_fid"
        assert lines[1].startswith("random-feature Fréchet distance: ") and lines[2].startswith("random-feature kernel distance: ")
        values.append(float(lines[1].split()[-1]))
    assert values[1] > 3 * values[0]


@pytest.mark.parametrize(
    "flags,words",
    [
        ((), "pt_inception-2015-12-05-6726825d.pth"),
        (("--features=randon",), "did you mean 'random'"),
        (("--features=random", "--resize=clear"), "did you mean 'clean'"),
        (("--features=random", "--weights=x.pth"), "leave it out"),
        (("--weights=none.pth",), "no weights file"),
    ],
)
def test_wrong_flags_end_in_one_line(sets, flags, words, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_:
        call(monkeypatch, sets / "day", sets / "night", *flags)
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.count("\n") == 1 and words in stderr


def test_wrong_sets(sets, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, sets / "day", sets / "dusk", "--features=random")
    assert "is no folder" in capsys.readouterr().err


def test_weights_of_another_network(tmp_path):
    np.savez(tmp_path / "w.npz", **{"fc.weight": np.zeros((2, 2))})
    with pytest.raises(UserError, match="missing in the checkpoint"):
        image_features.describe_with("inception", weights=str(tmp_path / "w.npz"))
