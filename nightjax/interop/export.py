"""A trained network as a file for other programs: StableHLO and its weights.

A folder holds ``program.bin`` (`jax.export`: versioned, portable StableHLO), ``weights.safetensors``
(its first argument, by name) and ``about.json``. It needs jax to run, and nothing of this library:

    exported = jax.export.deserialize(open("program.bin", "rb").read())
    label, confidence = exported.call(safetensors.numpy.load_file("weights.safetensors"), image)
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from nightjax.core import targets
from nightjax.core.errors import UserError
from nightjax.core.types import Size
from nightjax.interop.weight_files import load_state_dict, save_state_dict
from nightjax.ops.resize import resize

Apply = Callable[[Any, jax.Array], jax.Array]
"""(variables, uint8 [B, H, W, 3]) to logits [B, h, w, K]."""

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def label_and_confidence(
    apply_fn: Apply, variables: Any, image: jax.Array, input_size: tuple[int, int] | None = None
) -> tuple[jax.Array, jax.Array]:
    """The likeliest class of every pixel, uint8 [B, H, W], and its probability, float32 [B, H, W].

    Args:
        apply_fn: of the network.
        variables: its weights.
        image: uint8 [B, H, W, 3], RGB.
        input_size: (height, width) that the network sees; None for the image as it is.
    """
    seen = image if input_size is None else resize_bytes(image, input_size)
    logits = resize(apply_fn(variables, seen).astype(jnp.float32), image.shape[1:3], align_corners=False)
    return logits.argmax(-1).astype(jnp.uint8), jnp.exp(logits.max(-1) - jax.nn.logsumexp(logits, axis=-1))


def resize_bytes(image: jax.Array, size: Size) -> jax.Array:
    """uint8 [B, H, W, C] to uint8 [B, *size, C], bilinear, to the bit what ``cv2.resize`` of prediction makes of it.

    OpenCV counts in integers: weights are multiples of 1/2048, and sums lose their last bits between the two
        directions.
    """
    height, width = image.shape[1:3]
    top, bottom, above, below = _neighbors(height, size[0])
    left, right, before, after = _neighbors(width, size[1], border=True)
    x = image.astype(jnp.int32)
    x = x[:, :, left] * before[:, None] + x[:, :, right] * after[:, None] >> 4
    x = (x[:, top] * above[:, None, None] >> 16) + (x[:, bottom] * below[:, None, None] >> 16)
    return (x + 2 >> 2).astype(jnp.uint8)


def _neighbors(length: int, wanted: int, border: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of every output position the two neighbors and their weights, int32 [wanted].

    Beyond the center of the first or last pixel both neighbors are that pixel; ``border`` then gives one of them all
    weight.
    """
    place = ((np.arange(wanted) + 0.5) * (length / wanted) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    share = place - first.astype(np.float32)
    if border:
        share[(first < 0) | (first >= length - 1)] = 0
    before, after = (np.rint(part * np.float32(2048)).astype(np.int32) for part in (1 - share, share))
    return np.clip(first, 0, length - 1), np.clip(first + 1, 0, length - 1), before, after


def export(
    folder: epath.PathLike,
    apply_fn: Apply,
    variables: Any,
    *,
    size: tuple[int, int],
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    about: dict[str, Any] | None = None,
) -> None:
    """Writes a network as a folder; see the module's docstring.

    Args:
        folder: new or of an earlier export.
        apply_fn: of the network.
        variables: its weights, numpy or jax arrays.
        size: (H, W) of the images.
        input_size: (height, width) to which the program resizes them for the network; None for none. Labels have their
            size.
        batch: number of images of a call; None for any, decided at the call.
        platforms: that the program runs on, of `PLATFORMS`. Each runs the forms of its own target (`core.targets`),
            wherever the program is exported.
        about: what else to note in ``about.json``.
    """
    if unknown := sorted(set(platforms) - set(PLATFORMS)):
        raise UserError(f"platform {unknown[0]!r} is unknown; choose from {', '.join(PLATFORMS)}")
    flat, unflatten = _flat(variables)
    (symbol,) = jax.export.symbolic_shape("batch") if batch is None else (batch,)
    image = jax.ShapeDtypeStruct((symbol, *size, 3), jnp.uint8)
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()}

    def predict(weights, image):
        return label_and_confidence(apply_fn, unflatten(weights), image, input_size)

    written = jax.jit(targets.written_for_each(platforms, predict))
    program = jax.export.export(written, platforms=platforms)(shapes, image)
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.bin").write_bytes(bytes(program.serialize()))
    save_state_dict(folder / "weights.safetensors", {name: np.asarray(leaf) for name, leaf in flat.items()})
    seen = list(size if input_size is None else input_size)
    notes = {"size": list(size), "input_size": seen, "batch": batch, "platforms": list(platforms)} | (about or {})
    (folder / "about.json").write_text(json.dumps(notes, indent=2))


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported network. Made by `load`.

    Attributes:
        program: takes weights and images.
        weights: by name.
        about: what ``about.json`` says.
    """

    program: jax.export.Exported
    weights: dict[str, np.ndarray]
    about: dict[str, Any]

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segments uint8 [B, H, W, 3]: train ids uint8 [B, H, W] and confidence float32 [B, H, W]."""
        height, width = self.about["size"]
        batch = self.about["batch"] or len(image)
        if image.dtype != np.uint8 or image.shape != (batch, height, width, 3):
            raise UserError(
                f"the exported network takes uint8 {[self.about['batch'] or 'any', height, width, 3]}, not "
                f"{image.dtype} "
                f"{list(image.shape)}; resize the images or export with --size"
            )
        label, confidence = self.program.call(self.weights, image)
        return np.asarray(label), np.asarray(confidence)


