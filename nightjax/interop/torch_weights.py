# SPDX-License-Identifier: Apache-2.0
"""Weights of PyTorch checkpoints in and out, by one mechanical rule for every model.

========================  =======================================  ==========================
flax                      torch                                    layout
========================  =======================================  ==========================
path ``layer1_0/conv1``   ``layer1.0.conv1``                       ``_N`` stands for ``.N``
path ``conv__0``          ``conv_0``                               ``__N`` for a literal ``_N``
path of a stack           ``block.0``, ``block.1``, ...            the leading axis, see `core.stacks`
``kernel``, 4-D           ``weight``                               HWIO from OIHW
``kernel``, 2-D           ``weight``                               (in, out) from (out, in)
``kernel_t``, 4-D         ``weight`` of a transposed convolution   HWIO from IOHW
``scale``                 ``weight``                               same
``bias``, any other name  same name                                same
``mean``, ``var``         ``running_mean``, ``running_var``        same
========================  =======================================  ==========================

Only moves of axes are involved, so a round trip is bit-exact.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.stacks import Stack, find_stack

Variables = Mapping[str, Any]

_LEAF_NAMES = {
    "kernel": "weight",
    "kernel_t": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_COLLECTIONS = ("params", "batch_stats")
_COUNTER = "num_batches_tracked"


def to_torch(variables: Variables, stacks: Sequence[Stack] = (), *, counters: bool = False) -> dict[str, np.ndarray]:
    """Variables as a torch state dict.

    Args:
        variables: with ``params`` and possibly ``batch_stats``.
        stacks: of the module that the variables are of; each block is written on its own.
        counters: also write each batch norm's ``num_batches_tracked`` (zeros).

    Returns:
        torch names to arrays in torch layouts, sorted by name.
    """
    state = {}
    for path, leaf in _leaves(variables):
        leaf = np.asarray(leaf)
        blocks = [leaf] if find_stack(stacks, path) is None else leaf
        for name, value in zip(_names(path, leaf, stacks), blocks, strict=True):
            state[name] = np.ascontiguousarray(_to_layout(path[-1], value))
            if counters and path[-1] == "mean":
                state[f"{name.rpartition('.')[0]}.{_COUNTER}"] = np.zeros((), np.int64)
    return dict(sorted(state.items()))


def from_torch(
    state_dict: Mapping[str, Any],
    template_variables: Variables,
    stacks: Sequence[Stack] = (),
    *,
    allow_missing: Sequence[str] = (),
    allow_surplus: Sequence[str] = (),
) -> dict[str, Any]:
    """Variables filled with the arrays of a torch state dict.

    Args:
        state_dict: torch names to arrays. Counters of batches are ignored.
        template_variables: structure, shapes and dtypes to fill: arrays, or the shapes of
            ``jax.eval_shape``.
        stacks: of the module that the template is of.
        allow_missing: glob patterns of torch names that may be missing or have another shape, such as a classifier of
            other classes; the template's value stays, of equal blocks that of all.
        allow_surplus: glob patterns of torch names that may be left over.

    Returns:
        A tree like the template, numpy leaves.

    Raises:
        UserError: listing the names missing and left over beyond those allowed, or naming the first
            parameter whose shape differs.
    """
    given = {name: name for name in state_dict if not name.endswith(_COUNTER)}
    loose = {_loose(name): name for name in given}
    missing, filled = [], {}
    for path, leaf in _leaves(template_variables):
        names = _names(path, leaf, stacks)
        sources = [given.get(name) or loose.get(_loose(name)) for name in names]
        found = [source for source in sources if source is not None]
        if len(found) < len(names):
            missing += [name for name, source in zip(names, sources, strict=True) if source is None]
            filled[path] = leaf
            continue
        stacked = find_stack(stacks, path) is not None
        values, fits = [], True
        for source in found:
            given.pop(source, None)
            value = _from_layout(path[-1], np.asarray(state_dict[source]))
            shape = leaf.shape[stacked:]
            if value.shape != shape and all(matches(name, allow_missing) for name in names):
                fits = False
            elif value.shape != shape:
                raise UserError(
                    f"parameter {source!r} is {tuple(np.shape(state_dict[source]))} in the checkpoint, "
                    f"but the model needs {_to_layout(path[-1], np.empty(shape, np.bool_)).shape}; "
                    "check the variant and the number of classes, or start it from scratch by allow_missing"
                )
            values.append(value)
        if not fits:
            filled[path] = leaf
            continue
        filled[path] = np.ascontiguousarray(np.stack(values) if stacked else values[0], leaf.dtype)
    missing = [name for name in missing if not matches(name, allow_missing)]
    surplus = [name for name in given if not matches(name, allow_surplus)]
    if missing or surplus:
        raise UserError(
            "checkpoint and model differ: "
            f"{len(missing)} missing in the checkpoint ({brief(missing, named_leaves(template_variables, stacks))}), "
            f"{len(surplus)} unknown to the model ({brief(surplus, state_dict)}); "
            "if that is intended, name them in allow_missing or allow_surplus"
        )
    return _tree(template_variables, filled)


def named_leaves(variables: Variables, stacks: Sequence[Stack] = ()) -> dict[str, Any]:
    """torch names to leaves, whatever these are; in flax's layouts, equal blocks each to the array of all."""
    return {name: leaf for path, leaf in _leaves(variables) for name in _names(path, leaf, stacks)}


