"""DANNet's step: what moves, what stays, and where gradients stop."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dannet as config
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Group, Optimizer
from nightjax.losses.adversarial import adversarial_loss
from nightjax.losses.light import light_loss
from nightjax.losses.segmentation import class_weighted_cross_entropy
from nightjax.losses.static import static_loss
from nightjax.methods.dannet import DOMAINS, Dannet
from nightjax.models import DANNET_NETWORKS, build_segmenter
from nightjax.models.discriminator import Discriminator
from nightjax.models.relight import RelightNet
from nightjax.ops.pseudo_label import static_pseudo_label
from nightjax.ops.resize import resize

FROZEN = config.FROZEN["deeplab_multi"]
LR, DECAY = 1e-2, 5e-4
SGD = Optimizer(name="sgd", lr=LR, schedule="constant", weight_decay=DECAY, decay_vectors=True)
WEIGHTS = tuple(np.linspace(0.9, 1.1, 19))


@pytest.fixture(scope="module")
def method():
    """DeepLab-v2 of a few channels, with PSPNet's auxiliary classifier, since that has a norm."""
    network = {k: v for k, v in DANNET_NETWORKS["deeplab"].items() if not k.startswith("auxiliary")}
    model = build_segmenter(
        **network,
        backbone_depths=(1, 1, 1, 1),
        backbone_widths=(2, 2, 4, 4),
        backbone_stem_features=4,
        auxiliary="psp_auxiliary",
        auxiliary_channels=4,
        light=True,
        light_features=2,
        light_blocks=0,
    )
    return Dannet(
        model=model,
        optimizer=dataclasses.replace(SGD, groups=(Group(FROZEN, lr=0.0),)),
        steps=10,
        discriminator=Discriminator(features=2),
        class_weights=WEIGHTS,
        static_class_weights=WEIGHTS,
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
    source_only = dataclasses.replace(
        method, model=small_resnet, optimizer=SGD, adversarial_weight=0.0, static_weight=0.0
    )
    first = jax.jit(fused_init(source_only.init))(jax.random.key(0), batch)
    assert set(first.params) == set(first.opt_state) == {"student"}
    assert "light" not in first.params["student"]
    _, scalars = jax.jit(source_only.train_step)(first, batch)
    assert set(scalars) == {"loss", "segmentation", "gradient_norm", "learning_rate"}
    np.testing.assert_allclose(scalars["loss"], scalars["segmentation"], rtol=1e-6)
    pictures = jax.eval_shape(source_only.panels, first, batch)
    assert not [name for name in pictures if "relit" in name or "discriminator" in name]


def test_forms_of_the_paper(plain_model, batch):
    """All of them in one step."""
    paper = Dannet(
        model=plain_model.clone(light=RelightNet(2, 0)),
        optimizer=SGD,
        steps=10,
        discriminator=Discriminator(features=2),
        class_weights=WEIGHTS,
        static_class_weights=WEIGHTS,
        form="paper",
        normalizer="paper",
        neighborhood="3x3",
    )
    shapes, rng = jax.eval_shape(paper.init, jax.random.key(0), batch), np.random.default_rng(0)
    first = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), shapes
    )  # Compiling the real one takes longer than the step.
    first = first.replace(params=jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), shapes.params))
    after, scalars = jax.jit(paper.train_step)(first, batch)
    assert all(np.isfinite(value) for value in scalars.values()) and scalars["static"] > 0
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(after))
    unread = "student/backbone/last/"  # The head reads the stage before it.
    assert all(changed for path, changed in moved(first.params, after.params).items() if not path.startswith(unread))


def test_prediction_is_that_of_the_relit_image(method, steps, batch):
    variables, image = method.variables(steps[0][-1]), batch["target"]["image"]
    logits = jax.jit(method.predict)(variables, image)
    x = method.input.normalize(method.input.decode(image))
    light = {name: tree["light"] for name, tree in variables.items()}
    rest = {name: {k: v for k, v in tree.items() if k != "light"} for name, tree in variables.items()}
    dark = jax.jit(method.model.clone(light=None).apply)
    residual = jax.jit(method.model.light.apply)(light, x)
    np.testing.assert_allclose(dark(rest, x + residual)["logits"], logits, rtol=1e-3, atol=1e-4)
    assert np.abs(dark(rest, x)["logits"] - logits).max() > 1e-4


@pytest.mark.slow
def test_one_loss_has_the_gradient_of_three_passes(method, steps, batch):
    """The official program runs day, night and source backwards one after the other."""
    state, after, _ = steps[0]
    target, weights = batch["target"], jnp.asarray(WEIGHTS, jnp.float32)
    images = {"day": target["reference"], "night": target["image"], "source": batch["source"]["image"]}
    images = {name: method.input.decode(image) for name, image in images.items()}
    level = method.input.normalize(images["night"]).mean()

    @functools.partial(jax.jit, static_argnames="domain")
    def one_pass(params, stats, day_logits, domain):
        def loss_fn(params):
            outputs, new = method.student_forward(state, params, stats, images[domain], domain)
            light = light_loss(method.input.normalize(images[domain]), outputs["residual"], level)
            logits = resize(outputs["logits"], images[domain].shape[1:3], align_corners=True)
            if domain == "source":
                loss = light["total"] + class_weighted_cross_entropy(logits, batch["source"]["label"], weights)
                return loss, (new, logits)
            scores = method.scores(state.params[domain], jax.nn.softmax(logits))
            loss = 0.01 * light["total"] + 0.01 * adversarial_loss(scores)
            if domain == "night":
                label = static_pseudo_label(day_logits, logits, weights)
                loss += static_loss(logits, label, weights[:11])
            return loss, (new, logits)

        return jax.grad(loss_fn, has_aux=True)(params)

    student, stats, day = state.params["student"], state.batch_stats["student"], None
    total = jax.tree.map(jnp.zeros_like, student)
    for domain in DOMAINS:
        grads, (stats, logits) = one_pass(student, stats, day, domain)
        day = logits if domain == "day" else day
        total = jax.tree.map(jnp.add, total, grads)
    frozen = re.compile(FROZEN.replace("student/", ""))
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


def test_panels(method, steps, batch):
    panels = jax.jit(method.panels)(steps[0][-1], batch)
    assert {"night_relit", "night_residual", "discriminator_day", "pseudo_label"} <= set(panels)
    for name, picture in panels.items():
        assert picture.dtype in (jnp.uint8, jnp.float32), name
        if picture.dtype == jnp.float32:
            assert picture.shape[-1] == 3
            assert float(picture.min()) >= 0 and float(picture.max()) <= 1
