import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nightjax.metrics import confusion

TRUTH = np.array([[[0, 0, 1, 255], [1, 1, 2, 2]]], np.uint8)
GUESS = np.array([[[0, 1, 1, 0], [1, 0, 2, 1]]], np.uint8)
COUNTS = np.array([[1, 1, 0], [1, 2, 0], [0, 1, 1]])


@pytest.mark.parametrize("form", ["scatter", "onehot"])
def test_counts_by_hand(form):
    counts = confusion.confusion_counts(TRUTH, GUESS, 3, form=form)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, COUNTS)


def test_forms_agree_and_follow_numpy():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 21, (3, 31, 17)).astype(np.uint8)
    truth[truth >= 19] = 255
    guess = rng.integers(0, 19, truth.shape).astype(np.uint8)
    kept = truth < 19
    expected = np.bincount(truth[kept].astype(int) * 19 + guess[kept], minlength=361).reshape(19, 19)
    for form in ("scatter", "onehot"):
        count = jax.jit(lambda a, b, form=form: confusion.confusion_counts(a, b, 19, form=form))
        np.testing.assert_array_equal(count(truth, guess), expected)


@pytest.mark.parametrize("form", ["scatter", "onehot"])
def test_padded_examples_do_not_count(form):
    truth, guess = np.concatenate([TRUTH, TRUTH]), np.concatenate([GUESS, GUESS * 0])
    mask = np.array([1.0, 0.0], np.float32)
    counts = confusion.confusion_counts(truth, guess, 3, mask=mask, form=form)
    np.testing.assert_array_equal(counts, COUNTS)


@pytest.mark.parametrize("form", ["scatter", "onehot"])
def test_sharded_batch_is_not_gathered(form):
    if jax.device_count() < 4:
        pytest.skip("needs four devices")
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 5, (4, 8, 8)).astype(np.uint8)
    guess = rng.integers(0, 5, (4, 8, 8)).astype(np.uint8)
    placed = [jax.device_put(x, sharding) for x in (truth, guess)]
    count = jax.jit(lambda a, b: confusion.confusion_counts(a, b, 5, form=form))
    compiled = count.lower(*placed).compile()
    assert "all-gather" not in compiled.as_text() and "all-to-all" not in compiled.as_text()
    np.testing.assert_array_equal(compiled(*placed), confusion.confusion_counts(truth, guess, 5))


def test_policies_differ_by_the_absent_class():
    counts = np.zeros((19, 19), np.int64)
    counts[np.arange(18), np.arange(18)] = 7
    counts[0, 1] = 7
    skip, zero = (confusion.mean_iou(counts, policy) for policy in ("skip", "zero"))
    assert zero == pytest.approx(skip * 18 / 19, rel=1e-12)


def test_gt_only_leaves_out_classes_only_predicted():
    counts = np.array([[3, 1], [0, 0]])
    assert confusion.mean_iou(counts, "gt_only") == pytest.approx(0.75)
    assert confusion.mean_iou(counts, "skip") == pytest.approx(0.375)


def test_summary_by_hand():
    names = ("a", "b", "c", "d")
    counts = np.zeros((4, 4), np.int64)
    counts[:3, :3] = COUNTS
    summary = confusion.summarize(counts, names, {"ab": (0, 1), "d": (3,)})
    assert summary["iou"] == {
        "a": pytest.approx(100 / 3),
        "b": pytest.approx(40),
        "c": pytest.approx(50),
        "d": None,
    }
    assert summary["acc"] == {"a": 50, "b": pytest.approx(200 / 3), "c": 50, "d": None}
    assert summary["support"] == {"a": 2, "b": 3, "c": 2, "d": 0}
    assert summary["miou"]["skip"] == pytest.approx((100 / 3 + 90) / 3)
    assert summary["miou"]["zero"] == pytest.approx((100 / 3 + 90) / 4)
    assert summary["classes_averaged"] == 3 and summary["pixels"] == 7
    assert summary["pa"] == pytest.approx(400 / 7)
    assert summary["ca"] == pytest.approx(500 / 9)
    assert summary["fwiou"] == pytest.approx((2 * 100 / 3 + 3 * 40 + 2 * 50) / 7)
    assert summary["groups"] == {"ab": pytest.approx((100 / 3 + 40) / 2), "d": None}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_predictions_of_no_class_are_errors():
    """The form of a merged matrix: one more row, of zeros, and one more column."""
    summary = confusion.summarize([[2, 0, 0], [0, 1, 1], [0, 0, 0]], ("vehicle", "sky"))
    assert summary["iou"] == {"vehicle": 100.0, "sky": 50.0} and summary["pixels"] == 4


def test_the_policy_decides_groups_and_number_of_classes():
    counts = np.array([[4, 0, 0], [0, 0, 0], [0, 0, 0]])
    summary = confusion.summarize(counts, "abc", {"all": (0, 1, 2)}, absent_classes="zero")
    assert summary["classes_averaged"] == 3 and summary["groups"]["all"] == pytest.approx(100 / 3)


def test_summary_of_nothing_has_no_nan():
    summary = confusion.summarize(np.zeros((3, 3), np.int64), "abc", {"g": (0,)})
    json.dumps(summary, allow_nan=False)
    assert summary["miou"] == {"skip": None, "zero": 0.0, "gt_only": None}
    assert summary["pa"] is None and summary["classes_averaged"] == 0
