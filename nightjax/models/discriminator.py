# SPDX-License-Identifier: Apache-2.0
"""Patch discriminators on class probabilities (arXiv 1802.10349 section 4.1, 2104.10834)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.errors import UserError
from nightjax.core.ranges import Count
from nightjax.models.initializers import torch_uniform, uniform
from nightjax.models.layers import Conv

VARIANTS = {
    "adaptsegnet": {"multipliers": (1, 2, 4, 8), "strides": (2, 2, 2, 2, 2)},
    "dannet": {"multipliers": (1, 2, 4, 4), "strides": (2, 2, 1, 1, 1)},
}
"""Attributes of :class:`Discriminator` by system."""


class Discriminator(nn.Module):
    """Five 4x4 convolutions with leaky ReLU 0.2 between, no norm and no sigmoid at the end.

    Attributes:
        features: channels of the first convolution.
        multipliers: channels of the first four convolutions in units of ``features``.
        strides: of all five.
        dtype: compute dtype.
    """

    features: int = 64
    multipliers: tuple[Count, ...] = VARIANTS["dannet"]["multipliers"]
    strides: tuple[Count, ...] = VARIANTS["dannet"]["strides"]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, probs: jax.Array) -> jax.Array:
        """Scores of overlapping patches.

        Args:
            probs: [B, H, W, K] class probabilities.

        Returns:
            [B, h, w, 1] float32: small for source, large for target.

        Raises:
            UserError: if the input is too small for the strides.
        """
        x = probs
        widths = [self.features * multiplier for multiplier in self.multipliers]
        names = [f"conv{i + 1}" for i in range(len(widths))]
        layers = zip((*widths, 1), (*names, "classifier"), self.strides, strict=True)
        for width, name, stride in layers:
            if min(x.shape[1:3]) < 2:
                raise UserError(
                    f"discriminator: an input of {probs.shape[1]}x{probs.shape[2]} is too small "
                    "for its five convolutions; give at least 32x32"
                )
            x = Conv(
                width,
                kernel=4,
                stride=stride,
                padding=1,
                use_bias=True,
                dtype=self.dtype,
                kernel_init=torch_uniform,
                bias_init=uniform((16 * x.shape[-1]) ** -0.5),
                name=name,
            )(x)
            if name != "classifier":
                x = nn.leaky_relu(x, 0.2)
        return x.astype(jnp.float32)
