"""Jobs of two processes on this machine: they agree or end with one line, and outlive no other."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from nightjax.core import processes
from nightjax.core.errors import UserError
from tests.helpers import toy
from tests.helpers.places import ROOT

LIMIT = 60.0
"""Seconds within which the others end when a process is gone."""


VERB = """
import time
from absl import flags
import jax.numpy as jnp
from jax.experimental import multihost_utils
from nightjax.core import cli, hooks, processes
from nightjax.core.errors import UserError

def main(argv):
    values = flags.FlagValues()
    cli.define_processes(values)
    flags.DEFINE_float("lr", 0.001, "Must be the same.", flag_values=values)
    flags.DEFINE_string("mistake", "", "Of this process.", flag_values=values)
    cli.parse(values, argv)
    cli.join_from_flags(values)
    if values.mistake:
        raise UserError(values.mistake)
    processes.agree({"config": {"optim": {"lr": values.lr}}})
    print("agreed", flush=True)
    stop = hooks.StopSignal()
    for step in range(10**9):
        multihost_utils.process_allgather(jnp.ones(1))
        if stop(step):
            print(f"stopped at step {step}", flush=True)
            return
        time.sleep(0.01)

cli.run(main)
"""
"""What a verb of several processes does, without a network."""


class Job:
    """Two processes of one command.

    Args:
        folder: for their output.
        command: after the interpreter, without the flags of several processes.
        extra: more flags, by process.
        started: which processes are started.
        joint: more flags of both.
    """

    def __init__(self, folder, command, extra=((), ()), started=(0, 1), joint=()):
        with socket.socket() as sock:
            sock.bind(("localhost", 0))
            port = sock.getsockname()[1]
        self.folder, self.processes = folder, {}
        self.folder.mkdir(exist_ok=True)
        for i in started:
            words = [f"--coordinator=localhost:{port}", "--processes=2", f"--process_id={i}", *joint, *extra[i]]
            with (folder / f"out{i}").open("w") as out, (folder / f"err{i}").open("w") as err:
                self.processes[i] = subprocess.Popen(
                    [sys.executable, *command, *words],
                    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
                    stdout=out,
                    stderr=err,
                )

    def out(self, i):
        return (self.folder / f"out{i}").read_text()

    def err(self, i):
        return (self.folder / f"err{i}").read_text().splitlines()

    def wait_for(self, text, i=0, seconds=300):
        end = time.monotonic() + seconds
        while text not in self.out(i):
            assert self.processes[i].poll() is None and time.monotonic() < end, (self.out(i), self.err(i))
            time.sleep(0.05)

    def codes(self, seconds=LIMIT):
        end = time.monotonic() + seconds
        try:
            return [process.wait(max(end - time.monotonic(), 0.1)) for process in self.processes.values()]
        finally:
            for process in self.processes.values():
                process.kill()


def one_line(lines, *texts):
    assert len(lines) == 1 and lines[0].startswith("nightjax: error: "), lines
    assert all(text in lines[0] for text in texts), lines
    return True


@pytest.fixture
def verb(tmp_path):
    (tmp_path / "verb.py").write_text(VERB)
    return [str(tmp_path / "verb.py")]


@pytest.mark.slow
def test_another_config_ends_both(tmp_path, verb):
    job = Job(tmp_path / "job", verb, extra=((), ("--lr=0.5",)))
    assert job.codes(200) == [2, 2]
    assert all(one_line(job.err(i), "config.optim.lr is 0.001 on process 0 and 0.5 on process 1") for i in range(2))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_is_killed_ends_the_other(tmp_path, verb, victim):
    job = Job(tmp_path / "job", verb)
    for i in range(2):
        job.wait_for("agreed", i)
    job.processes.pop(victim).kill()
    assert job.codes() == [2]
    assert one_line(job.err(1 - victim), "another process of this job is gone")


@pytest.mark.slow
@pytest.mark.parametrize("mistaken", [0, 1])
def test_one_with_a_mistake_ends_the_other(tmp_path, verb, mistaken):
    mistake = ("--mistake=the data are not here",)
    job = Job(tmp_path / "job", verb, extra=tuple(mistake if i == mistaken else () for i in range(2)))
    assert job.codes(200) == [2, 2]
    assert one_line(job.err(mistaken), "the data are not here")
    assert one_line(job.err(1 - mistaken), "another process of this job is gone")


@pytest.mark.slow
@pytest.mark.parametrize("victims", [(0,), (1,), (0, 1)])
def test_all_stop_at_one_step_when_some_are_preempted(tmp_path, verb, victims):
    job = Job(tmp_path / "job", verb)
    for i in range(2):
        job.wait_for("agreed", i)
    for i in victims:
        job.processes[i].send_signal(signal.SIGTERM)
    assert job.codes() == [0, 0], [job.err(i) for i in range(2)]
    stopped = [job.out(i).splitlines()[-1] for i in range(2)]
    assert stopped[0] == stopped[1] and stopped[0].startswith("stopped at step")
    assert all("SIGTERM caught" in line for i in range(2) for line in job.err(i))


@pytest.mark.slow
@pytest.mark.parametrize("present", [0, 1])
def test_one_that_never_starts_ends_the_other(tmp_path, verb, present):
    job = Job(tmp_path / "job", verb, started=(present,), joint=("--join_seconds=5",))
    assert job.codes() == [2]
    assert one_line(job.err(present), "within 5 s")


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A command that trains, and the folder of other data."""
    root = tmp_path_factory.mktemp("world")
    toy.write_folder(root / "data")
    toy.write_folder(root / "other", seed=1)
    plain = toy.config(root / "data", steps=400, batch=4, checkpoint__every=0, train__devices=0, log__every=20)
    (root / "cfg.json").write_text(json.dumps(plain.to_dict()))
    (root / "cfg.py").write_text(
        "import pathlib\nfrom ml_collections import ConfigDict\nfrom nightjax.core.config import from_json\n"
        "def get_config():\n"
        "    text = pathlib.Path(__file__).with_name('cfg.json').read_text()\n"
        "    return ConfigDict(from_json(text).to_dict())\n"
    )
    return ["-m", "nightjax.main", f"--config={root}/cfg.py"], root / "other"


