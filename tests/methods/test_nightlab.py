import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nightjax.methods.two_level import NETWORKS

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.methods.nightlab import STAGES, NightLab, draw
from nightjax.methods.supervised import Supervised
from nightjax.models.detector import Proposals
from nightjax.models.relight import RelightNet
from nightjax.ops import regions
from nightjax.ops.resize import resize

HARD = (5, 6, 12, 17, 18)


@pytest.fixture(scope="module")
def make(small_resnet):
    """``make(stage, **changes)``: a method that finds regions without having learnt to."""
    options = {
        "detector": "tiny",
        "detector_optimizer": Optimizer(lr=1e-3, weight_decay=0.0),
        "proposals": Proposals(before=32, after=16, total=16),
        "score": 0.0,
        "max_regions": 3,
        "region_size": 32,
        "min_side": 16.0,
        "min_area": 4,
        "max_boxes": 8,
        "crops": 2,
        "anchors": 32,
        "relabelled": 32,
        "hard_classes": HARD,
    }
    model = small_resnet.clone(head=small_resnet.head.clone(dropout=0.0))
    return lambda stage="regions", **changes: NightLab(
        model, Optimizer(lr=1e-2, weight_decay=0.0), steps=10, stage=stage, **options | changes
    )


@pytest.fixture(scope="module")
def state(make, batch):
    return jax.jit(fused_init(make("all").init))(jax.random.key(0), batch)


def first_state(method, state):
    """A state for another stage around the same networks."""
    own = {"student": state.params["student"]}
    opt_state = {
        name: method.optimizer_of(name)
        .build({"student": own["student"][name]}, 10)
        .init({"student": own["student"][name]})
        for name in method.trained
    }
    return state.replace(opt_state=opt_state)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize("stage", [pytest.param(s, marks=pytest.mark.slow) if s == "all" else s for s in STAGES])
def test_a_step_moves_what_the_stage_trains(make, state, batch, stage):
    method = make(stage, proposal_share=0.5 if stage == "all" else 0.0)
    before = first_state(method, state)
    after, scalars = jax.jit(method.train_step)(before, batch)
    assert int(after.step) == 1
    assert all(np.isfinite(value) for value in scalars.values())
    for name in NETWORKS:
        pairs = zip(leaves(before.params["student"][name]), leaves(after.params["student"][name]), strict=True)
        moved = [not np.array_equal(one, two) for one, two in pairs]
        assert any(moved) == (name in STAGES[stage])
        same = jax.tree.map(np.array_equal, before.batch_stats["student"][name], after.batch_stats["student"][name])
        assert all(jax.tree.leaves(same)) == (name not in STAGES[stage])


def detector_loss(method, state, batch, variables=None):
    """Loss, scalars and gradient of the detector."""
    examples = {name: batch["source"][name] for name in ("image", "label")}

    def loss(params, variables):
        stats = state.batch_stats["student"]["detector"]
        value, (_, scalars) = method._detector_loss(params, stats, examples, jax.random.key(1), variables)
        return value, scalars

    variables = variables or method.variables(state)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
        state.params["student"]["detector"], variables
    )


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


def test_regions_that_all_lose_are_background(make, state, batch, verdict):
    verdict(False)
    (_, scalars), _ = detector_loss(make("hdm"), state, batch)
    assert float(scalars["offsets"]) == 0.0 and float(scalars["kept"]) == 0.0 and float(scalars["positives"]) == 0.0
    assert np.isfinite(float(scalars["objectness"]))


def test_positives_beyond_the_limit_are_ignored(make, state, batch, verdict):
    verdict(True)
    (_, scalars), _ = detector_loss(make("hdm", relabelled=2), state, batch)
    assert float(scalars["positives"]) == 2.0


def test_no_gradient_reaches_the_segmenters(make, state, batch):
    (_, scalars), (own, others) = detector_loss(make("hdm"), state, batch)
    assert 0 <= float(scalars["kept"]) <= 1
    assert any(np.abs(x).max() > 0 for x in leaves(own))
    for leaf in leaves(others):
        np.testing.assert_array_equal(leaf, 0.0)


