"""How right pseudo-labels are when the day view beside the night is moved."""

import pathlib
import runpy

import pytest

from nightjax.core.errors import UserError
from nightjax.run import settings
from tests.helpers import toy

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "labels_by_shift.py"


def call(*words):
    runpy.run_path(str(SCRIPT))["main"](["labels_by_shift", *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = settings.load("supervised:data=nightstreet_tiny")
    return toy.untrained_run(tmp_path_factory.mktemp("run"), config)


@pytest.mark.slow
def test_a_row_for_each_shift_and_one_for_the_night_alone(run, capsys):
    call(f"--workdir={run},{run}", "--preset=tiny", "--pairs=1", "--shifts=0,0.25")
    head, _, *rows = capsys.readouterr().out.splitlines()[-7:]
    assert head == "| pseudo-labels | accuracy | mIoU | static | small | dynamic |"
    cells = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[1:] for row in rows}
    names = ["moved by 0 %", "moved by 0 %, true flow", "moved by 25 %", "moved by 25 %, true flow"]
    assert list(cells) == ["night alone", *names]
    assert all(row[0].endswith("± 0.0") for row in cells.values()), "the same run twice has no spread"
    assert len({tuple(row) for row in cells.values()}) > 2, "the day view changes labels, wherever it is moved"


def test_wrong_shares(run):
    for share in ("1", "-0.1", "nan", "far"):
        with pytest.raises(UserError, match="shares of the width from 0 to below 1"):
            call(f"--workdir={run}", f"--shifts={share}")
