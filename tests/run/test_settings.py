"""Configs are complete and checked: every setting is there, every setting is a flag, and nothing else is accepted."""

import dataclasses
import json
import os
import subprocess
import sys
import typing

import pytest
from absl import flags
from ml_collections import ConfigDict

from nightjax import methods
from nightjax.core import cli, config_files
from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.metrics.protocol import EvalSet
from nightjax.run import settings, start
from nightjax.zoo.benchmarks import BENCHMARKS
from tests.helpers import toy
from tests.helpers.places import ROOT

METHODS = {
    "supervised": "supervised",
    "self_training": "self_training:unlabeled=nightstreet/std_pairs,split=target_pairs,teacher=runs/a",
    "self_supervised": "self_supervised:",
    "dacs": "dacs",
    "dsr_fpa": "dsr_fpa",
    "dannet": "dannet",
    "distill": "distill:teacher=runs/a",
    "adaptsegnet": "adaptsegnet",
    "nightlab": "nightlab:stage=regions,start=runs/a,hard=5",
    "t2s_da": "t2s_da",
    "t2s_dg": "t2s_da:mode=dg",
    "uawarpc": "uawarpc",
    "unit": "unit:vgg=VGG16.npz",
    "cyclegan": "cyclegan",
    "pix2pixhd": "pix2pixhd",
}
"""Every method to a config of it."""


@pytest.fixture
def root(tmp_path):
    return toy.write_folder(tmp_path)


def begin(config):
    """What a run builds of its config before it does anything."""
    config = settings.complete(config)
    settings.check(config)
    method = methods.build(config)
    specs = start.stream_specs(config, method)
    sets = [
        configs.build(EvalSet, value, f"eval.sets.{name}") for name, value in settings.eval_sections(config).items()
    ]
    return method, specs, sets


def flat(tree, prefix=""):
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


def from_flags(name, *words):
    """The config of a command line."""
    values = flags.FlagValues()
    cli.define_config(values, ["train", f"--config={name}", *words], settings.load, settings.override)
    return values["config"].value


def test_every_method_has_a_config_here():
    assert set(METHODS) == set(methods.METHODS)
    assert all(settings.load(path).method.name == name for name, path in METHODS.items())


@pytest.mark.parametrize("name", config_files.names())
def test_every_config_takes_every_benchmark_or_says_why_not(name):
    """What it takes is complete, completing it again changes nothing, and its method can be built."""
    taken = []
    for data in BENCHMARKS:
        try:
            config = settings.load(f"{name}:data={data}")
        except UserError as error:
            assert "\n" not in str(error)
            continue
        assert settings.complete(config) == config
        begin(config)
        taken.append(data)
    assert {"nightstreet", "nightstreet_tiny"} <= set(taken)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_a_flag_that_takes_what_is_printed_of_it(name):
    config = settings.load(METHODS[name])
    values = flat(config.to_dict())
    assert len(values) > 60
    words = [f"--config.{key}={value if isinstance(value, str) else repr(value)}" for key, value in values.items()]
    again = from_flags(METHODS[name], *words)
    assert again == config and configs.to_json(again) == configs.to_json(config)


def choices(cls, prefix="method."):
    """Dotted key of every setting that is a choice, parts included."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name in methods.GIVEN_ELSEWHERE:
            continue
        options = [hints[field.name], *typing.get_args(hints[field.name])]
        if part := configs.part_of(hints[field.name]):
            yield from choices(part, f"{prefix}{field.name}.")
        elif any(typing.get_origin(option) is typing.Literal for option in options):
            yield f"{prefix}{field.name}"


@pytest.mark.parametrize("name", METHODS)
def test_a_choice_takes_only_what_there_is(name):
    config = settings.load(METHODS[name])
    for key in choices(methods.METHODS[name]):
        try:
            configs.check_key(config, key)
        except UserError:
            continue  # Of a part that is off.
        with pytest.raises(UserError, match=rf"{key}='nonsense' is unknown; (did you mean|known:)"):
            methods.build(configs.override(config, {key: "nonsense"}))


@pytest.mark.parametrize("name", METHODS)
def test_parts_switch_off_by_None_and_on_by_braces(name):
    """And on again with the default of the field, which may differ from that of the part's class."""
    config, cls = settings.load(METHODS[name]), methods.METHODS[name]
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        part = configs.part_of(hints[field.name])
        if part is None or type(None) not in typing.get_args(hints[field.name]) or field.name == "input":
            continue
        off = settings.override(config, {f"method.{field.name}": "None"})
        assert off.method[field.name] is None
        on = settings.override(off, {f"method.{field.name}": "{}"})
        default = part() if field.default is None else field.default
        assert on.method[field.name].to_dict() == dataclasses.asdict(default)
        assert configs.build(part, on.method[field.name], field.name) == default


def test_a_part_is_switched_on_and_set_in_one_command():
    config = from_flags("dsr_fpa:parts=none", "--config.method.bank.size=2", "--config.method.bank={}")
    assert config.method.bank.size == 2 and config.method.bank.every == 5


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("--config.data.streams.source.resize=144,256", "data.streams.source.resize", (144, 256)),
        ("--config.data.streams.target.fields=image,reference", "data.streams.target.fields", ("image", "reference")),
        ("--config.model.head_channels=64", "model.head_channels", 64),
        ("--config.model.input.exposure=0.46", "model.input.exposure", 0.46),
        ("--config.eval.sets.val_night.flip", "eval.sets.val_night.flip", True),
        ("--config.optim.milestones=100,200", "optim.milestones", (100, 200)),
        ("--config.train.frozen.aligner=runs/uawarpc", "train.frozen.aligner", "runs/uawarpc"),
        ("--config.method.loss.focal={}", "method.loss.focal.gamma", 2.0),
    ],
)
def test_flags_that_used_to_be_missing(word, key, value):
    config = from_flags("dsr_fpa", word)
    begin(config)
    for name in key.split("."):
        config = config[name]
    assert config == value and type(config) is type(value)


