"""Whole training steps of DSR+FPA, its HRDA mode and DACS against the official programs."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.optim import Group
from nightjax.core.step import Training
from nightjax.interop.torch_weights import to_torch
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.parts.alignment import PrototypeAlignment
from nightjax.methods.parts.bank import RareClassBank
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.pseudo_labels import PseudoLabels
from nightjax.methods.parts.refinement import DayRefinement
from nightjax.models.hrda import OFFSET_STRIDE
from nightjax.ops.mixing import add_object_groups, present_classes
from tests.helpers.golden import number, state_of
from tests.helpers.methods import changed
from tests.helpers.self_training_steps import (
    BYTES,
    STACKS,
    DacsReplay,
    Recording,
    Replay,
    build_model,
    check_gradients,
    check_values,
    class_sets,
    empty_variables,
    first_state,
    last_gradients,
    make_accuracy,
    make_step,
    mit_sizes,
    norm,
    rates,
    read_batch,
    recipe_variables,
    steps_of,
)

FPA_EPOCH = 8
"""The first epoch with FPA."""

TERMS = {
    "src": "loss_source",
    "featdist": "loss_feature_distance",
    "fpa": "loss_fpa",
    "mix": "loss_mixed",
}


@dataclasses.dataclass(frozen=True)
class DsrFpaReplay(Replay, DsrFpa):
    """DSR+FPA with recorded draws."""

    def selected_classes(self, state, label):
        return add_object_groups(super().selected_classes(state, label), present_classes(label))


@dataclasses.dataclass(frozen=True)
class BankOfEpoch(RareClassBank):
    """The bank of a run that begins within an epoch.

    Attributes:
        first_batch: index in the epoch of step 0.
    """

    first_batch: int = 0

    def __call__(self, state, *args):
        return super().__call__(state.replace(step=state.step + self.first_batch), *args)


@dataclasses.dataclass(frozen=True)
class RecordedWindows(SegmentationNetwork):
    """HRDA with a recorded detail window.

    Attributes:
        offsets: of the window of each pass of the student.
    """

    offsets: Any = None

    def student_pass(self, variables, image, keys, name):
        return self.forward(variables, image, keys(f"dropout_{name}"), view={"detail_offset": self.offsets[name]})


def find_model(recipe, file, shapes, expected, head="head.", offset=None):
    """A network and its weights.

    The number of attention heads, which no file holds, is found by one loss.

    Args:
        recipe: the fixture.
        file: golden file, for its seed.
        shapes: of the weights by torch name.
        expected: ``(image, label, loss)`` of the source at the first step.
        head: name of the decoder in the program.
        offset: of HRDA's detail window in that pass.
    """
    dims = mit_sizes(shapes)["dims"]
    candidates = [c for c in itertools.product(range(1, 9), repeat=4) if not np.any(np.mod(dims, c))]
    image, label, loss = expected
    for heads in sorted(candidates, key=lambda c: np.abs(np.subtract(c, (1, 2, 3, 4))).sum()):
        model = build_model(shapes, heads)
        variables = recipe_variables(recipe, model, file["base_seed"], head)
        got = source_loss(model, variables, image, label, offset)
        if abs(got / loss - 1) < 1e-5:
            return model, variables
    pytest.fail(f"no number of attention heads gives the source loss {loss}")


def source_loss(model, variables, image, label, offset):
    network, view = SegmentationNetwork(model, BYTES), {} if offset is None else {"detail_offset": offset}

    @jax.jit
    def loss(variables):
        outputs, _ = network.forward(variables, BYTES.decode(image), jax.random.key(0), view=view)
        return SegmentationLoss()(outputs, label)

    return float(loss(variables))


def dsr_optimizer(file):
    lr, decay, eps, factor = map(float, file["hyper_lr_wd_eps_backbonefactor"])
    return Recording(
        lr=lr,
        warmup=number(file["schedule_max_warmup"][1]),
        weight_decay=decay,
        eps=eps,
        groups=(Group("^backbone/", lr=factor),),
    )


def run_dsr_fpa(file, method, state):
    """Runs every step of the file, comparing all it stores, and returns the last state."""
    step_fn = make_step(method, TERMS.values())
    zeta = method.alignment.mixed_weight
    for i, step in enumerate(steps_of(file)):
        batch = read_batch(file, step)
        for name, ours in TERMS.items():
            grads = last_gradients(step_fn(state, batch, (ours,), alignment__mixed_weight=zeta)[0])
            for part in grads:
                want = file[f"{step}.gradnorm.{name}.{part}"]
                np.testing.assert_allclose(norm(grads[part]), want, rtol=1e-4, err_msg=f"{step} {name} {part}")
        night, both = (step_fn(state, batch, alignment__mixed_weight=x)[1]["loss_fpa"] for x in (0.0, 1.0))
        np.testing.assert_allclose(night, file[f"{step}.loss_metric"], rtol=1e-5)
        np.testing.assert_allclose(both - night, file[f"{step}.loss_align"], rtol=1e-5)

        before, (state, scalars, targets, examples) = state, step_fn(state, batch, alignment__mixed_weight=zeta)
        for name, ours in TERMS.items():
            np.testing.assert_allclose(scalars[ours], file[f"{step}.loss.{name}"], rtol=1e-5, err_msg=name)
        for name, ours in {
            "src": "source",
            "featdist_src": "feature_distance",
            "uda_trg": "mixed",
        }.items():
            np.testing.assert_allclose(scalars[f"loss_{ours}"], file[f"{step}.train_loss_{name}"], rtol=1e-5)
        np.testing.assert_array_equal(targets.label, file[f"{step}.pseudo_label"])
        np.testing.assert_array_equal(examples["mixed_label"], file[f"{step}.mixed_label"])
        np.testing.assert_allclose(examples["mixed_weight"].min(), file[f"{step}.mixed_weight_min"], rtol=1e-6)
        if i == 0:
            check_gradients(file, "it0.grad.", "it0.gradnorm_tensor.", last_gradients(state))
        np.testing.assert_allclose(scalars["gradient_norm"], norm(last_gradients(state)), rtol=1e-5)
        factor = method.optimizer.groups[0].lr
        schedule = method.optimizer.schedule_fn(method.training.steps)
        np.testing.assert_allclose(scalars["learning_rate"], schedule(before.step))
        lr = schedule(state.step)
        np.testing.assert_allclose(lr * np.array([1, 1, factor, factor]), file[f"{step}.lr"], rtol=1e-6)
    return state


def check_final(file, method, state):
    student, teacher = method.variables(state), method.variables(state, "teacher")
    check_values(file, "final.", {"params": student["params"]})
    check_values(file, "final_teacher.", {"params": teacher["params"]}, mark="m_")
    check_values(file, "final_buffer.", {"batch_stats": student["batch_stats"]})
    check_values(file, "final_buffer.", {"batch_stats": teacher["batch_stats"]}, mark="m_")


def dsr_settings(file):
    steps = steps_of(file)
    return {
        "optimizer": dsr_optimizer(file),
        "training": Training(number(file["schedule_max_warmup"][0])),
        "pseudo_labels": PseudoLabels(float(file["pseudo_threshold"])),
        "mixing": ClassMix("object_groups", photometric=None),
        "bank": BankOfEpoch(first_batch=number(file["batch_idx"])),
        "refinement": DayRefinement(gamma=float(file["gamma"])),
        "alignment": PrototypeAlignment(0 if file["epoch"] >= FPA_EPOCH else len(steps)),
        "drawn": np.stack([class_sets(file[f"{step}.drawn_classes"]) for step in steps]),
    }


@pytest.mark.slow
def test_dsr_fpa(golden, recipe):
    file = golden("dsr_fpa", "train_step")
    shapes = {name: value.shape for name, value in state_of(file, "final.").items()}
    batch = read_batch(file, "it0")
    expected = batch["source"]["image"], batch["source"]["label"], file["it0.loss.src"]
    model, variables = find_model(recipe, file, shapes, expected)
    method = DsrFpaReplay(SegmentationNetwork(model, BYTES), **dsr_settings(file))
    state = run_dsr_fpa(file, method, first_state(method, recipe, file, variables, batch))
    check_final(file, method, state)
    lr, decay = rates(method.optimizer, state.params, method.training.steps)
    _, rate, _, factor = file["hyper_lr_wd_eps_backbonefactor"]
    base = method.optimizer.schedule_fn(method.training.steps)(0)
    for name in lr:
        np.testing.assert_allclose(lr[name], base * (factor if name.startswith("backbone.") else 1), rtol=1e-5)
        np.testing.assert_allclose(decay[name], rate * (lr[name].ndim > 1), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["train_step_micro", "train_step_hrda_micro"])
def test_names_and_shapes(golden, name):
    shapes = golden.small_networks("dsr_fpa")[name]
    ours = to_torch(empty_variables(build_model(shapes, (1, 1, 1, 1))), STACKS, counters=True)
    assert {name: value.shape for name, value in ours.items()} == shapes


@pytest.mark.slow
def test_dsr_fpa_hrda(golden, recipe):
    file = golden("dsr_fpa", "train_step_hrda")
    offsets = jnp.asarray(file["it0.crop_draws"], jnp.int32).reshape(3, 2) * OFFSET_STRIDE
    offsets = dict(zip(("source", "night", "mixed"), offsets, strict=True))
    batch = read_batch(file, "it0")
    expected = batch["source"]["image"], batch["source"]["label"], file["it0.loss.src"]
    shapes = golden.small_networks("dsr_fpa")["train_step_hrda_micro"]
    model, variables = find_model(recipe, file, shapes, expected, offset=offsets["source"])
    method = DsrFpaReplay(RecordedWindows(model, BYTES, offsets=offsets), **dsr_settings(file))
    method = changed(method, mixing__weight=0.8, alignment__mixed_weight=0.01)
    state = run_dsr_fpa(file, method, first_state(method, recipe, file, variables, batch))
    check_final(file, method, state)


def test_dacs(golden, recipe):
    file = golden("dsr_fpa", "dacs_step")
    final = state_of(file, "final.")
    shapes = {name.replace("decode_head.", "head."): value.shape for name, value in final.items()}
    batch = read_batch(file, "it0", "label_src")
    expected = batch["source"]["image"], batch["source"]["label"], file["it0.decode.loss_seg"]
    model, variables = find_model(recipe, file, shapes, expected, "decode_head.")
    lr, decay, eps, head_factor = map(float, file["hyper_lr_wd_eps_headmult"])
    groups = Group("^head/", lr=head_factor), Group("norm", decay=0.0)
    method = DacsReplay(
        SegmentationNetwork(model, BYTES),
        Recording(
            lr=lr,
            weight_decay=decay,
            eps=eps,
            schedule="constant",
            decay_vectors=True,
            groups=groups,
        ),
        Training(len(steps_of(file))),
        pseudo_labels=PseudoLabels(
            float(file["pseudo_threshold"]), ignore_top=number(file["pseudo_weight_ignore_top"])
        ),
        mixing=ClassMix(photometric=None),
        drawn=np.stack([class_sets(file[f"{step}.drawn_classes"]) for step in steps_of(file)]),
    )
    state = first_state(method, recipe, file, variables, batch, "decode_head.")

    got_lr, got_decay = rates(method.optimizer, state.params, method.training.steps)
    for name, (want_lr, want_decay) in zip(file["param_names"], file["param_lr_wd"], strict=True):
        ours = str(name).replace("decode_head.", "head.")
        np.testing.assert_allclose(got_lr[ours], want_lr, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(got_decay[ours], want_decay, rtol=1e-5, err_msg=name)

    names = {
        "decode.loss_seg": "loss_source",
        "src.loss_imnet_feat_dist": "loss_feature_distance",
        "mix.decode.loss_seg": "loss_mixed",
    }
    step_fn, accuracy = make_step(method, names.values()), make_accuracy(method)
    for step in steps_of(file):
        batch = read_batch(file, step, "label_src")
        present = np.flatnonzero(np.asarray(present_classes(batch["source"]["label"], scope="batch"))[0])
        np.testing.assert_array_equal(np.where(present == len(CITYSCAPES), 255, present), file[f"{step}.batch_classes"])
        before = state
        state, scalars, targets, examples = step_fn(state, batch)
        for name, source, label in (
            ("decode", "source", examples["source_label"]),
            ("mix.decode", "mixed", examples["mixed_label"]),
        ):
            share = accuracy(before, examples[source], label)
            np.testing.assert_allclose(100 * share, file[f"{step}.{name}.acc_seg"], rtol=1e-6)
        for name, ours in names.items():
            np.testing.assert_allclose(scalars[ours], file[f"{step}.{name}"], rtol=1e-5, err_msg=name)
        np.testing.assert_array_equal(targets.label, file[f"{step}.pseudo_label"])
        np.testing.assert_array_equal(examples["mixed_label"], file[f"{step}.mixed_label"])
        np.testing.assert_allclose(examples["mixed_weight"], file[f"{step}.mixed_weight"], rtol=1e-6)
        if step == "it0":
            check_gradients(file, "it0.grad.", "it0.gradnorm_tensor.", last_gradients(state), "decode_head.")
    student, teacher = method.variables(state), method.variables(state, "teacher")
    check_values(file, "final.", {"params": student["params"]}, "decode_head.")
    check_values(file, "final_teacher.", {"params": teacher["params"]}, "decode_head.")
