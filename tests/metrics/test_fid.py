"""Fréchet and kernel distances: closed forms, invariances, merging; resizing."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.metrics import fid


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(12, 12))
    return rng.normal(size=(300, 12)) @ mix, rng.normal(size=(200, 12)) @ mix.T + 0.3


def distance(one, other):
    return fid.frechet_distance(fid.Statistics.of(one), fid.Statistics.of(other))


@pytest.mark.parametrize("dimensions", [1, 8, 512])
def test_shift_of_the_unit_gaussian(dimensions):
    eye = np.eye(dimensions)
    value = fid.frechet(np.zeros(dimensions), eye, np.ones(dimensions), eye)
    assert value == pytest.approx(dimensions, rel=1e-9)


def test_closed_forms():
    assert fid.frechet([0], [[1]], [3], [[4]]) == pytest.approx(10)
    assert fid.frechet(np.zeros(3), np.diag([1, 4, 9]), np.zeros(3), np.diag([4, 1, 16])) == pytest.approx(3)
    two = fid.frechet(np.zeros(2), [[2, 1], [1, 2]], np.zeros(2), np.diag([1, 3]))
    assert two == pytest.approx(8 - 2 * np.sqrt(14), rel=1e-9)
    v, w = np.array([3.0, 4.0]), np.array([1.0, 0.0])
    assert fid.frechet(np.zeros(2), np.outer(v, v), np.zeros(2), np.outer(w, w)) == pytest.approx(20)
    assert fid.frechet([1, 2], np.zeros((2, 2)), [4, 6], 5 * np.eye(2)) == pytest.approx(35)
    assert fid.frechet([1, 2], np.diag([4, 9]), [0, 0], np.diag([1, 16])) == pytest.approx(7.0)


def test_scaled_covariance(sets):
    covariance = fid.Statistics.of(sets[0]).covariance
    zero = np.zeros(len(covariance))
    for factor in (0.25, 3.0):
        expected = (1 - np.sqrt(factor)) ** 2 * np.trace(covariance)
        assert fid.frechet(zero, covariance, zero, factor * covariance) == pytest.approx(expected, rel=1e-9)


def test_symmetry_rotation_shift_scale_and_self(sets):
    one, other = sets
    value = distance(one, other)
    assert distance(other, one) == pytest.approx(value, rel=1e-9)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    assert distance(one @ rotation + 5, other @ rotation + 5) == pytest.approx(value, rel=1e-9)
    assert distance(3 * one, 3 * other) == pytest.approx(9 * value, rel=1e-9)
    assert abs(distance(one, one)) < 1e-8 * np.trace(fid.Statistics.of(one).covariance)


def test_bias_of_the_estimate():
    rng = np.random.default_rng(0)
    value = distance(rng.normal(size=(10_000, 8)), rng.normal(size=(10_000, 8)))
    assert value == pytest.approx(0.0052, abs=0.004)


def test_too_few_images():
    rng = np.random.default_rng(0)
    many, few = rng.normal(size=(50, 8)), rng.normal(size=(5, 8))
    with pytest.raises(UserError, match="2 or more"):
        distance(many, few[:1])
    with pytest.raises(UserError, match="no images"):
        fid.statistics([])
    with pytest.raises(UserError, match="cannot be compared"):
        distance(many, few[:, :4])
    with pytest.warns(UserWarning, match="singular"):
        assert np.isfinite(distance(many, few))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*singular")
def test_few_images_with_the_features_of_inception():
    """2048 numbers of 20 and 30 images: covariances of rank 19 and 29."""
    rng = np.random.default_rng(0)
    one, other = rng.gamma(0.5, size=(20, 2048)), rng.gamma(0.4, size=(30, 2048))
    value = distance(one, other)
    assert np.isfinite(value) and value > 0
    assert distance(other, one) == pytest.approx(value, rel=1e-6)


def test_merged_shards_equal_one_pass(sets):
    rows = sets[0] + 1000  # A mean far from zero, where sums of squares would cancel.
    whole = fid.Statistics.of(rows)
    merged = fid.Statistics.of(rows[:1])
    for shard in (rows[1:100], rows[100:107], rows[107:]):
        merged = merged + fid.Statistics.of(shard)
    streamed = fid.statistics(rows[i : i + 7] for i in range(0, len(rows), 7))
    for other in (merged, streamed):
        assert other.count == whole.count
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-10)
        np.testing.assert_allclose(other.covariance, whole.covariance, rtol=1e-10, atol=1e-10)
        value = fid.frechet_distance(other, fid.Statistics.of(sets[1]))
        assert value == pytest.approx(fid.frechet_distance(whole, fid.Statistics.of(sets[1])), rel=1e-10)


def test_chunks_lose_no_row(monkeypatch, sets):
    monkeypatch.setattr(fid, "CHUNK", 64)
    streamed = fid.statistics(sets[0][i : i + 7] for i in range(0, 300, 7))
    np.testing.assert_allclose(streamed.scatter, fid.Statistics.of(sets[0]).scatter, rtol=1e-10, atol=1e-10)


def test_one_process_keeps_its_own(sets):
    own = fid.Statistics.of(sets[0])
    assert fid.merge_over_processes(own) is own


def test_two_processes_merge_in_float64():
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port = sock.getsockname()[1]
    code = (
        "import sys, jax, numpy as np; index = int(sys.argv[2]); "
        "jax.distributed.initialize(f'localhost:{sys.argv[1]}', 2, index); "
        "from nightjax.metrics import fid; rows = np.random.default_rng(0).normal(size=(40, 5)) + 1000; "
        "merged = fid.merge_over_processes(fid.Statistics.of(rows[:11] if index else rows[11:])); "
        "whole = fid.Statistics.of(rows); assert merged.count == 40; "
        "np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-10, atol=1e-10)"
    )
    env = os.environ | {"XLA_FLAGS": "", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    command = [sys.executable, "-c", code, str(port)]
    processes = [subprocess.Popen([*command, str(i)], env=env, stderr=subprocess.PIPE, text=True) for i in range(2)]
    for process in processes:
        assert process.wait(120) == 0, process.stderr.read()


def test_kernel_distance():
    rng = np.random.default_rng(0)
    one, same, other = rng.normal(size=(400, 6)), rng.normal(size=(400, 6)), rng.normal(size=(300, 6)) + 1
    near, _ = fid.kernel_distance(one, same, subsets=20, size=100)
    far, spread = fid.kernel_distance(one, other, subsets=20, size=100)
    assert abs(near) < 0.1 < far and spread > 0
    assert fid.kernel_distance(one, other, subsets=20, size=100) == (far, spread)
    with pytest.raises(UserError, match="2 or more"):
        fid.kernel_distance(one, other[:1])


def test_kernel_distance_of_two_points_each():
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [3.0]])
    cube = lambda a, b: (a * b + 1) ** 3
    between = (cube(1, 0) + cube(1, 3) + cube(2, 0) + cube(2, 3)) / 4
    assert fid.kernel_distance(x, y) == pytest.approx((cube(1, 2) + cube(0, 3) - 2 * between, 0))


def test_resize_rules():
    ramp = np.repeat(np.array([[0, 100]], np.uint8)[..., None], 3, -1)
    plain = fid.resize(ramp, (1, 4), "pytorch_fid")
    np.testing.assert_allclose(plain[0, :, 0], [0, 25, 75, 100])
    gray = np.full((50, 70, 3), 130, np.uint8)
    for rule in fid.RESIZE_RULES:
        np.testing.assert_allclose(fid.resize(gray, (20, 90), rule), 130, rtol=1e-5)
    stripes = np.zeros((4, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(fid.resize(stripes, (4, 40), "clean")[:, 5:-5]) < 20  # antialiased
    with pytest.raises(UserError, match="did you mean 'clean'"):
        fid.resize(gray, (2, 2), "cleen")


def test_values_that_become_zero():
    gray = np.full((2, 2, 3), 128, np.uint8)
    assert np.abs(fid.network_input(gray, (2, 2), "clean")).max() < 1e-6
    assert fid.network_input(gray, (2, 2), "pytorch_fid")[0, 0, 0] == pytest.approx(128 / 127.5 - 1, abs=1e-6)
