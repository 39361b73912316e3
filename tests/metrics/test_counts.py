"""Counts that merge: batches add up to the whole set, exactly, on the host."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from nightjax.metrics import confusion, uiou
from nightjax.metrics.counts import Confusion, Differing, evaluation_counts

K = 5
THRESHOLDS = uiou.default_thresholds(K, 4)


@pytest.fixture
def outputs():
    rng = np.random.default_rng(3)
    shape = (4, 12, 15)
    label = rng.integers(0, K + 1, shape).astype(np.uint8)
    label[label == K] = 255
    prediction, other = (rng.integers(0, K, shape).astype(np.uint8) for _ in range(2))
    return {
        "label": label,
        "prediction": prediction,
        "other_prediction": other,
        "confidence": rng.uniform(0.1, 0.9, shape).astype(np.float32),
        "invalid": rng.random(shape) < 0.3,
        "mask": np.array([1, 1, 1, 0], np.float32),
    }


def count(outputs, **kinds):
    collection = evaluation_counts(**kinds)
    fill = jax.jit(lambda outputs: collection.single_from_model_output(num_classes=K, thresholds=THRESHOLDS, **outputs))
    return fill(outputs)


@pytest.mark.parametrize("kinds", [{}, {"uiou": True}, {"differing": True}, {"uiou": True, "differing": True}])
def test_batches_merge_to_the_whole(outputs, kinds):
    whole = count(outputs, **kinds)
    total = None
    for rows in (slice(0, 1), slice(1, 3), slice(3, 4)):
        batch = count({name: value[rows] for name, value in outputs.items()}, **kinds)
        assert {leaf.dtype for leaf in jax.tree.leaves(batch)} == {np.dtype(np.int32)}
        total = batch if total is None else total.merge(batch)
    for name in ("confusion", "reliability", *kinds):
        np.testing.assert_array_equal(getattr(total, name).total, getattr(whole, name).total)
        counts = getattr(total, name).counts
        assert not isinstance(counts, jax.Array) and counts.dtype == np.int64
    assert set(total.compute()) == {"confusion", "reliability", *kinds}


def test_scores_are_those_of_the_functions(outputs):
    found = count(outputs, uiou=True, differing=True)
    kept = {name: value[:3] for name, value in outputs.items()}
    counts = confusion.confusion_counts(kept["label"], kept["prediction"], K)
    histogram = uiou.uiou_counts(
        *(kept[name] for name in ("label", "prediction", "confidence", "invalid")), THRESHOLDS, K
    )
    scores = found.compute()
    np.testing.assert_array_equal(scores["confusion"], confusion.iou_per_class(np.asarray(counts)))
    np.testing.assert_array_equal(scores["uiou"], uiou.mean_uiou(np.asarray(histogram)))
    differ = (kept["prediction"] != kept["other_prediction"]) & (kept["label"] < K)
    assert scores["differing"] == differ.sum()


def test_totals_go_beyond_32_bits():
    batch = Confusion(counts=jax.numpy.full((2, 2), 2**31 - 1, jax.numpy.int32))
    total = Confusion.empty()
    for _ in range(4):
        total = total.merge(batch)
    assert (total.total == 4 * (2**31 - 1)).all()
    assert Differing.empty().merge(Differing(counts=np.int32(3))).compute() == 3


def test_clu_brings_neither_tensorflow_nor_torch():
    code = (
        "import sys; sys.modules['torch'] = None; "
        "import clu.metrics, clu.parameter_overview, clu.platform, nightjax.metrics.counts; "
        "assert 'tensorflow' not in sys.modules; "
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
