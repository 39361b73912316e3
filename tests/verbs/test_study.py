"""A study runs what is missing, and says what its runs say; training itself is played."""

import json
import pathlib
import re
import shutil
import sys
import tomllib
from types import SimpleNamespace

import pytest

from nightjax import study
from nightjax.core import cli, studies
from nightjax.core.config import override, to_json
from nightjax.core.errors import UserError
from nightjax.report import study_records, study_table
from nightjax.run import settings

STUDY = """
question = "Does more help?"
sets = {night = "test_night", day = "val_day"}
seeds = [0, 1]
last = 2
every = 50
classes = ["car"]
compare = [["more", "less"]]

[runs.less]
config = "supervised:data=nightstreet_tiny,steps=100"

[runs.more]
config = "supervised:data=nightstreet_tiny,steps=200"
title = "less, then more"
start = "less"
settings = {"optim.lr" = 0.5}
"""

NIGHTS = {
    ("less", 0): 10.0,
    ("less", 1): 20.0,
    ("less", 7): 30.0,
    ("more", 0): 13.0,
    ("more", 1): 24.0,
    ("more", 7): 30.0,
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "help.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def played(monkeypatch):
    """Training as a list of commands; each leaves a finished run folder, unless its name is in ``stops``."""
    seen = SimpleNamespace(commands=[], stops=set())

    def train(command, check):
        flags = dict(word.removeprefix("--").partition("=")[::2] for word in command[3:])
        name, steps = ("more", 200) if "steps=200" in flags["config"] else ("less", 100)
        seed = int(flags["config.seed"])
        seen.commands.append((f"{name}-seed{seed}", flags))
        write_run(pathlib.Path(flags["workdir"]), steps, NIGHTS[name, seed], finished=name not in seen.stops)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(study.subprocess, "run", train)
    return seen


def write_run(folder, steps, night, finished=True):
    """A run of half an hour that was suspended for a day."""
    config = override(settings.load("supervised:data=nightstreet_tiny"), {"train.steps": steps})
    (folder / "config.json").write_text(to_json(config))
    clock = {0.25: 450.0, 0.5: 900.0, 0.75: 87750.0, 1: 88200.0}
    log = [json.dumps({"step": int(share * steps), "seconds": seconds}) for share, seconds in clock.items()]
    (folder / "metrics.jsonl").write_text("\n".join(log) + "\n")
    for step, off in ((steps - 50, -1.0), (steps, 1.0))[: 2 if finished else 1]:
        for one_set, value in {"test_night": night + off, "val_day": 50.0, "val_night": night}.items():
            path = folder / "eval" / one_set / f"{step:07d}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            summary = {"primary": "skip", "miou": {"skip": value}, "iou": {"car": value / 2}, "support": {"car": 10}}
            path.write_text(json.dumps(summary | {"groups": {"static": value, "small": None, "dynamic": value}}))


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["study", *map(str, words)])
    cli.run(study.main)


def test_it_runs_what_is_missing_and_writes_the_table(tmp_path, file, played, monkeypatch, capsys):
    page = tmp_path / "results.md"
    page.write_text("before\n<!-- study:help -->\nold\n<!-- /study:help -->\nafter\n")
    shared = (f"--study={file}", f"--root={tmp_path}/runs")
    words = (*shared, f"--write={page}", "--set=optim.lr=2", "--args=exposure=1")
    call(monkeypatch, *words)
    assert [name for name, _ in played.commands] == ["less-seed0", "more-seed0", "less-seed1", "more-seed1"]
    flags = played.commands[1][1]
    assert flags["config"] == "supervised:data=nightstreet_tiny,steps=200,exposure=1"
    assert flags["config.train.init"] == played.commands[0][1]["workdir"] and flags["config.seed"] == "0"
    assert re.fullmatch(
        rf"{tmp_path}/runs/runs/supervised-data-nightstreet_tiny-steps-200-exposure-1-[0-9a-f]{{8}}-seed0",
        flags["workdir"],
    )
    assert flags["config.optim.lr"] == "2" and flags["config.eval.every"] == "50"
    text = page.read_text()
    assert text.startswith("before\n<!-- study:help -->\n**Does more help?**") and text.endswith("-->\nafter\n")
    assert "| run | steps | seeds | night | static | dynamic | car | day |" in text
    assert "| less | 100 | 2 | 15.0 ± 7.1 | 15.0 ± 7.1 | 15.0 ± 7.1 | 7.5 ± 3.5 | 50.0 ± 0.0 |" in text
    assert "| less, then more | 100 + 200 | 2 | 18.5 ± 7.8 |" in text
    assert "- less, then more minus less, seed by seed: night +3.5 ± 0.7;" in text
    assert "day +0.0 ± 0.0, within the spread" in text
    assert "2.0 hours of training, nightjax 0.1.0. Scores are means over the last 2 evaluations." in text
    drawn = (tmp_path / "runs" / "help" / "study.html").read_text()
    assert "<h1>Does more help?</h1>" in drawn and not re.search(r"https?://|<script|<link|@import|url\(", drawn)
    assert '<th scope="row">less, then more</th><td>100 + 200</td><td>2</td><td>18.5 ± 7.8</td>' in drawn
    assert 'aria-label="less: 10.0, 20.0; less, then more: 13.0, 24.0"' in drawn and drawn.count("<circle") == 8
    assert drawn.count("nightjax train --config=") == 4
    assert "Made by `nightjax study --study=" in text and "--args=exposure=1 --set=optim.lr=2`" in text
    played.commands.clear()
    call(monkeypatch, *words, f"--set=data.manual_dir={tmp_path}")
    assert not played.commands
    call(monkeypatch, *shared, "--seeds=0")
    assert len(played.commands) == 2, "other settings are other runs"


