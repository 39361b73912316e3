"""DANNet's step: what moves, what stays, and where gradients stop."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import config as configs
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Group, Optimizer
from nightjax.core.step import Training
from nightjax.losses.adversarial import adversarial_loss
from nightjax.losses.light import light_loss
from nightjax.losses.segmentation import class_weighted_cross_entropy
from nightjax.losses.static import static_loss
from nightjax.methods.dannet import VIEWS, AdversarialLoss, Dannet, StaticLoss
from nightjax.methods.parts.discriminators import DiscriminatorForm, Discriminators
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.models import build_segmenter
from nightjax.models.relight import RelightNet
from nightjax.ops.pseudo_label import static_pseudo_label
from nightjax.ops.resize import resize
from nightjax.zoo.models import MODELS

(FROZEN,) = configs.load("dannet:data=cityscapes_to_dark_zurich,model=deeplab").optim.groups
LR, DECAY = 1e-2, 5e-4
SGD = Optimizer(name="sgd", lr=LR, schedule="constant", weight_decay=DECAY, decay_vectors=True)
WEIGHTS = tuple(np.linspace(0.9, 1.1, 19))
ADVERSARIAL = AdversarialLoss(discriminators=Discriminators(DiscriminatorForm(2)))


@pytest.fixture(scope="module")
def method():
    """DeepLab-v2 of a few channels, with PSPNet's auxiliary classifier, since that has a norm."""
    network = {k: v for k, v in MODELS["deeplab_multi"].items() if not k.startswith("auxiliary")}
    model = build_segmenter(
        **network,
        backbone_depths=(1, 1, 1, 1),
        backbone_widths=(2, 2, 4, 4),
        backbone_stem_features=4,
        auxiliary="psp_auxiliary",
        auxiliary_channels=4,
        relight=True,
        relight_features=2,
        relight_blocks=0,
    )
    return Dannet(
        SegmentationNetwork(model),
        dataclasses.replace(SGD, groups=(Group(**FROZEN),)),
        Training(10),
        class_weights=WEIGHTS,
        adversarial=ADVERSARIAL,
        static=StaticLoss(class_weights=WEIGHTS),
    )


@pytest.fixture(scope="module")
def steps(method, batch):
    """The first state and those after one and two steps, and the scalars of both steps."""
    first = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step, scalars = jax.jit(method.train_step), []
    states = [first]
    for _ in range(2):
        state, values = step(states[-1], batch)
        states.append(state)
        scalars.append(values)
    return states, scalars


def flat(tree):
    """Path to leaf."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(key.key for key in path): value for path, value in leaves}


def moved(first, last):
    """Path to whether the leaf changed."""
    return flat(jax.tree.map(lambda a, b: bool((a != b).any()), first, last))


def test_two_steps_are_finite_and_move_the_loss(steps):
    states, scalars = steps
    assert states[-1].step == 2
    assert all(np.isfinite(value) for values in scalars for value in values.values())
    assert scalars[0]["loss"] != scalars[1]["loss"]


def test_what_is_trained_and_what_is_not(steps):
    """Unused branches and classifiers and the norms of DeepLab's blocks stay, all statistics move."""
    first, _, last = steps[0]
    params = moved(first.params, last.params)
    unused = {
        p
        for p in params
        if p.startswith(("student/auxiliary/", "student/head/conv2d_list_2", "student/head/conv2d_list_3"))
    }
    norms = {p for p in params if p.startswith("student/backbone/layer") and p.endswith(("/scale", "/bias"))}
    assert unused and norms
    assert {path for path, changed in params.items() if not changed} == unused | norms
    statistics = moved(first.batch_stats, last.batch_stats)
    assert any(path.startswith("student/auxiliary/") for path in statistics)
    assert all(statistics.values())


def test_the_loss_is_the_sum_of_its_weighted_terms(steps):
    for scalars in steps[1]:
        total = scalars["segmentation"] + scalars["static"]
        for domain, weight in (("day", 0.01), ("night", 0.01), ("source", 1.0)):
            light = 10 * scalars[f"tv_{domain}"] + scalars[f"ssim_{domain}"]
            total += weight * (light + scalars[f"exposure_{domain}"])
            if domain != "source":
                total += 0.01 * scalars[f"adversarial_{domain}"]
        np.testing.assert_allclose(scalars["loss"], total, rtol=1e-5)


def test_parts_can_be_switched_off(method, small_resnet, batch):
    source_only = dataclasses.replace(method, network=small_resnet, optimizer=SGD, adversarial=None, static=None)
    first = jax.jit(fused_init(source_only.init))(jax.random.key(0), batch)
    assert set(first.params) == set(first.opt_state) == {"student"}
    assert "relight" not in first.params["student"]
    _, scalars = jax.jit(source_only.train_step)(first, batch)
    assert set(scalars) == {"loss", "segmentation", "gradient_norm", "learning_rate"}
    np.testing.assert_allclose(scalars["loss"], scalars["segmentation"], rtol=1e-6)
    pictures = jax.eval_shape(source_only.visualizations, first, batch)
    assert not [name for name in pictures if "relit" in name or "discriminator" in name]


