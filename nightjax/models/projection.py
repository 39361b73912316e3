"""The head that contrastive losses compare features through; it is no part of the network that predicts."""

import jax
from flax import linen as nn

from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm


class ProjectionHead(nn.Module):
    """1x1 convolution, batch norm, ReLU, 1x1 convolution.

    The norm always uses the batch's statistics, in training, and keeps none.

    Attributes:
        features: channels of both convolutions.
    """

    features: int = 256

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] to [B, h, w, features] in x's dtype; not of unit length."""
        x = Conv(self.features, kernel=1, dtype=x.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm(dtype=x.dtype, name="bn")(x, train=True))
        return Conv(self.features, kernel=1, use_bias=True, dtype=x.dtype, name="conv2")(x)


def project(head: ProjectionHead, params: dict, x: jax.Array) -> jax.Array:
    """``head`` with these parameters at x; its running statistics are dropped."""
    return head.apply({"params": params}, x, mutable=["batch_stats"])[0]