def test_studies_share_the_runs_that_they_have_in_common(tmp_path, file, played, monkeypatch):
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}/runs", "--seeds=0")
    played.commands.clear()
    other = tmp_path / "other.toml"
    other.write_text(STUDY.replace("less", "base").replace('"optim.lr" = 0.5', '"optim.lr" = 0.25'))
    call(monkeypatch, f"--study={other}", f"--root={tmp_path}/runs", "--seeds=0")
    assert [name for name, _ in played.commands] == ["more-seed0"]
    played.commands.clear()
    other.write_text(STUDY.replace("every = 50", "every = 25"))
    call(monkeypatch, f"--study={other}", f"--root={tmp_path}/runs", "--seeds=0", "--only=less")
    assert [name for name, _ in played.commands] == ["less-seed0"]


def test_a_start_of_another_kind_is_another_run(tmp_path, file):
    found = studies.read(file)
    other = studies.parse(tomllib.loads(STUDY.replace("steps=100", "steps=150")), "other")
    assert other.folder("more", 0) != found.folder("more", 0) != found.folder("more", 1)
    assert studies.parse(tomllib.loads(STUDY), "other").folder("more", 0) == found.folder("more", 0)


def test_when_a_start_was_scored_is_no_other_run(file):
    """It trains the same; the start itself is another run, since other scores are kept of it."""
    found, often = studies.read(file), studies.parse(tomllib.loads(STUDY.replace("every = 50", "every = 5")), "often")
    rare = STUDY.replace('steps=100"', 'steps=100"\nsettings = {"eval.every" = 100}')
    rare = studies.parse(tomllib.loads(rare), "rare")
    assert rare.folder("more", 0) == found.folder("more", 0) and rare.folder("less", 0) != found.folder("less", 0)
    assert often.folder("more", 0) != found.folder("more", 0)


def test_an_interrupted_study_goes_on(tmp_path, file, played, monkeypatch, capsys):
    played.stops = {"more"}
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--seeds=0", "--only=more")
    assert "seed0 was stopped before its end" in capsys.readouterr().err
    played.stops = set()
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--seeds=0")
    assert [name for name, _ in played.commands] == ["less-seed0", "more-seed0", "more-seed0"]
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--run=false")
    assert "night +3.0 (one seed)" in capsys.readouterr().out


def test_scores_outlive_the_folders_of_runs(tmp_path, file, played, monkeypatch, capsys):
    """A recorded run is made again only where a missing one starts from its weights."""
    words = (f"--study={file}", f"--root={tmp_path}/runs", f"--records={tmp_path}/kept/all.jsonl")
    call(monkeypatch, *words, "--seeds=0")
    (table,) = re.findall(r"\| less, then more.*", capsys.readouterr().out)
    lines = (tmp_path / "kept" / "all.jsonl").read_text().splitlines()
    assert len(lines) == 2 and lines == sorted(lines) and str(tmp_path) not in "".join(lines)
    shutil.rmtree(tmp_path / "runs")
    played.commands.clear()
    call(monkeypatch, *words, "--seeds=0")
    assert not played.commands and table in capsys.readouterr().out
    (tmp_path / "kept" / "all.jsonl").write_text(next(line for line in lines if "steps-100" in line) + "\n")
    call(monkeypatch, *words, "--seeds=0", "--dry_run")
    assert len(capsys.readouterr().out.splitlines()) == 2
    call(monkeypatch, *words, "--seeds=0")
    assert [name for name, _ in played.commands] == ["less-seed0", "more-seed0"]
    assert (tmp_path / "kept" / "all.jsonl").read_text().splitlines() == lines


