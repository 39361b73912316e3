# SPDX-License-Identifier: Apache-2.0
"""Configs at the edge: files and their arguments, sections to dataclasses, overrides, comparison of runs."""

import ast
import dataclasses
import importlib.util
import inspect
import json
import os
import pathlib
import traceback
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, cast

import ml_collections

from nightjax.core import config_files, paths
from nightjax.core.errors import UserError, suggestion
from nightjax.core.errors import choose as choose

T = TypeVar("T")


def parse_arguments(text: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The text behind the colon of ``--config=FILE.py:key=value,key=value`` as arguments of ``get_config``.

    The function's annotations say which type each argument has: ``bool``, ``int``, ``float``, ``str`` or a ``Literal``,
    or one of these ``| None``. A comma in a path that exists separates nothing.

    Args:
        text: possibly empty.
        function: ``get_config`` of the file.

    Raises:
        UserError: a key is unknown, an item is not ``key=value``, or a value does not fit its type.
    """
    known = inspect.signature(function).parameters
    hints = typing.get_type_hints(function, include_extras=True)
    values = {}
    for item in filter(None, paths.cut(text, ",", "=")):
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"config argument {item!r} is not key=value")
        if key not in known:
            raise UserError(f"config argument {key!r} is unknown{suggestion(key, known)}")
        values[key] = _parse(hints.get(key, str), value, f"config argument {key}")
    return values


def _parse(hint: Any, text: str, where: str) -> Any:
    """A value of a type from its text."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if type(None) in options and text in ("", "None"):
        return None
    hint = next(option for option in options if option is not type(None))
    if hint is bool:
        switches = {"1": True, "true": True, "0": False, "false": False}
        if text.lower() not in switches:
            raise UserError(f"{where}={text} must be 0 or 1")
        return switches[text.lower()]
    if _plain(hint) in (int, float):
        try:
            value = _plain(hint)(text if text.isascii() else "")  # Python also reads digits of other scripts.
        except ValueError:
            raise UserError(f"{where}={text!r} must be of type {_plain(hint).__name__}") from None
        return convert(hint, value, where)
    return convert(hint, text, where)


def _plain(hint: Any) -> Any:
    """A type without its range."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def merged(section: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """A nested section with changes by dotted key; a mapping joins the section that stands there, all else replaces it.

    >>> merged({"teacher": {"decay": 0.999}, "bank": None}, {"teacher.decay": 0.99, "bank": {"size": 2}})
    {'teacher': {'decay': 0.99}, 'bank': {'size': 2}}
    """
    result = {key: merged(value) if isinstance(value, Mapping) else value for key, value in section.items()}
    for change in changes:
        for dotted, value in change.items():
            *path, name = dotted.split(".")
            node = result
            for part in path:
                if not isinstance(node.get(part), dict):
                    node[part] = {}
                node = node[part]
            if isinstance(value, Mapping):
                value = merged(node[name] if isinstance(node.get(name), Mapping) else {}, value)
            node[name] = value
    return result


def build(cls: type[T], section: Mapping[str, Any], where: str) -> T:
    """Makes a dataclass from a section; nested dataclasses and tuples of them are built too.

    A field may say which numbers it takes, see `core.ranges`.

    Args:
        cls: the dataclass.
        section: field values; missing ones take the dataclass's default, those of a part the default of its field.
        where: the section's name in errors, such as ``"optim"``.

    Raises:
        UserError: a key is no field of ``cls``, a field without default is missing, or a value has the wrong type or is
            none of a ``Literal``.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cast(Any, cls)) if f.init}
    for key in section:
        if key not in fields:
            raise UserError(f"{where}.{key} is not a setting{suggestion(key, fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in section:
            raise UserError(f"{where}.{name} is missing")
    values = {}
    for key, value in section.items():
        if isinstance(value, (Mapping, ml_collections.ConfigDict)) and part_of(hints[key]):
            value = _on_default(fields[key], dict(value))
        values[key] = convert(hints[key], value, f"{where}.{key}")
    return cls(**values)


def with_defaults(cls: type, section: Mapping[str, Any], leave_out: Collection[str] = ()) -> dict[str, Any]:
    """A section with the defaults of all fields of its dataclass that it leaves to them, nested ones too.

    What `build` makes of it stays the same; what is wrong with it is left for `build` to say.

    Args:
        cls: the dataclass.
        section: field values.
        leave_out: fields that no section gives.
    """
    filled, hints = dict(section), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = field.name
        if not field.init or name in leave_out:
            continue
        nested = part_of(hints[name])
        if name not in filled and field.default is not dataclasses.MISSING:
            filled[name] = dataclasses.asdict(field.default) if _is_part(field.default) else field.default
        if nested and isinstance(filled.get(name), Mapping):
            filled[name] = with_defaults(nested, _on_default(field, filled[name]))
    return filled


def _is_part(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _on_default(field: dataclasses.Field, section: Mapping[str, Any]) -> dict[str, Any]:
    """A part's section on top of the default that this field has, which may differ from the defaults of its class."""
    return merged(dataclasses.asdict(cast(Any, field.default)), section) if _is_part(field.default) else dict(section)


def part_of(hint: Any) -> type | None:
    """The dataclass of a field that holds a part, ``Part`` or ``Part | None``; None for other fields."""
    options = [hint, *(typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ())]
    return next((option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)), None)


def convert(hint: Any, value: Any, where: str) -> Any:
    """A value from outside as the type that a field has; see `build`.

    Args:
        hint: annotation of the field; anything but the types of settings takes the value as it is.
        value: plain data.
        where: name of the setting, for messages.

    Raises:
        UserError: it has another type or is out of range.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [option for option in args if option is not type(None)]
        made = [option for option in options if _is_kind(option, value)]
        return convert((made or options)[0], value, where)
    if origin is typing.Annotated:
        value = _of_type(args[0], value, where)
        for bounds in args[1:]:
            bounds.check(value, where)
        return value
    if origin is typing.Literal:
        if value not in args or isinstance(value, bool) != isinstance(args[0], bool):
            names = [str(option) for option in args]
            raise UserError(f"{where}={_shown(value)} is unknown{suggestion(str(value), names)}")
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, (Mapping, ml_collections.ConfigDict)):
            raise UserError(f"{where}={_shown(value)} must be a section of settings")
        return build(hint, cast(Mapping[str, Any], value), where)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{where}={_shown(value)} must be a tuple")
        items = args[:1] * len(value) if len(args) == 2 and args[1] is Ellipsis else args
        if len(items) != len(value):
            raise UserError(f"{where}={_shown(value)} must have {len(items)} entries")
        return tuple(convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(items, value, strict=True)))
    if origin is dict:
        if not isinstance(value, (Mapping, ml_collections.ConfigDict)):
            raise UserError(f"{where}={_shown(value)} must be a section of settings")
        return {key: convert(args[1], child, f"{where}.{key}") for key, child in value.items()}
    return _of_type(hint, value, where)


def _is_kind(hint: Any, value: Any) -> bool:
    """Whether one of several types that a value may have is the one that it has."""
    kind = typing.get_origin(_plain(hint)) or _plain(hint)
    return isinstance(kind, type) and isinstance(value, (tuple, list) if kind is tuple else kind)


def _of_type(hint: Any, value: Any, where: str) -> Any:
    """A value of a plain type; a whole number for a float is one."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{where}={_shown(value)} must be a finite number") from None
    if hint in (int, float, str, bool) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise UserError(f"{where}={_shown(value)} must be of type {hint.__name__}")
    return value


