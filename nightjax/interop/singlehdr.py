# SPDX-License-Identifier: Apache-2.0
"""Weights of the published SingleHDR: one ``.npz`` of its four TensorFlow 1 checkpoints' arrays, by their names.

Next to them the file holds the EMoR curves that the official program reads from ``invemor.txt``: ``invemor/g0`` [1024]
and ``invemor/hinv`` [11, 1024].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nightjax.core.errors import UserError
from nightjax.interop.weight_files import load_state_dict

Variables = Mapping[str, Any]

SCOPES = {
    "Dequantization_Net": "dequantization",
    "crf_feature_net": "linearization",
    "ae_invcrf_decode_net": "linearization",
    "Hallucination_Net": "hallucination",
    "Refinement_Net": "refinement",
}
"""Official scope to our part."""

LEAVES = {
    "kernel": ("params", "kernel"),
    "weights": ("params", "kernel"),
    "W_conv2d": ("params", "kernel"),
    "bias": ("params", "bias"),
    "biases": ("params", "bias"),
    "b_conv2d": ("params", "bias"),
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}
"""Official last part of a name to our collection and leaf."""

CURVES = ("g0", "hinv")


def load(path: str, template: Variables) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The variables of `models.singlehdr.SingleHDR` and its curves from a file.

    Raises:
        UserError: no such file, or one that lacks an array.
    """
    state = load_state_dict(path)
    if missing := [f"invemor/{name}" for name in CURVES if f"invemor/{name}" not in state]:
        raise UserError(
            f"{path} lacks the response curves {missing[0]}; add them from invemor.txt of the official program"
        )
    return from_official(state, template), {name: state[f"invemor/{name}"] for name in CURVES}


def from_official(state: Mapping[str, np.ndarray], template: Variables) -> dict[str, Any]:
    """Variables filled with the arrays of the official checkpoints.

    Args:
        state: official names to arrays, whose layouts are ours; further names are left out.
        template: structure and shapes, as of ``jax.eval_shape``.

    Raises:
        UserError: an array is missing or has another shape.
    """
    given = {}
    for name, value in state.items():
        scope, *modules, leaf = name.removesuffix(":0").split("/")
        if scope in SCOPES and leaf in LEAVES:
            collection, ours = LEAVES[leaf]
            given[collection, SCOPES[scope], "_".join(modules), ours] = name, np.asarray(value)

    def fill(tree, path):
        if isinstance(tree, Mapping):
            return {key: fill(node, (*path, key)) for key, node in tree.items()}
        if path not in given:
            raise UserError(
                f"the SingleHDR checkpoint has no array for {'/'.join(path[1:])}; it needs all four networks"
            )
        name, value = given[path]
        if value.shape != tuple(tree.shape):
            raise UserError(
                f"SingleHDR: {name} is {value.shape}, but the network needs {tuple(tree.shape)}; use the published file"
            )
        return value.astype(np.float32)

    return {collection: fill(template[collection], (collection,)) for collection in ("params", "batch_stats")}
