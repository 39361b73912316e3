import json

import jax
import jax.numpy as jnp
from etils import epath

from nightjax.core.writers import MetricWriter, write_parameters


def steps(path):
    return [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_one_line_a_step_across_restarts(tmp_path):
    writer = MetricWriter(epath.Path(tmp_path), 0)
    for step in (1, 2, 3):
        writer.scalars(step, {"loss": 1 / step})
    writer.close()
    assert steps(tmp_path) == [1, 2, 3]
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # Killed in the middle of a line.
    writer = MetricWriter(epath.Path(tmp_path), 2)
    assert steps(tmp_path) == [1, 2]
    writer.scalars(3, {"loss": 0.5})
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1] == {"step": 3, "loss": 0.5}
    assert list(lines[-1])[0] == "step"


def test_parameters_are_summed_by_part(tmp_path):
    shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)
    params = {
        "student": {"backbone": {"conv": {"kernel": shape(3, 3, 3, 64)}}, "head": {"kernel": shape(64, 19)}},
        "translator": {"scale": shape()},
    }
    lines = write_parameters(epath.Path(tmp_path), params).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["student/backbone", "1,728"],
        ["student/head", "1,216"],
        ["translator/scale", "1"],
        ["all", "2,945"],
    ]
    table = (tmp_path / "parameters.txt").read_text()
    assert "student/backbone/conv/kernel" in table and "(3, 3, 3, 64)" in table and "Total: 2,945" in table


def test_parameters_of_arrays_are_those_of_their_shapes(tmp_path):
    params = {"student": {"head": {"kernel": jnp.ones((64, 19), jnp.bfloat16)}}}
    of_arrays = write_parameters(epath.Path(tmp_path), params), (tmp_path / "parameters.txt").read_text()
    of_shapes = write_parameters(epath.Path(tmp_path), jax.eval_shape(lambda: params))
    assert of_arrays == (of_shapes, (tmp_path / "parameters.txt").read_text())
