import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import config as configs
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.dacs import Dacs
from nightjax.methods.parts.feature_distance import FeatureDistance
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.photometric import ColorJitter, Photometric
from nightjax.methods.parts.pseudo_labels import PseudoLabels
from nightjax.methods.parts.source_terms import teacher_logits
from nightjax.ops.mixing import class_mask, present_classes, select_classes
from tests.helpers.methods import changed, distance

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)


@pytest.fixture(scope="module")
def method(plain):
    return Dacs(plain, SGD, Training(10), pseudo_labels=PseudoLabels(0.3), mixing=ClassMix(photometric=None))


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch)


@pytest.fixture(scope="module")
def parts(batch):
    """``parts(method, state) -> targets, examples, terms`` of one step before its update."""

    def run(method, state):
        targets, examples, _ = method.prepare(state, method.variables(state, "teacher"), batch)
        return targets, examples, terms(method, state, examples)

    return run


def terms(method, state, examples):
    return method.student_loss(state, state.params, state.batch_stats, examples, 0)[1].scalars


@pytest.fixture(scope="module")
def default(parts, method, state):
    return parts(method, state)


def selected_classes(method, state, label):
    """The classes that this step draws."""
    mixing = method.mixing
    key = method.training.key(state, "classes")
    return select_classes(key, label, mode=mixing.mode, include_ignore=mixing.include_ignore)


def test_two_steps(batch, small_resnet):
    method = Dacs(small_resnet, Optimizer(lr=1e-2), Training(10))
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step = jax.jit(method.train_step)
    after, first = step(state, batch)
    last, second = step(after, batch)
    assert all(np.isfinite(value) for scalars in (first, second) for value in scalars.values())
    assert set(first) > {
        "loss",
        "loss_source",
        "loss_mixed",
        "loss_feature_distance",
        "pseudo_label_weight",
    }
    assert second["loss"] < first["loss"]
    assert int(last.step) == 2
    assert distance(after.teacher["params"], state.params["student"]) == 0
    middle = jax.tree.map(lambda a, b: (a + b) / 2, state.params["student"], after.params["student"])
    assert distance(last.teacher["params"], middle) < 1e-6
    assert distance(after.teacher["batch_stats"], state.teacher["batch_stats"]) > 0
    assert distance(last.frozen, state.frozen) == 0


def test_dropout_is_the_students_alone(batch, small_resnet):
    method = Dacs(small_resnet, SGD, Training(10))
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    image = method.network.input.decode(batch["target"]["image"])

    @jax.jit
    def logits(step):
        now = state.replace(step=step)
        keys, network, student = method.training.keys(now), method.network, method.variables(now)
        passes = [network.student_pass(student, image, keys, name)[0] for name in ("source", "mixed")]
        return teacher_logits(network, now.teacher, image, keys)[0], [out["logits"] for out in passes]

    (teacher, passes), (later_teacher, later_passes) = logits(0), logits(1)
    assert distance(teacher, later_teacher) == 0
    assert min(map(distance, passes, later_passes)) > 1e-3
    assert distance(*passes) > 1e-3


def test_teacher_decay(method, state, batch):
    late = state.replace(step=jnp.int32(5000))
    after, _ = jax.jit(changed(method, teacher__decay=0.9).train_step)(late, batch)
    expected = jax.tree.map(lambda t, s: 0.9 * t + 0.1 * s, state.teacher["params"], state.params["student"])
    assert distance(after.teacher["params"], expected) < 1e-6


