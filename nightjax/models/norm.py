"""Batch normalisation: one pass over the data, exact in float32, global under sharding."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

FEW = 128
"""Up to so many values a channel, such as a pooled pyramid's, the variance takes a second pass: there it can be far
below the square of the distance to the running mean, and costs nothing."""


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with torch's running-statistics rule.

    The variance is taken in one pass over ``x - running mean`` (the result does not depend on the
    shift; it only removes the cancellation of ``E[x^2] - E[x]^2``). Under ``jit`` with a sharded
    batch the statistics are those of the global batch, for one all-reduce forward and one more
    backward.

    Several passes that differ in nothing but their images may be one: with ``train=G`` every G-th example, from the
        first on,
    from the second on, ..., belongs to one group. Each group is normalised by statistics of its own, and the running
    ones take the groups one after the other, as G passes would have it.

    Attributes:
        bn_decay: share of the old running value that is *kept* at an update (torch's momentum is 1
            minus this).
        epsilon: added to the variance.
        unbiased_var: whether the running variance uses n / (n - 1) times the batch variance, as
            torch does. The normalisation itself always uses the biased one.
        frozen: normalise with the running statistics and leave them alone, whatever ``train`` says.
            Scale and bias stay parameters; keeping them fixed is the optimiser's task.
        dtype: output dtype. Statistics and parameters are float32.
    """

    bn_decay: float = 0.9
    epsilon: float = 1e-5
    unbiased_var: bool = True
    frozen: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train: bool | int):
        """Normalises x [B, ..., C].

        With ``train``, True or a number of groups, the statistics are those of the batch, and the running ones are
        updated if the caller made the collection ``batch_stats`` mutable.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)

        if not train or self.frozen:
            gain = scale * lax.rsqrt(var.value + self.epsilon)
            return (x.astype(jnp.float32) * gain + (bias - mean.value * gain)).astype(self.dtype)

        groups = int(train)
        split = x.reshape(-1, groups, *x.shape[1:])
        y, batch_mean, batch_var = _normalise(split, scale, bias, mean.value, self.epsilon)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            count = _count(split)
            if self.unbiased_var:
                batch_var = batch_var * (count / max(count - 1, 1))
            for g in range(groups):
                mean.value = self.bn_decay * mean.value + (1 - self.bn_decay) * batch_mean[g]
                var.value = self.bn_decay * var.value + (1 - self.bn_decay) * batch_var[g]
        return y.reshape(x.shape).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalise(x, scale, bias, shift, epsilon):
    """Normalised x [B, G, ..., C] in x's dtype; mean and biased variance [G, C], float32, without gradient."""
    return _normalise_forward(x, scale, bias, shift, epsilon)[0]


def _normalise_forward(x, scale, bias, shift, epsilon):
    mean_of = functools.partial(jnp.mean, axis=_axes(x), keepdims=True)
    centred = x.astype(jnp.float32) - shift
    first = mean_of(centred)
    if _count(x) <= FEW:
        second, square = mean_of(jnp.square(centred - first)), 0.0
    else:
        second, square = mean_of(centred * centred), first * first
    mean, var = shift + first, jnp.maximum(second - square, 0.0)
    inverse_std = lax.rsqrt(var + epsilon)
    y = (x.astype(jnp.float32) - mean) * (inverse_std * scale) + bias
    groups = x.shape[1], x.shape[-1]
    return (y.astype(x.dtype), mean.reshape(groups), var.reshape(groups)), (x, scale, mean, inverse_std)


def _normalise_backward(epsilon, saved, cotangents):
    """Two sums and one pass: dx = gain * (dy - mean(dy) - normalised * mean(dy * normalised))."""
    del epsilon
    x, scale, mean, inverse_std = saved
    count, sum_of = _count(x), functools.partial(jnp.sum, axis=_axes(x), keepdims=True)
    dy = cotangents[0].astype(jnp.float32)
    centred = x.astype(jnp.float32) - mean
    d_bias = sum_of(dy)
    d_scale = sum_of(dy * centred) * inverse_std
    slope = d_scale * inverse_std / count
    dx = (scale * inverse_std) * (dy - d_bias / count - centred * slope)
    d_scale, d_bias = (d.reshape(-1, x.shape[-1]).sum(0) for d in (d_scale, d_bias))
    return dx.astype(x.dtype), d_scale, d_bias, jnp.zeros_like(scale)


def _axes(x):
    """Of [B, G, ..., C], all but those of groups and channels."""
    return (0, *range(2, x.ndim - 1))


def _count(x):
    """Values of [B, G, ..., C] in one channel of one group."""
    return x.size // (x.shape[1] * x.shape[-1])


_normalise.defvjp(_normalise_forward, _normalise_backward)
