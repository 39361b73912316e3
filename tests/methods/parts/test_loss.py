import jax
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.run import settings, start


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


def test_unweighted_logits():
    """By hand: a class of weight 4 loses half of log 4 = log 2, one of weight 1 or 0 nothing."""
    logits = np.zeros((1, 2, 2, 3), np.float32)
    loss = SegmentationLoss((4.0, 1.0, 0.0), unweighting=0.5)
    np.testing.assert_allclose(loss.unweighted(logits)[0, 0, 0], [-np.log(2), 0, 0], rtol=1e-6)
    for plain in (SegmentationLoss((4.0, 1.0, 0.0)), SegmentationLoss(unweighting=0.5)):
        assert plain.unweighted(logits) is logits


@pytest.mark.parametrize(
    "name",
    [
        "supervised",
        "dacs",
        "self_training",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("dsr_fpa", "t2s_da")),
    ],
)
def test_predictions_are_unweighted_and_training_is_not(name):
    """The same state, with and without: what is predicted differs by the logarithms, what is learned not at all."""
    config = settings.load(f"{name}:data=nightstreet_tiny")
    weights = tuple(np.linspace(0.5, 8, 19).tolist())
    plain, changed = (
        methods.build(
            settings.override(config, {"method.loss.class_weights": weights, "method.loss.unweighting": share})
        )
        for share in (0.0, 1.0)
    )
    shapes = start.abstract_batch(config, plain, sharding.make_mesh(jax.devices()[:1]))
    state = jax.eval_shape(plain.init, jax.random.key(0), shapes)
    steps = [jax.jit(method.train_step).lower(state, shapes).as_text() for method in (plain, changed)]
    assert steps[0] == steps[1]
    size = shapes["source"]["image"].shape[1:]
    variables = plain.network.init(jax.random.key(0), size)
    image = np.random.default_rng(0).integers(0, 256, (1, *size), np.uint8)
    before, after = (method.predict(variables, image) for method in (plain, changed))
    np.testing.assert_allclose(before - after, np.broadcast_to(np.log(weights), before.shape), atol=1e-5)


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
