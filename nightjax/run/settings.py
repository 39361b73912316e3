# SPDX-License-Identifier: Apache-2.0
"""The sections of a config, checked and complete: every setting is there with its default, so each is a flag."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Annotated, Any

import ml_collections
from etils import epath

from nightjax import methods
from nightjax.core import class_section, files
from nightjax.core import config as configs
from nightjax.core.errors import UserError, choose, first_line, suggestion
from nightjax.core.optim import Optimizer
from nightjax.core.ranges import Count, Range, Seed, check_values
from nightjax.core.sharding import Shard
from nightjax.core.step import Passes
from nightjax.data.loading import StreamSpec
from nightjax.metrics.protocol import EvalSet
from nightjax.models import build_segmenter
from nightjax.models.sections import with_defaults as model_with_defaults


@dataclasses.dataclass(frozen=True)
class Train:
    """The section ``train``.

    Attributes:
        steps: length of the run.
        batch: examples of each domain a step, over all devices.
        accumulate: microbatches whose gradients are computed one after another.
        passes: of the student in a self-training step: under one gradient ``"together"``, or ``"apart"``, one after the
            other, in less memory; see `core.step.Training`.
        devices: use the first so many devices; 0 for all.
        shard: ``"params"`` splits parameters, the optimizer's state, teacher and frozen networks over the devices;
            with ``"none"`` every device holds them whole.
        init: run or checkpoint folder whose weights the run starts from, ``"bundled"`` for the network that comes with
            nightjax, or "".
        frozen: run or file of weights of this network, which no step changes, or None. By network.
    """

    steps: Annotated[int, Range(1, 10**9)]
    batch: Annotated[int, Range(1, 10**6)]
    accumulate: Count = 1
    passes: Passes = "together"
    devices: int = 0
    shard: Shard = "none"
    init: str = ""
    frozen: dict[str, str | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Data:
    """The section ``data``.

    Attributes:
        dir: where prepared data sets are kept; "" for ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
        manual_dir: where downloaded files are.
        workers: reading processes; 0 reads in the main one.
        threads: reading threads of each.
        streams: domain to `StreamSpec`, or to None to leave a domain out.
    """

    streams: dict[str, Any]
    dir: str = ""
    manual_dir: str = ""
    workers: Annotated[int, Range(0, 1024)] = 0
    threads: Annotated[int, Range(1, 1024)] = 2


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The section ``eval``.

    Attributes:
        every: steps between evaluations; 0 for one at the end.
        last: how many of these evaluations are made, counted from the end of the run; 0 for all of them.
        network: ``"student"`` or ``"teacher"``; "" for the method's default.
        height: rows at which prediction and export show images to the network; 0 for the height to which the run
            resizes its own. Evaluation sets have their own sizes.
        sets: name to `EvalSet`, or to None to leave a set out.
    """

    every: int = 0
    last: Annotated[int, Range(0)] = 0
    network: str = ""
    height: Annotated[int, Range(0, 65_536)] = 0
    sets: dict[str, Any] | None = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The section ``checkpoint``.

    Attributes:
        every: steps between checkpoints; 0 for one at the end.
        keep: the newest so many are kept.
        best: evaluation set whose best checkpoint is kept beside them, or "".
    """

    every: int = 0
    keep: Count = 2
    best: str = ""


@dataclasses.dataclass(frozen=True)
class Log:
    """The section ``log``.

    Attributes:
        every: steps between lines.
        baseline: another run that the report compares with, or "".
        profile_steps: steps to record a profile of; 0 for none.
    """

    every: Count = 50
    baseline: str = ""
    profile_steps: int = 0


CONFIG = "config.json"
"""File of a run folder with the config it was started with."""

OLDER = {"method": ("input", "detail_weight", "mask_mode", "steps"), "eval": ("which",)}
"""Section to settings that only runs of earlier versions have."""

NETWORK = ("backbone", "head", "auxiliary", "relight", "pyramid", "hrda", "variant", "form")
"""Settings of the section ``model`` that say which network it is; all others are settings of that network."""

SECTIONS = {
    "train": Train,
    "data": Data,
    "classes": class_section.Classes,
    "eval": Evaluation,
    "checkpoint": Checkpoint,
    "log": Log,
}


def load(path: str) -> ml_collections.ConfigDict:
    """The complete config of a file; see `core.config.load` and `complete`."""
    return complete(configs.load(path))


def override(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """A complete config with values replaced by dotted key, see `core.config.override`, complete again.

    A part that is switched on brings its defaults, and so does another network: of the settings of the former one only
    those stay that are not its defaults.

    Raises:
        UserError: no such key, or a value of another type.
    """
    first = {key: value for key, value in values.items() if _brings_settings(key, value)}
    if first:
        given = config.to_dict()
        network, former = _network(given)
        given["model"] = {
            name: value
            for name, value in given["model"].items()
            if name in (*network, "input") or name not in former or value != former[name]
        }
        config = complete(configs.override(ml_collections.ConfigDict(given), first))
    rest = {key: value for key, value in values.items() if key not in first}
    return complete(configs.override(config, rest)) if rest else config


def changed_model(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The settings of a config's network that are not its defaults."""
    given = config.to_dict()
    network, former = _network(given)
    changes = {name: value for name, value in given["model"].items() if name not in network and name != "input"}
    return {name: value for name, value in changes.items() if name not in former or value != former[name]}


