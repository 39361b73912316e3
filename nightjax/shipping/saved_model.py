# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's SavedModel: signature ``image`` to ``label`` and ``confidence``, weights as its variables."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from nightjax.core import targets
from nightjax.core.errors import UserError
from nightjax.shipping.network import Network
from nightjax.shipping.parity import File

FOLDER = "saved_model"


def write(network: Network, folder: pathlib.Path) -> list[File]:
    """Writes the folder ``saved_model``, to be checked.

    Raises:
        UserError: TensorFlow is not installed.
    """
    save(network, network, network.names, folder / FOLDER)
    size = sum(path.stat().st_size for path in (folder / FOLDER).rglob("*") if path.is_file())
    twin = _module(network, lambda variables, image: (network.logits(variables, image),), ("logits",), "cpu")
    logits = lambda image: twin.predict(image)["logits"].numpy()
    return [File(FOLDER, size, open_folder(folder), logits)]


def open_folder(folder: pathlib.Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    """What `write` wrote as a function of its image."""
    served = tensorflow().saved_model.load(str(folder / FOLDER)).signatures["serving_default"]

    def ask(image: np.ndarray) -> list[np.ndarray]:
        outputs = served(image=tensorflow().constant(image))
        return [outputs[name].numpy() for name in ("label", "confidence")]

    return ask


def tensorflow() -> Any:
    """TensorFlow.

    Raises:
        UserError: it is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError("this format needs TensorFlow: pip install 'nightjax[export]'") from error
    return tf


def save(
    network: Network, function: Callable[..., Any], names: Sequence[str], folder: pathlib.Path, target: str = "cpu"
) -> None:
    """Writes a function of a network's variables and image as a SavedModel.

    Args:
        network: whose weights and image it takes.
        function: of variables and image, gives a tuple.
        names: of what it gives.
        folder: to write.
        target: whose forms the operations take (`core.targets`).
    """
    module = _module(network, function, names, target)
    tensorflow().saved_model.save(module, str(folder), signatures=module.predict)


def _module(network: Network, function: Callable[..., Any], names: Sequence[str], target: str) -> Any:
    tf, image = tensorflow(), network.image()
    from jax.experimental import jax2tf  # It imports TensorFlow.

    named = lambda variables, image: dict(zip(names, function(variables, image), strict=True))
    shape = f"({', '.join(map(str, image.shape))})"
    converted = jax2tf.convert(targets.written_for(target, named), polymorphic_shapes=[None, shape])
    module: Any = tf.Module()
    module.weights = tf.nest.map_structure(lambda leaf: tf.Variable(cast(Any, np.asarray(leaf))), network.variables)
    signature = tf.TensorSpec((network.batch, *image.shape[1:]), tf.as_dtype(image.dtype), name="image")
    module.predict = tf.function(
        lambda image: converted(module.weights, image), input_signature=[signature], autograph=False
    )
    return module
