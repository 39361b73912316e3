"""Augmentation and evaluation of DANNet against the official code.

Training images are equal; test images to 1 in few pixels, since the device adds up in floats; arg-max maps 99.9 %,
counts exact.
"""

import jax.numpy as jnp
import numpy as np

from nightjax.core.class_weights import class_weights
from nightjax.core.classes import CITYSCAPES
from nightjax.data.loading import LoadExample, StreamSpec
from nightjax.data.sampling import SampledRecord
from nightjax.data.sources import ListSource
from nightjax.methods.parts.network import InputNormalization
from nightjax.metrics import confusion, protocol
from nightjax.metrics.protocol import EvalSet
from nightjax.ops.resize import resize
from tests.helpers.golden import nchw, thinned


class Draws:
    """A generator that hands out the stored draws: scale, row, column, flip."""

    def __init__(self, scale, x, y, flip):
        self._values = iter((scale, int(y), int(x), flip))

    def uniform(self, low, high):
        return next(self._values)

    def integers(self, high):
        value = next(self._values)
        assert value < high
        return value

    def random(self):
        return next(self._values)


def cases(file, kind):
    """Name, draws and size of each stored example."""
    for name in file:
        case, _, rest = name.partition(".")
        if case.startswith(kind) and rest.startswith("draws"):
            image = file[f"{case}.night" if kind == "pair" else f"{case}.image"]
            yield case, file[name], image.shape[:2]


def check_example(file, case, draws, record, fields, **spec):
    spec = StreamSpec("stream", "file", "train", fields=tuple(fields), bicubic=True, **spec)
    example = LoadExample(ListSource([record]), spec).random_map(SampledRecord(0), Draws(*draws))
    for field, name in fields.items():
        np.testing.assert_array_equal(example[field], file[f"{case}.{name}"], err_msg=f"{case} {name}")


def test_augmentation_of_pairs(golden):
    file = golden("dannet", "augment")
    record = {"image": file["night"], "reference": file["day"]}
    both, pairs = {"image": "night", "reference": "day"}, list(cases(file, "pair"))
    assert pairs

    def fits(side, case, draws, size):
        try:
            check_example(file, case, draws, record, {"image": "night"}, **settings(side, size))
        except AssertionError:
            return False
        return True

    def settings(side, size):
        return {"scale_range": (0.9, 1.1), "crop": (side, side), "crop_resize": size}

    # The side of the crops is in no file: the first image tells it, all others must agree.
    longest = int(min(file["night"].shape[:2]) * min(draws[0] for _, draws, _ in pairs))
    side = next(side for side in range(pairs[0][2][0], longest + 1) if fits(side, *pairs[0]))
    for case, draws, size in pairs:
        check_example(file, case, draws, record, both, **settings(side, size))


def test_augmentation_of_the_source(golden):
    file = golden("dannet", "augment")
    record, examples = {"image": file["night"], "label": file["label"]}, list(cases(file, "source"))
    assert examples
    for case, draws, size in examples:
        settings = {"scale_range": (0.5, 1.0), "crop": size, "max_class_share": 1.0}
        check_example(file, case, draws, record, {"image": "image", "label": "label"}, **settings)


def test_official_class_weights(golden):
    weights = golden("dannet", "eval_pipeline")["class_weights"]
    std = round(float(weights.std()), 2)  # Standardized weights, times this, plus 1.
    np.testing.assert_allclose(class_weights(np.array(CITYSCAPES.pixel_share), std), weights, atol=1e-6)


def test_weighted_prediction(golden):
    file = golden("dannet", "eval_pipeline")
    logits, size = jnp.asarray(np.moveaxis(file["logits"], 1, -1)), file["pred"].shape
    rule = EvalSet("x", "val", align_corners=True, class_weight_std=0.16)
    image = jnp.zeros((1, *size, 3), jnp.uint8)
    for weights, expected in ((file["class_weights"], "pred"), (None, "pred_unweighted")):
        label, _ = protocol.predict(lambda _: logits, image, rule, size, weights)
        assert (np.asarray(label[0]) == file[expected]).mean() >= 0.999, expected
    full = resize(logits * jnp.asarray(file["class_weights"]), size, align_corners=True)
    expected = file["upsampled_slice"]
    np.testing.assert_allclose(thinned(nchw(full), expected, 9), expected, rtol=1e-5, atol=1e-5)


def test_network_input(golden):
    file = golden("dannet", "eval_pipeline")
    resized, seen = file["image_resized_uint8"], []
    rule = EvalSet("x", "val", input_size=resized.shape[:2], antialias=True)

    def logits(image):
        seen.append(np.asarray(image[0]))
        return jnp.zeros((1, 2, 2, len(CITYSCAPES)))

    protocol.predict(logits, jnp.asarray(file["image_uint8"][None]), rule, (2, 2))
    difference = np.abs(seen[0].astype(int) - resized)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # Pillow adds up in fixed point.
    x = InputNormalization()(jnp.asarray(resized))
    expected = np.moveaxis(file["image_normalised_chw"], 0, -1)
    np.testing.assert_allclose(x, expected, atol=1e-5)
    assert np.abs(np.asarray(x)[..., ::-1] - expected).max() > 0.1  # Channels in another order would show.


def test_ids_counts_and_iou(golden):
    file = golden("dannet", "eval_pipeline")
    truth = CITYSCAPES.from_ids[file["gt_label_ids"]]
    np.testing.assert_array_equal(truth, file["gt_train_ids"])
    counts = confusion.confusion_counts(truth, file["pred_train_ids"], len(file["hist"]))
    np.testing.assert_array_equal(counts, file["hist"])
    summary = confusion.summarize(np.asarray(counts), [str(i) for i in range(len(counts))])
    iou = [np.nan if value is None else value for value in summary["iou"].values()]
    expected = file["iou"] * (100 if np.nanmax(file["iou"]) <= 1 else 1)
    np.testing.assert_allclose(iou, expected, rtol=1e-5)
    np.testing.assert_allclose(summary["miou"]["skip"], file["miou_percent"], rtol=1e-6)
    only_predicted = (file["hist"].sum(1) == 0) & (file["hist"].sum(0) > 0)
    assert all(iou[k] == 0 for k in np.flatnonzero(only_predicted))


def test_every_label_id(golden):
    """All 34 ids of the official table; what is unknown is ignored."""
    file = golden("dannet", "eval_pipeline")
    ids, train_ids = file["gt_label_ids"].ravel(), file["gt_train_ids"].ravel()
    for label_id in np.unique(ids):
        assert set(train_ids[ids == label_id]) == {CITYSCAPES.from_ids[label_id]}
    assert (CITYSCAPES.from_ids[34:] == 255).all()
    known = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
    assert set(np.flatnonzero(CITYSCAPES.from_ids != 255)) == known
    assert sorted(CITYSCAPES.from_ids[list(sorted(known))]) == list(range(len(CITYSCAPES)))
