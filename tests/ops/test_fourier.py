import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.ops import fourier


def by_whole_transform(source, target, beta):
    """Fourier domain adaptation as the paper's equations say it: one transform of everything, window around the
    mean."""
    height, width = source.shape[:2]
    half = int(np.floor(beta * min(height, width)))
    spectra = [np.fft.fftshift(np.fft.fft2(x.astype(np.float64), axes=(0, 1)), axes=(0, 1)) for x in (source, target)]
    amplitude, phase = np.abs(spectra[0]), np.angle(spectra[0])
    rows, columns = (slice(n // 2 - half, n // 2 + half + 1) for n in (height, width))
    amplitude[rows, columns] = np.abs(spectra[1])[rows, columns]
    return np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase), axes=(0, 1)), axes=(0, 1))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, 24, 36, 3)), rng.uniform(0, 90, (2, 24, 36, 3))


def adapt(source, target, beta):
    """Unclipped, float64."""
    half = fourier.half_width(source.shape[-3:-1], beta)
    return fourier.replace_amplitude(source, np.abs(fourier.spectrum(target, half, np)), np)


@pytest.mark.parametrize("beta", [0.0, 0.05, 0.13, 0.3])
def test_equals_the_whole_transform(images, beta):
    for source, target in zip(*images, strict=True):
        expected = by_whole_transform(source, target, beta)
        assert np.abs(expected.imag).max() <= 1e-10
        np.testing.assert_allclose(adapt(source, target, beta), expected.real, atol=1e-9)


def test_an_image_with_itself_stays(images):
    source = images[0]
    np.testing.assert_allclose(adapt(source, source, 0.2), source, atol=1e-9)
    small = jnp.asarray(source / 255, jnp.float32)
    assert float(jnp.abs(fourier.fourier_adapt(small, small, 0.2) - small).max()) * 255 <= 1e-2


def test_beta_0_moves_the_mean(images):
    source, target = images
    expected = source + target.mean((1, 2), keepdims=True) - source.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(adapt(source, target, 0.0), expected, atol=1e-9)


def test_waves_inside_the_window_are_exchanged_and_others_stay():
    y, x = np.mgrid[:8, :8]
    low, high = np.sin(2 * np.pi * y / 8), 30 * np.cos(2 * np.pi * 3 * x / 8)
    source, target = (128 + 50 * low + high)[..., None], (40 + 20 * low)[..., None]
    assert fourier.half_width((8, 8), 0.13) == 1
    np.testing.assert_allclose(adapt(source, target, 0.13)[..., 0], 40 + 20 * low + high, atol=1e-9)


def test_the_window_of_the_papers_crop():
    assert fourier.half_width((512, 512), 0.01) == 5
    assert fourier.spectrum(jnp.zeros((1, 512, 512, 1)), 5).shape == (1, 11, 11, 1)
    coefficients = fourier.spectrum(np.random.default_rng(0).uniform(size=(12, 12, 1)), 3, np)[..., 0]
    np.testing.assert_allclose(coefficients, coefficients[::-1, ::-1].conj(), atol=1e-12)  # So the image is real.


@pytest.mark.parametrize("beta", [-0.1, 0.5, 0.51, 2.0])
def test_wrong_beta(beta):
    with pytest.raises(UserError, match="below 0.5"):
        fourier.half_width((64, 64), beta)


def test_device_form_is_clipped_and_equals_the_host_form(images):
    source, target = (np.round(x).astype(np.uint8) for x in images)
    target[0] = 250  # Much of image 0 leaves the range.
    device = jax.jit(fourier.fourier_adapt, static_argnums=2)(source / np.float32(255), target / np.float32(255), 0.1)
    assert device.dtype == jnp.float32 and float(device.min()) >= 0 and float(device.max()) <= 1
    for i in range(2):
        host = fourier.translate(source[i], target[i], 0.1)
        assert host.dtype == np.uint8 and host.shape == source[i].shape
        expected = np.clip(np.round(by_whole_transform(source[i], target[i], 0.1).real), 0, 255)
        np.testing.assert_array_equal(host, expected)
        np.testing.assert_allclose(device[i] * 255, host, atol=0.51)


def test_the_other_image_may_have_another_size(images):
    """Frequencies count waves an image: a constant or a single wave has the same coefficients at any size."""
    source = images[0][0]
    small, large = (
        40 + 20 * np.sin(2 * np.pi * np.arange(n) / n)[:, None, None] * np.ones((1, n, 3)) for n in (16, 50)
    )
    np.testing.assert_allclose(adapt(source, small, 0.1), adapt(source, large, 0.1), atol=1e-9)


def test_a_black_source_takes_the_mean_color():
    black, target = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), (10, 20, 30), np.uint8)
    np.testing.assert_array_equal(fourier.translate(black, target, 0.2), target)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_within_a_batch_nobody_keeps_its_own_amplitude(batch):
    """All take the mean color of one image, and that one takes another's."""
    level = np.linspace(0.2, 0.8, batch, dtype=np.float32)
    image = jnp.asarray(np.broadcast_to(level[:, None, None, None], (batch, 8, 8, 3)))
    lent = np.asarray(fourier.adapt_within(image, jax.random.key(0), 0.0))[:, 0, 0, 0]
    assert {round(float(x), 3) for x in lent} <= {round(float(x), 3) for x in level}
    if batch == 1:
        np.testing.assert_allclose(lent, level, rtol=1e-5)
    else:
        assert (np.abs(lent - level) > 0.1).all() and len(np.unique(lent.round(3))) == 2
