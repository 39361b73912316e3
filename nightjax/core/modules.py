# SPDX-License-Identifier: Apache-2.0
"""Calls of Flax modules, with the types that they have in this library.

Flax must allow for options that this library does not set, and declares unions: a module's output *or* a pair of it and
the collections that ``mutable=`` asks for, and variables as a dict *or* a frozen one. A type checker would then refuse
every use of a result.
"""

from typing import Any, cast

import flax.linen as nn
import jax

from nightjax.core import sharding
from nightjax.core.stacks import find_stack, stacks_of
from nightjax.core.types import Variables


def init(module: nn.Module, key: jax.Array, *args: Any, **kwargs: Any) -> Variables:
    """``module.init``: the first variables for these arguments."""
    return cast(Variables, module.init(key, *args, **kwargs))


def apply(module: nn.Module, variables: Variables, *args: Any, **kwargs: Any) -> Any:
    """``module.apply``: what the module returns; with ``mutable=``, a pair of that and the updated collections.

    Parameters that are split over devices are gathered, but for those of stacks, which their loop gathers block by
    block.
    """
    if sharding.gathers() and "params" in variables:
        stacks = stacks_of(module)
        in_stack = lambda path: find_stack(stacks, [key.key for key in path]) is not None
        gather = lambda path, x: x if in_stack(path) else sharding.whole(x)
        variables = {**variables, "params": jax.tree.map_with_path(gather, variables["params"])}
    return module.apply(variables, *args, **kwargs)
