import math
import os
import signal
import sys
import time

import jax.numpy as jnp
import pytest
from clu import platform

from nightjax.core import hooks
from nightjax.core.errors import UserError
from nightjax.core.types import Weighted


class Lines:
    def __init__(self):
        self.lines = []

    def scalars(self, step, values):
        self.lines.append((step, values))


def log(writer, every=2):
    return hooks.ScalarLog(writer, hooks.Clock(), 0, 5, 4, every, lambda index: {"source": [f"r{i}" for i in index]})


def test_scalars_come_one_step_late_as_means():
    writer = Lines()
    scalars = log(writer)
    for step in range(1, 4):
        scalars.push(step, {"loss": jnp.float32(step)}, [0])
        assert len(writer.lines) == (1 if step == 3 else 0)
    step, values = writer.lines[0]
    assert step == 2 and values["loss"] == 1.5
    assert {"images_per_second", "input_wait_share", "memory_gb", "seconds"} <= values.keys()


def test_pairs_are_weighted_and_left_out_without_weight():
    writer = Lines()
    scalars = log(writer)
    for step, weights in ((1, (1.0, 0.0)), (2, (3.0, 0.0)), (3, (1.0, 1.0))):
        scalars.push(
            step,
            {name: Weighted(jnp.float32(step), jnp.float32(w)) for name, w in zip("ab", weights, strict=True)},
            [0],
        )
    values = writer.lines[0][1]
    assert values["a"] == 1.75 and "b" not in values


def test_last_step_is_written():
    writer = Lines()
    scalars = log(writer, every=100)
    for step in range(1, 6):
        scalars.push(step, {"loss": jnp.float32(1)}, [0])
    scalars.settle()
    scalars.settle()
    assert [step for step, _ in writer.lines] == [5]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_stops_with_names(value):
    scalars = log(Lines())
    scalars.push(3, {"loss": jnp.float32(1), "loss_fpa": jnp.float32(value)}, [7, 9])
    with pytest.raises(UserError, match="step 3.*loss_fpa.*r7, r9"):
        scalars.settle()


def test_clock_counts_stepping_and_waiting_only():
    clock = hooks.Clock()
    clock.restore([100.0, 10.0])
    with clock.paused():
        time.sleep(0.05)
        assert clock.elapsed() < 100.01
    with clock.waiting():
        time.sleep(0.02)
    elapsed, waited = clock.state()
    assert 100.02 <= elapsed < 100.05
    assert 10.02 <= waited < 10.05


def test_stop_signal():
    before = signal.getsignal(signal.SIGTERM)
    stop = hooks.StopSignal()
    assert not stop(1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop(2)
    stop.close()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def unit(monkeypatch):
    """What the experiment platform is told."""

    class Unit(platform.LocalWorkUnit):
        def __init__(self):
            self.told = []

        def set_notes(self, msg):
            self.told.append(("notes", msg))

        def set_task_status(self, msg):
            self.told.append(("status", msg))

        def create_artifact(self, artifact_type, artifact, description):
            self.told.append((description, artifact))

    unit = Unit()
    monkeypatch.setattr(platform, "work_unit", lambda: unit)
    return unit


def test_the_platform_is_told_where_and_how_far(unit, tmp_path, capsys):
    hooks.announce(tmp_path)
    assert unit.told == [("status", "process 0 of 1"), ("workdir", str(tmp_path))]
    scalars = log(Lines(), every=1)
    scalars.push(1, {"loss": jnp.float32(1)}, [0])
    scalars.settle()
    assert unit.told[-1] == ("notes", capsys.readouterr().out.strip())


def test_memory_is_unknown_where_there_is_no_resource_module(monkeypatch):
    assert hooks.memory_gb() > 0
    monkeypatch.setitem(sys.modules, "resource", None)
    assert hooks.memory_gb() == 0
