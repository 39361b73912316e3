"""An interrupted run ends with the same bits as an uninterrupted one."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.train import train
from tests.helpers import toy
from tests.helpers.places import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


def assert_equal_states(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory):
    """Eight steps in one go, scored by the last two of four evaluations."""
    workdir = tmp_path_factory.mktemp("straight")
    train(toy.config(folder, "dsr_fpa", steps=8, checkpoint__every=4, eval__every=2, eval__last=2), workdir)
    return workdir


def test_the_asked_evaluations_are_made_and_no_earlier_ones(straight):
    assert sorted(path.stem for path in (straight / "eval" / "val").iterdir()) == ["0000006", "0000008"]


def test_eight_steps_equal_four_save_load_four(folder, straight, tmp_path):
    # The first half is the same run stopped by a signal, so that schedules see the same length.
    toy.train_until(toy.config(folder, "dsr_fpa", steps=8, checkpoint__every=4), tmp_path, 4)
    assert not (tmp_path / "checkpoints" / "0000008").exists()
    train(toy.config(folder, "dsr_fpa", steps=8, checkpoint__every=4), tmp_path)
    state = toy.saved_state(straight, 8)
    assert any("teacher" in name for name in state) and any("bank" in name for name in state)
    assert_equal_states(state, toy.saved_state(tmp_path, 8))
    losses = {line["step"]: line["loss"] for line in lines(straight) if "loss" in line}
    assert losses == {line["step"]: line["loss"] for line in lines(tmp_path) if "loss" in line}
    assert list(losses) == list(range(1, 9))


@pytest.mark.slow
def test_a_run_that_is_extended_equals_one_of_that_length(folder, tmp_path):
    settings = {"optim__schedule": "constant", "optim__warmup": 0}
    train(toy.config(folder, steps=4, **settings), tmp_path / "straight")
    train(toy.config(folder, steps=2, **settings), tmp_path / "extended")
    with pytest.raises(UserError, match="train.steps=2.*--extend.*--config.train.init="):
        train(toy.config(folder, steps=4, **settings), tmp_path / "extended")
    train(toy.config(folder, steps=4, **settings), tmp_path / "extended", extend=True)
    assert_equal_states(toy.saved_state(tmp_path / "straight", 4), toy.saved_state(tmp_path / "extended", 4))
    assert json.loads((tmp_path / "extended" / "config.json").read_text())["train"]["steps"] == 4
    train(toy.config(folder, steps=4, **settings), tmp_path / "extended")  # From now on it is a run of four steps.


def test_a_finished_run_only_evaluates_again(folder, straight):
    before = toy.saved_state(straight, 8)
    results = train(toy.config(folder, "dsr_fpa", steps=8, checkpoint__every=4), straight)
    assert set(results) == {"val"}
    assert_equal_states(before, toy.saved_state(straight, 8))


def test_another_config_is_refused(folder, straight):
    with pytest.raises(UserError, match="optim.lr=0.001, not 0.5"):
        train(toy.config(folder, "dsr_fpa", steps=8, optim__lr=0.5), straight)


@pytest.mark.slow
def test_killed_while_training(folder, straight, tmp_path):
    """SIGKILL twice, then to the end, in processes of their own."""
    code = (
        "import sys; from tests.helpers import toy; from nightjax.train import train; "
        "train(toy.config(sys.argv[1], 'dsr_fpa', steps=8, checkpoint__every=2), sys.argv[2])"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(folder), str(tmp_path)]
    for step in (2, 4):
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        while not list((tmp_path / "checkpoints").glob(f"*{step:07d}*")):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        process.kill()
        process.wait()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    assert_equal_states(toy.saved_state(straight, 8), toy.saved_state(tmp_path, 8))
