# SPDX-License-Identifier: Apache-2.0
"""What trainers put around weights: mappings around the mapping of the arrays, and prefixes in front of the names."""

import collections
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from nightjax.core.errors import UserError

STATES = ("state_dict", "model_state_dict", "model_state", "model", "weights", "params", "network", "net", "student")
"""Keys of the mapping of a network's arrays, the surest first; as prefixes they stand in front of its names."""

AVERAGES = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model",
    "model_ema",
    "ema",
    "teacher_model",
    "teacher",
)
"""The same of an exponential moving average."""

ASIDE = re.compile(r"optim|^opt$|sched|scaler|^rng|hyper_?param|^callbacks$|^loops$|message_hub|^(epoch|step|iter)")
"""Keys of what is no network."""

FOREIGN = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Parts that torch.compile, sharded and checkpointed modules put into names, anywhere."""

PREFIXES = (*STATES, *AVERAGES, "module", "segmentor", "segmenter", "seg_model", "backbone_model")
"""Prefixes that are dropped where other names do not have them."""


def open_wrappers(content: Mapping[Any, Any], network: str, path: str) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays of one network of a checkpoint, whatever they are wrapped in.

    Args:
        content: of the file: arrays and mappings by name, and anything else.
        network: ``"student"``, or ``"teacher"`` for the moving average where the file has both.
        path: of the file, for errors.

    Returns:
        Name to array, mappings inside of the network's joined by dots; and whether it is the moving average of a file
        that has one.

    Raises:
        UserError: there is no array.
    """
    averaged = False
    while True:
        inner = {
            str(key): value
            for key, value in content.items()
            if isinstance(value, Mapping) and not ASIDE.search(str(key)) and _count(value)
        }
        wanted = AVERAGES + STATES if network == "teacher" else STATES
        chosen = next((key for key in wanted if key in inner), None)
        if chosen is None and len(inner) == 1 and _count(inner) > sum(_is_weight(value) for value in content.values()):
            chosen = next(iter(inner))
        if chosen is None:
            break
        averaged |= network == "teacher" and chosen in AVERAGES
        content = inner[chosen]
    state = dict(_flat(content))
    if not state:
        keys = ", ".join(map(repr, content)) or "nothing"
        raise UserError(f"{path} holds no arrays, but {keys}; check that it is the file of the weights")
    return state, averaged


def without_foreign_parts(name: str) -> str:
    """A name without what compilation and sharding put into it."""
    return ".".join(part for part in name.split(".") if part not in FOREIGN)


def unwrap(
    state: Mapping[str, np.ndarray], is_known: Callable[[Mapping[str, np.ndarray]], bool]
) -> tuple[dict[str, np.ndarray], int] | None:
    """Drops prefixes until the names are known.

    Args:
        state: name to array.
        is_known: whether these are names of a known family.

    Returns:
        The names behind the prefix, and how many entries without it were left out; None if no prefix helps.
    """
    left_out = 0
    while not is_known(state):
        counts = prefixes(state)
        shared = next(iter(counts)) if len(counts) == 1 else next((name for name in PREFIXES if name in counts), None)
        if shared is None or shared in state:
            return None
        inside = {name[len(shared) + 1 :]: value for name, value in state.items() if name.startswith(f"{shared}.")}
        left_out += len(state) - len(inside)
        state = inside
    return dict(state), left_out


def prefixes(state: Mapping[str, Any]) -> dict[str, int]:
    """First part of the names to how many have it, the most frequent first."""
    return dict(collections.Counter(name.partition(".")[0] for name in state).most_common())


def _is_weight(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0


def _count(content: Mapping[Any, Any]) -> int:
    """How many arrays with axes there are, at any depth."""
    inner = (value for key, value in content.items() if isinstance(value, Mapping) and not ASIDE.search(str(key)))
    return sum(map(_is_weight, content.values())) + sum(map(_count, inner))


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and not ASIDE.search(str(key)):
            yield from _flat(value, f"{prefix}{key}.")