def test_forms_of_the_paper(plain, batch):
    """All of them in one step."""
    paper = Dannet(
        SegmentationNetwork(plain.model.clone(relight=RelightNet(2, 0))),
        SGD,
        Training(10),
        class_weights=WEIGHTS,
        normalizer="paper",
        adversarial=ADVERSARIAL,
        static=StaticLoss(class_weights=WEIGHTS, neighborhood="3x3"),
        form="paper",
    )
    shapes, rng = jax.eval_shape(paper.init, jax.random.key(0), batch), np.random.default_rng(0)
    # Compiling the real one takes longer than the step.
    first = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    first = first.replace(params=jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), shapes.params))
    after, scalars = jax.jit(paper.train_step)(first, batch)
    assert all(np.isfinite(value) for value in scalars.values()) and scalars["static"] > 0
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(after))
    unread = "student/backbone/last/"  # The head reads the stage before it.
    assert all(changed for path, changed in moved(first.params, after.params).items() if not path.startswith(unread))


def test_prediction_is_that_of_the_relit_image(method, steps, batch):
    variables, image = method.variables(steps[0][-1]), batch["target"]["image"]
    logits = jax.jit(method.predict)(variables, image)
    x, model = method.network.input(image), method.network.model
    relight = {name: tree["relight"] for name, tree in variables.items()}
    rest = {name: {k: v for k, v in tree.items() if k != "relight"} for name, tree in variables.items()}
    dark = jax.jit(model.clone(relight=None).apply)
    residual = jax.jit(model.relight.apply)(relight, x)
    np.testing.assert_allclose(dark(rest, x + residual)["logits"], logits, rtol=1e-3, atol=1e-4)
    assert np.abs(dark(rest, x)["logits"] - logits).max() > 1e-4


@pytest.mark.slow
def test_one_loss_has_the_gradient_of_three_passes(method, steps, batch):
    """The official program runs day, night and source backwards one after the other."""
    state, after, _ = steps[0]
    network, keys, judge = method.network, method.training.keys(steps[0][0]), ADVERSARIAL.discriminators
    target, weights = batch["target"], jnp.asarray(WEIGHTS, jnp.float32)
    images = {"day": target["reference"], "night": target["image"], "source": batch["source"]["image"]}
    images = {name: network.input.decode(image) for name, image in images.items()}
    level = network.input.normalize(images["night"]).mean()

    @functools.partial(jax.jit, static_argnames="domain")
    def one_pass(params, stats, day_logits, domain):
        def loss_fn(params):
            variables = {"params": params, "batch_stats": stats}
            outputs, new = network.student_pass(variables, images[domain], keys, domain)
            light = light_loss(network.input.normalize(images[domain]), outputs["residual"], level)
            logits = resize(outputs["logits"], images[domain].shape[1:3], align_corners=True)
            if domain == "source":
                loss = light["total"] + class_weighted_cross_entropy(logits, batch["source"]["label"], weights)
                return loss, (new, logits)
            scores = judge.scores(state.params[domain], jax.nn.softmax(logits))
            loss = 0.01 * light["total"] + 0.01 * adversarial_loss(scores)
            if domain == "night":
                label = static_pseudo_label(day_logits, logits, weights)
                loss += static_loss(logits, label, weights[:11])
            return loss, (new, logits)

        return jax.grad(loss_fn, has_aux=True)(params)

    student, stats, day = state.params["student"], state.batch_stats["student"], None
    total = jax.tree.map(jnp.zeros_like, student)
    for domain in VIEWS:
        grads, (stats, logits) = one_pass(student, stats, day, domain)
        day = logits if domain == "day" else day
        total = jax.tree.map(jnp.add, total, grads)
    frozen = re.compile(FROZEN["pattern"])
    for path, grad in flat(total).items():
        old, new = (flat(s.params["student"])[path] for s in (state, after))
        step = (old - new) / LR - DECAY * old
        if frozen.search(path):
            np.testing.assert_array_equal(old, new)
        else:
            np.testing.assert_allclose(step, grad, atol=1e-3 * np.abs(grad).max() + 1e-4, err_msg=path)
    for path, value in flat(stats).items():
        after_all = flat(after.batch_stats["student"])[path]
        np.testing.assert_allclose(value, after_all, rtol=1e-4, atol=1e-5, err_msg=path)


def test_visualizations(method, steps, batch):
    shown = jax.jit(method.visualizations)(steps[0][-1], batch)
    assert {"night_relit", "night_residual", "discriminator_day", "pseudo_label"} <= set(shown)
    for name, picture in shown.items():
        assert picture.dtype in (jnp.uint8, jnp.float32), name
        if picture.dtype == jnp.float32:
            assert picture.shape[-1] == 3
            assert float(picture.min()) >= 0 and float(picture.max()) <= 1
