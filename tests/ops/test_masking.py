"""Block masks: the grid, the share, what is hidden and by which color."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.methods.parts.network import InputNormalization
from nightjax.ops import masking


@pytest.mark.parametrize(
    "size, block, grid",
    [
        ((64, 96), 16, (4, 6)),
        ((70, 90), 32, (2, 3)),
        ((80, 112), 32, (2, 4)),  # 2.5 and 3.5 go to the even number.
        ((112, 64), 64, (2, 1)),
        ((1120, 1120), 64, (18, 18)),
        ((16, 16), 64, (1, 1)),
    ],
)
def test_grid(size, block, grid):
    assert masking.block_grid(size, block) == grid
    assert masking.draw_blocks(jax.random.key(0), 3, size, block).shape == (3, *grid)


def test_a_number_equal_to_the_ratio_masks_and_the_next_above_does_not():
    ratio = np.float32(0.7)
    draws = jnp.asarray([[[ratio, np.nextafter(ratio, np.float32(1)), 0.0, 0.999]]])
    np.testing.assert_array_equal(masking.kept_pixels(draws, (1, 4), 0.7), [[[False, True, False, True]]])


def test_kept_share():
    draws = masking.draw_blocks(jax.random.key(0), 400, (64, 64), 8)
    assert abs(float(masking.kept_pixels(draws, (64, 64), 0.7).mean()) - 0.3) < 0.01
    assert masking.kept_pixels(draws, (64, 64), 0.0).all()
    assert not masking.kept_pixels(draws, (64, 64), 1.0).any()


def test_images_and_keys_have_masks_of_their_own():
    one, same, other = (masking.draw_blocks(jax.random.key(seed), 2, (64, 64), 8) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one[0] != one[1]).all() and (one != other).all()


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_hidden_pixels_have_the_mean_color_and_the_others_stay(order):
    input = InputNormalization(mean=(0.481, 0.457, 0.408), order=order)
    image = jax.random.uniform(jax.random.key(0), (2, 32, 48, 3))
    kept = masking.kept_pixels(masking.draw_blocks(jax.random.key(1), 2, (32, 48), 8), (32, 48), 0.5)
    masked = np.asarray(masking.mask_pixels(image, kept, input.mean))
    assert 0 < kept.mean() < 1
    np.testing.assert_array_equal(masked[kept], image[kept])
    np.testing.assert_array_equal(masked[~kept], np.broadcast_to(np.float32(input.mean), masked[~kept].shape))
    assert not input.normalize(masked)[~kept].any()


def test_a_number_equal_to_the_ratio_leaves_its_token():
    ratio = np.float32(0.7)
    draws = jnp.asarray([[ratio, np.nextafter(ratio, np.float32(0)), 0.0, 0.999]])
    np.testing.assert_array_equal(masking.masked_tokens(draws, 0.7), [[False, True, True, False]])
    assert masking.draw_tokens(jax.random.key(0), 2, 12).shape == (2, 12)
