import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.ops import regions

HARD = (5, 6, 9, 12, 17, 18)


def one_hot(label, classes=19):
    return jax.nn.one_hot(jnp.asarray(label), classes)


def whole(size):
    return jnp.array([[[0, 0, size[1], size[0]]]], jnp.float32)


def test_boxes_join_corners():
    label = np.full((4, 5), 255, np.uint8)
    label[0, 0] = label[1, 1] = 5
    label[3, 4] = 6
    label[0, 4] = 7
    box, kind, area = map(np.asarray, regions.label_boxes(jnp.asarray(label), HARD, count=3))
    np.testing.assert_array_equal(area, [2, 1, 0])
    np.testing.assert_array_equal(box[:2], [[0, 0, 1, 1], [4, 3, 4, 3]])
    np.testing.assert_array_equal(kind[:2], [5, 6])
    assert (np.asarray(regions.label_boxes(jnp.asarray(label), HARD, count=3, min_area=2)[2]) == [2, 0, 0]).all()


def test_boxes_agree_with_opencv():
    """Parts that wind through the image."""
    label = np.where(np.random.RandomState(1).rand(48, 64) < 0.45, 5, 255).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats((label == 5).astype(np.uint8), connectivity=8)
    box, _, area = map(np.asarray, regions.label_boxes(jnp.asarray(label), (5,), count=count))
    found = {(*b, a) for b, a in zip(box.astype(int).tolist(), area.tolist(), strict=True) if a}
    assert found == {(x, y, x + w - 1, y + h - 1, a) for x, y, w, h, a in stats[1:].tolist()}


def test_crop_and_paste_of_a_region_of_the_same_size_change_nothing():
    label = jnp.asarray(np.random.RandomState(0).randint(0, 19, (1, 24, 40)), jnp.uint8)
    region = jnp.array([[[7, 3, 23, 19]]], jnp.float32)
    cut = regions.crop_label(label, region, 16)
    np.testing.assert_array_equal(cut[0, 0], label[0, 3:19, 7:23])
    full, inside = regions.paste(one_hot(cut[:, 0]), region[:, 0], (24, 40))
    assert int(inside.sum()) == 256
    np.testing.assert_array_equal(full.argmax(-1)[inside], label[inside])


def test_crop_keeps_a_linear_ramp():
    ramp = jnp.broadcast_to(jnp.arange(40.0)[None, None, :, None], (1, 24, 40, 1))
    cut = regions.crop(ramp, jnp.array([[[8, 4, 24, 20]]], jnp.float32), 32)[0, 0, :, :, 0]
    np.testing.assert_allclose(cut[5, 1:-1], (8 + (np.arange(32) + 0.5) / 2 - 0.5)[1:-1], atol=1e-4)


TALL = jnp.array([[[10, 4, 18, 20]]], jnp.float32)


def test_aspect_kept_leaves_the_rest_empty():
    ramp = jnp.broadcast_to(jnp.arange(40.0)[None, None, :, None], (1, 24, 40, 1))
    for antialias in (False, True):
        cut = regions.crop(ramp, TALL, 32, antialias=antialias, keep_aspect=True)[0, 0, :, :, 0]
        np.testing.assert_allclose(cut[5, 1:15], (10 + (np.arange(16) + 0.5) / 2 - 0.5)[1:15], atol=1e-4)
        np.testing.assert_array_equal(cut[:, 16:], 0)
        np.testing.assert_allclose(cut[:, :16], np.broadcast_to(cut[:1, :16], (32, 16)), atol=1e-4)
    label = jnp.full((1, 24, 40), 7, jnp.uint8)
    cut = regions.crop_label(label, TALL, 32, keep_aspect=True)[0, 0]
    np.testing.assert_array_equal(cut[:, :16], 7)
    np.testing.assert_array_equal(cut[:, 16:], 255)


def test_paste_undoes_a_crop_that_keeps_the_aspect():
    label = jnp.asarray(np.random.RandomState(0).randint(0, 19, (1, 24, 40)), jnp.uint8)
    cut = regions.crop_label(label, TALL, 16, keep_aspect=True)
    np.testing.assert_array_equal(cut[0, 0, :, :8], label[0, 4:20, 10:18])
    full, inside = regions.paste(one_hot(cut[:, 0]), TALL[:, 0], (24, 40), keep_aspect=True)
    assert int(inside.sum()) == 128
    np.testing.assert_array_equal(full.argmax(-1)[inside], label[inside])
    closer = regions.crop(one_hot(label), TALL, 64, keep_aspect=True)[:, 0]  # Four cells a pixel.
    full, inside = regions.paste(closer, TALL[:, 0], (24, 40), keep_aspect=True)
    np.testing.assert_array_equal(full.argmax(-1)[inside], label[inside])


MERGE = {"image": np.zeros((1, 3, 4), int), "region": np.array([[[[5, 0], [7, 11]]]]), "box": (1, 0, 3, 2)}


def merged(image, region, box, hard, valid=True):
    region = jnp.asarray(region)
    box = jnp.asarray(box, jnp.float32).reshape(1, -1, 4)
    valid = jnp.broadcast_to(jnp.asarray(valid), box.shape[:2])
    return np.asarray(regions.merge_regions(one_hot(image), one_hot(region), box, valid, hard).argmax(-1))


