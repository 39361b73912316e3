"""Which checkpoints stay, and which is meant by a word."""

import jax
import jax.numpy as jnp
import pytest

from nightjax import methods
from nightjax.core import checkpoint, sharding
from nightjax.core.errors import UserError
from nightjax.core.state import TrainState
from nightjax.run import loaded, start
from tests.helpers import toy


def save(workdir, scores, best="val"):
    """One checkpoint a step, by a process of its own as it were."""
    state = TrainState(
        step=jnp.zeros((), jnp.int32), params={"student": {"w": jnp.ones(2)}}, batch_stats={"student": {}}, opt_state={}
    )
    saver = checkpoint.Checkpointer(workdir, keep=1, best=best)
    for step, score in scores.items():
        saver.save(step, state, {}, {} if score is None else {"val": score, "test": -score})
    found, _ = saver.restore(saver.latest(), state)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), found.params, state.params))
    saver.close()
    return [int(path.name) for path in sorted((workdir / "checkpoints").iterdir())]


def test_a_continued_run_keeps_its_best(tmp_path):
    assert save(tmp_path, {1: 0.3, 2: 0.9, 3: 0.5}) == [2, 3]
    assert save(tmp_path, {4: 0.4, 5: None}) == [2, 5]
    assert checkpoint.latest_folder(tmp_path).name == "0000005"
    assert checkpoint.latest_folder(tmp_path, "best").name == checkpoint.latest_folder(tmp_path, "2").name == "0000002"
    assert checkpoint.latest_folder(f"{tmp_path}@best").name == "0000002"
    assert save(tmp_path, {6: 0.9}) == [6]  # Of two equal ones the later.
    assert checkpoint.latest_folder(tmp_path, "best").name == "0000006"


def test_a_parameter_that_is_not_there_is_named(tmp_path):
    save(tmp_path, {1: 0.5})
    folder = checkpoint.latest_folder(tmp_path)
    like = jax.ShapeDtypeStruct((2,), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    found = checkpoint.restore_part(folder, {"params": {"student": {"w": like}}})
    assert (found["params"]["student"]["w"] == 1).all()
    with pytest.raises(UserError, match="1 parameter.*params/student/block1"):
        checkpoint.restore_part(folder, {"params": {"student": {"w": like, "block1": like}}})


def test_a_run_starts_from_the_best_of_another(tmp_path):
    toy.untrained_run(tmp_path / "run", toy.config(tmp_path))
    config = toy.config(tmp_path, train__init=f"{tmp_path}/run@best")
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    saver = checkpoint.Checkpointer(tmp_path / "run", best="val")
    state = start.abstract_state(config, method, mesh)
    for step, score, level in ((1, 0.5, 1.0), (2, 0.4, 2.0)):
        whole, host = saver.restore(0, state)
        saver.save(
            step, whole.replace(params=jax.tree.map(lambda x, v=level: x * 0 + v, whole.params)), host, {"val": score}
        )
    saver.close()
    started = start.first_state(config, method, mesh)
    assert all((leaf == 1.0).all() for leaf in jax.tree.leaves(method.variables(started)["params"]))
    for step, level in (("best", 1.0), (None, 2.0)):
        found = loaded.load(tmp_path / "run", step=step).variables
        assert all((leaf == level).all() for leaf in jax.tree.leaves(found["params"]))


def test_no_best_without_scores(tmp_path):
    assert save(tmp_path, {1: 0.5, 2: 0.4}, best="") == [2]
    with pytest.raises(UserError, match="no checkpoint with a score"):
        checkpoint.latest_folder(f"{tmp_path}@best")
    with pytest.raises(UserError, match="no checkpoint of step bset"):
        checkpoint.latest_folder(tmp_path, "bset")


def flip(folder):
    path = max((folder / "state").glob("**/d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_newest_that_is_whole_is_taken_when_asked(tmp_path, capsys):
    saver = checkpoint.Checkpointer(tmp_path, keep=3)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params={"student": {"w": jnp.arange(1000.0)}},
        batch_stats={"student": {}},
        opt_state={},
    )
    for step in (1, 2, 3):
        saver.save(step, state, {}, {})
    flip(tmp_path / "checkpoints" / "0000003")
    with pytest.raises(UserError, match="0000003 is damaged: state/.* has another content.*--step=last_good"):
        saver.restore(3, state)
    saver.close()
    assert [bool(fault) for fault in checkpoint.faults(tmp_path).values()] == [False, False, True]
    assert checkpoint.latest_folder(tmp_path).name == "0000003"  # Never silently.
    assert checkpoint.latest_folder(tmp_path, "last_good").name == "0000002"
    assert "0000003 is damaged" in capsys.readouterr().out
    checkpoint.put_aside(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0000001", "0000002"]
    assert (tmp_path / "damaged" / "0000003" / "state").is_dir()