def load(folder: str | os.PathLike) -> Exported:
    """Loads what `export` wrote.

    Raises:
        UserError: the folder holds none, or a damaged one.
    """
    path = epath.Path(folder)
    if not (path / "program.bin").exists():
        raise UserError(f"{folder} holds no exported network; write one with python -m nightjax.export")
    try:
        program = jax.export.deserialize(bytearray((path / "program.bin").read_bytes()))
        about = json.loads((path / "about.json").read_text())
    except Exception as error:  # What the deserialiser raises on damaged bytes is not documented.
        raise UserError(f"{folder} is damaged or of a newer jax ({type(error).__name__}); export again") from error
    return Exported(program, load_state_dict(path / "weights.safetensors"), about)


def save_tensorflow(
    folder: epath.PathLike,
    apply_fn: Apply,
    variables: Any,
    *,
    size: tuple[int, int],
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
) -> None:
    """Writes the same function as a TensorFlow SavedModel, signature ``image`` to ``label`` and ``confidence``.

    Args:
        folder: of the SavedModel.
        apply_fn, variables, size, input_size, batch: as in `export`.

    Raises:
        UserError: TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
        from jax.experimental import jax2tf
    except ImportError as error:
        raise UserError("a SavedModel needs TensorFlow: pip install 'nightjax[export]'") from error

    def predict(variables, image):
        label, confidence = label_and_confidence(apply_fn, variables, image, input_size)
        return {"label": label, "confidence": confidence}

    shape = (batch or "batch", *size, 3)
    converted = jax2tf.convert(predict, polymorphic_shapes=[None, f"({', '.join(map(str, shape))})"])
    module: Any = tf.Module()
    module.weights = tf.nest.map_structure(lambda leaf: tf.Variable(cast(Any, np.asarray(leaf))), variables)
    signature = tf.TensorSpec((batch, *size, 3), tf.uint8, name="image")
    module.predict = tf.function(
        lambda image: converted(module.weights, image), input_signature=[signature], autograph=False
    )
    tf.saved_model.save(module, os.fspath(folder), signatures=module.predict)


def _flat(tree: Any) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]:
    """Leaves by path, and the way back."""
    leaves, structure = jax.tree.flatten_with_path(tree)
    names = ["/".join(str(key.key) for key in path) for path, _ in leaves]
    flat = {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}
    return flat, lambda found: jax.tree.unflatten(structure, [found[name] for name in names])