def _network(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What says which network a config has, and all settings of that network by default."""
    network = {name: given["model"][name] for name in (*NETWORK, "dtype") if name in given["model"]}
    return network, _model(given["method"]["name"], network)


def _brings_settings(key: str, value: Any) -> bool:
    section, _, name = key.partition(".")
    return (section == "model" and name in NETWORK) or value == "{}" or isinstance(value, Mapping)


def saved(folder: epath.PathLike) -> ml_collections.ConfigDict:
    """The config a run folder was started with, as it was written.

    Raises:
        UserError: the folder holds no run, or one of an earlier version.
    """
    path = epath.Path(folder) / CONFIG
    if not path.exists():
        raise UserError(f"{folder} holds no run (no {CONFIG}); give the folder of a run, one that training wrote")
    try:
        config = configs.from_json(files.read_bytes(path).decode())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it or start the run again") from error
    for name in (*OLDER, "model", "method", "optim", *SECTIONS):
        if not isinstance(config.get(name), ml_collections.ConfigDict | None):
            raise UserError(f"{path} is damaged ({name} is no section); restore it or start the run again")
    for section, names in OLDER.items():
        for name in names:
            if isinstance(config.get(section), ml_collections.ConfigDict) and name in config[section]:
                raise UserError(
                    f"{folder} is a run of an earlier version (its {CONFIG} has {section}.{name}), which this version "
                    "cannot read: train it again, or use the version that made it"
                )
    return config


def saved_classes(folder: epath.PathLike) -> class_section.ClassSet:
    """The classes of the network in a run folder.

    Raises:
        UserError: see `saved`; or its classes make no sense.
    """
    try:
        return class_section.of_section(saved(folder).get("classes"))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{epath.Path(folder) / CONFIG} is damaged (classes: {first_line(error)}); restore it"
        ) from error


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The locked config with every setting, those left to their default too.

    Raises:
        UserError: a section or a required setting is missing, or a section has a setting that does not exist.
    """
    given = config.to_dict()
    for name in ("model", "method", "optim", "train", "data"):
        if name not in given or given[name] is None:
            raise UserError(f"config: the section {name!r} is missing; see any file of configs/ for an example")
    for name in ("model", "method", "optim", *SECTIONS):
        _section(given.get(name, {}), name)
    check_values({name: value for name, value in given.items() if name != "seed"})
    method, sections = methods.with_defaults(given["method"]), {}
    frozen = methods.METHODS[method["name"]].pretrained
    for name, place in _section(given["train"].get("frozen", {}), "train.frozen").items():
        choose(dict.fromkeys(frozen), name, "train.frozen")
        if place is not None and not isinstance(place, str):
            raise UserError(f"train.frozen.{name}={place!r} must be a path; write ./{place} for a folder of that name")
    for name, cls in SECTIONS.items():
        section = given.get(name, {})
        configs.build(cls, section, name)
        sections[name] = configs.with_defaults(cls, section) | _collections(cls, section)
    sections["train"]["frozen"] = dict.fromkeys(frozen) | sections["train"]["frozen"]
    sections["classes"]["groups"] = class_section.with_all_groups(sections["classes"]["groups"])
    if sections["classes"]["name"] or sections["classes"]["names"]:  # Else those of the data, once it is opened.
        class_section.of_section(sections["classes"])
    streams, sets = sections["data"]["streams"], sections["eval"]["sets"]
    sections["data"]["streams"] = {
        name: _stream(stream, name) for name, stream in streams.items() if stream is not None
    }
    sections["eval"]["sets"] = {
        name: None if section is None else _eval_set(section, f"eval.sets.{name}") for name, section in sets.items()
    }
    seed = given.get("seed", 0)
    configs.build(Run, {"seed": seed}, "config")
    known = ("seed", "model", "method", "optim", *SECTIONS)
    if unknown := sorted(set(given) - set(known)):
        raise UserError(f"config: {unknown[0]!r} is no section{suggestion(unknown[0], known)}")
    return ml_collections.ConfigDict(
        {
            "seed": seed,
            "model": _model(method["name"], given["model"]),
            "method": method,
            "optim": configs.with_defaults(Optimizer, given["optim"]),
            **sections,
        }
    ).lock()


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for a step that is not within the run, a set that is not there, or a batch beyond the memory."""
    configs.build(Optimizer, config.optim, "optim")
    if config.checkpoint.best:
        choose(eval_sections(config), config.checkpoint.best, "checkpoint.best")
    for key, start in _starts(config).items():
        if start >= config.train.steps:
            raise UserError(
                f"{key}={start} is not within the run's {config.train.steps} steps; choose the length by the config's "
                "argument, --config=FILE.py:steps=N, which fits the rest to it, or set both"
            )


def eval_sections(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """The evaluation sets that are not left out."""
    return {name: section.to_dict() for name, section in config.eval.sets.items() if section is not None}


def _starts(config: ml_collections.ConfigDict) -> dict[str, int]:
    """Settings that name a step at which something begins, by key."""
    starts = {"optim.warmup": config.optim.warmup}
    for name, part in config.method.items():
        if isinstance(part, ml_collections.ConfigDict) and "start_step" in part:
            starts[f"method.{name}.start_step"] = part.start_step
    return starts


@dataclasses.dataclass(frozen=True)
class Run:
    """What stands beside the sections.

    Attributes:
        seed: of first weights, of the order of the data, and of every other random choice.
    """

    seed: Seed


def _stream(section: Any, name: str) -> dict[str, Any]:
    """A stream with every setting, of which nothing can be wrong by itself."""
    where = f"data.streams.{name}"
    configs.build(StreamSpec, {**_section(section, where), "name": name}, where)
    return configs.with_defaults(StreamSpec, section, ("name",))


def _eval_set(section: Any, where: str) -> dict[str, Any]:
    configs.build(EvalSet, _section(section, where), where)
    return configs.with_defaults(EvalSet, section)


def _section(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}={value!r} must be a section of settings")
    return value


def _collections(cls: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a section that hold sections by name."""
    kinds = lambda hint: {typing.get_origin(option) for option in (hint, *typing.get_args(hint))}
    fields = [field.name for field in dataclasses.fields(cls) if dict in kinds(field.type)]
    return {name: dict(section.get(name) or {}) for name in fields}


def _model(method: str, section: Mapping[str, Any]) -> dict[str, Any]:
    own, pixels = dict(section), {}
    if methods.sees_pixels(method):
        pixels = {
            "input": configs.with_defaults(methods.InputNormalization, _section(own.pop("input", {}), "model.input"))
        }
    builder = methods.BUILDERS.get(method, build_segmenter)
    return model_with_defaults(builder, own) | pixels
