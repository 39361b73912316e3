# SPDX-License-Identifier: Apache-2.0
"""Settings that come from another run: a config names them, and they are read when the run starts.

A reference is a text in the place of a value: ``run:FOLDER:KEY``, a setting of another run's config, or
``hard_classes:FOLDER:SET:THRESHOLD``, the classes that another run's newest evaluation of a set puts below a threshold.
``FOLDER@best`` is the same folder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from nightjax.core import checkpoint, class_section
from nightjax.core.errors import UserError
from nightjax.metrics import hard_classes
from nightjax.run import class_sets, settings


def resolve(
    config: ml_collections.ConfigDict, saved: ml_collections.ConfigDict | None = None
) -> ml_collections.ConfigDict:
    """The locked config with values in the place of references.

    Args:
        config: of a run that starts or goes on.
        saved: what the run saved when it started; its values are taken, so that it goes on as it began whatever has
            become of the other run.

    Raises:
        UserError: a reference cannot be followed.
    """
    names = class_section.of_section(config.get("classes")).names
    resolved = _resolved(config.to_dict(), None if saved is None else saved.to_dict(), "", names)
    return ml_collections.ConfigDict(resolved).lock()


def planned(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The complete config of a run whose data need not be there, as a plan or a benchmark builds it.

    Raises:
        UserError: a reference cannot be followed.
    """
    return settings.complete(resolve(class_sets.resolve(config, measured=False)))


def _resolved(node: Any, saved: Any, where: str, names: Sequence[str]) -> Any:
    if isinstance(node, dict):
        others = saved if isinstance(saved, dict) else {}
        return {name: _resolved(value, others.get(name), f"{where}{name}.", names) for name, value in node.items()}
    kind, colon, _ = node.partition(":") if isinstance(node, str) else ("", "", "")
    if not colon or kind not in KINDS or where.startswith(("train.", "data.", "classes.", "eval.", "log.")):
        return node
    return KINDS[kind](where.rstrip("."), node, names) if saved is None else saved


def _folder(names: list[str]) -> str:
    """The run's folder, which may itself hold colons (``gs://bucket/run``)."""
    return ":".join(names).removesuffix(f"@{checkpoint.BEST}")


def _words(where: str, reference: str, form: str) -> list[str]:
    words = reference.split(":")
    if len(words) < form.count(":") + 1:
        raise UserError(f"{where}={reference!r} must be {form}")
    return words


def _of_run(where: str, reference: str, names: Sequence[str]) -> Any:
    del names
    _, *folder, key = _words(where, reference, "run:FOLDER:KEY")
    workdir = _folder(folder)
    try:
        node: Any = settings.saved(workdir)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    for name in key.split("."):
        if not isinstance(node, Mapping | ml_collections.ConfigDict) or name not in node:
            raise UserError(f"{where}: the run {workdir} has no setting {key}; it is another kind of run")
        node = node[name]
    return node.to_dict() if isinstance(node, ml_collections.ConfigDict) else node


def _hard_classes(where: str, reference: str, names: Sequence[str]) -> tuple[int, ...]:
    form = "hard_classes:FOLDER:SET:THRESHOLD"
    _, *folder, name, text = _words(where, reference, form)
    try:
        threshold = float(text)
    except ValueError:
        raise UserError(f"{where}={reference!r} must be {form}, a number at its end") from None
    if name != "val_night" and not name.startswith("val_night_"):
        print(f"hard classes by {name}, a set that is reported: do not compare its results with others'", flush=True)
    return hard_classes.from_evaluation(_folder(folder), name, threshold, names)


KINDS = {"run": _of_run, "hard_classes": _hard_classes}
"""First word of a reference to how it is followed, given the key, the reference and the names of the run's classes."""
