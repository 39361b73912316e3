# SPDX-License-Identifier: Apache-2.0
"""What the backward pass computes again instead of finding it in memory."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn

Stored = Literal["inputs", "products"]
"""What of a block is stored for the backward pass where the rest is computed again: its input alone, which makes the
work a third more; or the results of its matrix products and convolutions too, so that no product is computed twice."""


def rematerialized(block: Callable[..., Any], stored: Stored, **options: Any) -> Callable[..., Any]:
    """A module class, or a function of a module, that computes its inner values again in the backward pass.

    Args:
        block: the class or function.
        stored: what is stored nevertheless.
        options: of `flax.linen.remat`.
    """
    return nn.remat(block, policy=_is_product if stored == "products" else None, **options)


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in ("dot_general", "conv_general_dilated")
