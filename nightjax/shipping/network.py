# SPDX-License-Identifier: Apache-2.0
"""A trained network as a pure function of an image: what every format is written from.

Everything between a photo of one size and its answer is inside: the resize, the normalization, the network, and the
classes at the photo's size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core import targets
from nightjax.core.types import IGNORE, Size
from nightjax.ops.resize import resize
from nightjax.ops.temperature import confidence_at

Apply = Callable[[Any, jax.Array], jax.Array]
"""(variables, images [B, H, W, 3], uint8 or float32 in 0..255) to logits [B, h, w, K]."""

Layout = Literal["nhwc", "nchw"]
Outputs = Literal["label", "logits"]


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network, ready to be written.

    Attributes:
        apply_fn: of the network.
        variables: its weights, numpy arrays.
        size: (H, W) of the images.
        input_size: (height, width) to which the program resizes them for the network. Labels have the images' size.
        batch: number of images of a call; None for any, decided at the call.
        layout: "nhwc" takes uint8 [B, H, W, 3], RGB; "nchw" float32 [B, 3, H, W] in 0..255, RGB.
        outputs: "label" gives ``label``, the likeliest class of every pixel, uint8 [B, H, W], and ``confidence``, its
            probability, float32 [B, H, W]; "logits" gives ``logits``, float32 at the network's own size, in the layout
            of the image.
        temperature: that logits are divided by for the confidence.
        confident: pixels with less confidence than this get the label 255; 0 keeps all.
    """

    apply_fn: Apply
    variables: Any
    size: Size
    input_size: Size
    batch: int | None = None
    layout: Layout = "nhwc"
    outputs: Outputs = "label"
    temperature: float = 1.0
    confident: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """What the program answers with."""
        return ("label", "confidence") if self.outputs == "label" else ("logits",)

    def image(self) -> jax.ShapeDtypeStruct:
        """What the program takes; its batch is a symbol where any is allowed."""
        batch = jax.export.symbolic_shape("batch")[0] if self.batch is None else self.batch
        if self.layout == "nchw":
            return jax.ShapeDtypeStruct((batch, 3, *self.size), jnp.float32)
        return jax.ShapeDtypeStruct((batch, *self.size, 3), jnp.uint8)

    def logits(self, variables: Any, image: jax.Array) -> jax.Array:
        """Logits [B, h, w, K], float32, for images of the program's own layout."""
        x = jnp.moveaxis(image, 1, -1) if self.layout == "nchw" else image
        if self.input_size != self.size:
            x = resize_bytes(x, self.input_size) if x.dtype == jnp.uint8 else _resize_floats(x, self.input_size)
        return self.apply_fn(variables, x).astype(jnp.float32)

    def answers(self, logits: jax.Array) -> tuple[jax.Array, ...]:
        """The outputs, by `names`, for logits [B, h, w, K]."""
        if self.outputs == "logits":
            return (jnp.moveaxis(logits, -1, 1) if self.layout == "nchw" else logits,)
        return label_and_confidence(logits, self.size, self.temperature, self.confident)

    def __call__(self, variables: Any, image: jax.Array) -> tuple[jax.Array, ...]:
        """The outputs, by `names`, for images of the program's own layout."""
        return self.answers(self.logits(variables, image))

    def reference(self) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """nightjax's own label, confidence and logits for uint8 [B, H, W, 3], to compare a written program with."""
        plain = dataclasses.replace(self, layout="nhwc", outputs="label")

        def program(variables: Any, image: jax.Array) -> tuple[jax.Array, ...]:
            logits = plain.logits(variables, image)
            return (*plain.answers(logits), logits)

        run = jax.jit(targets.written_for(targets.of(jax.local_devices()), program))

        def ask(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            label, confidence, logits = run(self.variables, image)
            return np.asarray(label), np.asarray(confidence), np.asarray(logits)

        return ask


def label_and_confidence(
    logits: jax.Array, size: Size, temperature: float = 1.0, confident: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """The likeliest class of every pixel, uint8 [B, H, W], and its probability, float32 [B, H, W].

    Args:
        logits: float32 [B, h, w, K].
        size: (H, W) of the result.
        temperature, confident: of `Network`.
    """
    logits = resize(logits, size, align_corners=False)
    label = logits.argmax(-1).astype(jnp.uint8)
    confidence = confidence_at(logits, logits.max(-1), temperature)
    if confident:
        label = jnp.where(confidence < confident, jnp.uint8(IGNORE), label)
    return label, confidence


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


def _resize_floats(image: jax.Array, size: Size) -> jax.Array:
    """The same of float32 in 0..255, rounded to whole numbers as bytes are."""
    return jnp.round(resize(image, size, align_corners=False))


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
