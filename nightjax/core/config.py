"""Configs at the edge: arguments, sections to dataclasses, comparison of runs. Nothing below ``methods`` sees a
config."""

import dataclasses
import difflib
import importlib.util
import json
import os
import pathlib
import traceback
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import ml_collections

from nightjax.core.errors import UserError

T = TypeVar("T")

CHANGEABLE = (
    "log.",
    "checkpoint.",
    "eval.",
    "data.dir",
    "data.manual_dir",
    "data.workers",
    "data.threads",
    "train.devices",
)
"""Keys that may differ between the start of a run and its continuation."""


SWITCH = ("0", "1")
"""Values of a config argument that is on or off."""


def suggestion(name: str, known: typing.Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or the known names when nothing is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def parse_arg(arg: str | None, **defaults: str) -> dict[str, str]:
    """Parses the text after the colon of ``--config=file.py:key=value,key=value``.

    Args:
        arg: the text, possibly empty.
        **defaults: every key the config knows, with its default; one of ``"0"`` or ``"1"`` makes a switch.

    Raises:
        UserError: a key is unknown, an item is not ``key=value``, or a switch is neither 0 nor 1.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"config argument {item!r} is not key=value")
        if key not in defaults:
            raise UserError(f"config argument {key!r} is unknown{suggestion(key, defaults)}")
        if defaults[key] in SWITCH and value not in SWITCH:
            raise UserError(f"config argument {key}={value} must be 0 or 1")
        values[key] = value
    return values


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """``table[name]``, or a UserError with a suggestion."""
    if name not in table:
        raise UserError(f"{what}={name!r} is unknown{suggestion(name, table)}")
    return table[name]


def build(cls: type[T], section: Mapping[str, Any], where: str) -> T:
    """Makes a dataclass from a section; nested dataclasses and tuples of them are built too.

    Args:
        cls: the dataclass.
        section: field values; missing ones take the dataclass's default.
        where: the section's name in errors, such as ``"optim"``.

    Raises:
        UserError: a key is no field of ``cls``, a field without default is missing, or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in section:
        if key not in fields:
            raise UserError(f"{where}.{key} is not a setting{suggestion(key, fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in section:
            raise UserError(f"{where}.{name} is missing")
    return cls(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in section.items()})


def with_defaults(cls: type, section: Mapping[str, Any], leave_out: Collection[str] = ()) -> dict[str, Any]:
    """A section with the defaults of all fields of its dataclass that it leaves to them, nested ones too.

    What `build` makes of it stays the same; what is wrong with it is left for `build` to say. Dataclasses that are not
    frozen, such as networks, stay as they are.

    Args:
        cls: the dataclass.
        section: field values.
        leave_out: fields that no section gives.
    """
    filled = dict(section)
    for name, hint in typing.get_type_hints(cls).items():
        field = cls.__dataclass_fields__.get(name)
        if field is None or not field.init or name in leave_out:
            continue
        nested = next((h for h in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(h)), None)
        if any(dataclasses.is_dataclass(x) and not x.__dataclass_params__.frozen for x in (nested, field.default)):
            continue
        if name not in filled and field.default is not dataclasses.MISSING:
            filled[name] = (
                dataclasses.asdict(field.default) if dataclasses.is_dataclass(field.default) else field.default
            )
        if nested and isinstance(filled.get(name), Mapping):
            filled[name] = with_defaults(nested, filled[name])
    return filled


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{where}={value!r} must be a tuple")
        items = args[:1] * len(value) if len(args) == 2 and args[1] is Ellipsis else args
        if len(items) != len(value):
            raise UserError(f"{where}={value!r} must have {len(items)} entries")
        return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(items, value)))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise UserError(f"{where}={value!r} must be of type {hint.__name__}")
    return value


def load(path: str | os.PathLike) -> ml_collections.ConfigDict:
    """The locked config of a file: what its ``get_config(argument)`` returns.

    Args:
        path: ``configs/dsr_fpa.py``, with the argument after a colon if wanted.

    Raises:
        UserError: no such file, or it does not run through; names the line.
    """
    name, _, argument = os.fspath(path).partition(":")
    file = pathlib.Path(name)
    if not file.is_file() or file.suffix != ".py":
        raise UserError(
            f"config {name} does not exist or is no Python file; try configs/dsr_fpa.py in a clone of nightjax"
        )
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(argument)
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = f", line {lines[-1]}" if lines else ""
        raise UserError(f"config {name}{line} is broken: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"config {name}: get_config must return a ConfigDict, not {type(config).__name__}")
    return config.lock()


def check_key(config: ml_collections.ConfigDict, key: str) -> None:
    """Raises UserError unless the config has this dotted key."""
    node, names = config, key.split(".")
    for i, name in enumerate(names):
        if not isinstance(node, ml_collections.ConfigDict):
            raise UserError(f"config has no key {key!r}: {'.'.join(names[:i])} is {node!r}, not a section")
        if name not in node:
            raise UserError(f"config has no key {'.'.join(names[: i + 1])!r}{suggestion(name, node)}")
        node = node[name]


def open_none(config: ml_collections.ConfigDict, key: str) -> None:
    """Lets a flag set the value of this dotted key to any literal if it is None, which has no type to go by."""
    *sections, name = key.split(".")
    node = config
    for section in sections:
        node = node[section]
    if node[name] is None:
        with node.unlocked():
            node[name] = ml_collections.config_dict.placeholder(object)


def override(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The locked config with values replaced by dotted key.

    Raises:
        UserError: no such key, or a value of another type.
    """
    config.lock()
    for key, value in values.items():
        check_key(config, key)
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise UserError(f"config: cannot set {key}={value!r}: {error}") from error
    return config


def to_json(config: ml_collections.ConfigDict) -> str:
    """The resolved config as JSON text, tuples as lists."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ml_collections.ConfigDict:
    """The locked config that ``to_json`` wrote.

    Raises:
        ValueError: the text is not that.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__} where an object belongs")
    return ml_collections.ConfigDict(_tuples(values)).lock()


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value


def check_same_run(saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: Any) -> None:
    """Raises UserError when a workdir holds a run whose results another config would not continue."""
    before, now = _flat(saved.to_dict()), _flat(_tuples(json.loads(to_json(config))))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not key.startswith(CHANGEABLE):
            raise UserError(
                f"{workdir} holds a run with {key}={before.get(key)!r}, not {now.get(key)!r}; choose another "
                "--workdir, "
                "or delete it to start again"
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