@pytest.mark.slow
def test_other_data_end_training_before_anything_is_written(training, tmp_path):
    command, other = training
    run = tmp_path / "run"
    job = Job(tmp_path / "job", [*command, f"--workdir={run}"], ((), (f"--config.data.manual_dir={other}",)))
    assert job.codes(300) == [2, 2]
    assert all(one_line(job.err(i), "data.source.files is") for i in range(2))
    assert not list(run.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("victims", [(1,), (0, 1)])
def test_preempted_training_saves_once_and_goes_on(training, tmp_path, victims):
    command, run = training[0], tmp_path / "run"
    job = Job(tmp_path / "job", [*command, f"--workdir={run}"])
    job.wait_for("[20/400]")
    for i in victims:
        job.processes[i].send_signal(signal.SIGTERM)
    assert job.codes() == [0, 0], [job.err(i) for i in range(2)]
    (saved,) = [path.name for path in (run / "checkpoints").iterdir()]
    assert f"stopped at step {int(saved)}" in job.out(0)
    again = Job(tmp_path / "again", [*command, f"--workdir={run}"])
    again.wait_for(f"from step {int(saved)}")
    assert again.codes(300) == [0, 0], [again.err(i) for i in range(2)]
    assert (run / "checkpoints" / "0000400").exists()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((False, None, 2, None), "--processes needs --coordinator"),
        ((True, None, None, 0), "--process_id needs --coordinator"),
        ((False, "host", 2, 0), "no HOST:PORT"),
        ((False, "host:0", 2, 0), "no HOST:PORT"),
        ((False, "host:99999", 2, 0), "no HOST:PORT"),
        ((False, ":1234", 2, 0), "no HOST:PORT"),
        ((False, "", 2, 0), "no HOST:PORT"),
        ((False, "host:1234", None, 0), "--processes too"),
        ((False, "host:1234", 2, None), "--process_id too"),
        ((False, "host:1234", 0, 0), "--processes=0"),
        ((False, "host:1234", 2, 2), "--process_id=2 must be from 0 to 1"),
        ((False, "host:1234", 2, -1), "--process_id=-1"),
    ],
)
def test_flags_that_do_not_fit_together(flags, text):
    with pytest.raises(UserError, match=text):
        processes.check_flags(*flags)


def test_one_process_asks_nobody():
    processes.agree({"config": 1})
    assert not processes.lost(RuntimeError("Gloo: connection closed by peer"))
    assert not processes.check_flags(False, None, None, None) and processes.check_flags(True, None, None, None)
