"""Whole training steps of DACS with masked consistency against the official program."""

import jax
import numpy as np
import pytest

from nightjax.core.optim import Group
from nightjax.core.step import Training
from nightjax.interop.torch_weights import to_torch
from nightjax.methods.parts.masking import MaskedConsistency
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.pseudo_labels import PseudoLabels
from tests.helpers.golden import assert_within, every, nchw, number
from tests.helpers.self_training_steps import (
    BYTES,
    STACKS,
    DacsReplay,
    Recording,
    accuracy,
    build_model,
    check_gradients,
    check_values,
    class_sets,
    first_state,
    last_gradients,
    make_step,
    norm,
    rates,
    read_batch,
    recipe_variables,
    steps_of,
    torch_name,
)

HEAD = "decode_head."
NUDGES = 64
MODES = {"separatetrg": "target", "separatesrc": "source", "separate": "both"}
SCALARS = {
    "decode.loss_seg": "loss_source",
    "src.loss_imnet_feat_dist": "loss_feature_distance",
    "mix.decode.loss_seg": "loss_mixed",
    "masked.decode.loss_seg": "loss_masked",
}
TERMS = {
    "source_and_feature_distance": ("loss_source", "loss_feature_distance"),
    "mixed": ("loss_mixed",),
    "masked": (),
}
"""Backward pass of the program to our terms; the masked one has a gradient of its own."""


def on_the_same_side(file, step, step_fn, state, batch):
    """The state from which every backward pass has the program's norm, to 1e-4, and these gradients.

    Some inputs of a ReLU are within a rounding of 0, and whether they pass a gradient changes the norm by more than
    that. So weights that are moved by a rounding are tried too.
    """
    found = []
    for seed in range(NUDGES):
        nudged = state if seed == 0 else state.replace(params=moved_by_a_rounding(state.params, seed))
        grads, off = {}, {}
        for name, terms in reversed(TERMS.items()):
            grads[name] = last_gradients(step_fn(nudged, batch, terms, masking__weight=float(name == "masked"))[0])
            off[name] = norm(grads[name]) / file[f"{step}.gradnorm.{name}"] - 1
            if abs(off[name]) > 1e-4:
                break
        else:
            return nudged, grads
        found.append(off)
    pytest.fail(f"{step}: gradient norms are off by {found}")


def moved_by_a_rounding(params, seed):
    """Weights moved by a ten-millionth of themselves, which float32 just resolves."""
    rng = np.random.RandomState(seed)
    return jax.tree.map(lambda x: x * (1 + 1e-7 * rng.randn(*x.shape)).astype(np.float32), params)


def check_norms(file, name, tree):
    """One norm a parameter, in the program's order."""
    ours = {torch_name(name, HEAD): norm(value) for name, value in to_torch({"params": tree}, STACKS).items()}
    norms = [ours[str(parameter)] for parameter in file["param_names"]]
    np.testing.assert_allclose(norms, file[name], rtol=1e-4, atol=1e-5 * file[name].max(), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["separatetrg", "separate"])
def test_masked_consistency(golden, recipe, mode):
    file = golden("modern", f"mic_step_{mode}")
    steps = steps_of(file)
    shapes = {
        str(name).replace(HEAD, "head."): tuple(map(int, str(shape).split()))
        for name, shape in zip(file["param_names"], file["param_shapes"], strict=True)
    }
    arch = {str(row): tuple(map(int, values)) for row, values in zip(file["arch_rows"], file["arch"], strict=True)}
    model = build_model(shapes, arch["heads"])
    variables = recipe_variables(recipe, model, file["base_seed"], HEAD)
    lr, decay, eps, head_factor = map(float, file["hyper_lr_wd_eps_headmult"])
    method = DacsReplay(
        SegmentationNetwork(model, BYTES),
        Recording(
            lr=lr,
            weight_decay=decay,
            eps=eps,
            schedule="constant",
            decay_vectors=True,
            groups=(Group("^head/", lr=head_factor), Group("norm", decay=0.0)),
        ),
        Training(len(steps)),
        pseudo_labels=PseudoLabels(
            float(file["pseudo_threshold"]), ignore_top=number(file["pseudo_weight_ignore_top"])
        ),
        mixing=ClassMix(photometric=None),
        masking=MaskedConsistency(
            MODES[str(file["mode"])], float(file["mask_ratio"]), number(file["mask_block"]), photometric=None
        ),
        drawn=np.stack([class_sets(file[f"{step}.drawn_classes"]) for step in steps]),
        blocks=np.stack([file[f"{step}.mask_draws"][:, 0] for step in steps]),
    )
    batch = read_batch(file, steps[0], "label_src")
    state = first_state(method, recipe, file, variables, batch, HEAD)

    got_lr, got_decay = rates(method.optimizer, state.params, method.training.steps)
    for name, (want_lr, want_decay) in zip(file["param_names"], file["param_lr_wd"], strict=True):
        ours = str(name).replace(HEAD, "head.")
        np.testing.assert_allclose(got_lr[ours], want_lr, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(got_decay[ours], want_decay, rtol=1e-5, err_msg=name)

    step_fn = make_step(method, SCALARS.values())
    for step in steps:
        batch = read_batch(file, step, "label_src")
        state, grads = on_the_same_side(file, step, step_fn, state, batch)
        if step == steps[0]:
            check_norms(file, f"{step}.masked_grad_norms", grads["masked"])
            check_gradients(file, f"{step}.masked_grad.", "none.", grads["masked"], HEAD)

        before, (state, scalars, targets, examples) = state, step_fn(state, batch, masking__weight=1.0)
        for name, ours in SCALARS.items():
            np.testing.assert_allclose(scalars[ours], file[f"{step}.{name}"], rtol=1e-5, err_msg=name)
        for name, image, label in (
            ("decode", "source", "source_label"),
            ("mix.decode", "mixed", "mixed_label"),
            ("masked.decode", "masked", "masked_label"),
        ):
            share = accuracy(method, before, examples[image], examples[label])
            np.testing.assert_allclose(100 * share, file[f"{step}.{name}.acc_seg"], rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(targets.label, file[f"{step}.pseudo_label"])
        for name in ("mixed_label", "masked_label"):
            np.testing.assert_array_equal(examples[name], file[f"{step}.{name}"])
        for name in ("mixed_weight_row_column", "masked_weight_column"):
            weight = examples[name.partition("_weight")[0] + "_weight"]
            np.testing.assert_allclose(weight[:, :, 5], file[f"{step}.{name}"], rtol=1e-6, err_msg=name)
        stored, pixels = every(file, rf"{step}\.masked_image_every(\d+)px")
        seen = nchw(BYTES.normalize(examples["masked"]))[:, :, 3::pixels, 3::pixels]
        assert_within(seen, stored, 1e-6)
        if step == steps[0]:
            check_norms(file, f"{step}.grad_norms", last_gradients(state))
            check_gradients(file, f"{step}.grad.", "none.", last_gradients(state), HEAD)
    student, teacher = method.variables(state), method.variables(state, "teacher")
    for name, variables in (("final", student), ("final_teacher", teacher)):
        check_norms(file, f"{name}_norms", variables["params"])
        check_values(file, f"{name}.", {"params": variables["params"]}, HEAD)
        check_values(file, f"{name}_buffer.", {"batch_stats": variables["batch_stats"]}, HEAD)
