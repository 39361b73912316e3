import dataclasses

import ml_collections
import pytest
from absl import flags

from nightjax.core import cli
from nightjax.core import config as configs
from nightjax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: tuple[int, int] = (1, 2)
    rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Outer:
    steps: int
    name: str = "a"
    inner: Inner | None = None
    rules: tuple[Inner, ...] = ()


def test_parse_arg():
    assert configs.parse_arg("b=2", a="1", b="") == {"a": "1", "b": "2"}
    assert configs.parse_arg(None, a="1") == {"a": "1"}
    with pytest.raises(UserError, match="did you mean 'model'"):
        configs.parse_arg("modle=x", model="")
    with pytest.raises(UserError, match="not key=value"):
        configs.parse_arg("model", model="")
    assert configs.parse_arg("light=0", light="1") == {"light": "0"}
    with pytest.raises(UserError, match="light=true must be 0 or 1"):
        configs.parse_arg("light=true", light="0")


def test_with_defaults():
    section = {"steps": 3, "inner": {"rate": 2.0}, "nmae": "kept for build to refuse"}
    assert configs.with_defaults(Outer, section) == section | {
        "name": "a",
        "inner": {"size": (1, 2), "rate": 2.0},
        "rules": (),
    }
    assert configs.with_defaults(Outer, {}, ("name",)) == {"inner": None, "rules": ()}


def test_build_nests_and_converts():
    section = ml_collections.ConfigDict(
        {"steps": 3, "inner": {"size": (3, 4), "rate": 1}, "rules": ({"rate": 0.1}, {"rate": 0.2})}
    )
    built = configs.build(Outer, section, "outer")
    assert built == Outer(3, inner=Inner((3, 4), 1.0), rules=(Inner(rate=0.1), Inner(rate=0.2)))
    assert configs.build(Outer, {"steps": 3, "inner": None}, "outer").inner is None


@pytest.mark.parametrize(
    "section, words",
    [
        ({"steps": 3, "nmae": "b"}, "outer.nmae is not a setting; did you mean 'name'"),
        ({}, "outer.steps is missing"),
        ({"steps": "3"}, "outer.steps='3' must be of type int"),
        ({"steps": True}, "must be of type int"),
        ({"steps": 3, "inner": {"size": (1, 2, 3)}}, "must have 2 entries"),
        ({"steps": 3, "inner": {"sise": 1}}, "outer.inner.sise"),
        ({"steps": 3, "rules": ({"rat": 1},)}, r"outer.rules\[0\].rat"),
    ],
)
def test_build_names_what_is_wrong(section, words):
    with pytest.raises(UserError, match=words):
        configs.build(Outer, section, "outer")


def config(**train):
    return ml_collections.ConfigDict({"train": {"steps": 3, "crop": (1, 2)} | train, "log": {"every": 5}})


def test_json_round_trip_keeps_tuples():
    assert configs.from_json(configs.to_json(config())).to_dict() == config().to_dict()


def test_same_run():
    other = config()
    other.log.every = 7
    configs.check_same_run(config(), other, "w")
    with pytest.raises(UserError, match="train.steps=3.*4"):
        configs.check_same_run(config(), config(steps=4), "w")


def test_override():
    assert configs.override(config(), {"train.steps": 9}).train.steps == 9
    with pytest.raises(UserError, match="train.stesp"):
        configs.override(config(), {"train.stesp": 9})
    with pytest.raises(UserError, match="train.steps"):
        configs.override(config(), {"train.steps": "many"})


def test_flags_set_what_is_none(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "import ml_collections\n"
        "def get_config(arg=''):\n"
        "    return ml_collections.ConfigDict({'seed': 0, 'data': {'resize': None, 'crop': None}})\n"
    )
    values = flags.FlagValues()
    _, rest = cli.define_config(values, ["main", f"--config={config}", "--config.data.resize=(512, 1024)"])
    cli.parse(values, rest)
    assert values.config.to_dict() == {"seed": 0, "data": {"resize": (512, 1024), "crop": None}}
    assert configs.from_json(configs.to_json(values.config)).data.resize == (512, 1024)
