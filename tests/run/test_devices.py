"""The same numbers on one device and on four, in one process and in two."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from nightjax.train import train
from tests.helpers import toy
from tests.helpers.places import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


def config_on(folder, devices):
    return toy.config(folder, "dsr_fpa", steps=3, checkpoint__every=3, train__devices=devices)


@pytest.fixture(scope="module")
def one_device(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    results = train(config_on(folder, 1), workdir)
    return toy.saved_state(workdir, 3), results


def assert_close(one, two):
    assert one.keys() == two.keys()
    for name in one:
        if "opt_state" not in name:  # Adam's first steps turn rounding of tiny gradients into whole updates.
            np.testing.assert_allclose(two[name], one[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_four_devices(folder, one_device, tmp_path):
    results = train(config_on(folder, 4), tmp_path)
    state, reference = one_device
    assert_close(state, toy.saved_state(tmp_path, 3))
    assert abs(results["val"]["miou"]["skip"] - reference["val"]["miou"]["skip"]) < 0.5
    assert results["val"]["support"] == reference["val"]["support"]


@pytest.mark.slow
def test_two_processes(folder, one_device, tmp_path):
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port = sock.getsockname()[1]
    code = (
        "import sys, jax; jax.distributed.initialize(f'localhost:{sys.argv[1]}', 2, int(sys.argv[2])); "
        "from tests.helpers import toy; from nightjax.train import train; assert jax.device_count() == 4; "
        "train(toy.config(sys.argv[3], 'dsr_fpa', steps=3, checkpoint__every=3, train__devices=0), sys.argv[4])"
    )
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(port), str(i), str(folder), str(tmp_path)], env=env)
        for i in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert_close(one_device[0], toy.saved_state(tmp_path, 3))
