import jax
import numpy as np
import pytest

from nightjax import methods
from nightjax.core.errors import UserError
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.run import settings


def test_class_weights_and_normalizer(batch):
    label = batch["source"]["label"]
    assert SegmentationLoss().label_weight(label) is None
    table = np.linspace(0.5, 2, 19)
    weight = SegmentationLoss(tuple(table)).label_weight(label)
    pixels = np.where(label == 255, 0, table[np.minimum(label, 18)])
    np.testing.assert_allclose(weight, pixels, rtol=1e-6)
    outputs = {"logits": jax.random.normal(jax.random.key(0), (2, 16, 16, 19))}
    for normalizer in ("all", "valid", "weights"):
        loss = SegmentationLoss(tuple(table), normalizer)
        expected = pixel_weighted_cross_entropy(outputs["logits"], label, pixels, normalizer=normalizer)
        np.testing.assert_allclose(loss(outputs, label, weight), expected, rtol=1e-6)
        np.testing.assert_allclose(loss.on_labels(outputs, label), expected, rtol=1e-6)


@pytest.mark.parametrize("key", ["class_weights", "static.class_weights"])
def test_a_class_without_weight(key):
    config = settings.load("dannet:data=nightstreet_tiny")
    with pytest.raises(UserError, match=f"method.{key} has 3 numbers; give one for each of 19"):
        methods.build(settings.override(config, {f"method.{key}": (1.0, 2.0, 3.0)}))


@pytest.mark.parametrize("value", [True, 5, {"x": 1}])
def test_class_weights_that_are_no_list(value):
    config = settings.load("dannet:data=nightstreet_tiny").to_dict()
    config["method"]["class_weights"] = value
    with pytest.raises(UserError, match="method.class_weights=.* must be a tuple"):
        methods.build(config)


def test_class_weights_by_a_rule():
    """The numbers that configs of Cityscapes' classes have are those of the rules."""
    config = settings.load("dannet:data=nightstreet_tiny").to_dict()
    numbers = methods.build(config)
    config["method"]["class_weights"], config["method"]["static"]["class_weights"] = "root_inverse", "dannet"
    assert methods.build(config) == numbers
    config["method"]["class_weights"] = "inverse"
    with pytest.raises(UserError, match="method.class_weights='inverse' is unknown"):
        methods.build(config)