def torch_name(path: Sequence[str]) -> str:
    """torch name of a leaf: ``("layer1_0", "conv1", "kernel")`` is ``layer1.0.conv1.weight``."""
    modules = [re.sub(r"(?<!_)_(?=\d+(_|$))", ".", part).replace("__", "_") for part in path[:-1]]
    return ".".join([*modules, _LEAF_NAMES.get(path[-1], path[-1])])


def _names(path, leaf, stacks):
    """torch names of a leaf, one for each block if it is an array of equal blocks."""
    stack = find_stack(stacks, path)
    if stack is None:
        return [torch_name(path)]
    return [torch_name(block) for block in stack.block_paths(path, leaf.shape[0])]


def _to_layout(leaf: str, value: np.ndarray) -> np.ndarray:
    if leaf == "kernel_t":
        return np.moveaxis(value, (-2, -1), (0, 1))
    if leaf == "kernel":
        return np.moveaxis(value, (-1, -2), (0, 1))
    return value


def _from_layout(leaf: str, value: np.ndarray) -> np.ndarray:
    if leaf == "kernel_t":
        return np.moveaxis(value, (0, 1), (-2, -1))
    if leaf == "kernel":
        return np.moveaxis(value, (0, 1), (-1, -2))
    return value


def _leaves(tree: Variables) -> list[tuple[tuple[str, ...], Any]]:
    """(path without the collection, leaf) of parameters and batch statistics."""
    found = []

    def walk(node, path):
        if isinstance(node, Mapping):
            for key, child in node.items():
                walk(child, (*path, key))
        else:
            found.append((path, node))

    for collection in _COLLECTIONS:
        walk(tree.get(collection, {}), ())
    return found


def _tree(template: Variables, filled: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    def build(node, path):
        if isinstance(node, Mapping):
            return {key: build(child, (*path, key)) for key, child in node.items()}
        return filled[path]

    return {name: build(node, ()) if name in _COLLECTIONS else node for name, node in template.items()}


def _loose(name: str) -> str:
    """A name with ``_N`` and ``.N`` made equal, for models that call torch's ``conv_0`` so."""
    return re.sub(r"[._](?=\d+(\.|_|$))", "_", name)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether any of the globs fits."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def brief(some: Sequence[str], whole: Iterable[str] = (), limit: int = 8) -> str:
    """Some names of a checkpoint in few words; first parts that are there with all their names as globs."""
    chosen = set(some)
    mixed = {name.partition(".")[0] for name in whole if name not in chosen}
    words = [name if name.partition(".")[0] in mixed else f"{name.partition('.')[0]}.*" for name in some]
    words = list(dict.fromkeys(words)) or ["none"]
    return ", ".join(words[:limit]) + ", ..." * (len(words) > limit)
