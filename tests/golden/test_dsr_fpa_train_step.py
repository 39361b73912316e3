"""Whole training steps of DSR+FPA, its HRDA mode and DACS against the official programs."""

import dataclasses
import itertools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.optim import Group, Optimizer
from nightjax.core.stacks import Stack
from nightjax.core.step import Training
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.methods.dacs import Dacs
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.parts.alignment import PrototypeAlignment
from nightjax.methods.parts.bank import RareClassBank
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import InputNormalization, SegmentationNetwork
from nightjax.methods.parts.pseudo_labels import PseudoLabels
from nightjax.methods.parts.refinement import DayRefinement
from nightjax.models.backbones.mit import MiT
from nightjax.models.heads.daformer import DAFormerHead
from nightjax.models.heads.segformer import SegFormerHead
from nightjax.models.hrda import HRDA, OFFSET_STRIDE
from nightjax.models.segmenter import Segmenter
from nightjax.ops import mixing
from nightjax.ops.mixing import add_object_groups, present_classes
from nightjax.ops.resize import resize
from tests.helpers.golden import nhwc, number, state_of
from tests.helpers.methods import changed

BYTES = InputNormalization(mean=(128 / 255,) * 3, std=(64 / 255,) * 3)
"""The programs were run on ``uint8 / 64 - 2``."""

FPA_EPOCH = 8
"""The first epoch with FPA."""

STACKS = tuple(Stack(f"backbone/block{stage}") for stage in (1, 2, 3, 4))
"""Of every network here."""

TERMS = {
    "src": "loss_source",
    "featdist": "loss_feature_distance",
    "fpa": "loss_fpa",
    "mix": "loss_mixed",
}

SLOTS = len(CITYSCAPES) + 1


@dataclasses.dataclass(frozen=True)
class Replay:
    """What a replay adds to a method: recorded draws, factors on the terms.

    Attributes:
        drawn: bool [steps, B, classes + 1], the recorded classes, before object groups are added.
        factors: of each loss term, to take the gradient of one at a time.
    """

    drawn: Any = None
    factors: Any = None

    def selected_classes(self, state, label):
        return jnp.asarray(self.drawn)[state.step]

    def prepare(self, state, teacher, batch):
        recorded = lambda key, label, **options: self.selected_classes(state, label)
        with mock.patch.object(mixing, "select_classes", recorded):
            return super().prepare(state, teacher, batch)

    def student_loss(self, state, params, stats, part, i):
        _, outcome = super().student_loss(state, params, stats, part, i)
        terms = {name: self.factors[name] * term for name, term in outcome.scalars.items()}
        return sum(terms.values()), outcome._replace(scalars=terms)


@dataclasses.dataclass(frozen=True)
class DacsReplay(Replay, Dacs):
    """DACS with recorded draws."""


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


@dataclasses.dataclass(frozen=True)
class Recording(Optimizer):
    """Keeps the last gradient in its state, see `last_gradients`."""

    def build(self, params, steps, stacks=()):
        keep = optax.GradientTransformation(
            lambda params: jax.tree.map(jnp.zeros_like, params), lambda updates, state, params=None: (updates, updates)
        )
        return optax.chain(keep, super().build(params, steps, stacks))


def last_gradients(state):
    """The student's gradients of the step that led to this state."""
    return state.opt_state["student"][0]["student"]


# Networks