def test_images_without_hard_classes(make, state, batch):
    plain = {"source": batch["source"] | {"label": jnp.full_like(batch["source"]["label"], 2)}}
    (_, scalars), (grads, _) = detector_loss(make("detector"), state, plain)
    assert float(scalars["positives"]) == 0.0 and float(scalars["offsets"]) == 0.0
    assert all(np.isfinite(x).all() for x in leaves(grads))
    method = make(jitter_scale=(1.0, 1.0), jitter_shift=0.0)
    cut = jax.jit(lambda v: method.training_regions(state, v, plain["source"], "source"))(method.variables(state))
    whole = method.crop(batch["source"]["image"], jnp.array([[[0, 0, 64, 64]]] * 2, jnp.float32))
    assert cut["image"].shape == (4, 32, 32, 3) and (cut["label"] == 2).all()
    np.testing.assert_allclose(cut["image"].reshape(2, 2, 32, 32, 3), jnp.concatenate([whole, whole], 1), atol=1e-3)


def test_true_regions(make, batch):
    found, kind, valid = make().true_regions(batch["source"]["label"], 2.0)
    assert valid.any(-1).all() and (found[valid][:, :2] >= 0).all() and (found[valid][:, 2:] <= 64).all()
    assert (jnp.diff(valid.astype(int), axis=1) <= 0).all()
    sides = (found[..., 2:] - found[..., :2])[valid]
    assert (sides >= 16).all()
    assert np.isin(kind[valid], HARD).all()
    tight, kind, there = make().true_regions(batch["source"]["label"], 1.0)
    label = np.asarray(batch["source"]["label"][0])
    for (x1, y1, x2, y2), own in zip(np.asarray(tight[0][there[0]], int), kind[0][there[0]], strict=True):
        assert (label[y1:y2, x1:x2] == own).any()


def test_the_smallest_true_region_is_on_top(make):
    """A large part of one class around a small one of another, and a class that is none."""
    label = np.full((1, 64, 64), 2, np.uint8)
    label[:, 4:60, 4:60] = 5
    label[:, 24:32, 24:32] = 17
    method = make(context=1.0, min_side=0.0, max_regions=5)
    found, valid = method.oracle_regions(jnp.asarray(label))
    assert valid[0].tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(found[0, :2], [[24, 24, 32, 32], [4, 4, 60, 60]])
    one, there = dataclasses.replace(method, max_regions=1).oracle_regions(jnp.asarray(label))
    np.testing.assert_array_equal(one, [[[4, 4, 60, 60]]])  # The largest part is kept.
    logits = 9 * jax.nn.one_hot(jnp.array([17, 5]), 19)[None, :, None, None]
    canvas = jnp.zeros((1, 64, 64, 19)).at[..., 2].set(1.0)
    merged = regions.merge_regions(canvas, jnp.broadcast_to(logits, (1, 2, 4, 4, 19)), found[:, :2], valid[:, :2], HARD)
    np.testing.assert_array_equal(merged.argmax(-1), label)


def test_regions_are_drawn_class_by_class():
    kind = jnp.array([[5] * 6 + [17, 18, 18, 5]])
    valid = jnp.arange(10)[None] < 9
    found = jnp.arange(40.0).reshape(1, 10, 4)

    def shares(kind):
        drawn = draw(jax.random.key(0), found, valid, 6000, (64, 64), kind)
        return np.bincount((np.asarray(drawn[0, :, 0]) / 4).astype(int), minlength=10) / 6000

    np.testing.assert_allclose(shares(kind), [1 / 18] * 6 + [1 / 3, 1 / 6, 1 / 6, 0], atol=0.02)
    np.testing.assert_allclose(shares(None), [1 / 9] * 9 + [0], atol=0.02)
    whole = draw(jax.random.key(0), found, valid & False, 3, (64, 48), kind)
    np.testing.assert_array_equal(whole, [[[0, 0, 48, 64]] * 3])


WEIGHTS = tuple(np.linspace(8.0, 0.5, 19).tolist())


def test_predictions_are_free_of_class_weights(make, batch, monkeypatch):
    raw = jax.random.normal(jax.random.key(0), (2, 16, 16, 19))
    monkeypatch.setattr(Supervised, "predict", lambda *_: raw)
    variables, image = {"params": dict.fromkeys(NETWORKS)}, batch["source"]["image"]
    for name in ("image", "region"):
        np.testing.assert_array_equal(make().segment(variables, name, image), raw)
        np.testing.assert_array_equal(make(class_weights=WEIGHTS, unweight=False).segment(variables, name, image), raw)
        logits = make(class_weights=WEIGHTS).segment(variables, name, image)
        assert logits.dtype == jnp.float32
        expected = np.exp(raw) / np.asarray(WEIGHTS)
        np.testing.assert_allclose(jax.nn.softmax(logits), expected / expected.sum(-1, keepdims=True), rtol=1e-5)
        assert np.isfinite(make(class_weights=(0.0, *WEIGHTS[1:])).segment(variables, name, image)).all()
    raw = jnp.zeros_like(raw)
    assert (make(class_weights=WEIGHTS).segment(variables, "image", image).argmax(-1) == 18).all()