def test_records_of_several_machines_are_one_file(tmp_path, file, played, monkeypatch, capsys):
    for seed in (0, 1, 7):
        call(monkeypatch, f"--study={file}", f"--root={tmp_path}/{seed}", f"--seeds={seed}")
    together = tmp_path / "all.jsonl"
    together.write_text("".join((tmp_path / str(seed) / "records.jsonl").read_text() for seed in (0, 1)))
    capsys.readouterr()
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}/none", f"--records={together}", "--run=false")
    assert "| less | 100 | 2 | 15.0 ± 7.1 |" in capsys.readouterr().out
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}/7", "--run=false", "--seeds=7")
    assert "| less | 100 | 1 | 30.0 |" in capsys.readouterr().out, "a seed that was asked for is in the table"


RECORD = {"run": "a", "steps": 1, "seconds": 1.0, "version": "1", "scores": {"val": [{"miou": 1, "groups": {}}]}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", " is no record of a run"),
        ("5", " is no record of a run"),
        ("[" * 100_000, " is no record of a run"),
        ("{}", ".run is missing"),
        (json.dumps(RECORD), ".scores.val[0].iou is missing"),
        (json.dumps(RECORD | {"scores": 5}), ".scores=5 must be a section"),
        (json.dumps(RECORD | {"steps": "x"}), ".steps='x' must be of type int"),
        (json.dumps(RECORD | {"seconds": float("nan")}), ".seconds=nan must be a finite number"),
    ],
)
def test_damaged_records(tmp_path, file, monkeypatch, capsys, line, message):
    (tmp_path / "all.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, f"--study={file}", f"--records={tmp_path}/all.jsonl", "--run=false")
    assert error.value.code == 2 and f"line 2 of {tmp_path}/all.jsonl{message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--args=data=folder",),
            "'less' of study 'help' is scored on ['val'], and on nothing that",
        ),
        (("--sets=dusk=dusk_test",), "say what is meant, such as --sets=dusk=test_night"),
        (
            ("--sets=night=test_night,dusk=test_nigth",),
            "no run of study 'help' is scored on 'test_nigth'; did you mean",
        ),
        (("--args=data=foldr",), "did you mean 'folder'"),
        (("--args=nothing=1",), "config argument 'nothing' is unknown"),
        (("--set=train.stepz=5",), "did you mean 'steps'"),
        (("--set=eval.every=100",), "'less' of study 'help' has 100 steps and is scored every 100"),
        (("--set=train.steps",), "must be KEY=VALUE"),
        (("--sets==val_day",), "must name sets"),
        (("--seeds=one",), "give whole numbers"),
    ],
)
def test_mistakes_are_found_before_the_first_run(tmp_path, file, played, monkeypatch, capsys, words, message):
    for more in ((), ("--dry_run",)):
        with pytest.raises(SystemExit) as error:
            call(monkeypatch, f"--study={file}", f"--root={tmp_path}/runs", *words, *more)
        assert error.value.code == 2 and message in capsys.readouterr().err
        assert not played.commands and not (tmp_path / "runs").exists()


def test_a_setting_of_a_stream_is_for_the_runs_that_read_it(tmp_path, file, played, monkeypatch):
    """The source-only run of a study has no target, and no setting of it is refused for that."""
    file.write_text(STUDY.replace("supervised:data=nightstreet_tiny,steps=200", "dacs:data=nightstreet_tiny,steps=200"))
    keys = [f"data.streams.{stream}.dataset" for stream in ("source", "target")]
    words = [f"--set={key}=folder:/some/{number}" for number, key in enumerate(keys)]
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--seeds=0", *words)
    for (name, flags), is_there in zip(played.commands, ([1, 0], [1, 1]), strict=True):
        assert [f"config.{key}" in flags for key in keys] == is_there, name
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--seeds=0", "--set=data.streams.moon.split=train")


def test_sets_of_other_data(tmp_path, file, played, monkeypatch, capsys):
    words = (f"--study={file}", f"--root={tmp_path}", "--sets=first=val_day,second=test_night", "--seeds=0")
    call(monkeypatch, *words)
    text = capsys.readouterr().out
    assert "| run | steps | seeds | first | static | dynamic | car | second |" in text
    assert "--sets=first=val_day,second=test_night" in text


