import json

from etils import epath

from nightjax.core.writers import MetricWriter


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
