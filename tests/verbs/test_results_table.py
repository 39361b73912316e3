"""The results table of made-up run folders."""

import json
import sys

import pytest

from nightjax import table
from nightjax.core import cli
from nightjax.core.config import override, to_json
from nightjax.report import results_table
from nightjax.run import settings


def write_run(root, name, *, night, day, groups=None, steps=100, scored=100, others=()):
    """A run folder with two evaluations of two sets and two lines of metrics; ``others`` were scored once, at step
    50."""
    folder = root / name
    for step in (50, scored):
        for one_set, value in {
            "val_day": day,
            "test_night": night,
            **({} if step > 50 else dict.fromkeys(others, 2.0)),
        }.items():
            path = folder / "eval" / one_set / f"{step:07d}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            summary = {
                "primary": "skip",
                "miou": {"skip": value if step == scored or one_set in others else 1.0, "zero": 0.0},
            }
            summary |= {"iou": {}, "support": {}, "groups": groups or {}}
            path.write_text(json.dumps({"step": step} | summary))
    config = override(settings.load("configs/supervised.py:data=nightstreet_tiny"), {"train.steps": steps})
    (folder / "config.json").write_text(to_json(config))
    lines = [{"step": 50, "seconds": 30.0, "memory_gb": 2.5}, {"step": 100, "seconds": 90.0, "memory_gb": 2.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def call(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["table", *map(str, flags)])
    cli.run(table.main)


GROUPS = {"dynamic": 30.0, "static": 50.0, "small": None}


def test_seeds_become_mean_and_spread(tmp_path, monkeypatch, capsys):
    for seed, night in enumerate((40.0, 42.0, 44.0)):
        write_run(tmp_path, f"dsr_fpa-seed{seed}", night=night, day=60.0, groups=GROUPS | {"small": night / 2})
    write_run(tmp_path, "source", night=20.0, day=61.0, groups=GROUPS, scored=60)
    call(monkeypatch, f"--runs={tmp_path}/source,{tmp_path}/*", "--sets=night=test_night,day=val_day")
    assert capsys.readouterr().out.splitlines() == [
        "| run | seeds | night | static | small | dynamic | day |",
        "|---|--:|--:|--:|--:|--:|--:|",
        "| source | 1 (1 unfinished) | 20.0 | 50.0 | - | 30.0 | 61.0 |",
        "| dsr_fpa | 3 | 42.0 ± 2.0 | 50.0 ± 0.0 | 21.0 ± 1.0 | 30.0 ± 0.0 | 60.0 ± 0.0 |",
    ]


def test_sets_may_be_chosen_and_groups_may_be_absent(tmp_path, monkeypatch, capsys):
    write_run(tmp_path, "source", night=20.0, day=61.0)
    for flags, columns in {
        "": "test_night | val_day",
        "--sets=val_day,night=test_night": "val_day | night",
        "--sets=val_day --cost": "val_day | minutes | GB",
    }.items():
        call(monkeypatch, f"--runs={tmp_path}/source", *flags.split())
        assert capsys.readouterr().out.splitlines()[0] == f"| run | seeds | {columns} |"


def test_sets_that_are_not_the_runs_own_come_last_and_finish_nothing(tmp_path, monkeypatch, capsys):
    write_run(
        tmp_path,
        "source",
        night=20.0,
        day=61.0,
        groups=GROUPS,
        others=("nightstreet_large.test_night", "acdc_night_val"),
    )
    call(monkeypatch, f"--runs={tmp_path}/source")
    head, _, row = capsys.readouterr().out.splitlines()
    assert (
        head
        == "| run | seeds | test_night | static | dynamic | acdc_night_val | val_day | nightstreet_large.test_night |"
    )
    assert row == "| source | 1 | 20.0 | 50.0 | 30.0 | 2.0 | 61.0 | 2.0 |"


@pytest.mark.parametrize("evaluation", [{}, {"sets": None}])
def test_a_config_without_sets(evaluation, tmp_path, monkeypatch, capsys):
    write_run(tmp_path, "source", night=20.0, day=61.0)
    path = tmp_path / "source" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eval": evaluation}))
    call(monkeypatch, f"--runs={tmp_path}/source")
    assert "| source | 1 | 20.0 |" in capsys.readouterr().out


def test_one_seed_is_not_counted_twice(tmp_path, monkeypatch, capsys):
    for folder in ("here", "there"):
        write_run(tmp_path / folder, "source-seed0", night=20.0, day=61.0)
    call(monkeypatch, f"--runs={tmp_path}/here/*,{tmp_path}/*/source-seed0".replace("/*/", "/here/"))
    assert "| source | 1 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--runs={tmp_path}/*/source-seed0")
    assert "one seed twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--runs is missing"),
        (("--runs={root}/dacs*",), "dacs* matches no folder"),
        (("--runs={root}/empty",), "holds no run"),
        (
            ("--runs={root}/source", "--sets=day=vall_day"),
            "--sets=vall_day is no evaluation set of these runs; did you mean 'val_day'",
        ),
    ],
)
def test_wrong_arguments(flags, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path, "source", night=20.0, day=61.0)
    with pytest.raises(SystemExit) as exit_:
        call(monkeypatch, *(flag.format(root=tmp_path) for flag in flags))
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.count("\n") == 1 and words in stderr


def test_published_numbers_stand_beside_ours(tmp_path):
    file = tmp_path / "published.json"
    file.write_text(json.dumps({"thesis": {"first": 33.9, "second": 27.5}, "converted": {"first": 29.3}}))
    published = results_table.read_published(str(file))
    groups = {"first": [], "second": [], "other": []}
    head, _, first, second, other = results_table.markdown(groups, {"night": "test_night"}, published).splitlines()
    assert head == "| run | seeds | thesis | converted |"
    assert first == "| first | 0 | 33.9 | 29.3 |"
    assert second == "| second | 0 | 27.5 | - |"
    assert other.endswith("| - | - |")
