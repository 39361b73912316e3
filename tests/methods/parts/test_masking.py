"""The masked pass: which images and labels, how much they weigh, and what it leaves alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.dacs import Dacs
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.masking import MaskedConsistency, alternate
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.photometric import ColorJitter, Photometric
from nightjax.methods.parts.pseudo_labels import PseudoLabels, Targets
from nightjax.methods.t2s_da import T2sDa
from nightjax.models.segmenter import Segmenter
from nightjax.train import train
from tests.helpers import toy
from tests.helpers.methods import changed, distance

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)
MASKING = MaskedConsistency(block=8, photometric=None)
CLASSES = 19


@pytest.fixture(scope="module")
def method(plain):
    return build(Dacs, plain, MASKING)


PARTS = {
    Dacs: {"mixing": ClassMix(photometric=None)},
    DsrFpa: {"reference_swap": True},
    T2sDa: {"pull": None, "translation": None},
}
"""Method to its parts besides those that all have."""


def build(cls, network, masking):
    labels = PseudoLabels(0.3)
    return cls(network, SGD, Training(10), pseudo_labels=labels, masking=masking, feature_distance=None, **PARTS[cls])


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch)


def prepared(method, state, batch):
    """Targets and examples of one step before its update."""
    return method.prepare(state, method.variables(state, "teacher"), batch)[:2]


@pytest.fixture(scope="module")
def default(method, state, batch):
    return prepared(method, state, batch)


def masked_loss(method, state, examples):
    return method.masking.loss(method, state, state.params, state.batch_stats, examples, 0)[0]


def masked_gradient(method, state, examples):
    def loss(params):
        return method.masking.loss(method, state, params, state.batch_stats, examples, 0)[0]

    return jax.value_and_grad(loss)(state.params)


def decoded(method, batch, domain):
    return method.network.input.decode(batch[domain]["image"])


def hidden(method, image, examples):
    """Where the masked images have the mean color, [B, H, W]; the others must be as they were."""
    fill = (np.asarray(examples["masked"]) == np.float32(method.network.input.mean)).all(-1)
    np.testing.assert_array_equal(np.asarray(examples["masked"])[~fill], np.asarray(image)[~fill])
    return fill


def test_target(method, batch, default):
    targets, examples = default
    fill = hidden(method, decoded(method, batch, "target"), examples)
    assert 0.6 < fill.mean() < 0.8
    blocks = fill.reshape(2, 8, 8, 8, 8)
    np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[:, :, :1, :, :1], blocks.shape))
    assert (fill[0] != fill[1]).any()
    np.testing.assert_array_equal(examples["masked_label"], targets.label)
    np.testing.assert_array_equal(examples["masked_weight"], np.full(fill.shape, targets.weight[0]))


def test_source(method, state, batch):
    image, label = decoded(method, batch, "source"), batch["source"]["label"]
    examples = prepared(changed(method, masking__mode="source"), state, batch)[1]
    hidden(method, image, examples)
    np.testing.assert_array_equal(examples["masked_label"], label)
    assert (examples["masked_weight"] == 1).all()
    table = tuple(np.linspace(0.5, 2, CLASSES))
    weighted = changed(method, masking__mode="source", loss__class_weights=table)
    np.testing.assert_array_equal(
        prepared(weighted, state, batch)[1]["masked_weight"], weighted.loss.label_weight(label)
    )


def test_both(method, state, batch):
    """The first source and the first target image; the second ones change nothing."""
    both = changed(method, masking__mode="both")
    targets, examples = prepared(both, state, batch)
    images = jnp.stack([decoded(method, batch, domain)[0] for domain in ("source", "target")])
    hidden(method, images, examples)
    np.testing.assert_array_equal(examples["masked_label"][0], batch["source"]["label"][0])
    np.testing.assert_array_equal(examples["masked_label"][1], targets.label[0])
    assert (examples["masked_weight"][0] == 1).all()
    assert (examples["masked_weight"][1] == targets.weight[0]).all()

    source = batch["source"]["label"], jnp.ones(batch["source"]["label"].shape)

    def masked(image, label, targets):
        made = both.masking(
            both.training.keys(state), image, label, targets, both.pseudo_labels, both.loss, both.network
        )
        return made["masked"], made["masked_label"], made["masked_weight"]

    image, label = decoded(method, batch, "source"), source[0]
    other = Targets(*(x.at[1].set(x[1] * 0) if x.ndim > 1 else x for x in map(jnp.asarray, targets)))
    for a, b in zip(masked(image, label, targets), masked(image.at[1].set(0), label.at[1].set(3), other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_alternate():
    source, target = jnp.arange(5), 10 + jnp.arange(5)
    assert alternate(source[:4], target[:4]).tolist() == [0, 10, 2, 12]
    assert alternate(source, target).tolist() == [0, 10, 2, 12, 4]
    assert alternate(source[:, None] * jnp.ones(3), target[:, None] * jnp.ones(3)).shape == (5, 3)


def test_both_needs_two_examples(method, batch):
    one = jax.tree.map(lambda x: x[:1], batch)
    with pytest.raises(UserError, match="train.batch=2"):
        changed(method, masking__mode="both").init(jax.random.key(0), one)
    method.init(jax.random.key(0), one)


def test_nothing_masked_is_the_weighted_cross_entropy_of_the_target(method, state, batch):
    whole = changed(method, masking__ratio=0.0)
    targets, examples = prepared(whole, state, batch)
    image = decoded(method, batch, "target")
    np.testing.assert_array_equal(examples["masked"], image)
    outputs = method.network.outputs(method.variables(state), image)
    expected = SegmentationLoss()(outputs, targets.label, whole.pseudo_labels.pixel_weight(targets))
    np.testing.assert_allclose(masked_loss(whole, state, examples), expected, rtol=1e-6)
    everything = prepared(changed(method, masking__ratio=1.0), state, batch)[1]
    assert hidden(method, image, everything).all()


def test_value_by_hand(method, state, default):
    """Equal logits cost ln 19; ignored pixels count in the divisor, rows without weight too."""
    examples = dict(default[1])
    examples["masked_label"] = examples["masked_label"].at[:, ::4].set(255)
    examples["masked_weight"] = jnp.full(examples["masked_label"].shape, 0.37).at[:, 1::4].set(0)
    flat = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
    np.testing.assert_allclose(masked_loss(method, flat, examples), 0.37 * np.log(CLASSES) / 2, rtol=1e-6)


def test_no_confidence_no_loss(method, state, batch):
    unsure = changed(method, pseudo_labels__threshold=1.1)
    examples = prepared(unsure, state, batch)[1]
    loss, gradient = masked_gradient(unsure, state, examples)
    assert loss == 0 and distance(gradient, jax.tree.map(jnp.zeros_like, gradient)) == 0

    both = changed(unsure, masking__mode="both")
    examples = prepared(both, state, batch)[1]
    outputs = method.network.outputs(method.variables(state), examples["masked"][:1])
    source = SegmentationLoss()(outputs, examples["masked_label"][:1])
    np.testing.assert_allclose(masked_loss(both, state, examples), source / 2, rtol=1e-5)


def test_ignored_rows_are_those_of_the_pseudo_label(method, state, batch, default):
    rows = {"pseudo_labels__ignore_top": 4, "pseudo_labels__ignore_bottom": 2}
    weight = np.asarray(prepared(changed(method, **rows), state, batch)[1]["masked_weight"])
    assert not weight[:, :4].any() and not weight[:, -2:].any()
    np.testing.assert_array_equal(weight[:, 4:-2], default[1]["masked_weight"][:, 4:-2])
    both = changed(method, masking__mode="both", **rows)
    assert (prepared(both, state, batch)[1]["masked_weight"][0] == 1).all()


def test_colors_first_then_the_mask(method, state, batch, default):
    always = Photometric(ColorJitter(probability=1.0), blur=None)
    colored = changed(method, masking__photometric=always)
    examples = prepared(colored, state, batch)[1]
    fill = lambda made: (np.asarray(made["masked"]) == np.float32(method.network.input.mean)).all(-1)
    np.testing.assert_array_equal(fill(examples), fill(default[1]))
    assert distance(examples["masked"], default[1]["masked"]) > 1e-2
    for name in examples.keys() - {"masked"}:
        np.testing.assert_array_equal(examples[name], default[1][name], err_msg=name)
    mixed = prepared(changed(colored, mixing__photometric=always), state, batch)[1]
    np.testing.assert_array_equal(mixed["masked"], examples["masked"])


def test_steps_and_seeds_have_masks_of_their_own(method, state, batch, default):
    masks = lambda method, state: prepared(method, state, batch)[1]["masked"]
    assert distance(masks(method, state.replace(step=jnp.int32(1))), default[1]["masked"]) > 0
    assert distance(masks(changed(method, training__seed=1), state), default[1]["masked"]) > 0
    np.testing.assert_array_equal(masks(method, state), default[1]["masked"])


def test_other_terms_stay_and_the_gradient_is_added(method, state, batch, default):
    """What the other terms see is there bit for bit; the masked gradient comes on top, by its weight."""
    off = changed(method, masking=None)
    examples = prepared(off, state, batch)[1]
    assert examples.keys() | {"masked", "masked_label", "masked_weight"} == default[1].keys()
    for name, value in examples.items():
        np.testing.assert_array_equal(value, default[1][name], err_msg=name)

    weighted = jax.jit(lambda weight, state: changed(method, masking__weight=weight).train_step(state, batch))
    step = lambda weight: weighted(weight, state)
    plain, scalars = jax.jit(off.train_step)(state, batch)
    (none, _), (once, logged), (twice, double) = step(0.0), step(1.0), step(2.0)
    assert set(logged) == set(scalars) | {"loss_masked"}
    for name in ("loss_source", "loss_mixed", "pseudo_label_weight"):
        np.testing.assert_allclose(logged[name], scalars[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(double["loss_masked"], 2 * logged["loss_masked"], rtol=1e-6)
    np.testing.assert_allclose(logged["loss"], scalars["loss"] + logged["loss_masked"], rtol=1e-6)
    assert distance(none.params, plain.params) < 1e-7
    moved = jax.tree.map(lambda a, b: a - b, once.params, none.params)
    twice = jax.tree.map(lambda a, b: (a - b) / 2, twice.params, none.params)
    assert distance(moved, jax.tree.map(jnp.zeros_like, moved)) > 1e-4 and distance(moved, twice) < 1e-6


@pytest.mark.parametrize("method_class", PARTS)
def test_what_other_terms_see_is_there_bit_for_bit(plain, batch, make_state, method_class):
    """Masks and colors of masked images take nothing from the random streams of a method, at any step."""
    method = build(method_class, plain, MaskedConsistency(block=8))
    off, first = changed(method, masking=None), make_state(method, batch)
    for step in range(3):
        state = first.replace(step=jnp.int32(step))
        (targets, examples), (wanted, others) = (prepared(one, state, batch) for one in (method, off))
        assert others and examples.keys() == others.keys() | {"masked", "masked_label", "masked_weight"}
        for name, value in others.items():
            np.testing.assert_array_equal(examples[name], value, err_msg=f"{name} of step {step}")
        for name, one, other in zip(Targets._fields, targets, wanted, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"{name} of step {step}")


@pytest.mark.slow
def test_accumulation_changes_neither_masks_nor_gradients(method, state, batch):
    batch = jax.tree.map(lambda x: jnp.concatenate([x, x[:, ::-1]]), batch)
    for mode in ("target", "both"):
        whole = changed(method, masking__mode=mode)
        halves = changed(whole, training__accumulate=2)
        examples = [prepared(one, state, batch)[1]["masked"] for one in (whole, halves)]
        np.testing.assert_array_equal(*examples)
        one, scalars = jax.jit(whole.train_step)(state, batch)
        two, half_scalars = jax.jit(halves.train_step)(state, batch)
        assert distance(one.params, state.params) > 1e-3 and distance(one.params, two.params) < 1e-6
        np.testing.assert_allclose(scalars["loss_masked"], half_scalars["loss_masked"], rtol=1e-5)


def test_hrda_masks_the_crop_and_looks_through_a_window_of_its_own(plain_hrda, method, batch, make_state):
    hrda = changed(method, network=plain_hrda)
    state = make_state(hrda, batch)
    examples = prepared(hrda, state, batch)[1]
    hidden(hrda, decoded(hrda, batch, "target"), examples)
    offsets = {name: [] for name in ("source", "mixed", "masked")}
    for step in range(8):
        keys = hrda.training.keys(state.replace(step=jnp.int32(step)))
        for name, found in offsets.items():
            view = plain_hrda.model.draw_view(keys(f"detail_{name}"), examples["masked"].shape[1:3])
            found.append(view["detail_offset"].tolist())
    assert offsets["masked"] not in (offsets["source"], offsets["mixed"])
    variables, key = hrda.variables(state), jax.random.key(0)
    view = {"detail_offset": jnp.asarray(offsets["masked"][0])}
    outputs, _ = plain_hrda.forward(variables, examples["masked"], key, view=view)
    expected = SegmentationLoss()(outputs, examples["masked_label"], examples["masked_weight"])
    np.testing.assert_allclose(masked_loss(hrda, state, examples), expected, rtol=1e-6)


@pytest.mark.parametrize("method_class", [DsrFpa, T2sDa])
def test_the_other_methods_mask_what_their_teacher_has_labeled(plain, batch, make_state, method_class):
    method = build(method_class, plain, MASKING)
    state = make_state(method, batch)
    seen = set()
    for step in range(6 if method_class is DsrFpa else 1):
        now = state.replace(step=jnp.int32(step))
        targets, examples = prepared(method, now, batch)
        hidden(method, targets.image, examples)
        np.testing.assert_array_equal(examples["masked_label"], targets.label)
        shown = [name for name in ("image", "reference") if name in batch["target"]]
        seen |= {name for name in shown if distance(targets.image, batch["target"][name] / 255.0) < 1e-6}
    halves = prepared(changed(method, training__accumulate=2), now, batch)[1]
    np.testing.assert_array_equal(halves["masked"], examples["masked"])
    assert seen == ({"image", "reference"} if method_class is DsrFpa else {"image"})
    assert float(masked_loss(method, state, examples)) > 0


@pytest.mark.slow
def test_running_statistics_and_training(small_resnet, batch):
    """The student's norms see three passes, or two if asked; the loss is finite from the start, and falls."""
    method = Dacs(
        small_resnet, Optimizer(lr=1e-2), Training(20), pseudo_labels=PseudoLabels(0.05), masking=MASKING,
        feature_distance=None,
    )  # fmt: skip
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step = jax.jit(method.train_step)
    without, _ = jax.jit(changed(method, masking=None).train_step)(state, batch)
    apart, _ = jax.jit(changed(method, masking__running_statistics=False).train_step)(state, batch)
    kept, _ = step(state, batch)
    assert distance(apart.batch_stats, without.batch_stats) == 0
    assert distance(kept.batch_stats, without.batch_stats) > 1e-4
    assert distance(kept.teacher, without.teacher) == 0
    losses = []
    for _ in range(12):
        state, scalars = step(state, batch)
        losses.append(float(scalars["loss_masked"]))
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < np.mean(losses[:3])


