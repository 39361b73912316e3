"""Replays of self-training steps of official programs: networks and weights, recorded draws, comparisons."""

import dataclasses
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nightjax.core.classes import CITYSCAPES
from nightjax.core.optim import Optimizer
from nightjax.core.stacks import Stack
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.methods.dacs import Dacs
from nightjax.methods.parts.network import InputNormalization
from nightjax.models.backbones.mit import MiT
from nightjax.models.heads.daformer import DAFormerHead
from nightjax.models.heads.segformer import SegFormerHead
from nightjax.models.hrda import HRDA
from nightjax.models.segmenter import Segmenter
from nightjax.ops import masking, mixing
from nightjax.ops.resize import resize
from tests.helpers.golden import nhwc, number, state_of
from tests.helpers.methods import changed

BYTES = InputNormalization(mean=(128 / 255,) * 3, std=(64 / 255,) * 3)
"""The programs were run on ``uint8 / 64 - 2``."""

STACKS = tuple(Stack(f"backbone/block{stage}") for stage in (1, 2, 3, 4))
"""Of every network here."""


@dataclasses.dataclass(frozen=True)
class Replay:
    """What a replay adds to a method: recorded draws, factors on the terms.

    Attributes:
        drawn: bool [steps, B, classes + 1], the recorded classes, before object groups are added.
        blocks: [steps, B, rows, columns], the recorded numbers of the masked pass's blocks.
        factors: of each loss term, to take the gradient of one at a time.
    """

    drawn: Any = None
    blocks: Any = None
    factors: Any = None

    def selected_classes(self, state, label):
        return jnp.asarray(self.drawn)[state.step]

    def prepare(self, state, teacher, batch):
        recorded = lambda key, label, **options: self.selected_classes(state, label)
        blocks = lambda key, *shape: jnp.asarray(self.blocks)[state.step]
        with mock.patch.object(mixing, "select_classes", recorded), mock.patch.object(masking, "draw_blocks", blocks):
            return super().prepare(state, teacher, batch)

    def student_loss(self, state, params, stats, part, i):
        _, outcome = super().student_loss(state, params, stats, part, i)
        terms = {name: self.factors[name] * term for name, term in outcome.scalars.items()}
        return sum(terms.values()), outcome._replace(scalars=terms)


@dataclasses.dataclass(frozen=True)
class DacsReplay(Replay, Dacs):
    """DACS with recorded draws."""


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


def first_state(method, recipe, file, variables, batch, head="head."):
    """Student and teacher with the recipe's weights, and the frozen network with another seed's."""
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = method.with_initial(state, {"student": variables})
    frozen = recipe_variables(recipe, method.network.model, file["base_seed_imnet"], head)
    return state.replace(frozen={"initial": frozen})


def class_sets(ids):
    """bool [B, classes + 1] of class ids [B, N], -1 for none and 255 in the last slot."""
    slots = len(CITYSCAPES) + 1
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


def make_step(method, terms):
    """A compiled ``(state, batch, only=None, **changes) -> state, scalars, targets, examples``.

    ``only`` names the loss terms to keep; ``changes`` replaces numbers of the method's parts.
    """

    @jax.jit
    def compiled(state, batch, changes):
        replay = changed(method, **changes)
        new, scalars = replay.train_step(state, batch)
        targets, examples, *_ = replay.prepare(state, new.teacher, batch)
        return new, scalars, targets, examples

    def step(state, batch, only=None, **changes):
        factors = {name: jnp.float32(only is None or name in only) for name in terms}
        changes = {name: jnp.float32(value) for name, value in changes.items()}
        return compiled(state, batch, {"factors": factors} | changes)

    return step


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
    ones = jax.tree.map(np.ones_like, params)
    transform = optimizer.build(params, steps, STACKS)

    @jax.jit
    def update(grads):
        return transform.update(grads, transform.init(params), ones)[0]

    updates = [jax.tree.map(np.asarray, update(grads)) for grads in (jax.tree.map(np.zeros_like, ones), ones)]
    decay, both = (jax.tree.map(np.negative, update) for update in updates)
    lr = jax.tree.map(lambda u, d: (u - d) * (1 + optimizer.eps), both, decay)
    decay = jax.tree.map(np.divide, decay, lr)
    return tuple(to_torch({"params": tree["student"]}, STACKS) for tree in (lr, decay))


def make_accuracy(method):
    """``(state, image, label)`` to the share of all pixels, ignored too, that the student names right in training."""

    @jax.jit
    def compiled(variables, image, label):
        outputs, _ = method.network.forward(variables, image, jax.random.key(0))
        logits = resize(outputs["logits"], label.shape[1:], align_corners=False)
        return (logits.argmax(-1) == label).mean()

    return lambda state, image, label: compiled(method.variables(state), image, label)
