"""Recall by the size of objects, against counts by hand."""

import math
import pathlib
import runpy

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.metrics.components import recall, recall_counts
from tests.helpers import toy

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "recall_by_size.py"


def measure(*words):
    runpy.run_path(str(SCRIPT))["main"](["recall_by_size", *words])


def test_counts_by_hand():
    """Class 1: objects of 1, 2 (touching at a corner) and 6 pixels; class 2: one of 4; 255 is no object."""
    label = np.zeros((6, 8), np.uint8)
    label[0, 0] = 1
    label[0, 3] = label[1, 4] = 1
    label[3:5, 0:3] = 1
    label[3:5, 5:7] = 2
    label[5] = IGNORE
    prediction = np.zeros_like(label)
    prediction[0, 3] = 1
    prediction[3, 0:3] = prediction[4, 0] = 1
    prediction[3:5, 5:7] = 2
    prediction[5] = 1
    counts = recall_counts(label, prediction, classes=(1, 2, 7), edges=(2, 5))
    np.testing.assert_array_equal(counts[0], [[1, 1, 0], [1, 2, 1], [1, 6, 4]])
    np.testing.assert_array_equal(counts[1], [[0, 0, 0], [1, 4, 4], [0, 0, 0]])
    assert not counts[2].any() and counts.dtype == np.int64
    found = recall(counts)
    np.testing.assert_allclose(found[0], [0, 50, 100 * 4 / 6])
    assert math.isnan(found[1, 0]) and found[1, 1] == 100
    np.testing.assert_allclose(recall((counts + counts)[0].sum(0)), 100 * 5 / 9)


def test_edges_belong_to_the_larger_bin():
    label = np.zeros((1, 6), np.uint8)
    label[0, :3] = 1
    for edges, column in (((3,), 1), ((4,), 0), ((1, 3), 2)):
        counts = recall_counts(label, label, (1,), edges)
        assert counts[0, column].tolist() == [1, 3, 3] and counts.sum() == 7


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = toy.write_folder(folder / "data", count=2)
    return toy.untrained_run(folder / "run", toy.config(data)), data


def test_the_script(run, capsys):
    workdir, data = run
    measure(f"--workdir={workdir}", f"--data=folder:{data}", "--split=train", "--edges=8,64")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| class | run | below 8 | 8 to 63 | from 64 | all |"
    assert any(line.startswith(f"| pole | {workdir} | ") for line in lines)
    objects = [line for line in lines if "| objects |" in line]
    assert len(objects) == (len(lines) - 2) / 2 and any(not line.endswith("| 0 |") for line in objects)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--edges=a,b"], "--edges=a,b must be sizes"),
        (["--classes=deer"], "no class 'deer'"),
        (["--split=nowhere"], "nowhere"),
    ],
)
def test_mistakes(run, words, message):
    workdir, data = run
    with pytest.raises(UserError, match=message):
        measure(f"--workdir={workdir}", f"--data=folder:{data}", "--split=train", *words)
