import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.inference.predict import score_image
from nightjax.inference.smoothing import Smoother

WEIGHTS = np.array([[0.01, -0.01], [0.01, -0.01], [0.01, -0.01]], np.float32)
"""Two classes: bright, dark."""


def network(weights, image):
    batch, height, width, _ = image.shape
    cells = image.astype(jnp.float32).reshape(batch, height // 4, 4, width // 4, 4, 3).mean((2, 4))
    return (cells - 128) @ weights


def score(image, **options):
    return score_image(jax.tree_util.Partial(network, WEIGHTS), image, bucket=False, **options)


def scene(seed=0):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (12, 24, 3), dtype=np.uint8), (192, 96), interpolation=cv2.INTER_CUBIC)


def noisy(image, seed):
    return np.clip(image + np.random.default_rng(seed).normal(0, 10, image.shape), 0, 255).astype(np.uint8)


def test_the_first_frame_is_as_it_would_be_alone():
    np.testing.assert_array_equal(Smoother(score)(scene()), score(scene()).label())


def test_the_first_frame_keeps_differences_that_probabilities_round_away():
    faint = jax.tree_util.Partial(network, WEIGHTS * np.float32(1e-8))
    alone = lambda image: score_image(faint, image, bucket=False)
    label = alone(scene()).label()
    assert 0 < label.mean() < 1
    np.testing.assert_array_equal(Smoother(alone)(scene()), label)


def test_noise_changes_fewer_labels_and_the_mean_is_nearer_the_truth():
    smoother, truth = Smoother(score), score(scene()).label()
    frames = [noisy(scene(), seed) for seed in range(8)]
    smooth, alone = [smoother(frame) for frame in frames], [score(frame).label() for frame in frames]
    changes = lambda labels: np.mean([a != b for a, b in zip(labels[2:], labels[3:], strict=False)])
    assert changes(smooth) < 0.7 * changes(alone)
    wrong = lambda labels: np.mean([label != truth for label in labels[2:]])
    assert wrong(smooth) < wrong(alone)


def test_labels_move_with_the_image():
    wide = cv2.resize(scene(), (384, 96))
    smoother = Smoother(score)
    for left in range(0, 60, 6):
        frame = np.ascontiguousarray(wide[:, left : left + 192])
        label, alone = smoother(frame), score(frame).label()
    assert (label != alone).mean() < 0.04


def test_another_scene_owes_nothing_to_the_one_before():
    smoother = Smoother(score)
    smoother(np.full((96, 192, 3), 250, np.uint8))
    dark = np.full((96, 192, 3), 60, np.uint8)
    np.testing.assert_array_equal(smoother(dark), score(dark).label())
    assert smoother(np.full((48, 96, 3), 250, np.uint8)).shape == (48, 96)


def test_several_views_are_refused():
    with pytest.raises(ValueError, match="2 views"):
        Smoother(lambda image: score(image, flip=True))(scene())