def test_a_run_of_before_its_sets_had_other_names(tmp_path, file, played, monkeypatch, capsys):
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--only=less", "--seeds=0")
    played.commands.clear()
    (tmp_path / "records.jsonl").unlink()
    for folder in tmp_path.glob("runs/*/eval/*"):
        folder.rename(folder.with_name(f"old_{folder.name}"))
    for config in tmp_path.glob("runs/*/config.json"):
        config.write_text(config.read_text().replace('"test_night": {', '"old_test_night": {'))
        config.write_text(config.read_text().replace('"val_', '"old_val_'))
    monkeypatch.setattr(study.subprocess, "run", lambda command, check: SimpleNamespace(returncode=0))
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--only=less", "--seeds=0")
    assert "was scored on ['old_test_night', 'old_val_day', 'old_val_night']; name" in capsys.readouterr().err


def test_a_run_without_a_set_has_no_score_on_it(tmp_path, file, played, monkeypatch, capsys):
    file.write_text(STUDY.replace('settings = {"', 'settings = {"eval.sets.val_day" = "None", "'))
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--seeds=0", "--run=false")
    found = studies.read(file)
    study.check(found)
    folder = found.path(str(tmp_path), "more", 0)
    folder.mkdir(parents=True)
    write_run(folder, 200, 13.0)
    shutil.rmtree(folder / "eval" / "val_day")
    assert study_records.of_folder(folder) is None
    config = json.loads((folder / "config.json").read_text())
    config["eval"]["sets"]["val_day"] = None
    (folder / "config.json").write_text(json.dumps(config))
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--seeds=0", "--run=false")
    assert "| less, then more | ? + 200 | 1 | 13.0 | 13.0 | 13.0 | 6.5 |" in capsys.readouterr().out


NAMING = """
question = "Does a teacher help?"
sets = {night = "test_night"}
seeds = [0]

[runs.first]
config = "supervised:data=nightstreet_tiny,steps=100"

[runs.taught]
config = "self_training:data=nightstreet_tiny,steps=200,pseudo={folder}/labels"
start = "first"
before = ["nightjax pseudo-label --workdir={first} --images=a@b --output={folder}/labels{seed}"]
settings = {"train.frozen.teacher" = "{first}@best", "log.every" = 5}

[runs.from_images]
config = "supervised:data=nightstreet_tiny,steps=200,data=translated/{taught:name}"
"""


def test_runs_name_each_other(tmp_path):
    """A run needs what its texts name, and is another run when that is another."""
    found = studies.parse(tomllib.loads(NAMING), "naming")
    assert found.order(["from_images"]) == ["first", "taught", "from_images"]
    root, first, own = str(tmp_path), found.path(str(tmp_path), "first", 3), found.path(str(tmp_path), "taught", 3)
    commands = found.commands(root, "taught", 3)
    (label,), train = commands.before, commands.train
    assert label == ["nightjax", "pseudo-label", f"--workdir={first}", "--images=a@b", f"--output={own}/labels3"]
    assert train[2] == f"--config=self_training:data=nightstreet_tiny,steps=200,pseudo={own}/labels"
    assert f"--config.train.frozen.teacher={first}@best" in train and f"--config.train.init={first}" in train
    assert found.commands(root, "from_images", 3).config.endswith(f"data=translated/{own.name}")
    renamed = studies.parse(tomllib.loads(NAMING.replace("first", "other")), "naming")
    assert [found.folder(name, 3) for name in found.runs] == [renamed.folder(name, 3) for name in renamed.runs]
    for old, new in (("--images=a@b", "--images=c@b"), ("steps=100", "steps=150"), ("@best", "")):
        changed = studies.parse(tomllib.loads(NAMING.replace(old, new)), "naming")
        assert changed.folder("from_images", 3) != found.folder("from_images", 3)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{taught:name}", "{from_images}", "'from_images' needs itself"),
        ("{first} ", "{firsts} ", "no run 'firsts'; did you mean 'first'"),
        ("nightjax pseudo-label", "rm", "must be a command of nightjax"),
        ("--images=a@b", "--images='a@b", "must be a command of nightjax"),
        ("[runs.first]", "[runs.folder]", "'folder' must be a name"),
        ("[runs.first]", "[runs.first]\npublished = 101", "published=101.0 must be at most 100"),
        ("before = [", "before = 5 #", "before=5 must be a tuple"),
    ],
)
def test_wrong_names_of_runs(old, new, words):
    assert old in NAMING
    with pytest.raises(UserError, match=words):
        studies.parse(tomllib.loads(NAMING.replace(old, new)), "naming")


