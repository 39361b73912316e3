import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.methods.dacs import Dacs
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.ops.bank import TAIL_CLASSES

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)


@pytest.fixture(scope="module")
def method(plain_model):
    return DsrFpa(
        model=plain_model,
        optimizer=SGD,
        steps=10,
        threshold=0.3,
        photometric=None,
        feature_weight=0.0,
        fpa_start_step=2,
    )


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch, step=5)


@pytest.fixture(scope="module")
def targets(batch):
    def run(method, state, target=None):
        both = batch | {"target": batch["target"] | (target or {})}
        return method.targets(state, method.variables(state, "teacher"), both)[0]

    return run


@pytest.fixture(scope="module")
def default_targets(targets, method, state):
    return targets(method, state)


@pytest.fixture(scope="module")
def default_mix(method, state, batch, default_targets):
    return method.mix(state, batch, default_targets)


@pytest.fixture(scope="module")
def fpa(default_mix):
    """``fpa(method, state)``: the term of FPA."""

    def run(method, state):
        losses = method.losses(state, state.params["student"], state.batch_stats["student"], default_mix[0], 0)
        return losses[0].get("loss_fpa")

    return run


@pytest.fixture(scope="module")
def default_fpa(fpa, method, state):
    return float(fpa(method, state))


def distance(a, b):
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def tail_pixels(label):
    return np.isin(np.asarray(label), TAIL_CLASSES)


def test_two_steps(batch, small_resnet):
    method = DsrFpa(
        model=small_resnet,
        optimizer=Optimizer(lr=1e-2),
        steps=10,
        fpa_start_step=1,
        photometric=None,
    )
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step = jax.jit(method.train_step)
    after, first = step(state, batch)
    last, second = step(after, batch)
    assert all(np.isfinite(value) for scalars in (first, second) for value in scalars.values())
    assert first["loss_fpa"] == 0 and second["loss_fpa"] > 0
    assert second["loss_source"] < first["loss_source"]
    assert distance(last.params, after.params) > 1e-4
    np.testing.assert_array_equal(last.bank.valid, [False, True, True])
    np.testing.assert_array_equal(last.bank.label[-1], batch["source"]["label"])


# Section 3.2.1: mask and bank


def test_bank_pastes_tail_classes_on_due_steps(method, state, batch, default_targets, default_mix):
    label, tail = np.asarray(batch["source"]["label"]), tail_pixels(batch["source"]["label"])
    examples, bank = default_mix
    np.testing.assert_array_equal(np.asarray(examples["mixed_label"])[tail], label[tail])
    plain, nothing = dataclasses.replace(method, bank=False).mix(state, batch, default_targets)
    assert nothing is state.bank
    assert (np.asarray(plain["mixed_label"])[tail] != label[tail]).any()
    later = state.replace(step=state.step + 1)
    same = dataclasses.replace(method, bank=False).mix(later, batch, default_targets)[0]
    undue, pushed = method.mix(later, batch, default_targets)
    assert distance(undue, same) == 0
    jax.tree.map(np.testing.assert_array_equal, pushed, bank)
    due = dataclasses.replace(method, bank_every=6).mix(later, batch, default_targets)[0]
    np.testing.assert_array_equal(np.asarray(due["mixed_label"])[tail], label[tail])


def test_bank_weight(method, state, batch, default_targets, default_mix):
    keep = np.asarray(default_mix[0]["mixed_weight"])
    one = dataclasses.replace(method, bank_weight="one").mix(state, batch, default_targets)[0]
    expected = np.where(tail_pixels(batch["source"]["label"]), 1.0, keep)
    assert (keep != expected).any()
    np.testing.assert_array_equal(one["mixed_weight"], expected)


def test_bank_classes(method, state, batch, default_targets):
    label = np.asarray(batch["source"]["label"])
    without = dataclasses.replace(method, bank=False).mix(state, batch, default_targets)[0]
    only = dataclasses.replace(method, bank_classes=(7,)).mix(state, batch, default_targets)[0]
    expected = np.where(label == 7, 7, without["mixed_label"])
    np.testing.assert_array_equal(only["mixed_label"], expected)


def test_bank_size(method, batch):
    def bank(**changes):
        return jax.eval_shape(dataclasses.replace(method, **changes).init, jax.random.key(0), batch).bank

    assert bank(bank_size=2).image.shape == (2, *batch["source"]["image"].shape)
    assert bank(bank=False) == {}


# Section 3.2.2: refinement


def test_refine_uses_the_day_view(method, state, batch, targets, default_targets):
    plain = targets(dataclasses.replace(method, refine=False), state)
    teacher = method.variables(state, "teacher")
    expected = Dacs.targets(method, state, teacher, {"target": {"image": batch["target"]["image"]}})[0]
    assert distance(plain, expected) == 0
    assert (plain.label != default_targets.label).any()
    other = targets(method, state, {"reference": batch["target"]["image"]})
    np.testing.assert_array_equal(other.label, plain.label)  # A day view equal to night changes nothing.


