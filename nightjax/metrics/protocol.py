# SPDX-License-Identifier: Apache-2.0
"""How one set is evaluated, as data, and how its images are predicted."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core import config as configs
from nightjax.core.class_merges import CLASS_MERGES
from nightjax.core.errors import UserError
from nightjax.core.ranges import Range, Side
from nightjax.core.types import Size
from nightjax.metrics import confusion
from nightjax.ops.largest import largest
from nightjax.ops.resize import resize
from nightjax.ops.temperature import confidence_at
from nightjax.ops.windows import slide

LARGEST_SCALE = 16
"""By which a view of an image is enlarged at most."""


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """One labeled set and the protocol that it is scored by.

    Attributes:
        dataset: its name, such as nightstreet/std or folder:PATH; see `sources.open_source`.
        split: which part of the data set, such as val or all.
        native_size: (height, width) of the labels that the protocol is defined for; labels of another size are scored
            too, with a note. None: any.
        input_size: (height, width) to which images are resized for the network, not keeping their aspect ratio; None
            keeps the native size; (0, 0) is chosen when a plain folder is first read. Scores are always taken at the
            native size of the labels.
        antialias: whether this resize is antialiased, as Pillow's is.
        align_corners: whether logits are resized to the label size with aligned corners; True in DANNet, False in the
            DAFormer family.
        mode: ``"whole"``, or ``"slide"`` for overlapping windows whose logits are averaged.
        window, stride: of ``"slide"``, (height, width) and (rows, columns).
        scales: factors of the views whose probabilities are averaged.
        flip: whether mirror images count among these views.
        class_weight_std: above 0, logits are multiplied by DANNet's class weights with this standard deviation (0.16 in
            its test).
        merge: key of `CLASS_MERGES` for scoring Cityscapes' classes on sets with fewer, or ``""``; a run of other
            classes is scored in its own.
        uiou: also score UIoU, for sets with masks of invalid pixels.
        prediction: name of another prediction of the method to score instead of its usual one; the result then says
            how many pixels differ between the two. Whole images only.
        absent_classes: how the mean that is quoted treats absent classes; see `confusion.POLICIES`.
        batch: how many examples are predicted at a time.
        optional: leave the set out, with a line, where its files are not there.
    """

    dataset: str
    split: str
    native_size: tuple[Side, Side] | None = None
    input_size: tuple[int, int] | None = None
    antialias: bool = False
    align_corners: bool = False
    mode: str = "whole"
    window: tuple[Side, Side] = (1080, 1080)
    stride: tuple[Side, Side] = (420, 420)
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    class_weight_std: Annotated[float, Range(0, 100)] = 0.0
    merge: str = ""
    uiou: bool = False
    prediction: str = ""
    absent_classes: str = "skip"
    batch: Annotated[int, Range(1, 65_536)] = 8
    optional: bool = False

    def __post_init__(self):
        configs.choose({"whole": 0, "slide": 0}, self.mode, "eval set's mode")
        configs.choose(dict.fromkeys(confusion.POLICIES), self.absent_classes, "eval set's absent_classes")
        if self.merge:
            configs.choose(CLASS_MERGES, self.merge, "eval set's merge")
        if self.merge and self.uiou:
            raise UserError(
                f"eval set {self.dataset}: UIoU is defined on the classes of the run; drop merge={self.merge!r} or uiou"
            )
        if self.prediction and (self.mode != "whole" or self.flip):
            raise UserError(
                f"eval set {self.dataset}: prediction={self.prediction!r} is for whole images, not mirrored"
            )
        if not self.scales or not all(0 < scale <= LARGEST_SCALE for scale in self.scales):
            raise UserError(
                f"eval set {self.dataset}: scales={self.scales} must be numbers above 0, at most {LARGEST_SCALE}"
            )
        if self.input_size is not None and tuple(self.input_size) != (0, 0):
            for side in self.input_size:
                Range(1, 65_536).check(side, f"eval set {self.dataset}: a side of input_size")

    @property
    def changes(self) -> dict:
        """Every field that differs from its default, with its value, as a result should state it."""
        fields = [field for field in dataclasses.fields(self) if field.name != "optional"]
        return {f.name: v for f in fields if (v := getattr(self, f.name)) != f.default}


def predict(
    logits_fn: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    protocol: EvalSet,
    size: Size,
    class_weights: np.ndarray | None = None,
    temperatures: Sequence[float] = (1.0,),
) -> tuple[jax.Array, ...]:
    """Predicts a batch by a protocol; traceable.

    A single view is decided by its logits. Several scales and mirrored images are resized to the output, turned into
    probabilities and averaged, as in the test-time augmentation of mmsegmentation.

    Args:
        logits_fn: uint8 [B, H, W, 3] to logits float32 [B, h, w, K].
        image: uint8 [B, H, W, 3] RGB.
        protocol: its ``dataset``, ``split``, ``merge`` and ``absent_classes`` have no effect here.
        size: (height, width) of the result.
        class_weights: [K] factors of the logits, or None.
        temperatures: of the probabilities; see `confidence_at`.

    Returns:
        class uint8 [B, *size], then its probability float32 [B, *size] at each temperature.
    """

    def whole(x: jax.Array) -> jax.Array:
        logits = logits_fn(x)
        return logits if class_weights is None else logits * jnp.asarray(class_weights, logits.dtype)

    def dense(x: jax.Array) -> jax.Array:
        return resize(whole(x), x.shape[1:3], align_corners=protocol.align_corners)

    def view(x: jax.Array) -> jax.Array:
        logits = slide(dense, x, protocol.window, protocol.stride) if protocol.mode == "slide" else whole(x)
        return resize(logits, size, align_corners=protocol.align_corners)

    image = _resize_image(image, protocol.input_size or image.shape[1:3], protocol.antialias)
    if len(protocol.scales) == 1 and not protocol.flip:
        logits = view(_scale(image, protocol.scales[0]))
        label, top = largest(logits, axis=-1)
        return label, *(confidence_at(logits, top, temperature) for temperature in temperatures)
    total = 0.0
    for scale in protocol.scales:
        scaled = _scale(image, scale)
        total += jax.nn.softmax(view(scaled), axis=-1)
        if protocol.flip:
            total += jax.nn.softmax(view(scaled[:, :, ::-1])[:, :, ::-1], axis=-1)
    average = jnp.asarray(total) / (len(protocol.scales) * (1 + protocol.flip))
    label, top = largest(average, axis=-1)
    scaled = lambda temperature: confidence_at(jnp.log(average), jnp.log(top), temperature)
    return label, *(top if temperature == 1 else scaled(temperature) for temperature in temperatures)


def _scale(image: jax.Array, scale: float) -> jax.Array:
    return _resize_image(image, tuple(max(1, round(side * scale)) for side in image.shape[1:3]))


def _resize_image(image: jax.Array, size: Size, antialias: bool = False) -> jax.Array:
    if tuple(size) == image.shape[1:3]:
        return image
    x = image.astype(jnp.float32)
    if not antialias:
        return jnp.round(resize(x, size, align_corners=False)).astype(jnp.uint8)
    for step in ((image.shape[1], size[1]), size):  # Pillow rounds after either direction, columns first.
        x = jnp.floor(resize(x, step, align_corners=False, antialias=True) + 0.5)
    return x.astype(jnp.uint8)
