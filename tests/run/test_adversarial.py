"""DANNet and AdaptSegNet from the command line: from a source-only run, killed and continued, to a report."""

import json
import shutil

import jax
import numpy as np
import pytest

from nightjax import main
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.methods import build
from nightjax.run import start
from tests.helpers import toy

CONFIG = """from tests.helpers import toy
def get_config():
    return toy.config({data!r}, {method!r}, steps=2, checkpoint__every=1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


@pytest.fixture(scope="module")
def source(folder, tmp_path_factory):
    """A source-only run of the same network."""
    workdir = tmp_path_factory.mktemp("runs") / "source"
    return toy.untrained_run(workdir, toy.config(folder, "supervised", seed=7))


def train(folder, workdir, method, *flags):
    file = workdir.with_suffix(".py")
    file.write_text(CONFIG.format(data=str(folder), method=method))
    main.main(["main", f"--config={file}", f"--workdir={workdir}", *flags])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dannet", "adaptsegnet"])
def test_from_a_source_only_run_to_a_report(method, folder, source, tmp_path, capsys):
    workdir, again = tmp_path / method, tmp_path / f"{method}_again"
    init = f"--config.train.init={source}"
    train(folder, workdir, method, init)
    printed = capsys.readouterr().out
    assert ("relight not in it, from scratch" in printed) == (method == "dannet")
    assert (workdir / "report.html").stat().st_size > 0
    assert json.loads((workdir / "eval/val/0000002.json").read_text())["miou"]["skip"] is not None
    shown = {path.name for path in (workdir / "visualizations").iterdir()}
    assert shown == {"0000002_train.png", "0000002_eval_val.png"}

    shutil.copytree(workdir, again)
    shutil.rmtree(again / "checkpoints/0000002")
    train(folder, again, method, init)
    assert "from step 1" in capsys.readouterr().out
    straight, continued = (toy.saved_state(path, 2) for path in (workdir, again))
    assert straight.keys() == continued.keys()
    for name, value in straight.items():
        np.testing.assert_array_equal(value, continued[name], err_msg=name)


def first_state(config):
    return start.first_state(config, build(config), sharding.make_mesh(jax.devices()[:1]))


def test_weights_come_from_the_source_only_run(folder, source):
    config = toy.config(folder, "dannet", train__init=str(source))
    state, scratch = first_state(config), first_state(toy.config(folder, "dannet"))
    saved = toy.saved_state(source, 0)
    for part, tree in state.params["student"].items():
        for path, value in jax.tree_util.tree_leaves_with_path(tree):
            name = f"['params']['student'][{part!r}]{jax.tree_util.keystr(path)}"
            if part == "relight":
                assert name not in saved
            else:
                np.testing.assert_array_equal(value, saved[name], err_msg=name)
    for network in ("day", "night"):
        jax.tree.map(np.testing.assert_array_equal, state.params[network], scratch.params[network])
    relight = (s.params["student"]["relight"] for s in (state, scratch))
    jax.tree.map(np.testing.assert_array_equal, *relight)


@pytest.mark.slow
def test_fine_tuning_after_dannet_leaves_the_relighting_out(folder, tmp_path, capsys):
    dannet = toy.untrained_run(tmp_path / "dannet", toy.config(folder, "dannet"))
    state = first_state(toy.config(folder, "supervised", train__init=str(dannet)))
    assert set(state.params["student"]) == {"backbone", "head"}
    assert "relight in it, left out" in capsys.readouterr().out
    kept = first_state(toy.config(folder, "dannet", seed=3, train__init=str(dannet)))
    saved = toy.saved_state(dannet, 0)
    name = "['params']['student']['relight']['model_1']['kernel']"
    np.testing.assert_array_equal(kept.params["student"]["relight"]["model_1"]["kernel"], saved[name])


def test_what_is_missing_is_named(folder, source, tmp_path):
    config = toy.config(folder, "dannet", train__init=str(source), model__auxiliary="deeplab_v2")
    with pytest.raises(UserError, match=r"'auxiliary'.*\['backbone', 'head'\]"):
        first_state(config)
    with pytest.raises(UserError, match="model.input.order=rgb.*bgr"):
        first_state(toy.config(folder, "dannet", train__init=str(source), model__input__order="bgr"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no checkpoint"):
        first_state(toy.config(folder, "dannet", train__init=str(empty)))
