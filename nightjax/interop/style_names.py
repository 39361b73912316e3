# SPDX-License-Identifier: Apache-2.0
"""The style randomiser's published checkpoints under the names of `nightjax.models.style`.

Facts: ``philipjackson/style-augmentation``, ``styleAugmentor.py``.
"""

import os
from collections.abc import Mapping

import numpy as np

from nightjax.core.errors import UserError
from nightjax.interop.weight_files import load_state_dict

State = Mapping[str, np.ndarray]

FILES = {
    "transformer": "checkpoint_transformer.pth",
    "predictor": "checkpoint_stylepredictor.pth",
    "embeddings": "checkpoint_embeddings.pth",
}
"""What it is to its published name."""

PREFIXES = {"transformer": "ghiasi.", "predictor": "stylePredictor."}


def from_published(transformer: State, predictor: State, embeddings: State) -> dict[str, np.ndarray]:
    """All parameters of the style randomiser by our torch-style names, for `torch_weights.from_torch`.

    Args:
        transformer, predictor: official names to arrays.
        embeddings: with ``pbn_embedding_mean`` [1, 100] and ``pbn_embedding_covariance`` [100, 100] of paintings. The
            factor that turns unit noise into embeddings is U sqrt(S) of the covariance's singular value decomposition.

    Raises:
        UserError: the statistics are not there.
    """
    parts = {"transformer": transformer, "predictor": predictor}
    state = {PREFIXES[part] + name: np.asarray(x) for part, given in parts.items() for name, x in given.items()}
    if missing := {"pbn_embedding_mean", "pbn_embedding_covariance"} - set(embeddings):
        raise UserError(f"the style embeddings hold no {min(missing)!r}; give the official {FILES['embeddings']}")
    vectors, variances, _ = np.linalg.svd(np.asarray(embeddings["pbn_embedding_covariance"], np.float64))
    state["embedding_mean"] = np.asarray(embeddings["pbn_embedding_mean"], np.float32).reshape(-1)
    state["embedding_factor"] = (vectors * np.sqrt(variances)).astype(np.float32)
    return state


def read_published(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """`from_published` of a folder that holds the three official files.

    Raises:
        UserError: a file is missing, or reading it needs the extra ``convert``.
    """
    return from_published(**{part: load_state_dict(os.path.join(folder, name)) for part, name in FILES.items()})
