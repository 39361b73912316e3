# SPDX-License-Identifier: Apache-2.0
"""The summary of an output folder: what was predicted into it, by which network and how.

Several processes that share the images each keep a summary of their part until the last one has joined them.
"""

from collections.abc import Iterable
from typing import Any

from etils import epath

from nightjax.core.errors import UserError
from nightjax.core.files import read_json

SUMMARY = "summary.json"

KINDS = ("images", "videos", "failed")
"""What a summary lists by name."""


def file_of(part: tuple[int, int]) -> str:
    """Name of the summary of a part, its number from 0 and how many there are: (0, 1) is everything."""
    return SUMMARY if part[1] == 1 else f"summary_{part[0]}_of_{part[1]}.json"


def read_summary(folder: epath.PathLike, name: str = SUMMARY) -> dict[str, Any]:
    """A summary of an output folder; empty if there is none, or none that can be read."""
    try:
        content = read_json(epath.Path(folder) / name, dict, "")
    except UserError:
        return {}
    whole = all(isinstance(content.get(kind), dict) for kind in KINDS)
    return content if whole and isinstance(content.get("made_by", {}), dict) else {}


def written_names(folder: epath.PathLike) -> list[str] | None:
    """Names of all results in an output folder; None if nothing was predicted into it."""
    folder = epath.Path(folder)
    parts = [path.name for path in folder.glob("summary_*_of_*.json")] if folder.is_dir() else []
    found = [content for name in (SUMMARY, *parts) if "made_by" in (content := read_summary(folder, name))]
    return [name for content in found for kind in ("images", "videos") for name in content[kind]] if found else None


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two summaries are of one network that predicted in one way. A run may be moved."""
    made = [{**content.get("made_by", {}), "run": None} for content in (one, other)]
    return made[0] == made[1]


def joined(folder: epath.PathLike, parts: int, made_by: dict[str, Any], names: Iterable[str]) -> dict[str, Any] | None:
    """The summaries of all parts as one; None while a part is not done, or was made by another network."""
    found = [read_summary(folder, file_of((number, parts))) for number in range(parts)]
    if not all(is_same(content, {"made_by": made_by}) for content in found):
        return None
    whole = {kind: {name: facts for content in found for name, facts in content[kind].items()} for kind in KINDS}
    if any(not any(name in whole[kind] for kind in KINDS) for name in names):
        return None
    return {"made_by": made_by, **whole, "passed_over": found[0].get("passed_over", {})}