def test_refine_gamma(method, state, targets, default_targets):
    never = targets(dataclasses.replace(method, refine_gamma=1000.0), state)
    plain = targets(dataclasses.replace(method, refine=False), state)
    np.testing.assert_array_equal(never.label, plain.label)
    assert distance(never.confidence, default_targets.confidence) > 1e-3


def test_true_flow(method, state, batch, targets, default_targets):
    aligned = dataclasses.replace(method, aligner="true_flow")
    target = batch["target"]
    plain = targets(dataclasses.replace(method, refine=False), state)
    nowhere = targets(aligned, state, {"flow_valid": jnp.zeros_like(target["flow_valid"])})
    np.testing.assert_array_equal(nowhere.label, plain.label)
    moved = targets(aligned, state)
    assert distance(moved.confidence, default_targets.confidence) > 1e-3
    invalid = ~np.asarray(target["flow_valid"])
    np.testing.assert_array_equal(np.asarray(moved.label)[invalid], np.asarray(plain.label)[invalid])
    still = targets(aligned, state, {"flow": jnp.zeros_like(target["flow"])})
    assert distance(still.confidence, moved.confidence) > 1e-3


def test_unknown_aligner(method):
    with pytest.raises(UserError, match="true_flow"):
        dataclasses.replace(method, aligner="true_flo")


def test_adapt_to_ref_takes_the_day_view_at_times(method, state, batch, targets):
    adapting = dataclasses.replace(method, adapt_to_ref=True, refine=False)
    images = {name: np.asarray(batch["target"][name]) / 255 for name in ("image", "reference")}
    run = jax.jit(lambda step: targets(adapting, state.replace(step=step)))
    seen = set()
    for step in range(12):
        got = run(jnp.int32(step))
        name = next(name for name, image in images.items() if np.abs(got.image - image).max() < 1e-6)
        expected = targets(dataclasses.replace(method, refine=False), state, {"image": batch["target"][name]})
        np.testing.assert_array_equal(got.label, expected.label)
        seen.add(name)
    assert seen == {"image", "reference"}


# Section 3.3: FPA


def test_fpa_switch_and_start(method, state, fpa, default_fpa):
    assert default_fpa > 0
    assert fpa(dataclasses.replace(method, fpa=False), state) is None
    assert fpa(dataclasses.replace(method, fpa_start_step=6), state) == 0
    assert float(fpa(dataclasses.replace(method, fpa_start_step=5), state)) == default_fpa


def test_fpa_weights(method, state, fpa, default_fpa):
    double = fpa(dataclasses.replace(method, fpa_weight=0.2), state)
    np.testing.assert_allclose(double, 2 * default_fpa, rtol=1e-5)
    night, both = (fpa(dataclasses.replace(method, fpa_mixed_weight=weight), state) for weight in (0.0, 1.0))
    np.testing.assert_allclose(night + 0.1 * (both - night), default_fpa, rtol=1e-5)
    assert both > night > 0


def test_fpa_class_weight(method, state, fpa, default_fpa):
    share = tuple(map(float, np.array(CITYSCAPES.pixel_share)))
    for rule in ("ds_inv", "dannet"):
        value = fpa(dataclasses.replace(method, fpa_class_weight=rule, pixel_share=share), state)
        assert np.isfinite(value) and abs(float(value) - default_fpa) > 1e-6
    with pytest.raises(UserError, match="pixel_share"):
        fpa(dataclasses.replace(method, fpa_class_weight="dannet"), state)


def test_fpa_gives_night_features_no_gradient(method, state, default_mix):
    class FixedNight(DsrFpa):
        """The night pass does not see the parameters in question."""

        def student_forward(self, state, params, stats, image, name, part=0):
            params = state.params["student"] if name == "night" else params
            return super().student_forward(state, params, stats, image, name, part)

    def gradient(method):
        def loss(params):
            return method.losses(state, params, {}, default_mix[0], 0)[0]["loss_fpa"]

        return jax.grad(loss)(state.params["student"])

    fields = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    got, want = gradient(method), gradient(FixedNight(**fields))
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(want["backbone"])) > 0
    assert distance(got, want) == 0


def test_accumulate(method, state, batch):
    """Without norms two halves give the whole batch's gradient, FPA and bank included."""
    whole, scalars = jax.jit(method.train_step)(state, batch)
    halves, half_scalars = jax.jit(dataclasses.replace(method, accumulate=2).train_step)(state, batch)
    assert distance(whole.params, state.params) > 1e-3
    assert distance(whole.params, halves.params) < 1e-6
    assert scalars["loss_fpa"] > 0
    for name, value in scalars.items():
        np.testing.assert_allclose(half_scalars[name], value, rtol=1e-5, err_msg=name)
