import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.ops import resize as module
from nightjax.ops.resize import resize, resize_nearest


def torch_bilinear(x, size, align_corners):
    """The definition, pixel by pixel."""
    batch, height, width, channels = x.shape
    out = np.zeros((batch, *size, channels), np.float64)
    for i in range(size[0]):
        for j in range(size[1]):
            (y0, y1, v), (x0, x1, u) = (
                neighbors(*args, align_corners) for args in ((i, height, size[0]), (j, width, size[1]))
            )
            top = (1 - u) * x[:, y0, x0] + u * x[:, y0, x1]
            bottom = (1 - u) * x[:, y1, x0] + u * x[:, y1, x1]
            out[:, i, j] = (1 - v) * top + v * bottom
    return out


def neighbors(i, before, after, align_corners):
    if align_corners:
        source = i * (before - 1) / (after - 1) if after > 1 else 0.0
    else:
        source = max((i + 0.5) * before / after - 0.5, 0.0)
    low = min(int(source), before - 1)
    return low, min(low + 1, before - 1), source - low


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(10, 14), (20, 7), (7, 11), (3, 2), (1, 1), (5, 21), (5, 7)])
def test_bilinear_is_torch(rng, size, align_corners):
    x = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    actual = resize(jnp.asarray(x), size, align_corners=align_corners)
    np.testing.assert_allclose(actual, torch_bilinear(x, size, align_corners), atol=1e-6)


def test_hand_values():
    x = jnp.asarray([0.0, 1.0, 2.0]).reshape(1, 1, 3, 1)
    half_pixel = resize(x, (1, 6), align_corners=False)[0, 0, :, 0]
    np.testing.assert_allclose(half_pixel, [0, 0.25, 0.75, 1.25, 1.75, 2], atol=1e-6)
    corners = resize(x, (1, 5), align_corners=True)[0, 0, :, 0]
    np.testing.assert_allclose(corners, [0, 0.5, 1, 1.5, 2], atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_blend_is_the_matrix(rng, factor):
    x = jnp.asarray(rng.normal(size=(2, 5, 6, 3)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(2, 5 * factor, 6, 3)), jnp.float32)
    matrix = module._bilinear_matrix(5, 5 * factor, align_corners=False)
    blend, pull_blend = jax.vjp(lambda x: module._blend(x, factor, 1), x)
    product, pull_product = jax.vjp(lambda x: module._apply(matrix, x, 1), x)
    np.testing.assert_allclose(blend, product, atol=1e-6)
    np.testing.assert_allclose(pull_blend(cotangent)[0], pull_product(cotangent)[0], atol=1e-5)


@pytest.mark.parametrize("size", [(4, 3), (2, 5), (12, 16)])
def test_antialias_is_the_triangle_filter(rng, size):
    x = jnp.asarray(rng.normal(size=(2, 9, 8, 3)), jnp.float32)
    expected = jax.image.resize(x, (2, *size, 3), "bilinear", antialias=True)
    actual = resize(x, size, align_corners=False, antialias=True)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_no_antialias_by_default():
    x = jnp.zeros((1, 1, 8, 1)).at[0, 0, 0, 0].set(1.0)
    assert resize(x, (1, 2), align_corners=False).sum() == 0.0
    assert resize(x, (1, 2), align_corners=False, antialias=True).sum() > 0.0


def test_area_cells_overlap(rng):
    x = rng.normal(size=(1, 13, 8, 2)).astype(np.float32)
    actual = resize(jnp.asarray(x), (6, 3), method="area", align_corners=False)
    for i in range(6):
        for j in range(3):
            cell = x[0, i * 13 // 6 : -(-(i + 1) * 13 // 6), j * 8 // 3 : -(-(j + 1) * 8 // 3)]
            np.testing.assert_allclose(actual[0, i, j], cell.mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize("size", [(7, 5), (14, 10), (10, 3), (21, 1), (6, 13)])
def test_nearest_is_torch(rng, size):
    label = rng.integers(0, 255, (2, 7, 5)).astype(np.uint8)
    actual = resize_nearest(jnp.asarray(label), size)
    rows = np.floor(np.arange(size[0]) * (7 / size[0]) + 1e-6).astype(int)
    columns = np.floor(np.arange(size[1]) * (5 / size[1]) + 1e-6).astype(int)
    assert actual.dtype == jnp.uint8
    np.testing.assert_array_equal(actual, label[:, rows][:, :, columns])
    np.testing.assert_array_equal(resize_nearest(jnp.asarray(label)[..., None], size)[..., 0], actual)


def test_nearest_shrinks_by_slices():
    label = jnp.arange(64).reshape(1, 8, 8)
    np.testing.assert_array_equal(resize_nearest(label, (2, 4))[0], np.arange(64).reshape(8, 8)[::4, ::2])


def test_keeps_dtype_and_refuses_unknown():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    assert resize(x, (8, 6), align_corners=False).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="bicubic"):
        resize(x, (8, 8), method="bicubic", align_corners=False)
    with pytest.raises(ValueError, match="antialias"):
        resize(x, (8, 8), align_corners=True, antialias=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
