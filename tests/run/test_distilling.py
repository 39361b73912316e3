"""A run that distills another run."""

import jax
import pytest
from ml_collections import ConfigDict

from nightjax import api
from nightjax.core.errors import UserError
from nightjax.run import loaded, settings, start
from nightjax.train import train
from tests.helpers import toy


def distilling(data, teacher):
    given = toy.config(data, "distill", steps=2).to_dict()
    given["method"]["teacher"] = {"model": f"run:{teacher}:model"}
    given["train"]["frozen"] = {"teacher": str(teacher)}
    return settings.complete(ConfigDict(given))


@pytest.mark.slow
def test_it_takes_the_network_and_weights_of_the_teacher(tmp_path):
    data = toy.write_folder(tmp_path / "data", references=True)
    teacher = toy.untrained_run(tmp_path / "teacher", toy.config(data, model__head_channels=12))
    train(distilling(data, teacher), tmp_path / "run")
    run, taught = loaded.load(tmp_path / "run"), loaded.load(teacher)
    assert run.config.method.teacher.model.head_channels == 12 and run.config.model.head_channels == 8
    assert jax.tree.structure(run.variables) == jax.tree.structure(loaded.load(tmp_path / "run").variables)
    state = start.first_state(run.config, run.method, run.mesh)
    jax.tree.map(lambda a, b: (a == b).all() or pytest.fail("other weights"), state.frozen["teacher"], taught.variables)
    assert api.load(tmp_path / "run").label(next((data / "images/train").iterdir())).shape == toy.SIZE


def test_no_teacher_is_one_line(tmp_path):
    data = toy.write_folder(tmp_path, references=True)
    with pytest.raises(UserError, match="teacher=RUN"):
        train(toy.config(data, "distill", steps=2), tmp_path / "run")
