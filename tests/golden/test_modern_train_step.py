"""Whole training steps of DACS with masked consistency against the official program."""

import dataclasses
import functools
import itertools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nightjax.core.optim import Group
from nightjax.core.step import Training
from nightjax.interop.torch_weights import to_torch
from nightjax.methods.parts import network
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
    build_model,
    check_gradients,
    check_values,
    class_sets,
    first_state,
    last_gradients,
    make_accuracy,
    make_step,
    norm,
    rates,
    read_batch,
    recipe_variables,
    steps_of,
    torch_name,
)

HEAD = "decode_head."
MODES = {"separatetrg": "target", "separatesrc": "source", "separate": "both"}
SCALARS = {
    "decode.loss_seg": "loss_source",
    "src.loss_imnet_feat_dist": "loss_feature_distance",
    "mix.decode.loss_seg": "loss_mixed",
    "masked.decode.loss_seg": "loss_masked",
}
PASSES = {
    "source": ("source_and_feature_distance", ("loss_source", "loss_feature_distance")),
    "mixed": ("mixed", ("loss_mixed",)),
    "masked": ("masked", ()),
}
"""Our pass to the program's name of its gradient and to our terms; the masked one has a gradient of its own."""

RELUS = 8
"""Of DAFormer's head."""

SAME = 2e-6
"""Norms of gradients on the same side agree within this."""

NEAREST, NONE = 8, 2**30
"""So many inputs of each ReLU are looked at; what stands for no input."""

UNTURNED = {f"network__{name}": np.full((RELUS, NEAREST), NONE, np.int32) for name in PASSES} | {"masking__weight": 1.0}
"""Changes of a step whose ReLUs are plain ones."""

ROUNDING = {"it0": 4e-6}
"""Inputs of a ReLU nearer to 0 than this may be on either side. Norms have made them of unit variance, and networks of
two programs agree within 7e-7 of the maximum, which is 5."""

AFTER_A_STEP = 2e-5
"""The same from the second step on: Adam has divided roundings of gradients by gradients as small as its epsilon."""

TIE = 2e-5
"""The two likeliest classes of a pixel may change places if their probabilities are no further apart than this."""


@dataclasses.dataclass(frozen=True)
class Sided(SegmentationNetwork):
    """A network with some inputs of its ReLUs turned to the other side of 0 in the student's passes.

    Attributes:
        source, mixed, masked: name of the pass to the inputs' positions, int32 [ReLUs, `NEAREST`], `NONE` for none.
    """

    source: Any = None
    mixed: Any = None
    masked: Any = None

    def student_pass(self, variables, image, keys, name, **view):
        turned = iter(getattr(self, name).astype(jnp.int32))  # `make_step` hands on float32.

        def relu(x):
            other = jnp.zeros(x.size, bool).at[next(turned)].set(True, mode="drop").reshape(x.shape)
            return jnp.where((x > 0) ^ other, x, 0.0)

        with unjitted(), mock.patch.object(nn, "relu", relu):
            return super().student_pass(variables, image, keys, name, **view)

    @functools.partial(jax.jit, static_argnums=0)
    def near_zero(self, variables, image):
        """The inputs of each ReLU that are nearest to 0 in a training pass, and their positions: [ReLUs, `NEAREST`]."""
        found = []

        def relu(x):
            near = jax.lax.top_k(-jnp.abs(x.reshape(-1)), NEAREST)[1]
            found.append((x.reshape(-1)[near], near))
            return jnp.maximum(x, 0.0)

        with unjitted(), mock.patch.object(nn, "relu", relu):
            self.forward(variables, image, jax.random.key(0))
        return [jnp.stack(parts) for parts in zip(*found, strict=True)]


@dataclasses.dataclass(frozen=True)
class UntiedLabels(PseudoLabels):
    """Pseudo-labels that are the program's where two classes are equally likely up to a rounding.

    Attributes:
        recorded: the program's, [B, H, W].
    """

    recorded: Any = None

    def __call__(self, image, scores):
        targets = super().__call__(image, scores)
        first, second = jnp.moveaxis(jax.lax.top_k(scores, 2)[0], -1, 0)
        label = jnp.where(first - second < TIE, self.recorded.astype(targets.label.dtype), targets.label)
        return targets._replace(label=label)


