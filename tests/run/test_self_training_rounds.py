"""From a teacher to a second round: selection, pseudo-labels, the union of data sets, the thesis' experiments as
commands."""

import csv
import json
import re
import sys

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from nightjax import methods, pseudo_label, select, study
from nightjax.core import cli, sharding, studies
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.data import sources
from nightjax.data.sources import JoinedSource, ListSource
from nightjax.metrics import confusion
from nightjax.run import loaded, settings, start
from nightjax.selection.images import ImageSet, scored_by
from nightjax.train import compile_step
from tests.helpers import toy


def call(monkeypatch, verb, *words):
    monkeypatch.setattr(sys, "argv", ["verb", *map(str, words)])
    cli.run(verb.main)


def refused(monkeypatch, capsys, verb, *words):
    with pytest.raises(SystemExit) as exit_:
        call(monkeypatch, verb, *words)
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.count("\n") == 1
    return stderr


def write_pictures(folder, count, level, seed):
    """Noise around a gray level, under names that sort in the order of their numbers."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        image = np.clip(rng.normal(level + i, 12, (32, 48, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{folder.name}_{i:02d}.png"), image)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A labeled folder, a pool that is half night and half day, nights as reference, and an untrained teacher."""
    root = tmp_path_factory.mktemp("rounds")
    toy.write_folder(root / "labeled", count=5)
    write_pictures(root / "pool" / "dark", 8, 30, 0)
    write_pictures(root / "pool" / "bright", 8, 140, 1)
    write_pictures(root / "night", 10, 30, 2)
    toy.untrained_run(root / "teacher", toy.config(root / "labeled"))
    return root


def chosen(folder):
    with (folder / "selected.csv").open() as file:
        return [(row["name"], float(row["score"])) for row in csv.DictReader(file)]


@pytest.mark.filterwarnings("ignore:.*singular")
@pytest.mark.parametrize("rule", ["fid_point", "fid_maha", "fid_greedy", "fid_group", "his_ref", "his_dark", "random"])
def test_selection_finds_the_planted_nights(rule, root, tmp_path, monkeypatch, capsys):
    output = tmp_path / "selected"
    words = [f"--rule={rule}", f"--pool={root}/pool", "--count=5", f"--output={output}", "--features=random"]
    call(
        monkeypatch,
        select,
        *words,
        *([f"--reference={root}/night"] if rule not in ("his_dark", "random") else []),
    )
    names = [name for name, _ in chosen(output)]
    record = json.loads((output / "selection.json").read_text())
    assert len(names) == len(set(names)) == record["chosen"] and not record["transductive"]
    assert len(names) == 5 or (rule == "fid_group" and len(names) >= 5)
    if rule not in ("random", "fid_group"):  # Sixteen images make one group.
        assert all(name.startswith("dark/") for name in names)
    if rule == "his_dark":
        scores = [score for _, score in chosen(output)]
        assert scores == sorted(scores) and scores[0] < 35
    if rule.startswith("fid_") and rule != "fid_group":
        assert record["frechet"]["selected"] < record["frechet"]["random"]
    sheet = cv2.imread(str(output / "contact_sheet.png"))
    assert sheet.shape[0] > 128 and sheet.shape[1] > 400
    assert "images chosen by" in capsys.readouterr().out


def test_scored_pictures_are_refused_unless_said(root, tmp_path, monkeypatch, capsys):
    write_pictures(tmp_path / "test" / "night", 4, 30, 3)
    words = [
        "--rule=his_ref",
        f"--pool={root}/pool",
        f"--reference={tmp_path}/test/night",
        "--count=2",
        f"--output={tmp_path}/out",
    ]
    assert "results are scored" in refused(monkeypatch, capsys, select, *words)
    call(monkeypatch, select, *words, "--transductive")
    assert json.loads((tmp_path / "out" / "selection.json").read_text())["transductive"]


