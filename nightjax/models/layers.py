# SPDX-License-Identifier: Apache-2.0
"""Convolution, pooling and dropout with torch's conventions, in the forms that measured fastest.

``Conv`` is the one convolution of the library. Every form computes the same function of the same
parameters; ``_form`` chooses by the target (`core.targets`). ``scripts/bench_ops.py`` prints the
numbers behind the choice.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nightjax.core import targets
from nightjax.models.initializers import normal, uniform

Pair = tuple[int, int]

MAX_MAP_VALUES, MAX_MAP_FEATURES = 400, 8
"""A convolution is computed as one matrix product over the whole of a map if the map has at most ``MAX_MAP_VALUES``
values, there are more maps than that, and at most ``MAX_MAP_FEATURES`` output channels. With 32 output channels the
product is no faster (``scripts/bench_ops.py``)."""


class Conv(nn.Module):
    """2-D convolution, [B, H, W, I] -> [B, H', W', features] in ``dtype``, kernel HWIO float32.

    Attributes:
        features: output channels. A depthwise convolution needs as many as there are input
            channels.
        kernel: kernel size, one number or (height, width).
        stride: step in both directions.
        dilation: distance of neighboring kernel taps in input pixels.
        groups: 1, or ``"depthwise"`` for one filter a channel (kernel shape (kh, kw, 1, C)). Other
            group counts are not offered: they gather the batch on every device under sharding.
        padding: zeros on each side, one number or (rows, columns). None is torch's usual
            ``dilation * (kernel - 1) // 2``, which keeps the size at stride 1 and odd kernels.
        use_bias: whether a bias is added.
        dtype: compute and output dtype; parameters are float32.
        kernel_init: initializer; None is He normal by fan-out, over the taps only when depthwise.
        bias_init: initializer of the bias.
    """

    features: int
    kernel: int | Pair = 3
    stride: int = 1
    dilation: int = 1
    groups: int | str = 1
    padding: int | Pair | None = None
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable | None = None
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x):
        if self.groups not in (1, "depthwise"):
            raise ValueError(f"Conv groups must be 1 or 'depthwise', got {self.groups!r}")
        depthwise = self.groups == "depthwise"
        if depthwise and self.features != x.shape[-1]:
            raise ValueError(f"depthwise Conv of {x.shape[-1]} channels cannot have {self.features} features")
        size = _pair(self.kernel)
        padding = self.padding
        if padding is None:
            padding = self.dilation * (size[0] - 1) // 2, self.dilation * (size[1] - 1) // 2
        padding = _pair(padding)
        fan_out = math.prod(size) * (1 if depthwise else self.features)
        kernel_init = self.kernel_init or normal(math.sqrt(2 / fan_out))
        inputs = 1 if depthwise else x.shape[-1]
        kernel = self.param("kernel", kernel_init, (*size, inputs, self.features), jnp.float32)
        form = _form(x.shape, kernel.shape, padding, depthwise)
        y = form(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.dilation, padding)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


def _form(shape: tuple[int, ...], kernel: tuple[int, ...], padding: Pair, depthwise: bool) -> Callable:
    """The target's ``(x, kernel, stride, dilation, padding) -> y`` for this convolution."""
    forms = targets.forms()
    if depthwise:
        return _shifted_depthwise if forms.depthwise == "taps" else _library_depthwise
    if kernel[:2] == (1, 1) and padding == (0, 0) and forms.pointwise == "dot":
        return _pointwise_dot
    if forms.tiny_maps == "library":
        return _library
    # A program that is exported for any batch has a symbol for its size, which cannot be compared.
    many_maps = isinstance(shape[0], int) and shape[0] > MAX_MAP_VALUES
    if many_maps and math.prod(shape[1:]) <= MAX_MAP_VALUES and kernel[-1] <= MAX_MAP_FEATURES:
        return _whole_map_dot
    return _library


def _library(x, kernel, stride, dilation, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(p, p) for p in padding],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _library_depthwise(x, kernel, stride, dilation, padding):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(p, p) for p in padding],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _pointwise_dot(x, kernel, stride, dilation, padding):
    """1x1: a matrix product of pixels and channels; on CPU its weight gradient is several times cheaper.

    Of two axes: over four, the compiler makes a transposed copy of the output's gradient, and all that led to it again.
    """
    del dilation, padding
    x = x[:, ::stride, ::stride]
    return jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])


