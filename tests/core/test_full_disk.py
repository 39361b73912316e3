"""A disk that is full, really: nothing that was there is lost, and the same works when there is room."""

import os

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from nightjax.core import checkpoint, files, metric_lines, writers
from nightjax.core.errors import NotFinite, UserError
from nightjax.core.state import TrainState
from tests.helpers import small_disk


def state(value=1.0, size=20_000):
    params = {"student": {"w": jnp.asarray(np.random.default_rng(0).normal(value, 1, size), jnp.float32)}}
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, batch_stats={"student": {}}, opt_state={})


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    files.write_whole(path, "old")
    with small_disk.short_files(1000), pytest.raises(OSError, match="File too large") as error:
        files.write_whole(path, 2000 * "x")
    assert error.value.filename == str(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path):
    saver = checkpoint.Checkpointer(tmp_path, keep=2)
    saver.save(1, state(), {}, {})
    with small_disk.short_files(30_000), pytest.raises(UserError, match="step 2.*File too large.*from step 1"):
        saver.save(2, state(2.0), {}, {})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["0000001"]
    saver.save(2, state(2.0), {}, {})
    saver.close()
    assert checkpoint.faults(tmp_path) == {str(tmp_path / "checkpoints" / f"000000{k}"): "" for k in (1, 2)}


@pytest.mark.parametrize("room", [4, 60, 120])
def test_a_full_file_system(room, tmp_path, capsys):
    with small_disk.mounted(tmp_path / "disk", 4000) as allowed:
        if not allowed:
            pytest.skip("no file system may be mounted here; the tests above have files of a limited size")
        workdir = epath.Path(tmp_path / "disk")
        saver, writer = checkpoint.Checkpointer(workdir, keep=2), writers.MetricWriter(workdir, 0)
        saver.save(1, state(), {}, {})
        writer.scalars(1, {"loss": 1.0})
        small_disk.leave(tmp_path / "disk", room)
        with pytest.raises(
            UserError, match="step 2.*(no room|No space left).*from step 1|no room.*step 2.*from step 1"
        ):
            saver.save(2, state(2.0), {}, {})
        assert sorted(os.listdir(tmp_path / "disk" / "checkpoints")) == ["0000001"]
        for step in range(2, 2000):  # The events give way first; then the lines are refused.
            try:
                writer.scalars(step, {"loss": float(step)})
                writer.image(step, "image", np.zeros((64, 64, 3), np.uint8))
            except OSError as error:
                assert error.filename == str(workdir / "metrics.jsonl")
                break
        small_disk.resize(tmp_path / "disk", 8000)
        saver.save(2, state(2.0), {}, {})
        writer.close()
        saver.close()
        assert not any(checkpoint.faults(workdir).values())
        records, damaged = metric_lines.read(workdir / "metrics.jsonl")
        assert [record["step"] for record in records] == list(range(1, len(records) + 1)) and damaged <= 1
        if step < 1999:
            assert "no more events" in capsys.readouterr().out


def test_parameters_that_are_not_finite_do_not_replace_good_ones(tmp_path):
    saver = checkpoint.Checkpointer(tmp_path, keep=1)
    saver.save(1, state(), {}, {})
    with pytest.raises(NotFinite, match="step 2: params/student/w not finite; nothing was saved"):
        saver.save(2, state(np.nan), {}, {})
    saver.close()
    assert saver.latest() == 1