def test_published_scores_stand_beside_ours(tmp_path, file, played, monkeypatch, capsys):
    file.write_text(STUDY.replace('start = "less"', 'start = "less"\npublished = 39.3'))
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--seeds=0")
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line[-1] for line in lines] == ["published |", "- |", "39.3 |"]


def test_commands_before_a_run(tmp_path, file, played, monkeypatch, capsys):
    """They are done when its training has not begun; a failing one stops the study."""
    before = 'start = "less"\nbefore = ["nightjax list studies", "nightjax check --data={less} --x=\'a b\'"]'
    file.write_text(STUDY.replace('start = "less"', before))
    words, done, code = (f"--study={file}", f"--root={tmp_path}", "--seeds=0"), [], {"list": 0}
    train = study.subprocess.run

    def run(command, check):
        done.append(command[3])
        if command[3] == "train":
            return train(command, check)
        return SimpleNamespace(returncode=code.get(command[3], 0))

    monkeypatch.setattr(study.subprocess, "run", run)
    code["check"] = 3
    with pytest.raises(SystemExit):
        call(monkeypatch, *words)
    folder = studies.read(file).path(str(tmp_path), "less", 0)
    assert f"exit code 3: nightjax check --data={folder} '--x=a b'" in capsys.readouterr().err
    code["check"] = 0
    played.stops = {"more"}
    with pytest.raises(SystemExit):
        call(monkeypatch, *words)
    played.stops = set()
    call(monkeypatch, *words)
    assert done == ["train", "list", "check", "list", "check", "train", "train"]
    note = json.loads((studies.read(file).path(str(tmp_path), "more", 0) / "study.json").read_text())
    assert note["commands"][0] == "nightjax list studies" and len(note["commands"]) == 3


def test_commands_after_a_run(tmp_path, file, played, monkeypatch, capsys):
    """A run is finished with them, and they are all that is done of a run that lacks them alone."""
    after = '[runs.less]\nafter = ["nightjax list {folder} {folder:name} {seed}"]'
    file.write_text(STUDY.replace("[runs.less]", after))
    words, done, code = (f"--study={file}", f"--root={tmp_path}", "--seeds=0", "--only=less"), [], {"list": 4}
    train = study.subprocess.run

    def run(command, check):
        done.append(command[3:4] if command[3] == "train" else command[3:])
        return train(command, check) if command[3] == "train" else SimpleNamespace(returncode=code["list"])

    monkeypatch.setattr(study.subprocess, "run", run)
    with pytest.raises(SystemExit):
        call(monkeypatch, *words)
    code["list"] = 0
    for _ in range(2):
        call(monkeypatch, *words)
    folder = studies.read(file).path(str(tmp_path), "less", 0)
    assert done == [["train"], *2 * [["list", str(folder), folder.name, "0"]]]


def test_runs_that_are_not_there_are_named_and_have_no_row(tmp_path, file, played, monkeypatch, capsys):
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--only=less")
    text = capsys.readouterr().out
    assert "- Not run yet: less, then more." in text and "| less | 100 | 2 |" in text and "| less, then" not in text
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}")
    assert "Not run yet" not in capsys.readouterr().out


def test_a_run_that_scores_nothing(tmp_path):
    """It is finished with its last checkpoint, and its row of the table is empty."""
    found = studies.parse(
        tomllib.loads(STUDY.replace("supervised:data=nightstreet_tiny,steps=100", "self_supervised:")), "s"
    )
    folder = found.path(str(tmp_path), "less", 0)
    assert folder.name.startswith("self_supervised-") and folder.parent.name == "runs"
    folder.mkdir(parents=True)
    config = override(settings.load("self_supervised:data=nightstreet_tiny"), {"train.steps": 100})
    (folder / "config.json").write_text(to_json(config))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 100, "seconds": 1800.0}) + "\n")
    assert study_records.of_folder(folder) is None
    (folder / "checkpoints" / "0000100").mkdir(parents=True)
    less = study_records.of_folder(folder)
    assert less == study_records.Record(folder.name, 100, 1800.0, "unknown", {}) and less and less.answers(found)
    more = found.path(str(tmp_path), "more", 0)
    more.mkdir()
    write_run(more, 200, 13.0)
    records = {one.run: one for one in map(study_records.of_folder, (folder, more)) if one}
    table = study_table.markdown(found, study_table.find(found, records))
    assert "| less | 100 | 1 | - | - | - | - | - |" in table and "| less, then more | 100 + 200 | 1 | 13.0 |" in table


