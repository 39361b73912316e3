import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.inference import bands
from nightjax.inference.predict import bucket_length, bucket_step, predict_image, score_image, should_bucket
from nightjax.ops.resize import resize

WEIGHTS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32) / 20


def network(weights, image):
    """Logits at a quarter of the size, local in space."""
    batch, height, width, _ = image.shape
    features = image.astype(jnp.float32).reshape(batch, height // 4, 4, width // 4, 4, 3).mean((2, 4))
    return features @ weights


def image_of(height, width, seed=1):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (height // 8 + 1, width // 8 + 1, 3))
    return np.kron(coarse, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)


PARTIAL = jax.tree_util.Partial(network, WEIGHTS)


def reference(image, size):
    logits = resize(network(WEIGHTS, image[None]), size, align_corners=False)
    return np.asarray(jax.nn.softmax(logits[0], axis=-1))


def test_whole_image_is_network_then_bilinear_then_softmax():
    image = image_of(32, 64)
    result = predict_image(PARTIAL, image, probabilities=True)
    expected = reference(image, (32, 64))
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(result.label, expected.argmax(-1))
    np.testing.assert_allclose(result.confidence, expected.max(-1), atol=1e-6)
    assert result.label.dtype == np.uint8 and result.confidence.dtype == np.float32


def test_plain_functions_work_too():
    image = image_of(32, 32)
    np.testing.assert_array_equal(
        predict_image(lambda x: network(WEIGHTS, x), image).label,
        predict_image(PARTIAL, image).label,
    )


@pytest.mark.parametrize("size", [(30, 50), (33, 47), (1, 1), (70, 32)])
def test_any_size_comes_back(size):
    image = image_of(*size)
    result = predict_image(PARTIAL, image, probabilities=True)
    assert result.label.shape == size and result.probabilities.shape == (*size, 5)
    assert predict_image(PARTIAL, image).probabilities is None
    np.testing.assert_allclose(result.probabilities.sum(-1), 1, atol=1e-5)


def test_padding_leaves_the_inside_alone():
    image = image_of(36, 52)  # padded to 64x64
    padded = predict_image(PARTIAL, image, probabilities=True).probabilities
    exact = predict_image(PARTIAL, image, probabilities=True, bucket=False).probabilities
    np.testing.assert_allclose(padded[:-4, :-4], exact[:-4, :-4], atol=1e-6)


def test_input_size_resizes_there_and_back():
    image = image_of(50, 70)
    result = predict_image(PARTIAL, image, input_size=(32, 64), probabilities=True)
    small = cv2.resize(image, (64, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(result.probabilities, reference(small, (50, 70)), atol=1e-5)


def test_constant_image_is_the_same_in_every_way():
    image = np.full((40, 72, 3), (10, 90, 200), np.uint8)
    expected = predict_image(PARTIAL, image, probabilities=True).probabilities
    for options in (
        {"mode": "slide", "window": (32, 32), "stride": (16, 16)},
        {"mode": "slide", "window": (32, 32), "stride": (16, 16), "at_once": True},
        {"scales": (0.5, 1.0, 2.0), "flip": True},
        {"input_size": (16, 32)},
    ):
        got = predict_image(PARTIAL, image, probabilities=True, **options).probabilities
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_slide_averages_logits_of_windows():
    image = image_of(32, 48)

    def shifted(image):  # logits depend on the window, so overlaps matter
        logits = network(WEIGHTS, image)
        return logits - logits.mean((1, 2), keepdims=True)

    result = predict_image(
        shifted,
        image,
        mode="slide",
        window=(32, 32),
        stride=(16, 16),
        bucket=False,
        probabilities=True,
    )
    left, right = (
        np.asarray(resize(shifted(image[None, :, x : x + 32]), (32, 32), align_corners=False)[0]) for x in (0, 16)
    )
    logits = np.concatenate([left[:, :16], (left[:, 16:] + right[:, :16]) / 2, right[:, 16:]], axis=1)
    np.testing.assert_allclose(result.probabilities, jax.nn.softmax(logits, axis=-1), atol=1e-5)


def test_flip_makes_the_result_symmetric():
    ramp = jnp.arange(8.0)[None, None, :, None]

    def lopsided(image):
        return network(WEIGHTS, image) * ramp

    image = image_of(32, 32)
    both = np.concatenate([image[:, :16], image[:, :16][:, ::-1]], axis=1)
    lone = predict_image(lopsided, both, probabilities=True, scales=(1.0,)).probabilities
    mean = predict_image(lopsided, both, probabilities=True, flip=True).probabilities
    assert np.abs(lone - lone[:, ::-1]).max() > 1e-2
    np.testing.assert_allclose(mean, mean[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"scales": (0.5, 1.0), "flip": True}, {"input_size": (16, 32)}])
def test_bands_of_rows_are_the_whole(monkeypatch, options):
    image = image_of(53, 70)
    whole = predict_image(PARTIAL, image, probabilities=True, **options)
    monkeypatch.setattr(bands, "BAND_VALUES", 96 * 5 * 10)  # 10 of 64 rows: the last band is not full
    jax.clear_caches()
    results = [predict_image(PARTIAL, image, probabilities=True, **options)]
    monkeypatch.setattr(bands, "BAND_VALUES", 96 * 5 * 3)
    monkeypatch.setattr(bands, "CHUNK_VALUES", 96 * 5 * 6)  # 6 of 16 rows of logits, or of fewer
    jax.clear_caches()
    results.append(predict_image(PARTIAL, image, probabilities=True, **options))
    jax.clear_caches()
    for banded in results:
        np.testing.assert_array_equal(banded.label, whole.label)
        np.testing.assert_allclose(banded.probabilities, whole.probabilities, atol=1e-6)
        np.testing.assert_allclose(banded.confidence, whole.confidence, atol=1e-6)


def test_chunks_have_all_the_rows_that_they_grow_from(monkeypatch):
    monkeypatch.setattr(bands, "BAND_VALUES", 60 * 5 * 2)
    monkeypatch.setattr(bands, "CHUNK_VALUES", 60 * 5 * 9)
    jax.clear_caches()
    rng = np.random.default_rng(0)
    for rows, height in ((40, 96), (40, 40), (90, 30), (2, 50), (1, 7)):
        score = rng.normal(size=(rows, 8, 5)).astype(np.float32)
        extent = np.array((height, 60), np.float32)
        _, _, got = bands.decide([score], extent, (height, 60), height, "probabilities")
        expected = jax.nn.softmax(resize(score[None], (height, 60), align_corners=False)[0], axis=-1)
        np.testing.assert_allclose(got[:height], expected, atol=1e-5, err_msg=f"{rows} -> {height}")
    for size in (49, 64):  # One bucket, of which the smallest image grows from the most rows for its size.
        image = image_of(size, 60)
        got = predict_image(PARTIAL, image, probabilities=True, input_size=(120, 32)).probabilities
        logits = network(WEIGHTS, cv2.resize(image, (32, 120))[None])
        expected = jax.nn.softmax(resize(logits, (size, 60), align_corners=False)[0], axis=-1)
        np.testing.assert_allclose(got, expected, atol=1e-5)
    jax.clear_caches()


def test_labels_are_the_same_whatever_else_is_asked_for():
    image = image_of(100, 150)
    for options in ({}, {"scales": (0.5, 1.0), "flip": True}, {"input_size": (32, 32)}):
        scores = score_image(PARTIAL, image, **options)
        full = scores.prediction(probabilities=True)
        np.testing.assert_array_equal(scores.label(), full.label)
        np.testing.assert_array_equal(scores.prediction().label, full.label)
        np.testing.assert_allclose(scores.prediction().confidence, full.probabilities.max(-1), atol=1e-6)
        assert scores.prediction().probabilities is None


def test_of_equal_logits_the_first_class_wins():
    score = np.zeros((4, 4, 5), np.float32)
    score[..., (2, 4)] = 3.0
    (label,) = bands.decide([score], np.array((8, 8), np.float32), (8, 8), 8, "label")
    assert (np.asarray(label) == 2).all()


def test_few_programs_for_many_sizes():
    traces = []

    def counted(weights, image):
        traces.append(image.shape)
        return network(weights, image)

    apply_fn = jax.tree_util.Partial(counted, WEIGHTS)
    for height in range(33, 64, 5):
        predict_image(apply_fn, image_of(height, 100 + height // 4))
    assert set(traces) == {(1, 64, 128, 3)} and len(traces) == 1
    for height in (40, 47, 63):  # one network input, whatever the size of the image
        predict_image(apply_fn, image_of(height, 90), input_size=(32, 32))
    assert len(traces) == 2
    predict_image(jax.tree_util.Partial(counted, WEIGHTS * 2), image_of(40, 101))
    assert len(traces) == 2  # other weights, same program


def test_buckets():
    assert [bucket_length(n) for n in (1, 32, 33, 512, 513, 1080, 1920)] == [
        32,
        32,
        64,
        512,
        576,
        1152,
        1920,
    ]
    lengths = np.arange(256, 5000)
    grown = np.array([bucket_length(int(n)) for n in lengths])
    smallest = [bucket - bucket_step(bucket) + 1 for bucket in grown.tolist()]
    assert all(bucket_length(n) == bucket for n, bucket in zip(smallest, grown.tolist(), strict=True))
    assert all(bucket_length(n - 1) < bucket for n, bucket in zip(smallest, grown.tolist(), strict=True))
    assert (grown >= lengths).all() and (grown / lengths).max() <= 1.126 and len(set(grown.tolist())) < 40
    assert not should_bucket([(1080, 1920)] * 50) and should_bucket([(n, n) for n in range(5)])


@pytest.mark.parametrize(
    "image, options",
    [
        (np.zeros((4, 4, 3), np.float32), {}),
        (np.zeros((4, 4), np.uint8), {}),
        (np.zeros((0, 4, 3), np.uint8), {}),
        (np.zeros((4, 4, 3), np.uint8), {"mode": "sliding"}),
        (np.zeros((4, 4, 3), np.uint8), {"scales": ()}),
        (np.zeros((4, 4, 3), np.uint8), {"scales": (1.0, -1.0)}),
        (np.zeros((4, 4, 3), np.uint8), {"mode": "slide", "stride": (0, 4)}),
    ],
)
def test_bad_requests_are_user_errors(image, options):
    with pytest.raises(UserError):
        predict_image(PARTIAL, image, **options)