@pytest.mark.parametrize("mode", ["dacs", "classmix", "object_groups", "dynsmall"])
def test_mask_mode(method, state, batch, default, mode):
    targets, image, label = default[0], method.network.input.decode(batch["source"]["image"]), batch["source"]["label"]
    present = np.asarray(present_classes(label))
    method = changed(method, mixing__mode=mode)
    for step in range(5):
        now = state.replace(step=jnp.int32(step))
        selected = np.asarray(selected_classes(method, now, label))
        keys = method.training.keys(now)
        mixed = method.mixing(keys, image, label, targets, method.pseudo_labels, method.loss, method.network.classes)[
            "mixed_label"
        ]
        np.testing.assert_array_equal(mixed, np.where(class_mask(label, selected), label, targets.label))
        assert mode == "dacs" or not (selected & ~present).any()
        if mode == "dacs":
            assert (selected.sum(1) == -(-present.any(0).sum() // 2)).all()
        if mode == "classmix":
            assert (selected.sum(1) == -(-present.sum(1) // 2)).all()
        if mode in ("object_groups", "dynsmall"):
            assert selected[0, 5] == selected[0, 6] and (selected[0, 18] or not selected[0, 12])
        if mode == "dynsmall":
            members = np.isin(np.arange(20), CITYSCAPES.group("small", "dynamic"))
            assert selected[present & members].all()


def test_unknown_mask_mode():
    with pytest.raises(UserError, match="did you mean 'dynsmall'"):
        configs.build(ClassMix, {"mode": "dynsmal"}, "method.mixing")


def test_mask_include_ignore(method, state, batch):
    def drawn(include):
        one = changed(method, mixing__include_ignore=include)
        label = batch["source"]["label"]
        return any(bool(selected_classes(one, state.replace(step=jnp.int32(s)), label)[:, 19].any()) for s in range(8))

    assert drawn(True) and not drawn(False)


def test_mix_is_source_on_the_mask_and_target_elsewhere(method, state, batch, default):
    targets, examples, _ = default
    label = batch["source"]["label"]
    mask = np.asarray(class_mask(label, selected_classes(method, state, label)))
    assert 0 < mask.mean() < 1
    image = np.where(mask[..., None], batch["source"]["image"], batch["target"]["image"]) / 255
    np.testing.assert_allclose(examples["mixed"], image, atol=1e-6)
    np.testing.assert_array_equal(examples["mixed_label"], np.where(mask, label, targets.label))
    weight = np.where(mask, 1, np.asarray(targets.weight)[:, None, None])
    np.testing.assert_allclose(examples["mixed_weight"], weight, atol=1e-6)


def test_threshold_and_weight_scope(method, state, parts, default):
    confident = np.asarray(default[0].confidence) >= 0.3
    np.testing.assert_allclose(default[0].weight, confident.mean(), atol=1e-6)
    assert 0 < confident.mean() < 1
    image = parts(changed(method, pseudo_labels__weight_scope="image"), state)[0]
    np.testing.assert_allclose(image.weight, confident.mean(axis=(1, 2)), atol=1e-6)
    assert parts(changed(method, pseudo_labels__threshold=0.0), state)[0].weight.min() == 1


def test_ignored_rows(method, state, parts, default):
    examples = parts(changed(method, pseudo_labels__ignore_top=4, pseudo_labels__ignore_bottom=2), state)[1]
    inside = np.asarray(default[1]["mixed_weight"])
    expected = np.where(inside == 1, 1, 0)
    np.testing.assert_array_equal(examples["mixed_weight"][:, :4], expected[:, :4])
    np.testing.assert_array_equal(examples["mixed_weight"][:, -2:], expected[:, -2:])
    np.testing.assert_array_equal(examples["mixed_weight"][:, 4:-2], inside[:, 4:-2])


@pytest.mark.parametrize("field, image", [("mixing__photometric", "mixed"), ("source_photometric", "source")])
def test_photometric(method, state, parts, default, field, image):
    always = Photometric(ColorJitter(probability=1.0), blur=None)
    examples = parts(changed(method, **{field: always}), state)[1]
    for name, value in examples.items():
        change = distance(value, default[1][name])
        assert change > 1e-2 if name == image else change == 0, name


def test_feature_distance(method, state, batch, parts, default):
    own = default[2]
    assert own["loss_feature_distance"] > 0
    double = parts(changed(method, feature_distance=FeatureDistance(weight=0.01)), state)[2]
    np.testing.assert_allclose(double["loss_feature_distance"], 2 * own["loss_feature_distance"], rtol=1e-6)
    without = changed(method, feature_distance=None)
    assert without.init(jax.random.key(0), batch).frozen == {}
    assert set(parts(without, state)[2]) == {"loss_source", "loss_mixed"}


def test_feature_min_ratio(method, state, batch, default):
    example = dict(default[1])
    label = np.asarray(example["source_label"]).copy()
    label[:, ::4] = 0  # No cell of 8 x 8 keeps more than three quarters of a thing class.
    example["source_label"] = jnp.asarray(label)
    strict = changed(method, feature_distance__min_ratio=0.76)
    assert terms(strict, state, example)["loss_feature_distance"] == 0
    assert terms(method, state, example)["loss_feature_distance"] > 0


def test_mixed_weight(method, state, parts, default):
    less = parts(changed(method, mixing__weight=0.8), state)[2]
    np.testing.assert_allclose(less["loss_mixed"], 0.8 * default[2]["loss_mixed"], rtol=1e-6)
    np.testing.assert_allclose(less["loss_source"], default[2]["loss_source"])


def test_class_weights_weigh_true_labels_only(method, state, batch, parts, default):
    table = np.linspace(0.5, 2, 19)
    _, plain, _ = default
    _, examples, weighted = parts(changed(method, loss__class_weights=tuple(table)), state)
    label = np.asarray(batch["source"]["label"])
    mask = np.asarray(class_mask(label, selected_classes(method, state, label)))
    by_class = np.append(table, np.zeros(237))[label]
    np.testing.assert_allclose(examples["mixed_weight"][mask], by_class[mask], rtol=1e-6)
    np.testing.assert_array_equal(examples["mixed_weight"][~mask], plain["mixed_weight"][~mask])
    assert float(weighted["loss_source"]) != float(default[2]["loss_source"])


def test_accumulate(method, state, batch):
    """Without norms and masked means two halves give the whole batch's gradient."""
    method = changed(method, feature_distance=None)
    whole, scalars = jax.jit(method.train_step)(state, batch)
    halves, half_scalars = jax.jit(changed(method, training__accumulate=2).train_step)(state, batch)
    assert distance(whole.params, state.params) > 1e-3
    assert distance(whole.params, halves.params) < 1e-6
    for name, value in scalars.items():
        np.testing.assert_allclose(half_scalars[name], value, rtol=1e-5, err_msg=name)


def test_initial_weights_are_those_of_all_copies(method, state):
    other = jax.tree.map(lambda x: x + 1, method.variables(state))
    after = method.with_initial(state, {"student": other})
    for tree in (
        method.variables(after),
        method.variables(after, "teacher"),
        after.frozen["initial"],
    ):
        assert distance(tree, other) == 0


def test_visualizations(method, state, batch, default):
    shown = method.visualizations(state, batch)
    np.testing.assert_array_equal(shown["pseudo_label"], default[0].label)
    np.testing.assert_array_equal(shown["mixed_label"], default[1]["mixed_label"])
    assert shown["prediction"].dtype == jnp.uint8
    assert set(shown) >= {
        "source",
        "truth",
        "target",
        "reference",
        "confidence",
        "mixed",
        "mixed_weight",
    }