def _shown(value: Any) -> str:
    """A value in a message, at most some words long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]}.."


def load(path: str | os.PathLike) -> ml_collections.ConfigDict:
    """The locked config of a file: what its ``get_config`` returns for the arguments.

    The file runs by itself, by its location: no package of this or another name on Python's path changes which it is.

    Args:
        path: a file (``my/night.py``) or the name of one of nightjax's own configs (``dsr_fpa``), see
            `config_files.find`, with arguments after a colon if wanted.

    Raises:
        UserError: no such file, or it does not run through; names the line.
    """
    name, _, arguments = os.fspath(path).partition(":")
    return _call(name, lambda function: parse_arguments(arguments, function))


def call(name: str, **arguments: Any) -> ml_collections.ConfigDict:
    """The locked config of one of nightjax's own files, for typed arguments; for configs that build on another."""
    return _call(name, lambda function: arguments)


def get_config_of(name: str) -> Callable[..., ml_collections.ConfigDict]:
    """The function ``get_config`` of a config file; see `load`."""
    return _module(name, _file(name)).get_config


def _call(name: str, arguments: Callable[[Callable[..., Any]], dict[str, Any]]) -> ml_collections.ConfigDict:
    file = _file(name)
    try:
        function = _module(name, file).get_config
        config = function(**arguments(function))
    except UserError:
        raise
    except Exception as error:
        places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = f", line {places[-1]}" if places else ""
        raise UserError(f"config {name}{line} is broken: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"config {name}: get_config must return a ConfigDict, not {type(config).__name__}")
    return config.lock()


def _file(name: str) -> pathlib.Path:
    file = config_files.find(name)
    if file is None:
        known = suggestion(pathlib.Path(name).stem, config_files.names())
        raise UserError(f"config {name} does not exist, neither as a Python file nor among nightjax's own{known}")
    return file


def _module(name: str, file: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # Always so for a file that ends in .py.
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_key(config: ml_collections.ConfigDict, key: str) -> None:
    """Raises UserError unless the config has this dotted key."""
    node, names = config, key.split(".")
    for i, name in enumerate(names):
        if not isinstance(node, ml_collections.ConfigDict):
            raise UserError(f"config has no key {key!r}: {'.'.join(names[:i])} is {node!r}, not a section")
        if name not in node:
            raise UserError(f"config has no key {'.'.join(names[: i + 1])!r}{suggestion(name, node)}")
        node = node[name]


def override(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The locked config with values replaced by dotted key.

    A text is read by the type of the value that it replaces, as on the command line: ``"144,256"`` for a tuple,
    ``"None"`` for any setting or section that may be off, ``"{}"`` to switch a section on with its defaults.

    Raises:
        UserError: no such key, or a value of another type.
    """
    config = ml_collections.ConfigDict(config.to_dict())
    for key, value in values.items():
        check_key(config, key)
        *path, name = key.split(".")
        node = config
        for part in path:
            node = node[part]
        old = node[name]
        new = _read(old, value, f"config.{key}") if isinstance(value, str) else value
        if isinstance(new, (list, tuple)):
            new = tuple(new)
        if old is not None and new is not None and not _same_kind(old, new):
            raise UserError(f"config: cannot set {key}={_shown(value)}: it must be of type {_kind(old)}")
        if isinstance(new, int) and isinstance(old, float) and not isinstance(new, bool):
            new = float(new)
        with node.ignore_type():
            node[name] = ml_collections.ConfigDict(new) if isinstance(new, Mapping) else new
    return config.lock()


def _read(old: Any, text: str, where: str) -> Any:
    """A value from its text on the command line, by the value that it replaces."""
    if text == "None":
        return None
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        return _parse(bool, text, where)
    literal = f"({text},)" if isinstance(old, (tuple, list)) and not text.strip().startswith(("(", "[")) else text
    try:
        return ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        names = isinstance(old, (tuple, list)) and all(isinstance(item, str) for item in old)
        return tuple(name.strip() for name in text.split(",")) if names else text


def _kind(value: Any) -> str:
    return "section" if isinstance(value, (Mapping, ml_collections.ConfigDict)) else type(value).__name__


def _same_kind(old: Any, new: Any) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(old, float):
        return isinstance(new, (int, float))
    return _kind(old) == _kind(new)


def to_json(config: ml_collections.ConfigDict) -> str:
    """The resolved config as JSON text, tuples as lists."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ml_collections.ConfigDict:
    """The locked config that ``to_json`` wrote.

    Raises:
        ValueError: the text is not that.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__} where an object belongs")
    return ml_collections.ConfigDict(_tuples(values)).lock()


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value
