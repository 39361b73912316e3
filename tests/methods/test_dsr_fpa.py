import dataclasses

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
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.parts.alignment import PrototypeAlignment
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.pseudo_labels import PseudoLabels
from nightjax.methods.parts.refinement import DayRefinement
from nightjax.methods.parts.translation import Translation
from nightjax.methods.t2s_da import T2sDa
from tests.helpers.methods import changed, distance

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)


@pytest.fixture(scope="module")
def method(plain):
    return DsrFpa(
        plain,
        SGD,
        Training(10),
        pseudo_labels=PseudoLabels(0.3),
        mixing=ClassMix("object_groups", photometric=None),
        alignment=PrototypeAlignment(start_step=2),
        feature_distance=None,
    )


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch, step=5)


@pytest.fixture(scope="module")
def targets(batch):
    def run(method, state, target=None):
        both = batch | {"target": batch["target"] | (target or {})}
        images = method.network.decode(both)["target"]
        return method.targets(state, method.variables(state, "teacher"), both, images)[0]

    return run


@pytest.fixture(scope="module")
def default_targets(targets, method, state):
    return targets(method, state)


@pytest.fixture(scope="module")
def mix(batch):
    """``mix(method, state) -> examples, memory``."""

    def run(method, state):
        _, examples, _, memory = method.prepare(state, method.variables(state, "teacher"), batch)
        return examples, memory

    return run


@pytest.fixture(scope="module")
def default_mix(mix, method, state):
    return mix(method, state)


@pytest.fixture(scope="module")
def fpa(default_mix):
    """``fpa(method, state)``: the term of FPA."""

    def run(method, state):
        _, outcome = method.student_loss(state, state.params, state.batch_stats, default_mix[0], 0)
        return outcome.scalars.get("loss_fpa")

    return run


@pytest.fixture(scope="module")
def default_fpa(fpa, method, state):
    return float(fpa(method, state))


def tail_pixels(label):
    return np.isin(np.asarray(label), CITYSCAPES.group("rare"))


def test_two_steps(batch, small_resnet):
    method = DsrFpa(
        small_resnet,
        Optimizer(lr=1e-2),
        Training(10),
        mixing=ClassMix("object_groups", photometric=None),
        alignment=PrototypeAlignment(start_step=1),
    )
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step = jax.jit(method.train_step)
    after, first = step(state, batch)
    last, second = step(after, batch)
    assert all(np.isfinite(value) for scalars in (first, second) for value in scalars.values())
    assert first["loss_fpa"] == 0 and second["loss_fpa"] > 0
    assert second["loss_source"] < first["loss_source"]
    assert distance(last.params, after.params) > 1e-4
    bank = last.memory["bank"]
    np.testing.assert_array_equal(bank.valid, [False, True, True])
    np.testing.assert_array_equal(bank.label[-1], batch["source"]["label"])


# Section 3.2.1: mask and bank


def test_bank_pastes_tail_classes_on_due_steps(method, state, batch, mix, default_mix):
    label, tail = np.asarray(batch["source"]["label"]), tail_pixels(batch["source"]["label"])
    examples, memory = default_mix
    np.testing.assert_array_equal(np.asarray(examples["mixed_label"])[tail], label[tail])
    without, nothing = mix(changed(method, bank=None), state)
    assert nothing == {}
    assert (np.asarray(without["mixed_label"])[tail] != label[tail]).any()
    later = state.replace(step=state.step + 1)
    same = mix(changed(method, bank=None), later)[0]
    undue, pushed = mix(method, later)
    assert distance(undue, same) == 0
    jax.tree.map(np.testing.assert_array_equal, pushed, memory)
    due = mix(changed(method, bank__every=6), later)[0]
    np.testing.assert_array_equal(np.asarray(due["mixed_label"])[tail], label[tail])


def test_bank_weight(method, state, batch, mix, default_mix):
    keep = np.asarray(default_mix[0]["mixed_weight"])
    one = mix(changed(method, bank__pasted_weight="one"), state)[0]
    expected = np.where(tail_pixels(batch["source"]["label"]), 1.0, keep)
    assert (keep != expected).any()
    np.testing.assert_array_equal(one["mixed_weight"], expected)


