"""The verb that measures networks and exports."""

import json

import pytest

from nightjax import bench, export
from nightjax.core.errors import UserError
from nightjax.shipping import timing
from tests.helpers import toy


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    data = toy.write_folder(tmp_path_factory.mktemp("data"), count=1)
    return toy.untrained_run(tmp_path_factory.mktemp("world") / "run", toy.config(data))


def rows(capsys, *flags):
    capsys.readouterr()
    bench.main(["bench", "--seconds=0", "--json", *flags])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_run_and_what_was_exported_of_it(run_folder, capsys):
    one, two = rows(capsys, f"--workdir={run_folder}", "--size=32,48", "--batch=1,2")
    assert one["size"] == [32, 48] and (one["batch"], two["batch"]) == (1, 2)
    assert one["gflop"] == two["gflop"] > 0 and two["program_memory"] > one["program_memory"] > 0
    assert one["timing"]["median"] > 0 and one["timing"]["calls"] == 5 and one["images_per_second"] > 0
    output = run_folder.parent / "shipped"
    export.main(["export", f"--workdir={run_folder}", f"--output={output}", "--size=32,48", "--platforms=cpu"])
    (row,) = rows(capsys, f"--export={output}", "--batch=3")
    assert row["batch"] == 3 and row["gflop"] is None and row["size"] == [32, 48]
    bench.main(["bench", "--seconds=0", f"--export={output}"])
    shown = capsys.readouterr().out
    assert "stablehlo of run" in shown and "32x48" in shown
    with pytest.raises(UserError, match="--size is fixed by the export"):
        bench.main(["bench", f"--export={output}", "--size=32,48"])


@pytest.mark.slow
def test_a_config_has_fresh_weights(capsys):
    bench.main(["bench", "--config=supervised:data=nightstreet_tiny", "--size=64,128", "--seconds=0"])
    assert "supervised with fresh weights: 0.50 M parameters" in capsys.readouterr().out


def test_mistakes(tmp_path):
    for flags, words in {
        "": "give one of --workdir, --config and --export",
        f"--workdir={tmp_path} --export={tmp_path}": "give one of",
        f"--workdir={tmp_path}": "--size=height,width is missing",
        f"--workdir={tmp_path} --size=7": "--size=7 must be height,width",
        f"--workdir={tmp_path} --size=32,48 --batch=x": "--batch=x must be numbers",
        f"--export={tmp_path}": "no exported network",
    }.items():
        with pytest.raises(UserError, match=words):
            bench.main(["bench", *flags.split()])


def test_calls_are_timed():
    calls = []
    found = timing.measure(lambda: calls.append(1), seconds=0)
    assert found.calls == 5 and len(calls) == 7 and found.high >= found.median >= 0
    assert timing.peak_memory() > 10_000_000
