# SPDX-License-Identifier: Apache-2.0
"""Where a program will run, and the form that its operations take there.

Several operations can be computed in more than one way: a 1x1 convolution is also a matrix product, a depthwise one a
sum of shifted maps. All forms give the same values up to rounding; which one is fast depends on the machine. The
target is what the caller says, not the machine that traces, so a laptop can write a program for a TPU.

    step = jax.jit(targets.written_for(targets.of(mesh.devices.flat), method.train_step))

A function that is traced outside of `written_for` takes the forms of ``"cpu"``.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax

from nightjax.core.errors import choose


@dataclasses.dataclass(frozen=True)
class Forms:
    """The form of each operation that has several; ``scripts/bench_ops.py`` measures them.

    Attributes:
        pointwise: of 1x1 convolutions: a matrix product, or the library's convolution.
        depthwise: of depthwise convolutions: a sum of shifted maps, or the library's convolution.
        tiny_maps: of convolutions of very many tiny maps: one product over a whole map, or the library's convolution.
        pool: of max-pooling: maxima of strided slices, or the library's window reduction.
        growing: of bilinear growth by a whole factor: a blend of neighbors, or a product with constant matrices.
        counting: of counting pairs: a scatter of ones, or a product of one-hot matrices, which suits a matrix unit.
        blocks: of a row of equal blocks: a loop that is compiled once, or the blocks one after the other, which
            converters of other formats need to see every weight.
        largest: of the likeliest class of every pixel: class by class, in one pass, or the library's arg-max.
        attention: of very many tokens: all queries at once, or some after others, which bounds memory.
    """

    pointwise: Literal["dot", "library"] = "library"
    depthwise: Literal["taps", "library"] = "taps"
    tiny_maps: Literal["dot", "library"] = "library"
    pool: Literal["slices", "window"] = "slices"
    growing: Literal["blend", "matrices"] = "matrices"
    counting: Literal["scatter", "onehot"] = "scatter"
    blocks: Literal["loop", "unrolled"] = "loop"
    largest: Literal["classes", "library"] = "library"
    attention: Literal["whole", "rows"] = "whole"


FORMS = {
    "cpu": Forms(pointwise="dot", tiny_maps="dot", growing="blend", largest="classes"),
    "cuda": Forms(attention="rows"),
    "tpu": Forms(counting="onehot", attention="rows"),
    "onnx": Forms(depthwise="library", growing="blend", blocks="unrolled"),
    "tflite": Forms(depthwise="library", growing="blend", blocks="unrolled"),
}
"""Target to its forms. Those of ``"cpu"`` are measured; those of other devices follow from what the hardware does well.

``"onnx"`` and ``"tflite"`` are file formats, whose runtimes have a fast depthwise convolution and want no loop. Their
max-pool is slices, since jax2onnx 0.17 converts neither of JAX's window forms right. Their growth is a blend, so that
files are smaller and runtimes faster (docs/ship.md); JAX's own resize does not convert for any batch.
"""

_current = jax.make_user_context("cpu")


def forms() -> Forms:
    """The forms of the target that the program being traced is written for."""
    return FORMS[_current.value]


def of(devices: Iterable[jax.Device]) -> str:  # pyright: ignore[reportInvalidTypeForm]
    """The target that these devices are, which are of one kind."""
    return for_platform(next(iter(devices)).platform)


def for_platform(platform: str) -> str:
    """The target of a platform as jax names it; GPUs of any maker take the forms of ``"cuda"``.

    Raises:
        UserError: jax runs there, but no forms are known.
    """
    return choose({"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "rocm": "cuda", "tpu": "tpu"}, platform, "platform")


@dataclasses.dataclass(frozen=True)
class _Written:
    target: str
    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _current(self.target):
            return self.function(*args, **kwargs)


def written_for(target: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, traced with the forms of a target. Equal arguments give equal results, so a jit knows them again.

    Args:
        target: of `FORMS`.
        function: traceable.
    """
    choose(FORMS, target, "target")
    return _Written(target, function)
