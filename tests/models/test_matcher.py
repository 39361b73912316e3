"""VGG features and the matcher's parts."""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.models.backbones.vgg import VGG
from nightjax.models.matcher import (
    PATCH,
    Matcher,
    UAWarpCHead,
    global_correlation,
    local_correlation,
    mapping_to_flow,
    unit,
)


def random_features(shape):
    return unit(jax.random.normal(jax.random.key(0), shape))


def test_vgg_halves_at_every_pool_and_names_torch_indices():
    x = jnp.zeros((1, 50, 70, 3))
    out, variables = jax.eval_shape(VGG().init_with_output, jax.random.key(0), x)
    assert out["relu1_1"].shape == (1, 50, 70, 64)
    sizes = [out[f"pool{i}"].shape[1:] for i in range(1, 6)]
    assert sizes == [(25, 35, 64), (12, 17, 128), (6, 8, 256), (3, 4, 512), (1, 2, 512)]
    indices = sorted(int(name.removeprefix("features_")) for name in variables["params"])
    assert indices == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def test_local_correlation_peaks_at_the_shift():
    source = random_features((1, 12, 14, 16))
    target = jnp.roll(source, (2, -3), axis=(1, 2))  # target(p) = source(p + (3, -2))
    best = jnp.argmax(local_correlation(source, target), axis=-1)
    row, column = np.divmod(np.asarray(best[0, 5:-5, 5:-5]), PATCH)
    assert (row - PATCH // 2 == -2).all() and (column - PATCH // 2 == 3).all()


def test_correlations_have_unit_norm():
    source, target = random_features((2, 4, 5, 8)), random_features((2, 3, 6, 8))
    for out in (local_correlation(target, target), global_correlation(source, target)):
        np.testing.assert_allclose(jnp.linalg.norm(out, axis=-1), 1, rtol=1e-5)


def test_global_correlation_finds_each_cell():
    x = random_features((1, 4, 5, 32))
    best = jnp.argmax(global_correlation(x, x), axis=-1)
    np.testing.assert_array_equal(best[0], np.arange(20).reshape(4, 5))


def test_centered_features_are_compared_by_their_differences():
    """What all cells share, as after a ReLU, says nothing."""
    x = random_features((2, 4, 5, 8))
    common = jnp.arange(8.0)
    for centered in (False, True):
        head = UAWarpCHead(centered=centered)
        one, two = head.directions(x), head.directions(x + common)
        np.testing.assert_allclose(jnp.linalg.norm(two, axis=-1), 1, rtol=1e-5)
        assert np.allclose(one, two, atol=1e-4) is centered
    assert not UAWarpCHead(centered=True).directions(jnp.ones((1, 4, 5, 8))).any()


def test_identity_mapping_is_zero_flow():
    y, x = jnp.meshgrid(jnp.linspace(-1, 1, 4), jnp.linspace(-1, 1, 7), indexing="ij")
    identity = jnp.stack([x, y], axis=-1)[None]
    np.testing.assert_allclose(mapping_to_flow(identity), 0, atol=1e-5)
    shifted = mapping_to_flow(identity + jnp.asarray([2 / 6, -2 / 3]))
    expected = np.broadcast_to([1.0, -1.0], shifted.shape)
    np.testing.assert_allclose(shifted, expected, atol=1e-5)


def test_matcher_output_sizes():
    image = jnp.zeros((2, 64, 96, 3))
    out, variables = jax.eval_shape(Matcher().init_with_output, jax.random.key(0), image, image)
    assert set(variables["params"]) == {"alignment_backbone", "alignment_head"}
    assert out["flow"].shape == (2, 64, 96, 2) and out["logvar"].shape == (2, 64, 96, 1)
    sizes = [out[f"flow{i}"].shape[1:3] for i in range(1, 5)]
    assert sizes == [(16, 24), (8, 12), (32, 32), (16, 16)]
