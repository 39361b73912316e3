import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models import singlehdr


def test_soft_histogram():
    np.testing.assert_allclose(
        singlehdr.soft_histogram(jnp.full((1, 1, 1, 1), 0.3), 4)[0, 0, 0], [0, 0.8, 0.2, 0, 0], atol=1e-6
    )
    x = jnp.linspace(0, 1, 101).reshape(1, 101, 1, 1)
    for bins in singlehdr.BINS:
        np.testing.assert_allclose(singlehdr.soft_histogram(x, bins).sum(-1), 1, atol=1e-5)
    assert singlehdr.curve_features(jnp.zeros((1, 4, 4, 3))).shape == (1, 4, 4, 102)


def test_monotone_repair():
    np.testing.assert_allclose(singlehdr.monotone(jnp.array([0, 0.5, 0.4, 1])), [0, 6 / 13, 6 / 13, 1], atol=1e-6)
    curves = singlehdr.monotone(jax.random.normal(jax.random.key(0), (5, 64)))
    assert float(jnp.diff(curves).min()) >= 0
    np.testing.assert_allclose(curves[:, 0], 0)
    np.testing.assert_allclose(curves[:, -1], 1, atol=1e-5)
    rising = jnp.linspace(0, 1, 9) ** 2
    np.testing.assert_allclose(singlehdr.monotone(rising), rising, atol=1e-6)


def test_a_straight_response_changes_nothing():
    x = jax.random.uniform(jax.random.key(0), (2, 4, 5, 3))
    straight = jnp.broadcast_to(jnp.linspace(0, 1, 1024), (2, 1024))
    np.testing.assert_allclose(singlehdr.apply_curve(x, straight), x, atol=1e-5)
    ends = jnp.array([[[[0.0, 1.0, 1.0]]]] * 2)
    np.testing.assert_allclose(singlehdr.apply_curve(ends, straight), ends, atol=1e-6)


def test_highlight_mask():
    x = jnp.array([0.5, 0.88, 0.94, 1.0])[None, None, :, None] * jnp.array([1.0, 0.2, 0.0])
    np.testing.assert_allclose(singlehdr.highlight_mask(x)[0, 0, :, 0], [0, 0, 0.5, 1], atol=1e-5)


def test_mu_law_and_tone_map():
    np.testing.assert_allclose(
        singlehdr.mu_law(jnp.array([0, 0.1, 0.5, 1, 2])), [0, 0.28906, 0.74722, 1, 1.26966], atol=1e-5
    )
    hdr = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3)) ** 3 * 5
    mapped = singlehdr.tone_map(hdr)
    np.testing.assert_allclose(singlehdr.tone_map(7.0 * hdr), mapped, atol=1e-5)
    assert float(mapped.min()) >= 0 and float(mapped.max()) <= 1
    np.testing.assert_array_equal(singlehdr.tone_map(jnp.zeros((1, 2, 2, 3))), 0)


def test_skip_fusion_starts_as_a_sum():
    kernel = singlehdr.sum_init(None, (1, 1, 8, 4), jnp.float32)
    x, skip = jax.random.normal(jax.random.key(0), (2, 5, 4))
    np.testing.assert_allclose(jnp.concatenate([x, skip / 255], -1) @ kernel[0, 0], x + skip / 255, atol=1e-6)


def test_sizes_of_the_official_test():
    assert singlehdr.padded_size((512, 1024)) == (512, 1024)
    assert singlehdr.padded_size((720, 1280)) == (768, 1280)


class Spy:
    """Stands in for the network: remembers what it sees, and gives it back."""

    def apply(self, variables, x, curves):
        self.seen = x.shape
        return {"hdr": x}


@pytest.mark.parametrize(("size", "seen"), [((64, 128), (128, 192)), ((45, 80), (128, 192))])
def test_pictures_keep_their_size(size, seen):
    spy, image = Spy(), np.random.RandomState(0).randint(0, 256, (1, *size, 3)).astype(np.uint8)
    picture = singlehdr.enhance(spy, {}, {}, jnp.asarray(image))
    assert spy.seen == (1, *seen, 3)
    assert picture.shape == image.shape
    if size == (64, 128):
        np.testing.assert_allclose(picture, singlehdr.tone_map(jnp.asarray(image) / 255.0), atol=1e-5)


def test_other_sides_are_refused():
    with pytest.raises(UserError, match="multiples of 32"):
        singlehdr.SingleHDR().init(jax.random.key(0), jnp.zeros((1, 40, 64, 3)), {})


@pytest.mark.slow
def test_networks_with_zero_last_layers_and_dark_images():
    """Residuals of 0 leave the image alone, and below 0.88 nothing is hallucinated."""
    model, x = singlehdr.SingleHDR(), 0.8 * jax.random.uniform(jax.random.key(0), (1, 64, 64, 3))
    curves = {"g0": jnp.linspace(0, 1, 1024), "hinv": jnp.zeros((11, 1024))}
    variables = jax.jit(model.init)(jax.random.key(1), x, curves)
    params = dict(variables["params"])
    for part in ("dequantization", "refinement"):
        last = jax.tree.map(jnp.zeros_like, params[part]["conv2d_18"])
        params[part] = params[part] | {"conv2d_18": last}
    outputs = jax.jit(model.apply)(variables | {"params": params}, x, curves)
    np.testing.assert_array_equal(outputs["dequantized"], x)
    np.testing.assert_allclose(outputs["linear"], x, atol=1e-5)
    np.testing.assert_array_equal(outputs["filled"], outputs["linear"])
    np.testing.assert_array_equal(outputs["hdr"], outputs["filled"])