def test_bank_pixels_have_the_weight_of_their_class(method, state, batch, mix):
    """With class weights, as pasted source pixels have it, not that of the pixel they cover."""
    table = tuple(np.linspace(0.5, 2, 19))
    label = np.asarray(batch["source"]["label"])
    tail = tail_pixels(label)
    weighted = changed(method, loss__class_weights=table)
    examples = mix(weighted, state)[0]
    without = np.asarray(mix(changed(weighted, bank=None), state)[0]["mixed_weight"])
    expected = np.where(tail, np.float32((*table, *[0] * 237))[label], without)
    assert (expected != without).any()
    np.testing.assert_array_equal(examples["mixed_weight"], expected)


def test_bank_classes(method, state, batch, mix):
    label = np.asarray(batch["source"]["label"])
    without = mix(changed(method, bank=None), state)[0]
    only = mix(changed(method, bank__classes=(7,)), state)[0]
    expected = np.where(label == 7, 7, without["mixed_label"])
    np.testing.assert_array_equal(only["mixed_label"], expected)


def test_bank_size(method, batch):
    def memory(**changes):
        return jax.eval_shape(changed(method, **changes).init, jax.random.key(0), batch).memory

    assert memory(bank__size=2)["bank"].image.shape == (2, *batch["source"]["image"].shape)
    assert memory(bank=None) == {}
    with pytest.raises(UserError, match="method.bank.every=0 must be 1 or more"):
        changed(method, bank__every=0)


# Section 3.2.2: refinement


def test_refine_uses_the_day_view(method, state, batch, targets, default_targets):
    plain = targets(changed(method, refinement=None), state)
    teacher = method.variables(state, "teacher")
    parts = {"pseudo_labels": method.pseudo_labels, "mixing": method.mixing, "feature_distance": None}
    expected = Dacs(method.network, SGD, method.training, **parts).prepare(state, teacher, batch)[0]
    assert distance(plain, expected) == 0
    assert (plain.label != default_targets.label).any()
    other = targets(method, state, {"reference": batch["target"]["image"]})
    np.testing.assert_array_equal(other.label, plain.label)  # A day view equal to night changes nothing.


def test_refine_gamma(method, state, targets, default_targets):
    never = targets(changed(method, refinement__gamma=1000.0), state)
    plain = targets(changed(method, refinement=None), state)
    np.testing.assert_array_equal(never.label, plain.label)
    assert distance(never.confidence, default_targets.confidence) > 1e-3


def test_true_flow(method, state, batch, targets, default_targets):
    aligned = changed(method, refinement__aligner="true_flow")
    target = batch["target"]
    plain = targets(changed(method, refinement=None), state)
    nowhere = targets(aligned, state, {"flow_valid": jnp.zeros_like(target["flow_valid"])})
    np.testing.assert_array_equal(nowhere.label, plain.label)
    moved = targets(aligned, state)
    assert distance(moved.confidence, default_targets.confidence) > 1e-3
    invalid = ~np.asarray(target["flow_valid"])
    np.testing.assert_array_equal(np.asarray(moved.label)[invalid], np.asarray(plain.label)[invalid])
    still = targets(aligned, state, {"flow": jnp.zeros_like(target["flow"])})
    assert distance(still.confidence, moved.confidence) > 1e-3


def test_unknown_aligner():
    with pytest.raises(UserError, match="did you mean 'true_flow'"):
        configs.build(DayRefinement, {"aligner": "true_flo"}, "method.refinement")


def test_the_day_view_takes_the_nights_place_at_times(method, state, batch, targets):
    adapting = changed(method, reference_swap=True, refinement=None)
    images = {name: np.asarray(batch["target"][name]) / 255 for name in ("image", "reference")}
    run = jax.jit(lambda step: targets(adapting, state.replace(step=step)))
    seen = set()
    for step in range(12):
        got = run(jnp.int32(step))
        name = next(name for name, image in images.items() if np.abs(got.image - image).max() < 1e-6)
        expected = targets(changed(method, refinement=None), state, {"image": batch["target"][name]})
        np.testing.assert_array_equal(got.label, expected.label)
        seen.add(name)
    assert seen == {"image", "reference"}


# Section 3.3: FPA


def test_fpa_switch_and_start(method, state, fpa, default_fpa):
    assert default_fpa > 0
    assert fpa(changed(method, alignment=None), state) is None
    assert fpa(changed(method, alignment__start_step=6), state) == 0
    assert float(fpa(changed(method, alignment__start_step=5), state)) == default_fpa


