import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training, first_opt_state
from nightjax.methods.nightlab import STAGES, NightLab
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.region_detector import RegionDetector, Relabeling
from nightjax.methods.parts.region_geometry import RegionGeometry, RegionJitter, RegionSampling
from nightjax.methods.parts.two_level import NETWORKS, only
from nightjax.methods.supervised import Supervised
from nightjax.models.detector import Proposals
from nightjax.models.relight import RelightNet
from nightjax.ops import regions
from nightjax.ops.resize import resize
from tests.helpers.methods import changed

HARD = (5, 6, 12, 17, 18)
STILL = RegionJitter(scale=(1.0, 1.0), shift=0.0)


@pytest.fixture(scope="module")
def make(without_dropout):
    """``make(stage, **changes)``: a method that finds regions without having learned to."""
    detector = RegionDetector(
        "tiny",
        Optimizer(lr=1e-3, weight_decay=0.0),
        proposals=Proposals(before=32, after=16, total=16),
        score_threshold=0.0,
        anchors_per_image=32,
        relabeling=Relabeling(32),
    )
    method = NightLab(
        without_dropout,
        Optimizer(lr=1e-2, weight_decay=0.0),
        Training(10),
        hard_classes=HARD,
        detector=detector,
        geometry=RegionGeometry(size=32, min_side=16.0, min_area=4, max_boxes=8, max_regions=3),
        sampling=RegionSampling(per_image=2),
    )
    return lambda stage="regions", **changes: changed(method, stage=stage, **changes)


@pytest.fixture(scope="module")
def state(make, batch):
    return jax.jit(fused_init(make("all").init))(jax.random.key(0), batch)


def first_state(method, state):
    """A state for another stage around the same networks."""
    return state.replace(opt_state=first_opt_state(method.players, state.params, method.training.steps))


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize("stage", [pytest.param(s, marks=pytest.mark.slow) if s == "all" else s for s in STAGES])
def test_a_step_moves_what_the_stage_trains(make, state, batch, stage):
    method = make(stage, sampling__detected=0.5 if stage == "all" else 0.0)
    before = first_state(method, state)
    after, scalars = jax.jit(method.train_step)(before, batch)
    assert int(after.step) == 1
    assert all(np.isfinite(value) for value in scalars.values())
    for name in NETWORKS:
        pairs = zip(leaves(before.params[name]), leaves(after.params[name]), strict=True)
        moved = [not np.array_equal(one, two) for one, two in pairs]
        assert any(moved) == (name in STAGES[stage])
        same = jax.tree.map(np.array_equal, before.batch_stats[name], after.batch_stats[name])
        assert all(jax.tree.leaves(same)) == (name not in STAGES[stage])
    if stage == "all":
        np.testing.assert_allclose(scalars["loss"], sum(scalars[f"{name}_loss"] for name in NETWORKS), rtol=1e-6)


def detector_loss(method, state, batch, variables=None):
    """Loss, scalars and gradient of the detector."""
    part = {"detector": {name: batch["source"][name] for name in ("image", "label")}}

    def loss(params, variables):
        value, outcome = method.detector_loss(state, variables, {"detector": params}, state.batch_stats, part, 0)
        return value, outcome.scalars

    variables = variables or method.variables(state)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(state.params["detector"], variables)


@pytest.fixture
def verdict(monkeypatch):
    """``verdict(value)``: every region wins, or none."""

    def fix(value):
        def gain(region_logits, prediction, label, found, classes=None, **_):
            shape = found.shape[:2]
            return jnp.full(shape, value), jnp.zeros(shape), jnp.zeros(shape)

        monkeypatch.setattr(regions, "region_gain", gain)

    return fix