def test_only_hard_pixels_of_a_region_enter():
    expected = np.zeros((1, 3, 4), int)
    expected[0, 0, 1] = 5
    np.testing.assert_array_equal(merged(*MERGE.values(), HARD), expected)


def test_merge_of_nothing_and_of_everything():
    image = MERGE["image"] + 8
    np.testing.assert_array_equal(merged(image, MERGE["region"], MERGE["box"], ()), image)
    np.testing.assert_array_equal(merged(image, MERGE["region"], MERGE["box"], HARD, valid=False), image)
    every = merged(image, MERGE["region"], MERGE["box"], tuple(range(19)))
    np.testing.assert_array_equal(every[0, :2, 1:3], MERGE["region"][0, 0])


def test_hard_pixels_stay_hard_and_others_untouched():
    rng = np.random.RandomState(0)
    image, region = rng.randint(0, 19, (1, 20, 30)), rng.randint(0, 19, (1, 3, 8, 8))
    box = [(2, 3, 10, 11), (6, 5, 14, 13), (20, 10, 28, 18)]
    result = merged(image, region, box, HARD)
    assert np.isin(result[np.isin(image, HARD)], HARD).all()
    outside = np.ones(image.shape, bool)
    for x1, y1, x2, y2 in box:
        outside[:, y1:y2, x1:x2] = False
    np.testing.assert_array_equal(result[outside], image[outside])
    own = np.stack([image[0, y1:y2, x1:x2] for x1, y1, x2, y2 in box])[None]
    np.testing.assert_array_equal(merged(image, own, box, HARD), image)


def test_the_first_of_two_regions_wins_where_it_is_hard():
    image = np.zeros((1, 2, 6), int)
    first, second = np.full((2, 4), 5), np.full((2, 4), 17)
    first[0] = 8  # Not hard: what the second says stays.
    result = merged(image, np.stack([first, second])[None], [(0, 0, 4, 2), (2, 0, 6, 2)], HARD)
    np.testing.assert_array_equal(result[0], [[0, 0, 17, 17, 17, 17], [5, 5, 5, 5, 17, 17]])


TRUTH = np.array([[0, 0, 1, 1]] * 4, np.uint8)
LAST_ONLY = np.array([[0, 0, 0, 1]] * 4, np.uint8)
ONE_WRONG = TRUTH.copy()
ONE_WRONG[0, 2] = 0


def gain(region, image, truth=TRUTH, **options):
    size = truth.shape
    big = lambda x: np.kron(x, np.ones((4, 4), np.uint8))[None]  # Sides below 8 pixels never win.
    logits, box = 10 * one_hot(big(region))[:, None], whole((4 * size[0], 4 * size[1]))
    return regions.region_gain(logits, jnp.asarray(big(image)), jnp.asarray(big(truth)), box, **options)


@pytest.mark.parametrize(
    ("region", "image", "wins"),
    [(ONE_WRONG, LAST_ONLY, True), (LAST_ONLY, ONE_WRONG, False), (LAST_ONLY, LAST_ONLY, False)],
)
def test_a_region_wins_by_mean_iou(region, image, wins):
    scores = {LAST_ONLY.tobytes(): (2 / 3 + 1 / 2) / 2, ONE_WRONG.tobytes(): (8 / 9 + 7 / 8) / 2}
    found, ours, other = gain(region, image)
    assert bool(found[0, 0]) is wins
    assert float(ours[0, 0]) == pytest.approx(scores[region.tobytes()], abs=1e-6)
    assert float(other[0, 0]) == pytest.approx(scores[image.tobytes()], abs=1e-6)


def test_ignored_pixels_do_not_count():
    truth = TRUTH.copy()
    truth[0, 2] = 255
    found, ours, _ = gain(ONE_WRONG, LAST_ONLY, truth)
    assert float(ours[0, 0]) == pytest.approx(1.0) and bool(found[0, 0])
    nothing, ours, _ = gain(ONE_WRONG, LAST_ONLY, np.full_like(TRUTH, 255))
    assert not bool(nothing[0, 0]) and np.isnan(ours[0, 0])


def test_small_regions_and_shifted_logits():
    image = jnp.asarray(LAST_ONLY[None])
    found, _, _ = regions.region_gain(one_hot(ONE_WRONG[None])[:, None], image, jnp.asarray(TRUTH[None]), whole((4, 4)))
    assert not bool(found[0, 0])
    logits = jax.random.normal(jax.random.key(0), (1, 2, 8, 8, 19))
    label = jnp.asarray(np.random.RandomState(0).randint(0, 3, (1, 16, 16)), jnp.uint8)
    box = jnp.array([[[0, 0, 16, 16], [2, 2, 12, 14]]], jnp.float32)
    first = regions.region_gain(logits, label * 0, label, box)
    for one, two in zip(first, regions.region_gain(logits + 3.0, label * 0, label, box), strict=True):
        np.testing.assert_array_equal(one, two)


def test_frames():
    image = jnp.zeros((1, 8, 8, 3), jnp.uint8)
    box = jnp.array([[[1, 2, 6, 7], [0, 0, 8, 8]]], jnp.float32)
    drawn = regions.draw_regions(image, box, jnp.array([[True, False]]), (255, 0, 0))[0, ..., 0]
    assert int((drawn > 0).sum()) == 16 and int(drawn[2, 1]) == 255 and int(drawn[3, 2]) == 0