@pytest.mark.parametrize(
    ("where", "scored"),
    [
        ("nightstreet/std@test_night", True),
        ("nightstreet/std@val_night", True),
        ("nighttime_driving/original:/data@test", True),
        ("nightstreet/std_pairs@target_pairs", False),
        ("folder:/data/nights@all", False),
        ("cityscapes_seg/full@train", False),
        ("/data/leftImg8bit/test/night", True),
        ("/data/latest", False),
        ("nightstreet/std_pairs@target_pairs,nightstreet/std@val_day", True),
        ("nightstreet/std@val_night[:50%]", True),
        ("nightstreet/std@oracle_night[:50%] + val_night", True),
        ("nightstreet/std@val_night+oracle_night", True),
        ("folder:/data/days+nightstreet/std@val_night", True),
        ("nightstreet/std@oracle_night[:50%]+source_day", False),
    ],
)
def test_what_results_are_scored_on(where, scored):
    assert bool(scored_by(where)) == scored


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rule=fid_pont",), "did you mean 'fid_point'"),
        (("--rule=fid_point",), "needs --reference"),
        (("--rule=his_dark", "--count=99"), "the pool holds 16"),
        (("--rule=his_dark", "--pool={root}/nowhere"), "is no folder"),
        (("--rule=fid_point", "--reference={root}/night", "--features=inception"), "pt_inception"),
    ],
)
def test_wrong_flags_of_the_selection(words, message, root, tmp_path, monkeypatch, capsys):
    base = [f"--pool={root}/pool", "--count=3", f"--output={tmp_path}"]
    assert message in refused(monkeypatch, capsys, select, *base, *(word.format(root=root) for word in words))


@pytest.fixture(scope="module")
def pseudo(root, tmp_path_factory):
    """Pseudo-labels of three images of the pool, with and without a threshold."""
    folder = tmp_path_factory.mktemp("pseudo")
    (folder / "selected.csv").write_text("name,score\ndark/dark_03,1\nbright/bright_01,2\ndark/dark_00,3\n")
    patch = pytest.MonkeyPatch()
    for name, flags in (("all", ()), ("sure", ("--threshold=0.07",)), ("none", ("--threshold=0.99",))):
        words = [
            f"--workdir={root}/teacher",
            f"--images={root}/pool",
            f"--list={folder}/selected.csv",
            f"--output={folder}/{name}",
        ]
        call(patch, pseudo_label, *words, *flags)
    patch.undo()
    return folder


def read_label(folder, name):
    return cv2.imread(str(folder / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)


def test_pseudo_labels_are_train_ids(pseudo):
    every = read_label(pseudo / "all", "dark/dark_03")
    assert every.shape == (32, 48) and every.max() <= 18
    sure = read_label(pseudo / "sure", "dark/dark_03")
    assert set(np.unique(sure[sure != every])) <= {255}
    assert (read_label(pseudo / "none", "dark/dark_03") == 255).all()


def test_pseudo_labels_are_a_data_set_with_a_record(pseudo, root):
    source = sources.open_source(f"folder:{pseudo}/all", "train")
    assert [record["image_id"] for record in source] == ["dark/dark_03", "bright/bright_01", "dark/dark_00"]
    record = json.loads((pseudo / "all" / "pseudo_labels.json").read_text())
    assert record["step"] == 0 and record["labels"] == 3 and sum(record["pixels"].values()) == 3 * 32 * 48
    original = dict(ImageSet(f"{root}/pool"))["dark/dark_03"]
    np.testing.assert_array_equal(dict(ImageSet(f"{pseudo}/all/images"))["dark/dark_03"], original)


def test_pseudo_labels_do_not_depend_on_their_neighbours(pseudo, root, tmp_path, monkeypatch):
    """Evaluation mode: an image's labels are the same alone, and the teacher's files stay as they are."""
    (tmp_path / "one.csv").write_text("name,score\nbright/bright_01,0\n")
    words = [
        f"--workdir={root}/teacher",
        f"--images={root}/pool",
        f"--list={tmp_path}/one.csv",
        f"--output={tmp_path}/one",
    ]
    before = toy.saved_state(root / "teacher", 0)
    call(monkeypatch, pseudo_label, *words)
    np.testing.assert_array_equal(
        read_label(tmp_path / "one", "bright/bright_01"), read_label(pseudo / "all", "bright/bright_01")
    )
    after = toy.saved_state(root / "teacher", 0)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threshold=1.5",), "below 1"),
        (("--list={root}/none.csv",), "cannot read"),
        (("--list={pseudo}/selected.csv", "--images={root}/night"), "does not hold"),
        (("--workdir={root}/nowhere",), "holds no run"),
    ],
)
def test_wrong_flags_of_the_labels(words, message, root, pseudo, tmp_path, monkeypatch, capsys):
    base = [f"--workdir={root}/teacher", f"--images={root}/pool", f"--output={tmp_path}/out"]
    words = (word.format(root=root, pseudo=pseudo) for word in words)
    assert message in refused(monkeypatch, capsys, pseudo_label, *base, *words)