def test_an_evaluation_set_is_left_out_by_None():
    config = from_flags("supervised", "--config.eval.sets.val_day=None")
    assert set(settings.eval_sections(config)) == {"val_night", "test_night"}
    *_, sets = begin(config)
    assert {one.split for one in sets} == {"val_night", "test_night"}
    with pytest.raises(UserError, match="checkpoint.best='val_night'.*test_night"):
        begin(from_flags("supervised", "--config.eval.sets.val_night=None"))


def test_a_stream_is_left_out_by_None():
    config = from_flags("dacs", "--config.data.streams.target=None")
    assert list(config.data.streams) == ["source"]
    with pytest.raises(UserError, match="domain 'target'"):
        begin(config)


def test_another_network_brings_its_own_settings():
    config = settings.load("supervised")
    for backbone in ("resnet18", "mit_b0"):
        model = from_flags("supervised", f"--config.model.backbone={backbone}").model
        assert model == settings.complete(ConfigDict(changed(config, {"backbone": backbone, "head": "fpn"}))).model
    wide = from_flags("supervised", "--config.model.backbone=mit_b0", "--config.model.backbone_drop_path=0.3").model
    assert wide.backbone_drop_path == 0.3
    kept = from_flags("dannet:data=cityscapes_to_dark_zurich", "--config.model.backbone=resnet50_v1c_d8").model
    assert kept.backbone_stem_features == 128 and kept.backbone_depths == (3, 4, 6, 3)
    relit = from_flags("supervised", "--config.model.relight=true").model
    assert relit.relight and "relight_features" in relit
    with pytest.raises(UserError, match="'resnet18'"):
        from_flags("supervised", "--config.model.backbone=resnet81")


def changed(config, model):
    return config.to_dict() | {"model": model | {"dtype": config.model.dtype}}


UNKNOWN = {
    "train.stesp": "'steps'",
    "data.dri": "'dir'",
    "data.streams.source.corp": "'crop'",
    "data.streams.source.rare_class.temprature": "'temperature'",
    "eval.evry": "'every'",
    "eval.sets.val.absent_clases": "'absent_classes'",
    "checkpoint.beste": "'best'",
    "log.evry": "'every'",
    "optim.lrr": "'lr'",
    "model.head_chanels": "'head_channels'",
    "model.input.ordre": "'order'",
    "method.bnak": "'bank'",
    "method.bank.sise": "'size'",
    "method.mixing.photometric.blur.sigmaa": "'sigma'",
    "trian": "'train'",
    "train.frozen.alinger": "'aligner'",
}


@pytest.mark.parametrize("key", UNKNOWN)
def test_unknown_settings_are_refused_with_a_suggestion(key, root):
    """In a config file; on the command line every key that is not there is refused."""
    plain = toy.config(root, "dsr_fpa").to_dict()
    with pytest.raises(UserError) as error:
        begin(ConfigDict(configs.merged(plain, {key: 1})))
    assert f"did you mean {UNKNOWN[key]}" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError):
        settings.override(ConfigDict(plain), {key: 1})


def test_a_key_of_an_empty_section_is_refused_in_a_whole_sentence():
    with pytest.raises(UserError, match=r"no key 'train.frozen.teacher'; there are none here$"):
        configs.check_key(ConfigDict({"train": {"frozen": {}}}), "train.frozen.teacher")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": None}, "section 'model' is missing"),
        ({"train.steps": None}, "train.steps"),
        ({"data.streams.source": 5}, "data.streams.source=5 must be a section"),
        ({"eval.sets.val": "night"}, "eval.sets.val='night' must be a section"),
        ({"train.steps": 0}, "train.steps=0 must be 1 or more"),
        ({"optim.warmup": 9}, "optim.warmup=9 is not within"),
        ({"method.alignment.start_step": 9}, "method.alignment.start_step=9 is not within"),
        ({"eval.sets.val.batch": 0}, "eval.sets.val.batch=0"),
        ({"method.name": "dsr"}, "did you mean 'dsr_fpa'"),
        ({"train.frozen.aligner": 7}, "train.frozen.aligner=7 must be a path; write ./7"),
    ],
)
def test_values_that_make_no_run(changes, words, root):
    with pytest.raises(UserError, match=words):
        begin(ConfigDict(configs.merged(toy.config(root, "dsr_fpa").to_dict(), changes)))


@pytest.mark.parametrize("name", ["dsr_fpa", "configs/dsr_fpa.py", str(ROOT / "configs" / "dsr_fpa.py")])
def test_a_foreign_package_called_configs_changes_nothing(name, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('not the one that was meant')\n")
    code = "import sys; from nightjax import api; print(api.get_config(sys.argv[1], {'train.steps': 7}).to_json())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", code, name], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["train"]["steps"] == 7 and found["method"]["name"] == "dsr_fpa"


def test_a_file_of_ones_own_is_found_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "dsr_fpa.py").write_text(
        "from nightjax.core import config\n"
        "def get_config(steps: int = 5):\n"
        "    return config.call('dacs', steps=steps)\n"
    )
    monkeypatch.chdir(tmp_path)
    mine = settings.load("configs/dsr_fpa.py:steps=6")
    assert mine.method.name == "dacs" and mine.train.steps == 6
    assert settings.load("dsr_fpa").method.name == "dsr_fpa"