def unjitted():
    """A compiled pass must not be shared between passes of other ReLUs."""
    return mock.patch.object(network, "_training_pass", network._training_pass.__wrapped__)


def turned(units):
    """Positions for `Sided` of inputs ``(ReLU, position)``."""
    table = np.full((RELUS, NEAREST), NONE, np.int32)
    for i, (relu, position) in enumerate(units):
        table[relu, i] = position
    return table


def likeliest(plain, changes, wanted):
    """The fewest of some changes of a gradient with which its norm is the wanted one, their indices.

    Args:
        plain: vector.
        changes: one vector for each.
        wanted: norm.
    """
    table = np.array([plain, *changes])
    products, best = table @ table.T, (np.inf, ())
    for count in range(min(len(changes), 4) + 1):
        for chosen in itertools.combinations(range(len(changes)), count):
            rows = [0, *(i + 1 for i in chosen)]
            off = abs(np.sqrt(products[np.ix_(rows, rows)].sum()) / wanted - 1)
            best = min(best, (off, chosen))
            if off < SAME:
                return chosen
    return best[1]


def on_the_programs_side(file, step, step_fn, method, state, batch):
    """What makes a step the program's where roundings decide, and the gradient of each pass.

    Tied pseudo-labels are the recorded ones. An input of a ReLU that is within a rounding of 0 may be on its other side
    in the program. One of them changes a norm by 1e-5 to 1e-3 of it, and Adam's step by much more; where all are on the
    program's side, norms agree within 1e-6. No weight is moved.
    """
    found, grads = UNTURNED | {"pseudo_labels__recorded": file[f"{step}.pseudo_label"]}, {}
    plain_step, examples = found, step_fn(state, batch, **found)[3]
    for name, (backward, terms) in PASSES.items():
        wanted = float(file[f"{step}.gradnorm.{backward}"])

        def gradients(units, name=name, terms=terms):
            given = plain_step | {f"network__{name}": turned(units), "masking__weight": float(name == "masked")}
            return last_gradients(step_fn(state, batch, terms, **given)[0])

        grads[name], units = gradients(()), []
        if abs(norm(grads[name]) / wanted - 1) > SAME:
            values, positions = map(np.asarray, method.network.near_zero(method.variables(state), examples[name]))
            close = np.abs(values) < ROUNDING.get(step, AFTER_A_STEP)
            units = [(relu, int(positions[relu, i])) for relu, i in zip(*np.nonzero(close), strict=True)]
            plain = vector(grads[name])
            chosen = likeliest(plain, [vector(gradients([unit])) - plain for unit in units], wanted)
            units = [units[i] for i in chosen]
            grads[name] = gradients(units)
        off = norm(grads[name]) / wanted - 1
        assert abs(off) < 1e-5, f"{step}: the gradient norm of pass {name} is off by {off}"
        found = found | {f"network__{name}": turned(units)}
    return found, grads


def vector(tree):
    """All numbers of a tree, float64."""
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


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
        Sided(model, BYTES),
        Recording(
            lr=lr,
            weight_decay=decay,
            eps=eps,
            schedule="constant",
            decay_vectors=True,
            groups=(Group("^head/", lr=head_factor), Group("norm", decay=0.0)),
        ),
        Training(len(steps)),
        pseudo_labels=UntiedLabels(
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

    step_fn, accuracy = make_step(method, SCALARS.values()), make_accuracy(method)
    for step in steps:
        batch = read_batch(file, step, "label_src")
        sides, grads = on_the_programs_side(file, step, step_fn, method, state, batch)
        if step == steps[0]:
            check_norms(file, f"{step}.masked_grad_norms", grads["masked"])
            check_gradients(file, f"{step}.masked_grad.", "none.", grads["masked"], HEAD)

        before, (state, scalars, targets, examples) = state, step_fn(state, batch, **sides)
        for name, ours in SCALARS.items():
            np.testing.assert_allclose(scalars[ours], file[f"{step}.{name}"], rtol=1e-5, err_msg=name)
        for name, image, label in (
            ("decode", "source", "source_label"),
            ("mix.decode", "mixed", "mixed_label"),
            ("masked.decode", "masked", "masked_label"),
        ):
            share = accuracy(before, examples[image], examples[label])
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
