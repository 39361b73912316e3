# SPDX-License-Identifier: Apache-2.0
"""UNIT: two variational autoencoders with one latent space (arXiv 1703.00848), in both published forms.

Domain ``a`` is the day, ``b`` the night. A network has ``encode(x, domain)`` to the mean of the code, whose variance is
1, and ``decode(z, domain)`` back to an image; translation is one after the other with different domains.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.config import choose
from nightjax.models.layers import Conv, DoublingConv
from nightjax.models.translation_blocks import (
    ACTIVATIONS,
    NORMS,
    ConvBlock,
    MultiScaleDiscriminator,
    PatchDiscriminator,
    ResidualBlocks,
    double,
    normal_002,
)

DOMAINS = ("a", "b")


class Encoder(nn.Module):
    """Image to code, every convolution with instance norm.

    Attributes:
        features: channels of the first convolution; every halving doubles them.
        downsamplings: halvings of the size.
        blocks: residual blocks at the end, which leave the code unbounded.
        dtype: compute dtype.
        activation: key of `ACTIVATIONS`, after every norm.
        pad_mode: key of `PADDINGS`.
    """

    features: int = 64
    downsamplings: int = 2
    blocks: int = 4
    dtype: Any = jnp.float32
    activation: str = "relu"
    pad_mode: str = "reflect"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3] in [-1, 1] to [B, h, w, C]."""
        options = {"activation": self.activation, "pad_mode": self.pad_mode, "dtype": self.dtype}
        block = functools.partial(ConvBlock, norm="instance", **options)
        x = block(self.features, kernel=7, padding=3, name="model_0")(x)
        for i in range(1, self.downsamplings + 1):
            x = block(self.features * 2**i, kernel=4, stride=2, name=f"model_{i}")(x)
        return ResidualBlocks(self.blocks, **options, name=f"model_{self.downsamplings + 1}")(x)


class Decoder(nn.Module):
    """Code to image. `SampleNorm` on the way up keeps the brightness, which instance norm would erase.

    Attributes: as of `Encoder`, whose mirror it is.
    """

    features: int = 64
    downsamplings: int = 2
    blocks: int = 4
    dtype: Any = jnp.float32
    activation: str = "relu"
    pad_mode: str = "reflect"

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """[B, h, w, C] to [B, H, W, 3] float32 in (-1, 1)."""
        options = {"pad_mode": self.pad_mode, "dtype": self.dtype}
        x = ResidualBlocks(self.blocks, activation=self.activation, **options, name="model_0")(z)
        for i in range(1, self.downsamplings + 1):  # The official list counts the doubling as a layer.
            width = self.features * 2 ** (self.downsamplings - i)
            block = functools.partial(ConvBlock, width, kernel=5, padding=2, norm="layer", name=f"model_{2 * i}")
            x = block(activation=self.activation, **options)(double(x))
        last = f"model_{2 * self.downsamplings + 1}"
        x = ConvBlock(3, kernel=7, padding=3, activation="none", **options, name=last)(x)
        return jnp.tanh(x.astype(jnp.float32))


class Autoencoder(nn.Module):
    """Encoder and decoder of one domain; attributes as theirs."""

    features: int = 64
    downsamplings: int = 2
    blocks: int = 4
    dtype: Any = jnp.float32
    activation: str = "relu"
    pad_mode: str = "reflect"

    def setup(self):
        settings = self.features, self.downsamplings, self.blocks, self.dtype, self.activation, self.pad_mode
        self.enc, self.dec = Encoder(*settings), Decoder(*settings)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3] to its reconstruction from the mean of its code."""
        return self.dec(self.enc(x))


class SeparateVAEs(nn.Module):
    """The 2018 release: one complete autoencoder a domain; only the losses tie the codes together.

    Attributes:
        features: channels of the first convolution.
        downsamplings: halvings between image and code.
        blocks: residual blocks of each encoder and each decoder.
        dtype: compute dtype.
        activation, pad_mode: as of `Encoder`; the official runs leave them alone.
    """

    features: int = 64
    downsamplings: int = 2
    blocks: int = 4
    dtype: Any = jnp.float32
    activation: str = "relu"
    pad_mode: str = "reflect"

    def setup(self):
        settings = self.features, self.downsamplings, self.blocks, self.dtype, self.activation, self.pad_mode
        self.gen_a, self.gen_b = Autoencoder(*settings), Autoencoder(*settings)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both reconstructions; for initialization."""
        return self.gen_a(x), self.gen_b(x)

    def encode(self, x: jax.Array, domain: str, *, train: bool = False) -> jax.Array:
        """[B, H, W, 3] in [-1, 1] to the mean of its code [B, h, w, C]; sides are multiples of 2**downsamplings."""
        del train  # It has no dropout.
        return self._of(domain).enc(x)

    def decode(self, z: jax.Array, domain: str, *, train: bool = False) -> jax.Array:
        """[B, h, w, C] to [B, H, W, 3] float32 in (-1, 1)."""
        del train
        return self._of(domain).dec(z)

    def _of(self, domain):
        return {"a": self.gen_a, "b": self.gen_b}[domain]