def _whole_map_dot(x, kernel, stride, dilation, padding):
    """Many tiny maps of few channels: one matrix product over all values of a map.

    Row i of the matrix is the response to a unit impulse at value i.
    """
    values = math.prod(x.shape[1:])
    impulses = jnp.eye(values, dtype=x.dtype).reshape(values, *x.shape[1:])
    rows = _library(impulses, kernel, stride, dilation, padding)
    return jnp.dot(x.reshape(len(x), values), rows.reshape(values, -1)).reshape(len(x), *rows.shape[1:])


def _shifted_depthwise(x, kernel, stride, dilation, padding):
    """One multiply-add of the shifted input for each tap: plain arithmetic, fused into one pass."""
    one_pass_back = stride == 1 and all(p <= dilation * (k - 1) for p, k in zip(padding, kernel.shape[:2], strict=True))
    return (_even_depthwise if one_pass_back else _sum_of_taps)(x, kernel, stride, dilation, padding)


def _sum_of_taps(x, kernel, stride, dilation, padding):
    terms = [
        shifted * kernel[i, j, 0] for (i, j), shifted in _taps(x, kernel.shape[:2], stride, dilation, padding, 0.0)
    ]
    return functools.reduce(jnp.add, terms)


_even_depthwise = jax.custom_vjp(_sum_of_taps, nondiff_argnums=(2, 3, 4))
"""At stride 1, the input's gradient is a depthwise convolution too, with the kernel turned around. Derived tap by tap,
it would be a sum of padded arrays, each written to memory by itself."""


def _even_depthwise_forward(x, kernel, stride, dilation, padding):
    return _even_depthwise(x, kernel, stride, dilation, padding), (x, kernel)


def _even_depthwise_backward(stride, dilation, padding, kept, g):
    x, kernel = kept
    size = kernel.shape[:2]
    rest = tuple(dilation * (k - 1) - p for k, p in zip(size, padding, strict=True))
    dx = _sum_of_taps(g, kernel[::-1, ::-1], stride, dilation, rest)
    wide = g.astype(jnp.float32)
    dk = [(shifted * wide).sum((0, 1, 2)) for _, shifted in _taps(x, size, stride, dilation, padding, 0.0)]
    return dx, jnp.stack(dk).reshape(kernel.shape).astype(kernel.dtype)


_even_depthwise.defvjp(_even_depthwise_forward, _even_depthwise_backward)


def _taps(x, size, stride, dilation, padding, fill):
    """Yields ((i, j), [B, H', W', C]): each kernel tap and the inputs it meets.

    ``padding`` holds the low and high padding of rows and columns, or one number for both sides.
    """
    sides: list[Pair] = [(p, p) if isinstance(p, int) else p for p in padding]
    reach = [dilation * (k - 1) + 1 for k in size]
    out = [(n + sum(p) - r) // stride + 1 for n, p, r in zip(x.shape[1:3], sides, reach, strict=True)]
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *((*p, 0) for p in sides), (0, 0, 0)])
    for i in range(size[0]):
        for j in range(size[1]):
            start = (i * dilation, j * dilation)
            stop = [s + (n - 1) * stride + 1 for s, n in zip(start, out, strict=True)]
            yield (
                (i, j),
                lax.slice(padded, (0, *start, 0), (x.shape[0], *stop, x.shape[3]), (1, stride, stride, 1)),
            )