def test_union_draws_every_picture_alike(root, pseudo):
    joined = sources.open_source(f"folder:{root}/labeled+folder:{pseudo}/all", "train")
    assert len(joined) == 5 + 3 and joined[7]["image_id"] == "dark/dark_00"


def test_metrics_of_the_thesis():
    scores = confusion.summarize(np.array([[3, 1], [2, 4]]), "ab")
    assert scores["iou"] == {"a": pytest.approx(50), "b": pytest.approx(100 * 4 / 7)}
    assert scores["miou"]["skip"] == pytest.approx(53.5714, abs=1e-4)
    assert scores["pa"] == pytest.approx(70) and scores["ca"] == pytest.approx(70.8333, abs=1e-4)
    assert scores["fwiou"] == pytest.approx(54.2857, abs=1e-4)


def test_sizes_of_the_thesis():
    sizes = {"day": 2975, "night": 2975, "real": 1653}
    union = JoinedSource([ListSource([{"image_id": f"{name}{i}"} for i in range(n)]) for name, n in sizes.items()])
    assert len(union) == 7603 and union[2975]["image_id"] == "night0" and union[7602]["image_id"] == "real1652"
    assert -(-5950 // 4) == 1488 and 5950 % 4 == 2 and -(-len(union) // 4) == 1901 and len(union) % 4 == 3


def test_train_ids_and_label_ids_convert_both_ways():
    """By tables, never in place: 7 is a train id and a label id."""
    ids = np.arange(19, dtype=np.uint8)
    there = CITYSCAPES.to_ids[ids]
    assert there[0] == 7 and there[18] == 33
    np.testing.assert_array_equal(CITYSCAPES.from_ids[there], ids)


def test_config_joins_what_was_asked_for(pseudo):
    config = settings.load("self_training:night=folder:/night,pseudo=/pseudo,loss=combined")
    assert config.data.streams.source.dataset == "nightstreet/std+folder:/night+folder:/pseudo"
    assert config.method.loss.focal.beta == 0.5 and config.method.name == "supervised" and config.train.batch == 4
    assert methods.build(config).loss.focal.gamma == 2.0
    night = settings.load("self_training:labeled=night,night=folder:/night")
    assert night.data.streams.source.dataset == "folder:/night"
    assert methods.build(settings.load("self_training")).loss.focal is None
    converted = settings.load("self_training:converted=folder:/day").eval.sets.converted
    assert converted.dataset == "folder:/day" and converted.split == "test_night"


def test_config_labels_in_the_step(root):
    where = "unlabeled=nightstreet/std_pairs,split=target_pairs,teacher=runs/a"
    config = settings.load(f"self_training:{where},labels=soft,threshold=0.5")
    method = methods.build(config)
    assert method.labels == "soft" and method.threshold == 0.5 and config.train.frozen.teacher == "runs/a"
    assert start.stream_specs(config, method)["target"].fields == ("image",)


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("labeled=night", "needs night=DATASET"),
        ("labeled=dusk", "day, night"),
        ("loss=focl", "did you mean 'focal'"),
        ("unlabeled=nightstreet/std_pairs", "needs teacher=RUN"),
    ],
)
def test_wrong_arguments_of_the_config(arg, message):
    with pytest.raises(UserError, match=message):
        settings.load(f"self_training:{arg}")


def test_the_thesis_setting():
    config = settings.load("self_training:data=cityscapes_to_nighttime_driving,night=folder:/n,zigzag=1488")
    method = methods.build(config)
    assert config.train.steps == 60 * 1488
    assert method.loss.class_weights is None and method.loss.normalizer == "valid"
    assert method.optimizer == Optimizer(
        name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-5, decay_vectors=True, schedule="cosine", cosine_steps=1488
    )
    spec = start.stream_specs(config, method)["source"]
    assert spec.crop == (512, 1024) and spec.scale_range == (0.5, 2.0) and not spec.flip
    assert spec.antialias and not start.stream_specs(settings.load("self_training"), method)["source"].antialias
    assert "nighttime_driving_ltsp" in config.eval.sets