def test_training_keeps_the_class_weights(make, state, batch):
    first = first_state(make(), state)
    texts = [
        jax.jit(make(**options).train_step).lower(first, batch).as_text()
        for options in ({"class_weights": WEIGHTS}, {"class_weights": WEIGHTS, "unweight": False}, {})
    ]
    assert texts[0] == texts[1] != texts[2]


def test_padding_boxes_change_no_verdict():
    rng = np.random.RandomState(0)
    logits = jnp.asarray(rng.randn(1, 3, 8, 8, 19), jnp.float32)
    label = jnp.asarray(rng.randint(0, 3, (1, 32, 32)), jnp.uint8)
    box = jnp.array([[[0, 0, 16, 16], [4, 8, 30, 24], [0, 0, 0, 0]]], jnp.float32)
    padded = regions.region_gain(logits, label * 0, label, box)
    alone = regions.region_gain(logits[:, :2], label * 0, label, box[:, :2])
    for one, two in zip(padded, alone, strict=True):
        np.testing.assert_array_equal(one[:, :2], two)
    assert not bool(padded[0][0, 2]) and np.isnan(padded[1][0, 2])


def test_training_regions_are_cut_from_the_raw_image(make, state, batch):
    method = make(jitter_scale=(1.0, 1.0), jitter_shift=0.0)
    constant = {"source": batch["source"] | {"image": jnp.full_like(batch["source"]["image"], 77)}}
    cut = jax.jit(lambda v: method.training_regions(state, v, constant["source"], "source"))(method.variables(state))
    np.testing.assert_allclose(cut["image"], 77.0, atol=1e-3)
    assert np.isin(cut["label"], HARD).any(axis=(1, 2)).all()


@pytest.fixture(scope="module")
def predictions(make, state, batch):
    method = make("detector")
    variables, image, label = method.variables(state), batch["source"]["image"], batch["source"]["label"]
    predict = jax.jit(method.predict)
    results = {"merged": predict(variables, image), "found": jax.jit(method.detect)(variables, image)}
    for name in ("image_level", "oracle_boxes"):
        results[name] = jax.jit(method.predict_as, static_argnums=0)(name, variables, image, label)
    predict(variables, image[::-1])
    return results | {"programs": predict._cache_size()}


def test_two_levels_are_one_program(predictions):
    assert predictions["merged"].shape == (2, 64, 64, 19) and predictions["merged"].dtype == jnp.float32
    assert predictions["programs"] == 1


def test_detected_regions_are_whole_pixels_inside(predictions):
    found, scores, valid = predictions["found"]
    assert found.shape == (2, 3, 4) and valid.any()
    np.testing.assert_array_equal(found, jnp.round(found))
    assert (found >= 0).all() and (found <= 64).all()
    assert (jnp.diff(jnp.where(valid, scores, -1.0), axis=1) <= 0).all()


@pytest.mark.parametrize("name", ["merged", "oracle_boxes"])
def test_merging_keeps_what_is_hard(predictions, name):
    image = resize(predictions["image_level"], (64, 64), align_corners=False).argmax(-1)
    merged = np.asarray(predictions[name].argmax(-1))
    changed = merged != np.asarray(image)
    assert np.isin(merged[changed], HARD).all()


def test_a_score_that_none_reaches_leaves_the_image_level(make, state, batch):
    method = make("detector", score=1.0)
    variables, image = method.variables(state), batch["source"]["image"]
    one_level = jax.jit(lambda v, x: resize(method.segment(v, "image", x), (64, 64), align_corners=False))
    np.testing.assert_allclose(jax.jit(method.predict)(variables, image), one_level(variables, image), atol=1e-5)


@pytest.mark.slow
def test_light_adaptation_changes_neither_crops_nor_boxes(make, state, batch):
    method = make("detector")
    method = dataclasses.replace(method, model=method.model.clone(light=RelightNet(features=4, blocks=1)))
    lit = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    variables, image = method.variables(lit), batch["source"]["image"]
    other = jax.tree.map(lambda x: x, variables)
    for name in ("image", "region"):
        other["params"][name]["light"] = jax.tree.map(lambda x: x + 0.1, variables["params"][name]["light"])
    detect = jax.jit(method.detect)
    for one, two in zip(detect(variables, image), detect(other, image), strict=True):
        np.testing.assert_array_equal(one, two)
    found = detect(variables, image)[0]
    segment = jax.jit(lambda v, x: method.segment(v, "image", x))
    assert float(jnp.abs(segment(variables, image) - segment(other, image)).max()) > 0
    expected = regions.crop(image.astype(jnp.float32), found, 32, antialias=True)
    np.testing.assert_array_equal(method.crop(image, found), expected)


