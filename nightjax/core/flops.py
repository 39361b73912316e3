# SPDX-License-Identifier: Apache-2.0
"""Counts the floating-point operations of a traced function: its matrix products and convolutions, in loops too.

XLA's own count takes the body of a loop once, whatever its length; this one multiplies.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count(function: Callable[..., Any], *args: Any) -> float:
    """Multiplications and additions of all matrix products and convolutions, two for each pair.

    Elementwise work is not counted. Of a conditional the costlier branch counts, of a loop without a fixed length one
    turn.

    Args:
        function: traceable.
        args: arrays or their shapes.
    """
    return _of(jax.make_jaxpr(function)(*args).jaxpr)


def _of(jaxpr: Any) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
    kind, params = equation.primitive.name, equation.params
    if kind == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * depth * math.prod(equation.outvars[0].aval.shape)
    if kind == "conv_general_dilated":
        numbers, kernel = params["dimension_numbers"], equation.invars[1].aval.shape
        taps = math.prod(kernel[axis] for axis in numbers.rhs_spec[2:]) * kernel[numbers.rhs_spec[1]]
        # Zeros that dilate the input, as in the gradient of a strided convolution, are no work.
        return 2.0 * taps * math.prod(equation.outvars[0].aval.shape) / math.prod(params["lhs_dilation"])
    if kind == "cond":
        return max(_of(branch.jaxpr) for branch in params["branches"])
    return params.get("length", 1) * sum(map(_of, _inner(params))) if kind == "scan" else sum(map(_of, _inner(params)))


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The programs that an operation calls."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part
