"""torch's default initialisation of convolutions: uniform up to 1 / sqrt(fan in), biases too."""

from collections.abc import Callable

from flax import linen as nn
from jax import random

kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def bias_init(fan_in: int) -> Callable:
    """Initializer of the bias of a convolution whose outputs each sum ``fan_in`` products."""

    def init(key, shape, dtype):
        return random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return init
