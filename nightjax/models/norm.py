# SPDX-License-Identifier: Apache-2.0
"""Batch normalization: one pass over the data, exact in float32, global under sharding."""

import contextlib
import functools
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

SECOND_PASS_LIMIT = 2048
"""Channels of at most this many values get their variance in a second pass. With few values it can be far below the
square of the distance to the running mean, as in a head that is trained from published weights, and a small map is
read quickly. With several devices it takes a second all-reduce, of one number a channel."""


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last, with torch's running-statistics rule.

    The variance is taken in one pass over ``x - running mean``. The shift does not change the result; it removes the
    cancellation of ``E[x^2] - E[x]^2``. Small maps take two passes, see `SECOND_PASS_LIMIT`. Under ``jit`` with a
    sharded batch the statistics are those of the global batch, at the price of one all-reduce forward, two for small
    maps, and one backward.

    Attributes:
        bn_decay: fraction of the old running value that an update *keeps* (torch's momentum is 1 minus this).
        epsilon: added to the variance.
        unbiased_var: whether the running variance uses n / (n - 1) times the batch variance, as torch does. The
            normalization itself always uses the biased one.
        frozen: normalize with the running statistics and leave them alone, whatever ``train`` says. Scale and bias
            stay parameters; the optimizer has to keep them fixed.
        dtype: output dtype. Statistics and parameters are float32.
    """

    bn_decay: float = 0.9
    epsilon: float = 1e-5
    unbiased_var: bool = True
    frozen: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, norm_groups: int = 1) -> jax.Array:
        """Normalizes each channel.

        Args:
            x: [B, ..., C].
            train: use the statistics of the batch instead of the running ones. These are updated if the caller made
                the collection ``batch_stats`` mutable.
            norm_groups: number G of interleaved groups in a training batch: example ``i`` belongs to group ``i % G``.
                Each group has its own statistics, and the running ones take the groups in order, just as G separate
                passes would. B must be a multiple of G. `interleaved_norm_groups` sets it for a whole network.

        Returns:
            [B, ..., C] in ``dtype``.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)

        if not train or self.frozen:
            gain = scale * lax.rsqrt(var.value + self.epsilon)
            return (x.astype(jnp.float32) * gain + (bias - mean.value * gain)).astype(self.dtype)

        split = x.reshape(-1, norm_groups, *x.shape[1:])
        normalized = _normalize(split, scale, bias, mean.value, self.epsilon)
        y, batch_mean, batch_var = cast(tuple[jax.Array, jax.Array, jax.Array], normalized)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            count = _count(split)
            if self.unbiased_var:
                batch_var = batch_var * (count / max(count - 1, 1))
            for g in range(norm_groups):
                mean.value = self.bn_decay * mean.value + (1 - self.bn_decay) * batch_mean[g]
                var.value = self.bn_decay * var.value + (1 - self.bn_decay) * batch_var[g]
        return y.reshape(x.shape).astype(self.dtype)


def interleaved_norm_groups(groups: int) -> contextlib.AbstractContextManager[None]:
    """Within this context every `BatchNorm` that is called takes its batch as ``groups`` interleaved groups.

    Several training passes that differ only in their images can so be one pass, which is traced and compiled once:

        with interleaved_norm_groups(2):
            model.apply(variables, interleaved_images, train=True, ...)

    Args:
        groups: see ``norm_groups`` of `BatchNorm`.
    """

    def intercept(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            kwargs = {**kwargs, "norm_groups": groups}
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalize(x, scale, bias, shift, epsilon):
    """Normalized x [B, G, ..., C] in x's dtype; mean and biased variance [G, C], float32, without gradient."""
    return _normalize_forward(x, scale, bias, shift, epsilon)[0]


def _normalize_forward(x, scale, bias, shift, epsilon):
    mean_of = functools.partial(jnp.mean, axis=_axes(x), keepdims=True)
    centered = x.astype(jnp.float32) - shift
    first = mean_of(centered)
    if _count(x) <= SECOND_PASS_LIMIT:
        second, square = mean_of(jnp.square(centered - first)), 0.0
    else:
        second, square = mean_of(centered * centered), first * first
    mean, var = shift + first, jnp.maximum(second - square, 0.0)
    inverse_std = lax.rsqrt(var + epsilon)
    y = (x.astype(jnp.float32) - mean) * (inverse_std * scale) + bias
    groups = x.shape[1], x.shape[-1]
    return (y.astype(x.dtype), mean.reshape(groups), var.reshape(groups)), (x, scale, mean, inverse_std)


def _normalize_backward(epsilon, saved, cotangents):
    """Two sums and one pass: dx = gain * (dy - mean(dy) - normalized * mean(dy * normalized))."""
    del epsilon
    x, scale, mean, inverse_std = saved
    count, sum_of = _count(x), functools.partial(jnp.sum, axis=_axes(x), keepdims=True)
    dy = cotangents[0].astype(jnp.float32)
    centered = x.astype(jnp.float32) - mean
    d_bias = sum_of(dy)
    d_scale = sum_of(dy * centered) * inverse_std
    slope = d_scale * inverse_std / count
    dx = (scale * inverse_std) * (dy - d_bias / count - centered * slope)
    d_scale, d_bias = (d.reshape(-1, x.shape[-1]).sum(0) for d in (d_scale, d_bias))
    return dx.astype(x.dtype), d_scale, d_bias, jnp.zeros_like(scale)


def _axes(x):
    """Axes of [B, G, ..., C] that are reduced: all except groups and channels."""
    return (0, *range(2, x.ndim - 1))


def _count(x):
    """Number of values that [B, G, ..., C] has in one channel of one group."""
    return x.size // (x.shape[1] * x.shape[-1])


_normalize.defvjp(_normalize_forward, _normalize_backward)
