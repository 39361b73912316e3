# SPDX-License-Identifier: Apache-2.0
"""What makes a translated data set's images: a trained translator, Fourier domain adaptation, or SingleHDR.

Each function returns the translator, ``(name, uint8 [H, W, 3]) -> uint8 [H, W, 3]``, and the facts that a data set made
with it records as its provenance.
"""

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.method import Variables
from nightjax.data import sources, transforms
from nightjax.interop import singlehdr
from nightjax.interop.weight_files import sha256
from nightjax.models.singlehdr import SingleHDR, enhance
from nightjax.ops import fourier
from nightjax.ops.resize import resize

Translator = Callable[[str, np.ndarray], np.ndarray]
Facts = dict[str, Any]


def network_translator(
    translate_fn: Callable[[Variables, jax.Array, str], jax.Array],
    variables: Variables,
    *,
    to: str,
    size: tuple[int, int] | None = None,
    stretch: bool = False,
) -> tuple[Translator, Facts]:
    """A trained translator.

    Args:
        translate_fn: ``translate`` of a method: uint8 [B, H, W, 3] to float32 [B, H, W, 3] in [0, 1].
        variables: of its network.
        to: what to turn the images into, ``"day"`` or ``"night"``.
        size: (height, width) that the network sees. Images are shrunk with antialiasing, and the results brought back
            to the images' own size.
        stretch: bring the smallest and the largest value of every image to 0 and 255. Nights lose their darkness by it.
    """

    @jax.jit
    def translated(variables: Variables, image: jax.Array) -> jax.Array:
        seen = image
        if size:
            seen = resize(image.astype(jnp.float32), size, align_corners=False, antialias=True)
            seen = jnp.round(seen).astype(jnp.uint8)
        y = translate_fn(variables, seen, to)
        if stretch:
            y = (y - y.min()) / (y.max() - y.min() + 0.5e-5)  # The official constant is that of [-1, 1].
        if size:
            y = resize(y, image.shape[1:3], align_corners=False)
        return jnp.round(255 * jnp.clip(y, 0, 1)).astype(jnp.uint8)

    def translate(name: str, image: np.ndarray) -> np.ndarray:
        del name
        return np.asarray(translated(variables, image[None]))[0]

    facts = {"sha256": checksum(variables), "to": to, "size": list(size) if size else None, "stretch": stretch}
    return translate, facts


def fourier_translator(target: sources.Source, beta: float) -> tuple[Translator, Facts]:
    """Fourier domain adaptation: every image takes the low frequencies of one image of ``target``, chosen by its name.

    Args:
        target: records with the images to take low frequencies of.
        beta: see `fourier.half_width`.
    """

    def translate(name: str, image: np.ndarray) -> np.ndarray:
        record = target[zlib.crc32(name.encode()) % len(target)]
        return fourier.translate(image, transforms.decode(record, ("image",))["image"], beta)

    facts = {
        "method": "fda",
        "target": target.name,
        "target_split": target.split,
        "target_records": len(target),
        "beta": beta,
    }
    return translate, facts


def singlehdr_translator(weights: str) -> tuple[Translator, Facts]:
    """SingleHDR's brightening of nights, as NightLab's baseline uses it.

    Args:
        weights: file of the published weights, converted; see `interop.singlehdr`.

    Raises:
        UserError: no such file, or one that lacks an array.
    """
    model = SingleHDR()
    variables, curves = singlehdr.load(weights, singlehdr_template(model))
    enhanced = jax.jit(lambda image: jnp.round(255 * enhance(model, variables, curves, image)).astype(jnp.uint8))

    def translate(name: str, image: np.ndarray) -> np.ndarray:
        del name
        return np.asarray(enhanced(image[None]))[0]

    return translate, {"method": "singlehdr", "sha256": sha256(weights)}


def singlehdr_template(model: SingleHDR) -> Variables:
    """Shapes of the model's variables."""
    curves = {"g0": jnp.zeros(2), "hinv": jnp.zeros((11, 2))}
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)), curves)


def checksum(variables: Variables) -> str:
    """SHA-256 of names, types, shapes and values, whatever files they came from."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