@pytest.mark.slow
@pytest.mark.parametrize("share", [True, False])
def test_both_levels_may_relight_by_one_network(make, batch, share):
    method = make("regions")
    light = RelightNet(features=4, blocks=1)
    method = dataclasses.replace(method, model=method.model.clone(light=light), share_light=share)
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    after, _ = jax.jit(method.train_step)(state, batch)
    networks = after.params["student"]
    before = state.params["student"]["image"]["light"]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, networks["image"]["light"], before)))
    same = jax.tree.map(np.array_equal, networks["region"]["light"], networks["image"]["light"])
    assert all(jax.tree.leaves(same)) is share
    moved = jax.tree.map(np.array_equal, networks["region"]["head"], state.params["student"]["region"]["head"])
    assert not all(jax.tree.leaves(moved))


def test_without_light_there_is_none_to_share(make):
    with pytest.raises(UserError, match="light=1"):
        make(share_light=True)


def test_regions_may_keep_their_aspect(make, state, batch):
    method, image = make("hdm", keep_aspect=True), batch["source"]["image"]
    tall = jnp.array([[[0, 0, 16, 32]]] * 2, jnp.float32)
    cut = method.crop(image, tall)
    assert cut.shape == (2, 1, 32, 32, 3) and float(jnp.abs(cut[..., 16:, :]).max()) == 0.0
    np.testing.assert_allclose(cut[:, 0, :, :16], image[:, :32, :16], atol=1e-3)
    shape = (2, *image.shape[1:3], 19)
    assert jax.eval_shape(method.predict, method.variables(state), image).shape == shape


def test_boxes_are_scaled_back_from_the_detectors_view(make):
    method = make("detector", detector_short_side=128, min_side=0.0)
    view, size = method._detector_view(jnp.ones((1, 64, 84, 3)))
    assert size == (128, 168) and view.shape == (1, 128, 176, 3) and float(view[..., 168:, :].max()) == 0.0
    found = method.detected_regions(jnp.array([[0.0, 0, 167, 127], [20, 40, 59, 79]]), size, (64, 84))
    np.testing.assert_allclose(found, [[0, 0, 84, 64], [10, 20, 30, 40]], atol=1e-4)


def test_both_levels_start_from_the_image_level(make, state, batch):
    method = make()
    single = Supervised(method.model, method.optimizer, steps=10)
    given = single.variables(jax.jit(fused_init(single.init))(jax.random.key(5), batch))
    shapes = jax.tree.map(jnp.shape, method.initial_variables(state))
    assert shapes == jax.tree.map(jnp.shape, given)
    started = method.variables(method.with_weights(state, given))
    for name in ("image", "region"):
        for one, two in zip(leaves(started["params"][name]), leaves(given["params"]), strict=True):
            np.testing.assert_array_equal(one, two)
    for one, two in zip(
        leaves(started["params"]["detector"]), leaves(state.params["student"]["detector"]), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    later = make("hdm", start="levels")
    assert jax.tree.structure(later.initial_variables(state)) == jax.tree.structure(later.variables(state))


def test_pictures(make, state, batch):
    pictures = jax.jit(make("detector").panels)(state, batch)
    assert {"image", "truth", "regions", "image_level", "prediction"} <= set(pictures)
    assert all(picture.dtype == jnp.uint8 and picture.shape[:3] == (2, 64, 64) for picture in pictures.values())
    assert (pictures["regions"] != batch["source"]["image"]).any()


def test_an_untrained_detector_has_no_say(make, state, batch):
    assert make("detector").detects and make(proposal_share=0.5).detects
    method = make()
    variables, image = method.variables(state), batch["source"]["image"]
    one_level = jax.jit(method.image_level)(variables, image)
    np.testing.assert_array_equal(jax.jit(method.predict)(variables, image), one_level)
    assert "prediction" not in jax.eval_shape(method.panels, state, batch)


def test_wrong_settings(make, state, batch):
    with pytest.raises(UserError, match="did you mean 'regions'"):
        make("region")
    with pytest.raises(UserError, match="hard_classes"):
        make(hard_classes=(19,))
    with pytest.raises(UserError, match="did you mean 'image_level'"):
        make().predict_as("image_levels", {}, batch["source"]["image"], batch["source"]["label"])
