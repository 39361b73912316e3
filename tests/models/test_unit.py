"""UNIT's networks: sizes, counts, and what training and prediction share."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.models.backbones.vgg import VGG
from nightjax.models.unit import Autoencoder, Decoder, Discriminators, Encoder, build_unit


def shapes(module, size=(1, 64, 64, 3)):
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(size))


def count(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def test_parameter_counts():
    assert count(shapes(Encoder())) == 5_385_856
    assert count(shapes(Decoder(), (1, 16, 16, 256))) == 5_754_627
    assert count(shapes(Autoencoder())) == 11_140_483
    assert count(shapes(build_unit())) == 2 * 11_140_483
    assert count(shapes(Discriminators(norm="none").build())) == 8_271_171
    assert count(shapes(Discriminators(norm="layer").build())) == 8_276_547
    assert count(shapes(VGG(pools=3))) == 14_714_688


@pytest.mark.parametrize(
    ("size", "cells"), [((256, 256), [(16, 16), (8, 8), (4, 4)]), ((288, 512), [(18, 32), (9, 16), (4, 8)])]
)
def test_score_sizes(size, cells):
    scores, _ = jax.eval_shape(Discriminators().build().init_with_output, jax.random.key(0), jnp.zeros((1, *size, 3)))
    assert [maps[-1].shape[1:3] for maps in scores] == cells


def test_too_small_a_picture_is_said():
    with pytest.raises(UserError, match="cannot be reflected"):
        shapes(Discriminators().build(), (1, 32, 64, 3))


def test_latent_and_output_sizes():
    model, x = build_unit(), jnp.zeros((1, 512, 1024, 3))
    variables = shapes(model)
    code = jax.eval_shape(functools.partial(model.apply, method="encode", domain="a"), variables, x)
    assert code.shape == (1, 128, 256, 256)
    picture = jax.eval_shape(functools.partial(model.apply, method="decode", domain="b"), variables, code)
    assert picture.shape == x.shape and picture.dtype == jnp.float32


def test_vgg_features_are_at_stride_8():
    features, _ = jax.eval_shape(VGG(pools=3).init_with_output, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
    assert features["relu5_3"].shape == (1, 32, 32, 512)
    assert "pool4" not in features


def test_initialisation():
    x = jnp.zeros((1, 16, 16, 3))
    params = jax.jit(fused_init(build_unit(features=8, blocks=1).init))(jax.random.key(0), x)["params"]
    kernel = params["gen_a"]["enc"]["model_3"]["model_0"]["model_0"]["conv"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / np.prod(kernel.shape[:3])) ** 0.5, rtol=0.05)
    assert not params["gen_a"]["enc"]["model_0"]["conv"]["bias"].any()
    judge = jax.jit(fused_init(Discriminators(features=8, layers=2, scales=1).build().init))(jax.random.key(0), x)
    np.testing.assert_allclose(judge["params"]["cnns_0"]["1"]["conv"]["kernel"].std(), 0.02, rtol=0.05)


@pytest.mark.parametrize("form", ["unit2018", pytest.param("unit2017", marks=pytest.mark.slow)])
def test_decoding_the_mean_is_deterministic_and_bounded(form):
    model = build_unit(form, features=2, blocks=1)
    x = jax.random.uniform(jax.random.key(1), (2, 16, 24, 3), minval=-1)
    variables = jax.jit(fused_init(model.init))(jax.random.key(0), x)

    @jax.jit
    def translate(x, noise):
        code = model.apply(variables, x, "a", method="encode")
        return model.apply(variables, code + noise, "b", method="decode")

    mean = translate(x, 0.0)
    np.testing.assert_array_equal(mean, translate(x, 0.0))
    assert mean.shape == x.shape and np.abs(mean).max() < 1
    noisy = translate(x, 1.0)
    assert np.abs(noisy - mean).max() > 0


def test_shared_blocks_are_shared():
    params = shapes(build_unit("unit2017", features=2))["params"]
    assert {"enc_shared", "dec_shared"} <= set(params)
    assert {"encode_a_blocks", "encode_b_blocks", "decode_a_blocks", "decode_b_blocks"} <= set(params)


@pytest.mark.parametrize("form", ["unit2018", "unit2017"])
def test_unknown_names(form):
    with pytest.raises(UserError, match="did you mean 'features'"):
        build_unit(form, feature=3)
    with pytest.raises(UserError, match="did you mean 'unit201"):
        build_unit("unit201")
