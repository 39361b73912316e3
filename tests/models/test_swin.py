import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.fused_init import fused_init
from nightjax.interop.torch_weights import to_torch
from nightjax.models import build_segmenter
from nightjax.models.backbones.swin import VARIANTS, Swin, relative_position_index, shift_mask


@pytest.fixture(scope="module")
def model():
    return Swin(**VARIANTS["swin_tiny"] | {"depths": (2, 4)})


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (2, 27, 33, 3))


@pytest.fixture(scope="module")
def variables(model, x):
    return jax.jit(fused_init(model.init))(jax.random.key(1), x)


def test_sizes_are_rounded_up(model, variables, x):
    features = jax.eval_shape(model.apply, variables, x)
    assert {name: value.shape for name, value in features.items()} == {"stage1": (2, 7, 9, 8), "stage2": (2, 4, 5, 16)}


def test_scan_and_remat_change_nothing(model, variables, x):
    def features(**options):
        run = lambda v, k: model.clone(**options).apply(v, x, deterministic=False, rngs={"dropout": k})["stage2"]
        return jax.jit(run)(variables, jax.random.key(2))

    scanned = features()
    np.testing.assert_allclose(features(scan=False), scanned, atol=1e-5)
    np.testing.assert_allclose(features(remat=True), scanned, atol=1e-5)


def test_an_odd_number_of_blocks(x):
    model = Swin(**VARIANTS["swin_tiny"] | {"depths": (3, 1)})
    variables = jax.jit(fused_init(model.init))(jax.random.key(1), x)
    blocks = {name.split(".attn")[0] for name in to_torch(variables, model.stacks) if ".attn." in name}
    assert blocks == {"stages.0.blocks.0", "stages.0.blocks.1", "stages.0.blocks.2", "stages.1.blocks.0"}
    run = lambda model: jax.jit(lambda v, k: model.apply(v, x, deterministic=False, rngs={"dropout": k})["stage2"])
    key = jax.random.key(2)
    np.testing.assert_allclose(run(model)(variables, key), run(model.clone(scan=False))(variables, key), atol=1e-5)


def test_drop_path_scales_keep_the_mean(model, variables):
    keep = model.apply(variables, 4000, method="drop_path_scales", rngs={"dropout": jax.random.key(0)})
    assert keep.shape == (6, 2, 4000)
    np.testing.assert_array_equal(keep[0], 1.0)
    np.testing.assert_allclose(keep.mean((1, 2)), 1.0, atol=0.05)
    assert set(np.unique(np.round(keep[-1], 4))) == {0.0, np.float32(np.round(1 / 0.7, 4))}


def test_examples_do_not_mix(model, variables, x):
    apply = jax.jit(lambda x: model.apply(variables, x)["stage2"])
    np.testing.assert_allclose(apply(x)[:1], apply(jnp.concatenate([x[:1], x[1:] + 1]))[:1], atol=1e-5)


def test_relative_positions():
    index = relative_position_index(2)
    np.testing.assert_array_equal(index, [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
    index = relative_position_index(7)
    assert index.shape == (49, 49) and index.min() == 0 and index.max() == 13 * 13 - 1
    np.testing.assert_array_equal(np.diag(index), 84)


def test_mask_separates_what_the_shift_brings_together():
    mask = shift_mask(8, 8, 4, 2)
    assert mask.shape == (4, 16, 16)
    np.testing.assert_array_equal(mask[0], 0)  # The first window holds one region, the last one four.
    assert (mask[3] == 0).sum() == 4 * 16
    np.testing.assert_array_equal(mask, mask.transpose(0, 2, 1))


@pytest.mark.parametrize(("name", "millions"), [("swin_t", 27.5), ("swin_s", 48.8), ("swin_b", 86.7)])
def test_published_sizes(name, millions):
    backbone = build_segmenter(name, "upernet").backbone
    params = jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6 == pytest.approx(millions, abs=0.06)
