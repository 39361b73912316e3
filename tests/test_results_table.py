"""The results table of made-up run folders."""

import json
import sys

import pytest

from nightjax.core import cli
from scripts import make_results_table


def write_run(root, name, *, night, day, dynamic=None, steps=100, scored=100):
    """A run folder with two evaluations of two sets and two lines of metrics."""
    folder = root / name
    sections = {key: {} for key in ("model", "data", "eval", "method", "optim")}
    for step in (50, scored):
        for one_set, value in (("val_day", day), ("test_night", night)):
            path = folder / "eval" / one_set / f"{step:07d}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            summary = {"headline": "skip", "miou": {"skip": value if step == scored else 1.0, "zero": 0.0}}
            summary |= {"iou": {}, "support": {}, "groups": {} if dynamic is None else {"dynamic": dynamic, "small": None}}
            path.write_text(json.dumps({"step": step} | summary))
    (folder / "config.json").write_text(json.dumps(sections | {"seed": 0, "train": {"steps": steps}}))
    lines = [{"step": 50, "seconds": 30.0, "memory_gb": 2.5}, {"step": 100, "seconds": 90.0, "memory_gb": 2.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def call(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["make_results_table", *map(str, flags)])
    cli.run(make_results_table.main)


def test_seeds_become_mean_and_spread(tmp_path, monkeypatch, capsys):
    for seed, night in enumerate((40.0, 42.0, 44.0)):
        write_run(tmp_path, f"dsr_fpa-seed{seed}", night=night, day=60.0, dynamic=30.0)
    write_run(tmp_path, "source", night=20.0, day=61.0, dynamic=10.0, scored=60)
    call(monkeypatch, f"--runs={tmp_path}/source,{tmp_path}/*")
    assert capsys.readouterr().out.splitlines() == [
        "| run | seeds | test_night | val_day | dynamic, test_night | minutes | GB |",
        "|---|--:|--:|--:|--:|--:|--:|",
        "| source | 1 (1 unfinished) | 20.0 | 61.0 | 10.0 | 1.5 | 2.5 |",
        "| dsr_fpa | 3 | 42.0 ± 2.0 | 60.0 ± 0.0 | 30.0 ± 0.0 | 1.5 ± 0.0 | 2.5 ± 0.0 |",
    ]


def test_main_set_may_be_named_and_groups_may_be_absent(tmp_path, monkeypatch, capsys):
    write_run(tmp_path, "source", night=20.0, day=61.0)
    call(monkeypatch, f"--runs={tmp_path}/source", "--main=val_day")
    assert capsys.readouterr().out.splitlines()[0] == "| run | seeds | val_day | test_night | minutes | GB |"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--runs is missing"),
        (("--runs={root}/dacs*",), "dacs* matches no folder"),
        (("--runs={root}/empty",), "holds no run"),
        (("--runs={root}/source", "--main=nowhere"), "--main=nowhere"),
    ],
)
def test_wrong_arguments(flags, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path, "source", night=20.0, day=61.0)
    with pytest.raises(SystemExit) as exit_:
        call(monkeypatch, *(flag.format(root=tmp_path) for flag in flags))
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.count("\n") == 1 and words in stderr