@pytest.mark.slow
def test_regions_that_all_win_leave_the_baseline(make, state, batch, verdict):
    (loss, scalars), (grads, _) = detector_loss(make("detector"), state, batch)
    assert 0 < float(scalars["positives"]) <= 16  # All of them are judged.
    verdict(True)
    (same_loss, same), (same_grads, _) = detector_loss(make("hdm"), state, batch)
    assert float(same_loss) == float(loss) and float(same["kept"]) == 1.0
    for one, two in zip(leaves(grads), leaves(same_grads), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_regions_that_all_lose_are_background(make, state, batch, verdict):
    verdict(False)
    (_, scalars), _ = detector_loss(make("hdm"), state, batch)
    assert float(scalars["offsets"]) == 0.0 and float(scalars["kept"]) == 0.0 and float(scalars["positives"]) == 0.0
    assert np.isfinite(float(scalars["objectness"]))


def test_positives_beyond_the_limit_are_ignored(make, state, batch, verdict):
    verdict(True)
    (_, scalars), _ = detector_loss(make("hdm", detector__relabeling__count=2), state, batch)
    assert float(scalars["positives"]) == 2.0


@pytest.mark.slow
def test_no_gradient_reaches_the_segmenters(make, state, batch):
    (_, scalars), (own, others) = detector_loss(make("hdm"), state, batch)
    assert 0 <= float(scalars["kept"]) <= 1
    assert any(np.abs(x).max() > 0 for x in leaves(own))
    for leaf in leaves(others):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.slow
def test_images_without_hard_classes(make, state, batch):
    plain = {"source": batch["source"] | {"label": jnp.full_like(batch["source"]["label"], 2)}}
    (_, scalars), (grads, _) = detector_loss(make("detector"), state, plain)
    assert float(scalars["positives"]) == 0.0 and float(scalars["offsets"]) == 0.0
    assert all(np.isfinite(x).all() for x in leaves(grads))
    method = make(sampling__jitter=STILL)
    cut = jax.jit(lambda v: method.training_regions(state, v, plain["source"], "source"))(method.variables(state))
    whole = method.geometry.crop(batch["source"]["image"], jnp.array([[[0, 0, 64, 64]]] * 2, jnp.float32))
    assert cut["image"].shape == (4, 32, 32, 3) and (cut["label"] == 2).all()
    np.testing.assert_allclose(cut["image"].reshape(2, 2, 32, 32, 3), jnp.concatenate([whole, whole], 1), atol=1e-3)


WEIGHTS = tuple(np.linspace(8.0, 0.5, 19).tolist())


def test_predictions_are_free_of_class_weights(make, batch, monkeypatch):
    raw = jax.random.normal(jax.random.key(0), (2, 16, 16, 19))
    monkeypatch.setattr(SegmentationNetwork, "predict", lambda *_: raw)
    variables, image = {"params": dict.fromkeys(NETWORKS)}, batch["source"]["image"]
    for name in ("image", "region"):
        np.testing.assert_array_equal(make().levels.segment(variables, name, image), raw)
        kept = make(loss__class_weights=WEIGHTS, logit_adjustment=False)
        np.testing.assert_array_equal(kept.levels.segment(variables, name, image), raw)
        logits = make(loss__class_weights=WEIGHTS).levels.segment(variables, name, image)
        assert logits.dtype == jnp.float32
        expected = np.exp(raw) / np.asarray(WEIGHTS)
        np.testing.assert_allclose(jax.nn.softmax(logits), expected / expected.sum(-1, keepdims=True), rtol=1e-5)
        unseen = make(loss__class_weights=(0.0, *WEIGHTS[1:]))
        assert np.isfinite(unseen.levels.segment(variables, name, image)).all()
    raw = jnp.zeros_like(raw)
    assert (make(loss__class_weights=WEIGHTS).levels.segment(variables, "image", image).argmax(-1) == 18).all()


def test_training_keeps_the_class_weights(make, state, batch):
    first, weighted = first_state(make(), state), {"loss__class_weights": WEIGHTS}
    texts = [
        jax.jit(make(**options).train_step).lower(first, batch).as_text()
        for options in (weighted, weighted | {"logit_adjustment": False}, {})
    ]
    assert texts[0] == texts[1] != texts[2]


def test_training_regions_are_cut_from_the_raw_image(make, state, batch):
    method = make(sampling__jitter=STILL)
    constant = {"source": batch["source"] | {"image": jnp.full_like(batch["source"]["image"], 77)}}
    cut = jax.jit(lambda v: method.training_regions(state, v, constant["source"], "source"))(method.variables(state))
    np.testing.assert_allclose(cut["image"], 77.0, atol=1e-3)
    assert np.isin(cut["label"], HARD).any(axis=(1, 2)).all()


@pytest.fixture(scope="module")
def predictions(make, state, batch):
    method = make("detector")
    variables, image, label = method.variables(state), batch["source"]["image"], batch["source"]["label"]
    predict = jax.jit(method.predict)
    results = {"merged": predict(variables, image), "found": jax.jit(method.levels.detect)(variables, image)}
    pixels = method.detector.pixels(image, method.network.input)
    results["best"] = jax.jit(lambda v: method.detector.detect(only(v, "detector"), pixels, 3))(variables)
    for name in ("image_level", "oracle_boxes"):
        results[name] = jax.jit(method.predict_as, static_argnums=0)(name, variables, image, label)
    predict(variables, image[::-1])
    return results | {"programs": predict._cache_size()}


def test_two_levels_are_one_program(predictions):
    assert predictions["merged"].shape == (2, 64, 64, 19) and predictions["merged"].dtype == jnp.float32
    assert predictions["programs"] == 1


def test_detected_regions_are_whole_pixels_inside(predictions):
    found, valid = predictions["found"]
    assert found.shape == (2, 3, 4) and valid.any()
    np.testing.assert_array_equal(found, jnp.round(found))
    assert (found >= 0).all() and (found <= 64).all()
    _, score, there, size = predictions["best"]
    assert tuple(map(int, size)) == (64, 64) and (jnp.diff(jnp.where(there, score, -1.0), axis=1) <= 0).all()
    np.testing.assert_array_equal(there, valid)


@pytest.mark.parametrize("name", ["merged", "oracle_boxes"])
def test_merging_keeps_what_is_hard(predictions, name):
    image = resize(predictions["image_level"], (64, 64), align_corners=False).argmax(-1)
    merged = np.asarray(predictions[name].argmax(-1))
    changed = merged != np.asarray(image)
    assert np.isin(merged[changed], HARD).all()


def test_a_score_that_none_reaches_leaves_the_image_level(make, state, batch):
    method = make("detector", detector__score_threshold=1.0)
    variables, image = method.variables(state), batch["source"]["image"]
    one_level = jax.jit(lambda v, x: resize(method.levels.segment(v, "image", x), (64, 64), align_corners=False))
    np.testing.assert_allclose(jax.jit(method.predict)(variables, image), one_level(variables, image), atol=1e-5)


def relit(method):
    """The method with relighting in front of its networks."""
    return changed(method, network__model=method.network.model.clone(relight=RelightNet(features=4, blocks=1)))


@pytest.mark.slow
def test_relighting_changes_neither_crops_nor_boxes(make, state, batch):
    method = make("detector")
    method = relit(method)
    lit = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    variables, image = method.variables(lit), batch["source"]["image"]
    other = jax.tree.map(lambda x: x, variables)
    for name in ("image", "region"):
        other["params"][name]["relight"] = jax.tree.map(lambda x: x + 0.1, variables["params"][name]["relight"])
    detect = jax.jit(method.levels.detect)
    for one, two in zip(detect(variables, image), detect(other, image), strict=True):
        np.testing.assert_array_equal(one, two)
    found = detect(variables, image)[0]
    segment = jax.jit(lambda v, x: method.levels.segment(v, "image", x))
    assert float(jnp.abs(segment(variables, image) - segment(other, image)).max()) > 0
    expected = regions.crop(image.astype(jnp.float32), found, 32, antialias=True)
    np.testing.assert_array_equal(method.geometry.crop(image, found), expected)


@pytest.mark.slow
@pytest.mark.parametrize("share", [True, False])
def test_both_levels_may_relight_by_one_network(make, batch, share):
    method = dataclasses.replace(relit(make("regions")), share_relighting=share)
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    after, _ = jax.jit(method.train_step)(state, batch)
    image, region = after.params["image"], after.params["region"]
    same = jax.tree.map(np.array_equal, image["relight"], state.params["image"]["relight"])
    assert all(jax.tree.leaves(same))
    same = jax.tree.map(np.array_equal, region["relight"], image["relight"])
    assert all(jax.tree.leaves(same)) is share
    same = jax.tree.map(np.array_equal, region["head"], state.params["region"]["head"])
    assert not all(jax.tree.leaves(same))


def test_without_relighting_there_is_none_to_share(make):
    with pytest.raises(UserError, match="relight=1"):
        make(share_relighting=True)


def test_regions_may_keep_their_aspect(make, state, batch):
    method, image = make("hdm", geometry__keep_aspect=True), batch["source"]["image"]
    shape = (2, *image.shape[1:3], 19)
    assert jax.eval_shape(method.predict, method.variables(state), image).shape == shape


def test_boxes_are_scaled_back_from_the_detectors_view(make):
    method = make("detector", detector__short_side=128, geometry__min_side=0.0)
    view, size = method.detector.view(jnp.ones((1, 64, 84, 3)))
    assert size == (128, 168) and view.shape == (1, 128, 176, 3) and float(view[..., 168:, :].max()) == 0.0
    found = method.geometry.detected(jnp.array([[0.0, 0, 167, 127], [20, 40, 59, 79]]), size, (64, 84))
    np.testing.assert_allclose(found, [[0, 0, 84, 64], [10, 20, 30, 40]], atol=1e-4)


def test_both_levels_start_from_the_image_level(make, state, batch):
    method = make()
    single = Supervised(method.network, method.optimizer, method.training)
    given = single.variables(jax.jit(fused_init(single.init))(jax.random.key(5), batch))
    assert jax.tree.map(jnp.shape, method.initial(state)) == jax.tree.map(jnp.shape, {"student": given})
    started = method.variables(method.with_initial(state, {"student": given}))
    for name in ("image", "region"):
        for one, two in zip(leaves(started["params"][name]), leaves(given["params"]), strict=True):
            np.testing.assert_array_equal(one, two)
    for one, two in zip(leaves(started["params"]["detector"]), leaves(state.params["detector"]), strict=True):
        np.testing.assert_array_equal(one, two)


def test_later_stages_start_from_all_three_networks(make, state):
    method = make("hdm", start="levels")
    assert set(method.initial(state)) == set(NETWORKS)
    other = jax.tree.map(lambda x: x + 1, method.variables(state))
    started = method.with_initial(state, {name: only(other, name) for name in NETWORKS})
    jax.tree.map(np.testing.assert_array_equal, method.variables(started), other)


def test_pictures(make, state, batch):
    pictures = jax.jit(make("detector").visualizations)(state, batch)
    assert {"image", "truth", "regions", "image_level", "prediction"} <= set(pictures)
    assert all(picture.dtype == jnp.uint8 and picture.shape[:3] == (2, 64, 64) for picture in pictures.values())
    assert (pictures["regions"] != batch["source"]["image"]).any()


def test_an_untrained_detector_has_no_say(make, state, batch):
    assert make("detector").detects and make(sampling__detected=0.5).detects
    method = make()
    variables, image = method.variables(state), batch["source"]["image"]
    one_level = jax.jit(method.levels.image_level)(variables, image)
    np.testing.assert_array_equal(jax.jit(method.predict)(variables, image), one_level)
    assert "prediction" not in jax.eval_shape(method.visualizations, state, batch)


def test_wrong_settings(make, state, batch):
    with pytest.raises(UserError, match="did you mean 'regions'"):
        method = make()
        parts = {"network": method.network, "optimizer": method.optimizer, "training": method.training}
        configs.build(NightLab, parts | {"hard_classes": HARD, "stage": "region"}, "method")
    with pytest.raises(UserError, match="hard_classes"):
        make(hard_classes=(19,))
    with pytest.raises(UserError, match="did you mean 'image_level'"):
        make().predict_as("image_levels", {}, batch["source"]["image"], batch["source"]["label"])