def test_flip_averages_the_teacher(method, state, batch):
    mirrored = jax.tree.map(lambda x: x[:, :, ::-1], batch)
    averaged = changed(method, pseudo_labels__flip=True)
    (one, _), (other, _) = (prepared(averaged, state, given) for given in (batch, mirrored))
    np.testing.assert_allclose(one.confidence, other.confidence[:, :, ::-1], atol=1e-6)
    assert distance(one.confidence, prepared(method, state, batch)[0].confidence) > 1e-3


class Tokens(nn.Module):
    """A backbone of patches of 8 pixels with a mask token."""

    @nn.compact
    def __call__(self, x, train=False, deterministic=None, token_mask=None):
        x = nn.Conv(8, (8, 8), 8, name="patches")(x)
        token = self.param("mask_token", nn.initializers.ones, (8,))
        if token_mask is not None:
            x = jnp.where(token_mask.reshape(*x.shape[:3], 1), token, x)
        return {"stage1": x, "stage4": x}

    @nn.nowrap
    def token_count(self, size):
        return size[0] // 8 * size[1] // 8


class TokenSegmenter(Segmenter):
    """A network that hands the mask on."""

    def __call__(self, x, *, train=False, deterministic=None, token_mask=None):
        features = self.backbone(x, train=train, token_mask=token_mask)
        return features | {"logits": self.head(features, train=train)}


