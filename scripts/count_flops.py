"""Counts the floating-point operations of a traced program: matrix products and convolutions.

XLA's own cost analysis counts the body of a loop once, however often it runs, so it misses most of a network whose
blocks are a loop. This count follows loops, branches (the dearest one) and nested functions. Everything but products
and convolutions is left out, as is usual for the FLOPs of a network.
"""

import math
from typing import Any

from jax.extend import core


def count_flops(jaxpr: core.Jaxpr) -> float:
    """Floating-point operations of a program, a multiply-add counted as two.

    Args:
        jaxpr: such as ``jax.make_jaxpr(function)(*arguments).jaxpr``.
    """
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    if name == "cond":
        return max(count_flops(branch.jaxpr) for branch in parameters["branches"])
    times = parameters["length"] if name == "scan" else 1
    return times * sum(count_flops(inner) for value in parameters.values() for inner in _programs(value))


def _programs(value: Any) -> list[core.Jaxpr]:
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    return [value] if isinstance(value, core.Jaxpr) else []


def _of_product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _of_convolution(equation: Any) -> float:
    """Zeros between the inputs (of a gradient through a stride) are not counted."""
    kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
    taps = math.prod(kernel[axis] for axis in numbers.rhs_spec[2:])
    inputs = kernel[numbers.rhs_spec[1]]
    between = math.prod(equation.params["lhs_dilation"])
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * taps * inputs / between