def test_dry_run(tmp_path, file, played, monkeypatch, capsys):
    call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--dry_run", "--seeds=3", "--only=less")
    folder = studies.read(file).path(str(tmp_path), "less", 3)
    assert capsys.readouterr().out.splitlines() == [
        "nightjax train --config=supervised:data=nightstreet_tiny,steps=100 --config.seed=3 --config.eval.every=50 "
        f"--config.eval.last=5 --workdir={folder}"
    ]
    assert not played.commands


@pytest.mark.parametrize("name", studies.names())
def test_own_studies_name_configs_and_classes_that_exist(name):
    study.check(studies.read(name))


def test_the_study_of_the_page_can_be_run():
    page = pathlib.Path(__file__).parents[2] / "docs" / "studies.md"
    whole, second = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    found = studies.parse(tomllib.loads(whole + second), "page")
    study.check(found)
    (label,) = found.commands("root", "second", 0).before
    assert label[1] == "pseudo-label" and label[-1].endswith("/labels") and "\n" not in "".join(label)


PLAIN = ("vit_", "dinov2_")
"""Beginnings of the names of plain transformers."""


@pytest.mark.parametrize("name", studies.names())
def test_adapted_plain_transformers_stand_beside_one_of_labels_alone(name):
    """Without it nobody could say what adapting a backbone that knows much already adds."""
    found = studies.read(name)
    made = [found.commands("", run, 0) for run in found.runs]
    runs = [settings.override(settings.load(one.config), one.settings) for one in made]
    runs = [run for run in runs if "backbone" in run.model]
    labeled = {run.model.backbone for run in runs if run.method.name == "supervised"}
    adapted = {run.model.backbone for run in runs if {"source", "target"} <= set(run.data.streams)}
    adapted = {backbone for backbone in adapted if backbone.startswith(PLAIN)}
    assert adapted <= labeled
    assert (name == "plain_transformer") <= bool(adapted)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('start = "less"', 'start = "lass"', "did you mean 'less'"),
        ('start = "less"', 'start = "more"', "needs itself"),
        ('question = "Does more help?"', "", "question is missing"),
        ("last = 2", "last = 0", "last=0 must be 1 or more"),
        ("last = 2", "last = 6", "last=6 must be at most 5"),
        ("every = 50", "every = -1", "every=-1 must be 0 or more"),
        ("every = 50", 'name = "other"', "called as its file"),
        ("seeds = [0, 1]", "seeds = 5", "seeds=5 must be a tuple"),
        ("seeds = [0, 1]", "seeds = [-1]", "seeds.0.=-1 must be 0 or more"),
        ('classes = ["car"]', 'classes = "car"', "classes='car' must be a tuple"),
        ('sets = {night = "test_night", day = "val_day"}', "sets = 5", "sets=5 must be a section"),
        ('sets = {night = "test_night", day = "val_day"}', "sets = {night = 5}", "sets.night=5 must be of type str"),
        ('settings = {"optim.lr" = 0.5}', "settings = 5", "runs.more.settings=5 must be a section"),
        ("[runs.less]", "[[runs.less]]", "must be a section"),
        ("every = 50", "evry = 50", "did you mean 'every'"),
        ("[runs.less]", '[runs."../less"]', "must be a name"),
        ('compare = [["more", "less"]]', 'compare = [["more"]]', "must have 2 entries"),
        ("seeds = [0, 1]", "seeds = [", "no TOML file"),
    ],
)
def test_wrong_studies(file, old, new, words):
    assert old in STUDY
    file.write_text(STUDY.replace(old, new))
    with pytest.raises(UserError, match=words):
        studies.read(file)


def test_missing_studies_and_markers(tmp_path, file, played, monkeypatch, capsys):
    for name in ("night_part", str(tmp_path / "none.toml")):
        with pytest.raises(UserError, match="night_parts"):
            studies.read(name)
    (tmp_path / "page.md").write_text("no markers")
    with pytest.raises(SystemExit):
        call(monkeypatch, f"--study={file}", f"--root={tmp_path}", "--run=false", f"--write={tmp_path}/page.md")
    assert "<!-- study:help -->" in capsys.readouterr().err
