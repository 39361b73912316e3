import dataclasses
from typing import Literal

import ml_collections
import pytest
from absl import flags
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nightjax.core import cli, same_run
from nightjax.core import config as configs
from nightjax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: tuple[int, int] = (1, 2)
    rate: float = 0.5
    mode: Literal["slow", "fast"] = "slow"


@dataclasses.dataclass(frozen=True)
class Outer:
    steps: int
    name: str = "a"
    inner: Inner | None = None
    rules: tuple[Inner, ...] = ()
    own: Inner | None = Inner(rate=0.25)
    joint: bool = False


def get_config(
    data: str = "",
    model: str | None = None,
    steps: int | None = None,
    rate: float = 1.0,
    light: bool = False,
    stage: Literal["", "one", "two"] = "",
):
    """A `get_config` of every type that arguments have."""


examples = hypothesis_settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)

TEXTS = st.text(st.characters(codec="ascii", exclude_characters=",", exclude_categories=("Cc",)))
NUMBERS = st.floats(allow_nan=False)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",))).filter(lambda text: text != "None"),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple),
    st.lists(st.sampled_from(["image", "label", "reference"]), min_size=1, max_size=3).map(tuple),
    st.lists(st.tuples(st.integers(), st.integers()), max_size=2).map(tuple),
)
NAMES = st.sampled_from(["a", "b", "c", "d"])
SECTIONS = st.recursive(
    st.dictionaries(NAMES, LEAVES, min_size=1, max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAVES, inner), min_size=1, max_size=3),
    max_leaves=8,
)
INNERS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.tuples(st.integers(), st.integers()),
        "rate": NUMBERS,
        "mode": st.sampled_from(["slow", "fast"]),
    },
)
OUTERS = st.fixed_dictionaries(
    {"steps": st.integers()},
    optional={
        "name": st.text(),
        "inner": st.none() | INNERS,
        "own": st.none() | INNERS,
        "rules": st.lists(INNERS, max_size=2).map(tuple),
        "joint": st.booleans(),
    },
)


