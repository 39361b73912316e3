import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nightjax.core.errors import UserError
from nightjax.ops import windows


def test_published_grids():
    grid = windows.window_grid((1080, 1920), (1080, 1080), (420, 420))
    assert grid.tolist() == [[0, 0], [0, 420], [0, 840]]
    assert windows.window_grid((1024, 1024), (1080, 1080), (420, 420)).tolist() == [[0, 0]]
    assert windows.window_size((1024, 1024), (1080, 1080)) == (1024, 1024)


def test_last_windows_are_moved_back():
    assert windows.window_grid((5, 7), (4, 4), (3, 3)).tolist() == [[0, 0], [0, 3], [1, 0], [1, 3]]


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (20, 11), (5, 30)])
def test_every_pixel_is_covered(size):
    window = windows.window_size(size, (8, 8))
    offsets = windows.window_grid(size, (8, 8), (5, 3))
    assert windows.window_cover(offsets, window, size).min() >= 1
    assert (offsets + window <= np.array(size)).all()


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_stride_with_gaps_is_refused(stride):
    with pytest.raises(UserError, match="stride"):
        windows.window_grid((20, 20), (8, 8), (stride, 4))


def test_gather_and_blend_are_inverse():
    x = np.random.default_rng(0).normal(size=(2, 9, 13, 3)).astype(np.float32)
    offsets = windows.window_grid((9, 13), (6, 6), (4, 4))
    cut = windows.gather_windows(x, offsets, (6, 6))
    assert cut.shape == (2, len(offsets), 6, 6, 3)
    y0, x0 = offsets[-1]
    np.testing.assert_array_equal(cut[:, -1], x[:, y0 : y0 + 6, x0 : x0 + 6])
    np.testing.assert_allclose(windows.blend_windows(cut, offsets, (9, 13)), x, rtol=1e-6)


def test_overlaps_are_averaged():
    patches = jnp.stack([jnp.zeros((1, 2, 4, 1)), jnp.ones((1, 2, 4, 1))], axis=1)
    blended = windows.blend_windows(patches, np.array([[0, 0], [0, 2]]), (2, 6))
    np.testing.assert_allclose(blended[0, 0, :, 0], [0, 0, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize("size", [(12, 22), (6, 6), (10, 8)])
def test_slide_batched_and_one_by_one_agree_with_a_loop(size):
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)

    def fn(patch):  # depends on the position inside the window and on the window's mean
        ramp = jnp.arange(patch.shape[2], dtype=jnp.float32)[None, None, :, None]
        return jnp.concatenate([patch * ramp, patch - patch.mean((1, 2), keepdims=True)], axis=-1)

    total, cover = np.zeros((2, *size, 6)), np.zeros((*size, 1))
    height, width = windows.window_size(size, (10, 10))
    for y, col in windows.window_grid(size, (10, 10), (4, 4)):
        total[:, y : y + height, col : col + width] += fn(x[:, y : y + height, col : col + width])
        cover[y : y + height, col : col + width] += 1
    for at_once in (True, False):
        run = jax.jit(lambda x, at_once=at_once: windows.slide(fn, x, (10, 10), (4, 4), at_once=at_once))
        np.testing.assert_allclose(run(x), total / cover, rtol=1e-4, atol=1e-5)


def test_sharded_batch_is_not_gathered():
    if jax.device_count() < 4:
        pytest.skip("needs four devices")
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:4]), ("data",)), PartitionSpec("data"))
    x = jax.device_put(np.ones((4, 8, 12, 3), np.float32), sharding)
    run = jax.jit(lambda x: windows.slide(jnp.sin, x, (8, 8), (4, 4)), out_shardings=sharding)
    text = run.lower(x).compile().as_text()
    assert "all-gather" not in text and "all-to-all" not in text