def test_masked_tokens(plain, method, batch, make_state):
    """The images stay whole; the mask token learns, and only through the masked pass."""
    tokens = changed(
        method, network=SegmentationNetwork(TokenSegmenter(Tokens(), plain.model.head)), masking__kind="token"
    )
    state = make_state(tokens, batch)
    examples = prepared(tokens, state, batch)[1]
    np.testing.assert_array_equal(examples["masked"], decoded(tokens, batch, "target"))
    masked = examples["masked_tokens"]
    assert masked.shape == (2, 64) and masked.dtype == bool and 0.5 < masked.mean() < 0.9
    halves = prepared(changed(tokens, training__accumulate=2), state, batch)[1]
    np.testing.assert_array_equal(halves["masked_tokens"], masked)
    gradient = masked_gradient(tokens, state, examples)[1]["student"]["backbone"]["mask_token"]
    assert jnp.abs(gradient).max() > 0
    own = jax.grad(lambda p: tokens.student_loss(state, p, state.batch_stats, examples, 0)[0])(state.params)
    assert not own["student"]["backbone"]["mask_token"].any()
    with pytest.raises(UserError, match="kind=token needs a network with a mask token"):
        changed(method, masking__kind="token").init(jax.random.key(0), batch)


@pytest.mark.parametrize("wrong, match", [({"ratio": 1.5}, "ratio=1.5"), ({"block": 0}, "block=0")])
def test_mistakes(wrong, match):
    with pytest.raises(UserError, match=match):
        MaskedConsistency(**wrong)


def test_visualizations(method, state, batch, default):
    np.testing.assert_array_equal(method.visualizations(state, batch)["masked"], default[1]["masked"])


@pytest.mark.slow
def test_a_run_logs_the_masked_loss(tmp_path):
    """In every line of its training log; the new network is sure enough for pseudo-labels to have weight."""
    folder = toy.write_folder(tmp_path / "data", references=True)
    settings = {"method__masking": {"block": 8}, "method__pseudo_labels__threshold": 0.054}
    train(toy.config(folder, "dacs", steps=2, **settings), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss_masked"] for line in lines if "learning_rate" in line]
    assert len(losses) == 2 and np.isfinite(losses).all() and min(losses) > 0
