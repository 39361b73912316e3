# SPDX-License-Identifier: Apache-2.0
"""Prediction on single images of any size: whole or in windows, at several scales, mirrored.

Compilation. A network is compiled once an input shape, so a folder of many sizes could compile
without end. With `bucket=True` the image is therefore extended at its right and bottom border, by
reflection, until each side is one of few lengths (`bucket_length`: eight between a power of two and
the next, so at most 12.5 % more from 256 pixels on), and the result is cut back. The true size is a
traced value, so one program serves all images of a bucket. Pixels of the padding are seen by the
network, so values near the two borders (anywhere, for models with global pooling or attention)
differ slightly from those of the unpadded image; `bucket=False` avoids that and compiles each size.
A fixed `input_size` shares one network input among all images and leaves only the output's size to
bucket.

Memory. Beyond what the network needs at its input, an image takes 1 byte a pixel for the label, 4 for the confidence
if it is asked for, and the logits of a chunk of rows (`bands.CHUNK_VALUES`).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE, Size
from nightjax.inference import bands
from nightjax.metrics.protocol import LARGEST_SCALE
from nightjax.ops.resize import resize
from nightjax.ops.windows import slide

Mode = Literal["whole", "slide"]


LARGEST_SIDE, LARGEST_AREA = 65_536, 2**28
"""Pixels of an image at which prediction and export show it to a network, at most."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Result at the size of the image that was given.

    Attributes:
        label: uint8 [H, W], arg-max class.
        confidence: float32 [H, W], its probability in 0..1.
        probabilities: float32 [H, W, K] if asked for, else None.
    """

    label: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a network says of one image, at the network's own size; made by `score_image`.

    Attributes:
        maps: logits float32 [h, w, K] of each scale, and of its mirror image turned back.
        size: (height, width) of the image.
        output: (height, width) of the program's output, from which the image is cut.
        extent: (height, width) that the maps cover.
        least: smallest height of an extent that shares the program.
        temperature: of confidences and probabilities; see `bands.decide`.
    """

    maps: tuple[jax.Array, ...]
    size: Size
    output: Size
    extent: Size
    least: int
    temperature: float = 1.0

    def label(self, confident: float = 0.0) -> np.ndarray:
        """The likeliest class of every pixel, uint8 [H, W]. It is that of `prediction`, in less than half the time.

        Args:
            confident: pixels with less confidence than this get no class, 255; above 0 it takes the time of
                `prediction`.
        """
        if not confident:
            return self._decide("label")[0]
        label, confidence = self._decide("confidence")
        return np.where(confidence < np.float32(confident), np.uint8(IGNORE), label)

    def prediction(self, probabilities: bool = False) -> Prediction:
        """Labels and their confidence, and if asked for the probabilities of all classes (4 K bytes a pixel)."""
        return Prediction(*self._decide("probabilities" if probabilities else "confidence"))

    def _decide(self, wanted: bands.Wanted) -> list[np.ndarray]:
        height, width = self.size
        extent, temperature = np.array(self.extent, np.float32), 1.0 if wanted == "label" else self.temperature
        results = bands.decide(self.maps, extent, self.output, self.least, wanted, temperature)
        return [np.asarray(part)[:height, :width] for part in results]


def predict_image(
    apply_fn: Callable[[jax.Array], jax.Array], image: np.ndarray, *, probabilities: bool = False, **options: Any
) -> Prediction:
    """Segments one image.

    Logits are resized to the size of the image, bilinearly with half-pixel centers and never antialiased. Those of
    several scales, or of the mirror image too, are turned into probabilities and averaged (mmseg's test-time
    augmentation).

    Args:
        apply_fn, image, **options: of `score_image`.
        probabilities: whether to return the probabilities of all classes (4 K bytes a pixel).

    Raises:
        UserError: for an image, mode or scale that makes no sense.
    """
    return score_image(apply_fn, image, **options).prediction(probabilities)