class SharedVAE(nn.Module):
    """The network of 2017: the residual blocks nearest to the code are shared by both domains.

    Attributes:
        features: channels of the first convolution.
        downsamplings: halvings between image and code.
        blocks: residual blocks of each domain's encoder and decoder.
        shared: residual blocks that both domains share, on each side of the code.
        norm: of all convolutions outside residual blocks but the first: ``"none"`` with leaky ReLU (street scenes) or
            ``"instance"`` with ReLU.
        dropout: rate in the residual blocks, in training.
        dtype: compute dtype.
    """

    features: int = 64
    downsamplings: int = 2
    blocks: int = 3
    shared: int = 1
    norm: str = "none"
    dropout: float = 0.5
    dtype: Any = jnp.float32

    def setup(self):
        activation = "relu" if self.norm == "instance" else "leaky_relu_001"
        options = {"pad_mode": "zero", "kernel_init": normal_002, "dtype": self.dtype}
        residual = functools.partial(ResidualBlocks, dropout=self.dropout, **options)
        conv = functools.partial(ConvBlock, norm=self.norm, activation=activation, **options)
        widths = [self.features * 2**i for i in range(self.downsamplings + 1)]
        for domain in DOMAINS:
            front = [ConvBlock(widths[0], kernel=7, padding=3, activation="leaky_relu_001", **options)]
            front += [conv(width, stride=2) for width in widths[1:]]
            setattr(self, f"encode_{domain}", front)
            setattr(self, f"encode_{domain}_blocks", residual(self.blocks))
            setattr(self, f"decode_{domain}_blocks", residual(self.blocks))
            up = [Doubling(width, self.norm, activation, self.dtype) for width in widths[-2::-1]]
            setattr(self, f"decode_{domain}", up)
            setattr(self, f"image_{domain}", Conv(3, kernel=1, use_bias=True, kernel_init=normal_002, dtype=self.dtype))
        self.enc_shared, self.dec_shared = residual(self.shared), residual(self.shared)

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Both reconstructions; for initialization."""
        return [self.decode(self.encode(x, domain), domain) for domain in DOMAINS]

    def encode(self, x: jax.Array, domain: str, *, train: bool = False) -> jax.Array:
        """As `SeparateVAEs.encode`."""
        for layer in getattr(self, f"encode_{domain}"):
            x = layer(x)
        return self.enc_shared(getattr(self, f"encode_{domain}_blocks")(x, train=train), train=train)

    def decode(self, z: jax.Array, domain: str, *, train: bool = False) -> jax.Array:
        """As `SeparateVAEs.decode`."""
        x = getattr(self, f"decode_{domain}_blocks")(self.dec_shared(z, train=train), train=train)
        for layer in getattr(self, f"decode_{domain}"):
            x = layer(x)
        return jnp.tanh(getattr(self, f"image_{domain}")(x).astype(jnp.float32))


class Doubling(nn.Module):
    """Transposed convolution that doubles the size, norm and activation; see `ConvBlock` for the last two."""

    features: int
    norm: str
    activation: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = DoublingConv(self.features, self.dtype, use_bias=True, kernel_init=normal_002, name="conv")(x)
        return ACTIVATIONS[self.activation](NORMS[self.norm](x))


NETWORKS = {"unit2018": SeparateVAEs, "unit2017": SharedVAE}
"""Both networks by the name of the form."""


def build_unit(form: str = "unit2018", **options: Any) -> nn.Module:
    """A network for translation.

    Args:
        form: key of `NETWORKS`.
        **options: its attributes.

    Raises:
        UserError: unknown form or attribute.
    """
    network = choose(NETWORKS, form, "model.form")
    known = {field.name: None for field in dataclasses.fields(network) if field.name not in ("parent", "name")}
    for name in options:
        choose(known, name, "model option")
    return network(**options)


PATCHES = {
    "unit2018": {},
    "unit2017": {"kernel": 3, "pad_mode": "zero", "activation": "leaky_relu_001"},
}
"""Attributes of `PatchDiscriminator` by form."""

POOL = {"unit2018": "average", "unit2017": "binomial"}
"""How the discriminator's image is halved, by form."""


@dataclasses.dataclass(frozen=True)
class Discriminators:
    """Settings of the discriminator that each domain has.

    Attributes:
        form: as of the network.
        features: channels of the first convolution.
        layers: convolutions of stride 2 at each scale.
        scales: full resolution, half, a quarter, ...
        norm: ``"layer"`` as in the thesis' and the best day2night runs, ``"none"`` as in the stock configs.
    """

    form: str = "unit2018"
    features: int = 64
    layers: int = 4
    scales: int = 3
    norm: str = "layer"

    def build(self) -> MultiScaleDiscriminator:
        """The network of one domain.

        Raises:
            UserError: unknown form.
        """
        options = choose(PATCHES, self.form, "method.discriminator.form")
        patch = functools.partial(PatchDiscriminator, self.features, (2,) * self.layers, norm=self.norm, **options)
        return MultiScaleDiscriminator(self.scales, POOL[self.form], patch)