def leaves(tree, prefix=""):
    """Dotted key to value; an empty section is a leaf."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def printed(value):
    return value if isinstance(value, str) else repr(value)


@examples
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "data": TEXTS,
            "model": st.none() | TEXTS.filter(lambda text: text not in ("", "None")),
            "steps": st.none() | st.integers(),
            "rate": NUMBERS,
            "light": st.booleans(),
            "stage": st.sampled_from(["", "one", "two"]),
        },
    )
)
def test_arguments_are_what_was_written(values):
    text = ",".join(f"{key}={value}" for key, value in values.items())
    assert configs.parse_arguments(text, get_config) == values


@pytest.mark.parametrize(
    "text, words",
    [
        ("modle=x", "'modle' is unknown; did you mean 'model'"),
        ("model", "not key=value"),
        ("light=maybe", "light=maybe must be 0 or 1"),
        ("steps=1.5", "steps='1.5' must be of type int"),
        ("rate=fast", "rate='fast' must be of type float"),
        ("stage=tow", "stage='tow' is unknown; did you mean 'two'"),
        ("stage=None", "stage='None' is unknown"),
    ],
)
def test_wrong_arguments(text, words):
    with pytest.raises(UserError, match=words):
        configs.parse_arguments(text, get_config)


def test_switches_have_several_words():
    for text, value in {"1": True, "true": True, "True": True, "0": False, "false": False}.items():
        assert configs.parse_arguments(f"light={text}", get_config) == {"light": value}


@examples
@given(OUTERS)
def test_defaults_change_nothing(section):
    filled = configs.with_defaults(Outer, section)
    assert set(filled) == {field.name for field in dataclasses.fields(Outer)}
    assert configs.with_defaults(Outer, filled) == filled
    assert configs.build(Outer, filled, "outer") == configs.build(Outer, section, "outer")


def test_with_defaults():
    section = {"steps": 3, "inner": {"rate": 2.0}, "nmae": "kept for build to refuse"}
    assert configs.with_defaults(Outer, section) == section | {
        "name": "a",
        "inner": {"size": (1, 2), "rate": 2.0, "mode": "slow"},
        "rules": (),
        "own": {"size": (1, 2), "rate": 0.25, "mode": "slow"},
        "joint": False,
    }
    assert configs.with_defaults(Outer, {"own": None}, ("name", "joint")) == {"inner": None, "rules": (), "own": None}


def test_a_part_has_the_default_of_its_field():
    """Given in part, the rest is that of the field and not of the class."""
    assert configs.build(Outer, {"steps": 3, "own": {"size": (5, 5)}}, "outer").own == Inner((5, 5), 0.25)
    assert configs.build(Outer, {"steps": 3, "own": {}}, "outer").own == Inner(rate=0.25)
    assert configs.build(Outer, {"steps": 3, "inner": {}}, "outer").inner == Inner()
    assert configs.build(Outer, {"steps": 3, "own": None}, "outer").own is None


def test_build_nests_and_converts():
    section = ml_collections.ConfigDict(
        {"steps": 3, "inner": {"size": (3, 4), "rate": 1}, "rules": ({"rate": 0.1}, {"rate": 0.2})}
    )
    built = configs.build(Outer, section, "outer")
    assert built == Outer(3, inner=Inner((3, 4), 1.0), rules=(Inner(rate=0.1), Inner(rate=0.2)))
    assert configs.build(Outer, {"steps": 3, "inner": None}, "outer").inner is None


@dataclasses.dataclass(frozen=True)
class Choice:
    part: Inner | Outer | None = None


@pytest.mark.parametrize("part", [Inner(), Outer(3), None])
def test_build_takes_any_of_several_parts_as_it_is(part):
    assert configs.build(Choice, {"part": part}, "choice").part is part


@pytest.mark.parametrize(
    "section, words",
    [
        ({"steps": 3, "nmae": "b"}, "outer.nmae is not a setting; did you mean 'name'"),
        ({}, "outer.steps is missing"),
        ({"steps": "3"}, "outer.steps='3' must be of type int"),
        ({"steps": True}, "must be of type int"),
        ({"steps": None}, "must be of type int"),
        ({"steps": 3, "joint": 1}, "outer.joint=1 must be of type bool"),
        ({"steps": 3, "inner": {"size": (1, 2, 3)}}, "must have 2 entries"),
        ({"steps": 3, "inner": {"sise": 1}}, "outer.inner.sise is not a setting; did you mean 'size'"),
        ({"steps": 3, "inner": {"mode": "fsat"}}, "outer.inner.mode='fsat' is unknown; did you mean 'fast'"),
        ({"steps": 3, "own": {"mode": True}}, "outer.own.mode=True is unknown; known: fast, slow"),
        ({"steps": 3, "own": 5}, "outer.own=5 must be a section"),
        ({"steps": 3, "rules": ({"rat": 1},)}, r"outer.rules\[0\].rat"),
    ],
)
def test_build_names_what_is_wrong(section, words):
    with pytest.raises(UserError, match=words):
        configs.build(Outer, section, "outer")


@examples
@given(SECTIONS)
def test_nothing_merged_is_a_copy(section):
    copy = configs.merged(section)
    assert copy == section == configs.merged(section, section)
    for key in [key for key, value in copy.items() if isinstance(value, dict)]:
        copy[key]["new"] = 1
        assert "new" not in section[key]


@examples
@given(SECTIONS, st.lists(NAMES, min_size=1, max_size=3).map(".".join), LEAVES)
def test_a_merged_leaf_is_there_and_nothing_else_changes(section, key, value):
    before, merged = leaves(section), configs.merged(section, {key: value})
    after = leaves(merged)
    assert after.pop(key) == value
    apart = lambda other: not (f"{other}.".startswith(f"{key}.") or f"{key}.".startswith(f"{other}."))
    assert {k: v for k, v in after.items() if apart(k)} == {k: v for k, v in before.items() if apart(k)}
    assert configs.merged(merged, {key: value}) == merged


def test_merged_sections_join_and_None_clears():
    section = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert configs.merged(section, {"a": {"c": {"f": 4}}}) == {"a": {"b": 1, "c": {"d": 2, "f": 4}}, "e": 3}
    assert configs.merged(section, {"a": None}, {"a.b": 5}) == {"a": {"b": 5}, "e": 3}
    assert configs.merged(section, {"a.c": 7, "e.g": 8}) == {"a": {"b": 1, "c": 7}, "e": {"g": 8}}


@examples
@given(SECTIONS)
def test_every_value_can_be_set_to_what_is_printed_of_it(section):
    config = ml_collections.ConfigDict(section)
    for key, value in leaves(section).items():
        assert configs.override(config, {key: printed(value)}).to_dict() == section
        assert configs.override(config, {key: value}).to_dict() == section


@examples
@given(SECTIONS)
def test_json_round_trip(section):
    config = ml_collections.ConfigDict(section)
    assert configs.from_json(configs.to_json(config)).to_dict() == section


def config(**train):
    return ml_collections.ConfigDict(
        {"train": {"steps": 3, "rate": 0.5, "crop": (1, 2), "fields": ("image",)} | train, "log": {"every": 5}}
    )


def test_same_run():
    other = config()
    other.log.every = 7
    same_run.check_same_run(config(), other, "w")
    with pytest.raises(UserError, match="train.steps=3.*4; --extend continues.*--config.train.init=w"):
        same_run.check_same_run(config(), config(steps=4), "w")
    with pytest.raises(UserError, match="train.crop.*; to start from its weights alone"):
        same_run.check_same_run(config(), config(crop=(2, 2)), "w", extend=True)
    assert same_run.check_same_run(config(), config(steps=4), "w", extend=True) == ["train.steps: 3, now 4"]
    assert not same_run.check_same_run(config(), config(), "w", extend=True)


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("steps", 9, 9),
        ("steps", "9", 9),
        ("rate", "2", 2.0),
        ("rate", 2, 2.0),
        ("rate", "1e-3", 1e-3),
        ("crop", "144,256", (144, 256)),
        ("crop", "(144, 256)", (144, 256)),
        ("crop", [144, 256], (144, 256)),
        ("crop", "7", (7,)),
        ("crop", "None", None),
        ("fields", "image,label", ("image", "label")),
        ("fields", "('image', 'label')", ("image", "label")),
    ],
)
def test_override(key, value, expected):
    found = configs.override(config(), {f"train.{key}": value}).train[key]
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("section, expected", [("{}", {}), ("None", None), ({"x": 1}, {"x": 1})])
def test_sections_are_switched_by_None_and_braces(section, expected):
    found = configs.override(config(), {"train": section}).to_dict()["train"]
    assert found == expected


def test_override_leaves_the_config_alone():
    before = config().lock()
    configs.override(before, {"train.steps": 9})
    assert before.train.steps == 3


@pytest.mark.parametrize(
    "values, words",
    [
        ({"train.stesp": 9}, "'train.stesp'; did you mean 'steps'"),
        ({"train.steps.x": 9}, "train.steps is 3, not a section"),
        ({"train.steps": "many"}, "train.steps='many'.*int"),
        ({"train.steps": 2.5}, "train.steps=2.5.*int"),
        ({"train.steps": True}, "train.steps=True.*int"),
        ({"train": "fast"}, "train='fast'.*section"),
        ({"train.crop": "big"}, "train.crop='big'.*tuple"),
    ],
)
def test_what_cannot_be_overridden(values, words):
    with pytest.raises(UserError, match=words):
        configs.override(config(), values)


def test_flags_set_what_is_none(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "import ml_collections\n"
        "def get_config():\n"
        "    return ml_collections.ConfigDict({'seed': 0, 'data': {'resize': None, 'crop': None}})\n"
    )
    values = flags.FlagValues()
    _, rest = cli.define_config(values, ["main", f"--config={config}", "--config.data.resize=(512, 1024)"])
    cli.parse(values, rest)
    assert values.config.to_dict() == {"seed": 0, "data": {"resize": (512, 1024), "crop": None}}
    assert configs.from_json(configs.to_json(values.config)).data.resize == (512, 1024)


def test_a_file_gets_its_arguments_typed(tmp_path):
    file = tmp_path / "night.py"
    file.write_text(
        "import ml_collections\n"
        "def get_config(steps: int = 3, light: bool = False):\n"
        "    return ml_collections.ConfigDict({'steps': steps, 'light': light})\n"
    )
    assert configs.load(f"{file}:light=1,steps=7").to_dict() == {"steps": 7, "light": True}
    assert configs.load(file).to_dict() == {"steps": 3, "light": False}
    with pytest.raises(UserError, match="did you mean 'dsr_fpa'"):
        configs.load("dsr_fap")