def in_the_step(root, **overrides):
    """A config of the method whose teacher labels in the step."""
    plain = toy.config(root / "labeled", **overrides).to_dict()
    plain["method"] = {"name": "self_training"}
    plain["data"]["streams"]["target"] = plain["data"]["streams"]["source"] | {"fields": ("image",)}
    plain["train"]["frozen"] = {"teacher": str(root / "teacher")}
    plain["seed"] = 5
    return settings.complete(ConfigDict(plain))


def test_teacher_of_the_step_is_the_run(root):
    """``train.frozen.teacher`` fills the frozen network; without ``train.init`` the student starts elsewhere."""
    config = in_the_step(root)
    method = methods.build(config)
    state = start.first_state(config, method, sharding.make_mesh(jax.devices()[:1]))
    saved = loaded.load(root / "teacher").variables
    jax.tree.map(np.testing.assert_array_equal, dict(state.frozen["teacher"]), dict(saved))
    kernel = lambda variables: np.asarray(variables["params"]["head"]["conv_seg"]["kernel"])
    assert not np.array_equal(kernel(method.variables(state)), kernel(saved))


@pytest.mark.slow
def test_the_step_does_not_gather_the_batch(root):
    config = in_the_step(root, batch=8, train__devices=4)
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:4])
    text = compile_step(
        method, start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh), mesh
    ).as_text()
    assert "all-reduce" in text and not re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(", text)


def test_rows_of_the_thesis():
    found = studies.read("thesis")
    rows = [name for name, run in found.runs.items() if "self_training" in run.config]
    assert len(rows) == 20 + 2  # The rows of the thesis, and two that select at random.
    assert found.runs["8.3"].published == 40.7 and found.runs["9.1"].published is None
    select, label = found.commands("root", "8.3", 1).before
    start = str(found.path("root", "8.1", 1))
    assert "--rule=fid_point" in select and f"--workdir={start}" in label
    last = found.commands("root", "8.3", 1)
    assert last.settings["train.init"] == start and "loss=combined" in last.config and last.settings["seed"] == "1"
    assert "train.init" not in found.commands("root", "1.2", 0).settings
    assert set(found.runs["1.2"].needs()) == {"1.1", "nights"}
    for rule, seed in (("9.1", "--seed=1"), ("9.2", "--seed=1")):
        assert seed in found.commands("root", rule, 1).before[0]
    assert found.order(["8.2"]) == ["judge", "nights", "3.1", "5.2", "8.1", "8.2"]


SMALL = """
question = "Does a second round run?"
sets = {night = "test_night", converted = "converted"}
seeds = [0]

[runs.judge]
config = "supervised:data=nightstreet_tiny,steps=2"

[runs.nights]
config = "unit:data=nightstreet_tiny,steps=2,segmenter={judge}"
after = [
    "nightjax translate --workdir={folder} --data=nightstreet/tiny --split=source_day --name={folder:name}",
    '''nightjax translate --to=day --workdir={folder} --data=nightstreet/tiny --split=test_night
    --name={folder:name}_day''',
]

[runs.first]
config = "self_training:data=nightstreet_tiny,steps=2,night=translated/{nights:name},converted=translated/NIGHTS_day"

[runs.second]
config = "self_training:data=nightstreet_tiny,steps=2,night=translated/{nights:name},pseudo={folder}/labels"
start = "first"
before = [
    '''nightjax select --rule=fid_point --count=4 --features=random --output={folder}/selected
    --pool=nightstreet/tiny_pairs@target_pairs --reference=translated/{nights:name}@source_day''',
    '''nightjax pseudo-label --workdir={first} --images=nightstreet/tiny_pairs@target_pairs
    --list={folder}/selected/selected.csv --split=source_day --output={folder}/labels''',
]
published = 39.3
""".replace("NIGHTS", "{nights:name}")


@pytest.mark.slow
def test_a_round_runs_end_to_end(tmp_path, monkeypatch, capsys):
    """Translated, selected and labeled by commands of the study; a second call makes nothing."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "small.toml").write_text(SMALL)
    words = (f"--study={tmp_path}/small.toml", f"--root={tmp_path}/runs", "--set=log.every=1", "--set=train.devices=1")
    call(monkeypatch, study, *words)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("nightjax ")]) == 4 + 2 + 2
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")][1:] == [
        "| judge",
        "| nights",
        "| first",
        "| second",
    ]
    call(monkeypatch, study, *words)
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("nightjax ")]
    (second,) = [line for line in lines if line.startswith("| second ")]
    assert second.startswith("| second | 2 + 2 | 1 | ") and second.endswith(" | 39.3 |")