def mit_sizes(shapes):
    """Constructor arguments of a MiT, heads excepted, from the shapes of its weights."""
    sizes = {"dims": [], "depths": [], "mlp_ratios": [], "sr_ratios": []}
    for i in range(1, 5):
        block = f"backbone.block{i}."
        hidden, dim = shapes[f"{block}0.mlp.fc1.weight"]
        sizes["dims"].append(dim)
        sizes["depths"].append(sum(name.startswith(block) and name.endswith("fc1.bias") for name in shapes))
        sizes["mlp_ratios"].append(hidden // dim)
        sizes["sr_ratios"].append(shapes.get(f"{block}0.attn.sr.weight", (1,))[-1])
    return {name: tuple(values) for name, values in sizes.items()}


def build_model(shapes, heads):
    """MiT and DAFormer head of these weights, in HRDA if they hold its attention; no dropout."""
    parts = {
        "backbone": MiT(**mit_sizes(shapes), heads=heads, drop_path=0.0),
        "head": DAFormerHead(
            num_classes=shapes["head.conv_seg.weight"][0],
            embed_dim=shapes["head.embed_layers.0.proj.weight"][0],
            channels=shapes["head.conv_seg.weight"][1],
            dropout=0.0,
        ),
    }
    if "hrda_scale_attention.linear_pred.weight" not in shapes:
        return Segmenter(**parts)
    classes, channels = shapes["hrda_scale_attention.linear_pred.weight"][:2]
    return HRDA(
        **parts,
        hrda_scale_attention=SegFormerHead(num_classes=classes, channels=channels, dropout=0.0),
    )


def empty_variables(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def recipe_variables(recipe, model, seed, head="head."):
    """Recipe weights under the names of a program that calls the decoder ``head``."""
    template, weights = empty_variables(model), {}
    for name, value in to_torch(template, STACKS).items():
        weights[name] = recipe(torch_name(name, head), value.shape, number(seed))
    weights["head.conv_seg.weight"] *= 9
    return from_torch(weights, template, STACKS)


def torch_name(name, head):
    return head + name.removeprefix("head.") if name.startswith("head.") else name


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


def first_state(method, recipe, file, variables, batch, head="head."):
    """Student and teacher with the recipe's weights, and the frozen network with another seed's."""
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state = method.with_initial(state, {"student": variables})
    frozen = recipe_variables(recipe, method.network.model, file["base_seed_imnet"], head)
    return state.replace(frozen={"initial": frozen})


# Files


def class_sets(ids, slots=SLOTS):
    """bool [B, slots] of class ids [B, N], -1 for none and 255 in the last slot."""
    return np.stack([np.isin(np.arange(slots), np.minimum(row[row >= 0], slots - 1)) for row in ids])


def steps_of(file):
    return sorted({name.split(".")[0] for name in file if name.startswith("it")})


def read_batch(file, step, label="semantic_src"):
    batch = {
        "source": {
            "image": nhwc(file[f"{step}.image_src"]),
            "label": jnp.asarray(file[f"{step}.{label}"], jnp.uint8),
        },
        "target": {"image": nhwc(file[f"{step}.image_trg"])},
    }
    if f"{step}.image_ref" in file:
        batch["target"]["reference"] = nhwc(file[f"{step}.image_ref"])
    return batch


def dsr_optimizer(file):
    lr, decay, eps, factor = map(float, file["hyper_lr_wd_eps_backbonefactor"])
    return Recording(
        lr=lr,
        warmup=number(file["schedule_max_warmup"][1]),
        weight_decay=decay,
        eps=eps,
        groups=(Group("^backbone/", lr=factor),),
    )


def make_step(method, terms):
    """A compiled ``(state, batch, only=None, **changes) -> state, scalars, targets, examples``.

    ``only`` names the one loss term to keep; ``changes`` replaces numbers of the method's parts.
    """

    @jax.jit
    def compiled(state, batch, changes):
        replay = changed(method, **changes)
        new, scalars = replay.train_step(state, batch)
        targets, examples, *_ = replay.prepare(state, new.teacher, batch)
        return new, scalars, targets, examples

    def step(state, batch, only=None, **changes):
        factors = {name: jnp.float32(only in (None, name)) for name in terms}
        changes = {name: jnp.float32(value) for name, value in changes.items()}
        return compiled(state, batch, {"factors": factors} | changes)

    return step


# Comparisons


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(tree))))


def check_gradients(file, prefix, tensor_prefix, grads, head="head."):
    """Against stored tensors (1e-4 of their maximum) and stored norms of the large ones."""
    grads = {torch_name(name, head): value for name, value in to_torch({"params": grads}, STACKS).items()}
    stored = state_of(file, prefix)
    assert stored
    for name, want in stored.items():
        atol = max(1e-4 * np.abs(want).max(), 1e-6)
        np.testing.assert_allclose(grads[name], want, rtol=0, atol=atol, err_msg=name)
    for name, want in state_of(file, tensor_prefix).items():
        np.testing.assert_allclose(norm(grads[name]), want, rtol=1e-4, atol=1e-6, err_msg=name)


def check_values(file, prefix, variables, head="head.", mark=""):
    """Stored values within 5e-5; ``mark`` precedes the program's names of the teacher."""
    values = {torch_name(name, head): value for name, value in to_torch(variables, STACKS).items()}
    stored = [name for name in file if name.startswith(prefix + mark)]
    assert stored, prefix
    for name in stored:
        key = name.removeprefix(prefix + mark)
        if not mark and key.startswith("m_"):
            continue
        np.testing.assert_allclose(values[key], file[name], rtol=0, atol=5e-5, err_msg=name)


def rates(optimizer, params, steps):
    """Learning rate and weight decay of each parameter, from what the first updates do."""
    ones = jax.tree.map(jnp.ones_like, params)
    transform = optimizer.build(params, steps, STACKS)

    def update(grads):
        return transform.update(grads, transform.init(params), ones)[0]

    decay = jax.tree.map(lambda u: -u, update(jax.tree.map(jnp.zeros_like, params)))
    lr = jax.tree.map(lambda u, d: (-u - d) * (1 + optimizer.eps), update(ones), decay)
    decay = jax.tree.map(lambda d, r: d / r, decay, lr)
    return tuple(to_torch({"params": tree["student"]}, STACKS) for tree in (lr, decay))


def run_dsr_fpa(file, method, state):
    """Runs every step of the file, comparing all it stores, and returns the last state."""
    step_fn = make_step(method, TERMS.values())
    zeta = method.alignment.mixed_weight
    for i, step in enumerate(steps_of(file)):
        batch = read_batch(file, step)
        for name, ours in TERMS.items():
            grads = last_gradients(step_fn(state, batch, ours, alignment__mixed_weight=zeta)[0])
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
    method = DsrFpaReplay(RecordedWindows(model, BYTES, offsets), **dsr_settings(file))
    method = changed(method, mixing__weight=0.8, alignment__mixed_weight=0.01)
    state = run_dsr_fpa(file, method, first_state(method, recipe, file, variables, batch))
    check_final(file, method, state)


def accuracy(method, state, image, label):
    """Share of all pixels, ignored ones too, that the student names right in a training pass."""

    @jax.jit
    def run(variables):
        outputs, _ = method.network.forward(variables, image, jax.random.key(0))
        logits = resize(outputs["logits"], label.shape[1:], align_corners=False)
        return (logits.argmax(-1) == label).mean()

    return run(method.variables(state))


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
    step_fn = make_step(method, names.values())
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
            share = accuracy(method, before, examples[source], label)
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
