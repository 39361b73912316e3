"""Label tables: bijections, published values, merges and the content checks."""

import hypothesis
import numpy as np
import pytest
from hypothesis.extra import numpy as arrays

from nightjax.core.class_merges import CAMVID_11, CLASS_MERGES, SYNTHIA_16
from nightjax.core.classes import CITYSCAPES, ClassSet, palette_for
from nightjax.data import conversion, labels


def test_train_ids_and_label_ids_are_inverse():
    train_ids = np.arange(19, dtype=np.uint8)
    assert np.array_equal(CITYSCAPES.from_ids[CITYSCAPES.to_ids[train_ids]], train_ids)
    assert np.sum(CITYSCAPES.from_ids != 255) == 19
    assert CITYSCAPES.to_ids[255] == 0


@pytest.mark.parametrize(
    "label_id,train_id",
    [
        (7, 0),
        (8, 1),
        (11, 2),
        (17, 5),
        (18, 255),
        (0, 255),
        (26, 13),
        (31, 16),
        (33, 18),
        (255, 255),
    ],
)
def test_known_label_ids(label_id, train_id):
    assert CITYSCAPES.from_ids[label_id] == train_id


def test_tables_are_total_and_read_only():
    tables = (
        CITYSCAPES.from_ids,
        CITYSCAPES.to_ids,
        labels.SYNTHIA_ID_TO_TRAIN_ID,
        labels.CAMVID_ID_TO_TRAIN_ID,
        labels.IDENTITY,
    )
    for table in tables:
        assert table.shape == (256,) and table.dtype == np.uint8
        with pytest.raises(ValueError):
            table[0] = 1


def test_groups_partition_the_classes():
    assert sorted(CITYSCAPES.group("static") + CITYSCAPES.group("small") + CITYSCAPES.group("dynamic")) == list(
        range(19)
    )


def test_pixel_shares_sum_to_one():
    assert abs(np.array(CITYSCAPES.pixel_share).sum() - 1) < 1e-4


def test_colors_of_train_ids_are_distinct_and_come_back():
    table = {tuple(map(int, CITYSCAPES.colors[k])): k for k in range(19)}
    assert len(table) == 19
    label = np.array([[0, 5, 18], [255, 7, 10]], np.uint8)
    assert np.array_equal(labels.colors_to_labels(CITYSCAPES.colorize(label), table), label)


def test_camvid_colors_are_distinct():
    assert len(labels.CAMVID_32) == len(labels.CAMVID_COLOR_TO_TRAIN_ID) == 32


def test_unknown_colors_are_ignored():
    image = np.array([[[1, 2, 3], [128, 64, 128], [255, 255, 255]]], np.uint8)
    assert labels.colors_to_labels(image, labels.CAMVID_COLOR_TO_TRAIN_ID).tolist() == [[255, 0, 255]]


def test_synthia_knows_every_class_once():
    values = labels.SYNTHIA_ID_TO_TRAIN_ID[labels.SYNTHIA_ID_TO_TRAIN_ID != 255]
    assert sorted(values.tolist()) == list(range(19))
    assert labels.SYNTHIA_ID_TO_TRAIN_ID[[3, 21, 17]].tolist() == [0, 3, 12]


def test_merge_of_labels_equals_merge_of_counts():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 19, (2, 5000))
    counts = np.zeros((19, 19), np.int64)
    np.add.at(counts, (truth, guess), 1)
    merge = CAMVID_11
    expected = np.zeros((12, 12), np.int64)
    np.add.at(expected, (merge.table[truth], merge.table[guess]), 1)
    assert np.array_equal(merge.merge_confusion(counts), expected)


def test_merge_counts_predictions_of_missing_classes_as_errors():
    merge = SYNTHIA_16
    counts = np.zeros((19, 19), np.int64)
    counts[8, 9] = 7  # vegetation called terrain: an error on vegetation
    counts[9, 8] = 5  # true terrain: not scored
    merged = merge.merge_confusion(counts)
    assert merged.sum() == 7 and merged[merge.classes.index("vegetation"), -1] == 7


def test_class_counts_of_merges():
    counts = {name: merge.num_classes for name, merge in CLASS_MERGES.items()}
    assert counts == {"cityscapes_19": 19, "camvid_11": 11, "synthia_16": 16, "synthia_13": 13}


@pytest.mark.parametrize("name", CLASS_MERGES)
def test_a_merge_by_name_reads_labels_as_its_table_does(name):
    merge = CLASS_MERGES[name]
    wanted = ClassSet(merge.classes, palette_for(merge.classes))
    table = conversion.table_between(CITYSCAPES, wanted, {"cityscapes": merge.by_name}, "a data set")
    np.testing.assert_array_equal(table, merge.table)


def test_unexpected_values():
    counts = labels.histogram(np.array([0, 18, 255, 19, 200], np.uint8))
    assert labels.unexpected_values(counts, "train_ids") == (19, 200)
    assert labels.unexpected_values(counts, "label_ids") == (200,)


@pytest.mark.parametrize(
    "values,encoding,suspicious",
    [
        ([7, 11, 23, 26, 0], "label_ids", False),
        ([0, 2, 8, 10, 255], "label_ids", True),
        ([0, 1, 3], "label_ids", False),
        ([7, 11, 23, 26], "train_ids", True),
        ([0, 2, 8, 10, 255], "train_ids", False),
        ([255], "train_ids", False),
    ],
)
def test_suspicious_encoding(values, encoding, suspicious):
    counts = labels.histogram(np.array(values, np.uint8))
    assert (labels.suspicious_encoding(counts, encoding) is not None) == suspicious


def test_class_pixels():
    label = np.array([[0, 0, 255], [18, 5, 5]], np.uint8)
    pixels = labels.class_pixels(label)
    assert pixels.dtype == np.int32 and pixels[[0, 5, 18]].tolist() == [2, 2, 1] and pixels.sum() == 5


def test_random_label_images_round_trip():
    values = hypothesis.strategies.sampled_from(list(range(19)) + [255])

    @hypothesis.settings(max_examples=50, deadline=None)
    @hypothesis.given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2), elements=values))
    def check(label):
        ids = CITYSCAPES.to_ids[label]
        assert np.array_equal(CITYSCAPES.from_ids[ids], label)
        assert labels.unexpected_values(labels.histogram(ids), "label_ids") == ()
        assert labels.class_pixels(label).sum() == np.sum(label != 255)

    check()