def score_image(
    apply_fn: Callable[[jax.Array], jax.Array],
    image: np.ndarray,
    *,
    mode: Mode = "whole",
    input_size: tuple[int, int] | None = None,
    window: tuple[int, int] = (1080, 1080),
    stride: tuple[int, int] = (420, 420),
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    bucket: bool = True,
    at_once: bool = False,
    temperature: float = 1.0,
) -> Scores:
    """Runs a network on one image.

    Args:
        apply_fn: uint8 [B, H, W, 3] RGB to logits float32 [B, h, w, K]. Pass
            `jax.tree_util.Partial(method.predict, variables)`: its arrays are then arguments of the
            compiled program. A plain function works too, but is compiled anew for every new
            function object and carries its arrays as constants.
        image: uint8 [H, W, 3], RGB.
        mode: "whole" feeds the image at once; "slide" averages the logits of overlapping windows
            (`nightjax.ops.windows`).
        input_size: (height, width) to which the image is resized first, its aspect not kept, as the
            official evaluations do (540x960 for 1080x1920); None keeps the size.
        window: (height, width) of the windows of "slide".
        stride: their (rows, columns) distance.
        scales: sizes to look at, relative to the input.
        flip: whether to look at the mirror image too.
        bucket: see the module's docstring.
        at_once: "slide" runs all windows in one call rather than one after the other.
        temperature: of confidences and probabilities; see `bands.decide`.

    Raises:
        UserError: for an image, mode or scale that makes no sense.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        got = f"{image.dtype} {list(image.shape)}"
        raise UserError(f"predict_image wants uint8 [H, W, 3], got {got}: use read_image")
    if mode not in ("whole", "slide"):
        raise UserError(f"prediction mode {mode!r} does not exist: use 'whole' or 'slide'")
    if not scales or not all(0 < scale <= LARGEST_SCALE for scale in scales):
        raise UserError(f"prediction scales must be positive numbers up to {LARGEST_SCALE}, got {scales}")
    if input_size is not None and not _is_size(input_size):
        raise UserError(f"prediction input_size={input_size!r} must be (height, width) in pixels, or None")
    size = image.shape[:2]
    output = tuple(map(bucket_length, size)) if bucket else size
    if input_size is not None:
        canvas = cv2.resize(image, (input_size[1], input_size[0]), interpolation=cv2.INTER_LINEAR)
        extent, least = size, output[0] - bucket_step(output[0]) + 1 if bucket else output[0]
    else:
        canvas = _extend(image, output)
        extent, least = output, output[0]  # The padding keeps its place in the result and is cut off with it.
    if not isinstance(apply_fn, jax.tree_util.Partial):
        apply_fn = jax.tree_util.Partial(apply_fn)
    settings = (mode, tuple(window), tuple(stride), tuple(map(float, scales)), flip, at_once)
    return Scores(_score(apply_fn, canvas[None], settings), size, output, extent, least, temperature)


def bucket_length(length: int) -> int:
    """A side's bucket: next multiple of 32 up to 512, of 64 up to 1024, of 128 up to 2048..."""
    step = bucket_step(length)
    return -(-length // step) * step


def bucket_step(length: int) -> int:
    """The distance of a side's bucket from the bucket before."""
    return max(32, 2 ** ((length - 1).bit_length() - 1) // 8) if length > 1 else 32


def should_bucket(sizes: Iterable[tuple[int, int]], limit: int = 4) -> bool:
    """Whether images have so many sizes (over `limit`) that bucketing pays for its inexactness."""
    return len(set(sizes)) > limit


def parse_size(words: Sequence[str], flag: str, own: bool = False) -> tuple[int, int] | None:
    """The (height, width) that a flag gives as two words; None for the word ``own``, if that is allowed.

    Raises:
        UserError: the words are neither.
    """
    if own and list(words) == ["own"]:
        return None
    sides = tuple(int(word) for word in words if word.isascii() and word.isdecimal() and len(word) < 9)
    if len(sides) != len(words) or not _is_size(sides):
        ending = ", or own" if own else ""
        raise UserError(f"--{flag}={','.join(words)} must be height,width in pixels, such as 540,960{ending}")
    return sides[0], sides[1]


def _is_size(size: object) -> bool:
    """Whether something is a height and width that an image may have."""
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        return False
    return all(1 <= side <= LARGEST_SIDE for side in size) and size[0] * size[1] <= LARGEST_AREA


@functools.partial(jax.jit, static_argnames=("settings",))
def _score(apply_fn, canvas, settings):
    """Logits [h, w, K] of every view of canvas uint8 [1, H, W, 3]."""
    mode, window, stride, scales, flip, at_once = settings

    def logits(image: jax.Array) -> jax.Array:
        if mode == "whole":
            return apply_fn(image).astype(jnp.float32)

        def dense(patch: jax.Array) -> jax.Array:
            return resize(apply_fn(patch).astype(jnp.float32), patch.shape[1:3], align_corners=False)

        return slide(dense, image, window, stride, at_once=at_once)

    scores = []
    for scale in scales:
        image = _rescale(canvas, scale)
        for mirror in (False, True) if flip else (False,):
            score = logits(image[:, :, ::-1] if mirror else image)
            scores.append((score[:, :, ::-1] if mirror else score)[0])
    return tuple(scores)


def _rescale(canvas: jax.Array, scale: float) -> jax.Array:
    if scale == 1.0:
        return canvas
    size = tuple(max(1, round(length * scale)) for length in canvas.shape[1:3])
    image = resize(canvas.astype(jnp.float32), size, align_corners=False)
    return jnp.round(image).astype(jnp.uint8)


def _extend(image: np.ndarray, size: Size) -> np.ndarray:
    below, right = size[0] - image.shape[0], size[1] - image.shape[1]
    return np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