class DoublingConv(nn.Module):
    """3x3 transposed convolution of stride 2 that doubles both sides.

    Output pixel ``2m`` meets tap 1 of input ``m``, and ``2m + 1`` taps 2 and 0 of ``m`` and
    ``m + 1``. So it is computed as a dense 2x2 convolution to the four phases of each cell, which
    are then laid out side by side: on CPU its weight gradient is several times cheaper than that of
    a dilated input.

    Attributes:
        features: output channels.
        dtype: compute dtype; the parameter ``kernel_t`` [3, 3, I, O] is float32.
        use_bias: whether a bias, 0 at first, is added.
        kernel_init: initializer; None is torch's.
    """

    features: int
    dtype: Any = jnp.float32
    use_bias: bool = False
    kernel_init: Callable | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] to [B, 2H, 2W, O] in ``dtype``; torch's padding 1 and output padding 1."""
        shape = (3, 3, x.shape[-1], self.features)
        # torch takes the fan of a transposed weight from its output channels.
        init = self.kernel_init or uniform((9 * self.features) ** -0.5)
        kernel = self.param("kernel_t", init, shape, jnp.float32).astype(self.dtype)
        phases = _phase_taps(_phase_taps(kernel, 0), 2)  # [2, phase, 2, phase, I, O]
        phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, shape[2], 4 * self.features)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            phases,
            (1, 1),
            [(0, 1), (0, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        batch, height, width, _ = y.shape
        y = y.reshape(batch, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, 2 * height, 2 * width, self.features)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


class PatchUpConv(nn.Module):
    """2x2 transposed convolution of stride 2: every cell becomes 2x2 cells, none of which overlap.

    Attributes:
        features: output channels.
        dtype: compute dtype; the parameter ``kernel_t`` [2, 2, I, O] is float32.
        use_bias: whether a bias, 0 at first, is added.
        kernel_init: initializer; None is torch's.
    """

    features: int
    dtype: Any = jnp.float32
    use_bias: bool = False
    kernel_init: Callable | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] to [B, 2H, 2W, O] in ``dtype``."""
        batch, height, width, inputs = x.shape
        # torch takes the fan of a transposed weight from its output channels.
        init = self.kernel_init or uniform((4 * self.features) ** -0.5)
        kernel = self.param("kernel_t", init, (2, 2, inputs, self.features), jnp.float32).astype(self.dtype)
        taps = kernel.transpose(2, 0, 1, 3).reshape(inputs, 4 * self.features)
        y = jnp.dot(x.astype(self.dtype).reshape(-1, inputs), taps)
        y = y.reshape(batch, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, 2 * height, 2 * width, self.features)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


def _phase_taps(kernel, axis):
    """Splits an axis of three taps in (input cell, phase of the output): [[1, 2], [none, 0]]."""
    first, middle, last = jnp.moveaxis(kernel, axis, 0)
    cells = jnp.stack([jnp.stack([middle, last]), jnp.stack([jnp.zeros_like(first), first])])
    return jnp.moveaxis(cells, (0, 1), (axis, axis + 1))


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0, ceil_mode: bool = False) -> jax.Array:
    """Maximum over square windows with torch's size rules.

    Args:
        x: [B, H, W, C], floating point.
        window: side of the window.
        stride: step of the window.
        padding: border on each side that never wins (minus infinity).
        ceil_mode: torch's rule: the size is rounded up, and a last window that would start beyond
            the input and its left padding is dropped.

    Returns:
        [B, h, w, C] of x's dtype. Where several inputs of a window are equal and largest, they
        share the gradient in the form of slices (torch and the form of windows give it to the first;
        after a ReLU the ties are zeros and it makes no difference).
    """
    borders, reaches = [], []
    for axis in (1, 2):
        n = x.shape[axis]
        span = n + 2 * padding - window
        cells = -(-span // stride) + 1 if ceil_mode else span // stride + 1
        if ceil_mode and (cells - 1) * stride >= n + padding:
            cells -= 1
        reach = (cells - 1) * stride + 1
        borders.append((padding, max(reach - 1 + window - n - padding, 0)))
        reaches.append(reach)
    if targets.forms().pool == "window":
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), ((0, 0), *borders, (0, 0))
        )
    for axis, border, reach in zip((1, 2), borders, reaches, strict=True):
        sides = [(0, 0)] * x.ndim
        sides[axis] = border
        padded = jnp.pad(x, sides, constant_values=-jnp.inf)
        taps = (lax.slice_in_dim(padded, i, i + reach, stride, axis) for i in range(window))
        x = functools.reduce(jnp.maximum, taps)
    return x


class Dropout2d(nn.Module):
    """Dropout of whole channels of [B, H, W, C]; random stream ``"dropout"``."""

    rate: float

    @nn.compact
    def __call__(self, x, *, deterministic: bool):
        return nn.Dropout(self.rate, broadcast_dims=(1, 2))(x, deterministic=deterministic)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