def test_fpa_at_every_kth_step(method, state, fpa, default_fpa):
    """Counted from the first step with FPA: from 2, every third step is 2, 5, 8."""
    values = {step: fpa(changed(method, alignment__every=3), state.replace(step=jnp.int32(step))) for step in (1, 2, 4)}
    assert values[1] == values[4] == 0 and values[2] > 0
    assert float(fpa(changed(method, alignment__every=3), state)) == pytest.approx(default_fpa, rel=1e-6)  # Step 5.
    assert fpa(changed(method, alignment__every=3, alignment__start_step=0), state) == 0


def test_fpa_of_another_level(method, state, fpa, default_fpa):
    other = fpa(changed(method, alignment__level="stage1"), state)
    assert other > 0 and abs(float(other) - default_fpa) > 1e-6
    with pytest.raises(UserError, match=r"method.alignment.level='stage2' is unknown"):  # Not of this network.
        fpa(changed(method, alignment__level="stage2"), state)


def test_fpa_weights(method, state, fpa, default_fpa):
    double = fpa(changed(method, alignment__weight=0.2), state)
    np.testing.assert_allclose(double, 2 * default_fpa, rtol=1e-5)
    night, both = (fpa(changed(method, alignment__mixed_weight=weight), state) for weight in (0.0, 1.0))
    np.testing.assert_allclose(night + 0.1 * (both - night), default_fpa, rtol=1e-5)
    assert both > night > 0


def test_fpa_class_weight(method, state, fpa, default_fpa):
    share = tuple(map(float, np.array(CITYSCAPES.pixel_share)))
    for rule in ("ds_inv", "dannet"):
        value = fpa(changed(method, alignment__class_weight=rule, alignment__pixel_share=share), state)
        assert np.isfinite(value) and abs(float(value) - default_fpa) > 1e-6
    with pytest.raises(UserError, match="pixel_share"):
        unmeasured = changed(method, network__classes=dataclasses.replace(CITYSCAPES, pixel_share=()))
        fpa(changed(unmeasured, alignment__class_weight="dannet", alignment__pixel_share=None), state)


def test_fpa_gives_night_features_no_gradient(method, state, default_mix):
    class FixedNight(DsrFpa):
        """The night pass does not see the parameters in question."""

        def night_pass(self, alignment, passes, stats, image):
            fixed = dataclasses.replace(passes, params=passes.state.params["student"])
            return super().night_pass(alignment, fixed, stats, image)

    def gradient(method):
        def loss(params):
            _, outcome = method.student_loss(state, {"student": params}, state.batch_stats, default_mix[0], 0)
            return outcome.scalars["loss_fpa"]

        return jax.grad(loss)(state.params["student"])

    fields = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    got, want = gradient(method), gradient(FixedNight(**fields))
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(want["backbone"])) > 0
    assert distance(got, want) == 0


@pytest.mark.slow
def test_accumulate(method, state, batch):
    """Without norms two halves give the whole batch's gradient, FPA and bank included."""
    whole, scalars = jax.jit(method.train_step)(state, batch)
    halves, half_scalars = jax.jit(changed(method, training__accumulate=2).train_step)(state, batch)
    assert distance(whole.params, state.params) > 1e-3
    assert distance(whole.params, halves.params) < 1e-6
    assert scalars["loss_fpa"] > 0
    for name, value in scalars.items():
        np.testing.assert_allclose(half_scalars[name], value, rtol=1e-5, err_msg=name)


def test_translated_images_are_those_of_t2s_da(plain, batch, make_state):
    """Without its own parts and with Fourier-translated days, DSR+FPA is T2S-DA without the pull."""
    parts = {
        "pseudo_labels": PseudoLabels(0.3),
        "mixing": ClassMix(photometric=None),
        "translation": Translation(beta=0.05, weight=0.5),
        "feature_distance": None,
    }
    ours = DsrFpa(plain, SGD, Training(10), bank=None, refinement=None, alignment=None, **parts)
    theirs = T2sDa(plain, SGD, Training(10), pull=None, **parts)
    state, scalars = jax.jit(ours.train_step)(make_state(ours, batch), batch)
    expected, others = jax.jit(theirs.train_step)(make_state(theirs, batch), batch)
    assert scalars.keys() == others.keys() and "loss_translated" in scalars
    for a, b in zip(jax.tree.leaves((state.params, scalars)), jax.tree.leaves((expected.params, others)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    shown = ours.visualizations(state, batch)["translated"]
    assert shown.shape == batch["source"]["image"].shape and distance(shown, batch["source"]["image"] / 255) > 0.01


def test_translated_images_without_a_loss_are_refused(plain):
    with pytest.raises(UserError, match=r"set method\.translation\.weight above 0"):
        DsrFpa(plain, SGD, Training(10), translation=Translation())
