"""Losses of DANNet and AdaptSegNet against the official code.

Values to 1e-5 relative, gradients to 1e-4 of their maximum, the SSIM map to 1e-4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.class_weights import class_weights
from nightjax.core.schedules import mmseg_poly
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.losses.adversarial import SOURCE, TARGET, adversarial_loss, discriminator_loss, least_squares
from nightjax.losses.light import exposure_loss, light_loss, ssim_map, total_variation
from nightjax.losses.segmentation import class_weighted_cross_entropy, pixel_weighted_cross_entropy
from nightjax.losses.static import _shifted_onto_itself, static_loss
from nightjax.models.discriminator import VARIANTS, Discriminator
from nightjax.ops.pseudo_label import blend_day_night, static_pseudo_label
from nightjax.ops.resize import resize
from tests.helpers.golden import assert_within, nhwc, number, same_gradient, same_value, state_of


def test_class_weights(golden):
    file = golden("dannet", "class_weights")
    for i, std in enumerate(file["stds"]):
        for share, expected in (("freq", "weights"), ("freq_random", "weights_random")):
            actual = class_weights(file[share], float(std))
            np.testing.assert_allclose(actual, file[expected][i], atol=1e-6)


def test_total_variation(golden):
    file = golden("dannet", "tv_loss")
    loss, gradient = jax.value_and_grad(total_variation)(nhwc(file["r"]))
    same_value(loss, file["loss"])
    same_gradient(gradient, file["grad_r"])


def test_exposure(golden):
    file = golden("dannet", "exposure_loss")
    np.testing.assert_allclose(nhwc(file["night"]).mean(), file["E"], rtol=1e-5)
    enhanced = nhwc(file["enhanced"])
    loss, gradient = jax.jit(jax.value_and_grad(exposure_loss))(enhanced, jnp.asarray(file["E"]))
    same_value(loss, file["loss"])
    same_gradient(gradient, file["grad_enhanced"])
    cells = jnp.asarray(file["pooled"][:, 0])  # One level a cell: what is left is each cell's distance to its own mean.
    assert exposure_loss(enhanced, cells, form="paper") < 1e-5 * jnp.abs(cells).max()


def test_ssim(golden):
    file = golden("dannet", "ssim")
    x, y = nhwc(file["x"]), nhwc(file["y"])
    np.testing.assert_allclose(ssim_map(x, y), nhwc(file["loss_map"]), rtol=0, atol=1e-4)
    loss, gradient = jax.jit(jax.value_and_grad(lambda x: ssim_map(x, y).mean()))(x)
    same_value(loss, file["loss_mean"])
    same_gradient(gradient, file["grad_x"])


def test_light_loss(golden):
    file = golden("dannet", "light_loss")
    image, level = nhwc(file["image"]), jnp.asarray(file["E"])

    def loss(residual):
        terms = light_loss(image, residual, level)
        return terms["total"], terms

    gradient, terms = jax.jit(jax.grad(loss, has_aux=True))(nhwc(file["r"]))
    for name, value in terms.items():
        same_value(value, file[name])
    same_gradient(gradient, file["grad_r"])


def test_weighted_cross_entropy(golden):
    file = golden("dannet", "weighted_ce")
    logits, label = nhwc(file["logits_lowres"]), jnp.asarray(file["labels"])
    upsampled = resize(logits, label.shape[1:], align_corners=True)
    np.testing.assert_allclose(upsampled, nhwc(file["upsampled"]), atol=1e-5)

    weights = jnp.asarray(file["class_weights"])
    loss, gradient = jax.jit(jax.value_and_grad(class_weighted_cross_entropy))(logits, label, weights)
    same_value(loss, file["loss"])
    same_gradient(gradient, file["grad_logits_lowres"])
    paper = class_weighted_cross_entropy(logits, label, weights, normalizer="paper")
    same_value(paper, file["loss_paper_formula"])
    for weight in (0.5, 1.0):
        equal = class_weighted_cross_entropy(logits, label, jnp.full_like(weights, weight))
        same_value(equal, file["loss_unweighted"])


def test_pseudo_label(golden):
    file = golden("dannet", "pseudo_label")
    day, night = nhwc(file["pred_day"]), nhwc(file["pred_night"])
    weights = jnp.asarray(file["class_weights"])
    scores = blend_day_night(day, night, weights)
    np.testing.assert_allclose(scores, nhwc(file["fused_weighted"]), rtol=1e-5, atol=1e-6)
    for form, expected in (("official", "pseudo_gt"), ("paper", "pseudo_gt_paper_day_only")):
        label = static_pseudo_label(day, night, weights, form=form)
        assert (label == file[expected]).mean() >= 0.999, form


def static_weights(file):
    (name,) = (name for name in file if name.startswith("class_weights_"))
    return jnp.asarray(file[name])


@pytest.mark.parametrize("neighborhood", ["center", "3x3", "code"])
def test_static_loss(golden, neighborhood):
    file = golden("dannet", "static_loss")
    logits, label = nhwc(file["logits"]), jnp.asarray(file["labels"])
    weights = static_weights(file)
    loss = functools.partial(static_loss, neighborhood=neighborhood)
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits, label, weights)
    same_value(value, file[f"loss_{neighborhood}"])
    same_gradient(gradient, file[f"grad_{neighborhood}"])
    if neighborhood == "3x3":
        unit = loss(logits, label, jnp.ones_like(weights))
        same_value(unit, file["loss_3x3_unit_weights"])


def test_labels_at_the_border(golden):
    file = golden("dannet", "static_loss")
    logits, weights = nhwc(file["logits"]), static_weights(file)
    np.testing.assert_array_equal(_shifted_onto_itself(jnp.asarray(file["labels"])), file["labels_after_code"])
    moved = static_loss(logits, jnp.asarray(file["labels_after_code"]), weights)
    same_value(moved, file["loss_code"])


def load(file, prefix, variant, classes):
    """A discriminator as wide as the weights in the file, and these weights."""
    state = state_of(file, prefix)
    model = Discriminator(features=len(state["conv1.bias"]), **VARIANTS[variant])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, classes)))
    return model, from_torch(state, shapes)


def test_adversarial(golden):
    file = golden("dannet", "discriminator")
    source, target = nhwc(file["pred_source"]), nhwc(file["pred_target"])
    model, variables = load(file, "w.", "dannet", source.shape[-1])

    @jax.jit
    def scores(variables, logits):
        return model.apply(variables, jax.nn.softmax(logits))

    for name, logits in (("D_source", source), ("D_target", target)):
        np.testing.assert_allclose(scores(variables, logits), nhwc(file[name]), atol=1e-5)
    loss, gradient = jax.jit(jax.value_and_grad(lambda x: adversarial_loss(scores(variables, x))))(target)
    same_value(loss, file["loss_adv"])
    same_gradient(gradient, file["grad_adv_pred_target"])

    def both(variables):
        return discriminator_loss(scores(variables, source), scores(variables, target))

    loss, gradients = jax.jit(jax.value_and_grad(both))(variables)
    same_value(loss, file["loss_D_source_half"] + file["loss_D_target_half"])
    for domain, logits, wanted in (("source", source, SOURCE), ("target", target, TARGET)):
        same_value(0.5 * least_squares(scores(variables, logits), wanted), file[f"loss_D_{domain}_half"])
    for name, gradient in to_torch(gradients).items():
        assert_within(gradient, file[f"g.{name}"], 1e-4, name)


@pytest.mark.parametrize(("prefix", "kind"), [("vanilla", "vanilla"), ("ls", "least_squares")])
def test_adaptsegnet_losses(golden, prefix, kind):
    file = golden("dannet", "adaptseg_losses")
    size, label = tuple(file["size"]), jnp.asarray(file["labels"])
    options = {"normalizer": "valid", "align_corners": True}
    segmentation, adversarial = [], []
    for level in "12":
        source, target = nhwc(file[f"src{level}"]), nhwc(file[f"tgt{level}"])
        segmentation.append(pixel_weighted_cross_entropy(source, label, **options))
        same_value(segmentation[-1], file[f"loss_seg{level}"])
        model, variables = load(file, f"D{level}.", "adaptsegnet", source.shape[-1])
        score = jax.jit(functools.partial(model.apply, variables))
        scores = [score(jax.nn.softmax(resize(logits, size, align_corners=True))) for logits in (source, target)]
        np.testing.assert_allclose(scores[1], nhwc(file[f"D{level}_target_out"]), atol=1e-5)
        adversarial.append(adversarial_loss(scores[1], kind=kind))
        same_value(adversarial[-1], file[f"{prefix}.adv{level}"])
        same_value(discriminator_loss(*scores, kind=kind), file[f"{prefix}.D{level}_total"])
    total = (
        file["lambda_seg"] * segmentation[0]
        + segmentation[1]
        + file["lambda_adv1"] * adversarial[0]
        + file["lambda_adv2"] * adversarial[1]
    )
    same_value(total, file[f"{prefix}.G_total"])


def test_learning_rates(golden):
    file = golden("dannet", "lr_schedule")
    power, steps = float(file["power"]), number(file["max_iter"])
    factor = np.array([mmseg_poly(i, steps, power=power) for i in file["iters"]])
    for name, official in (("lr_g", 2.5e-4), ("lr_d", 1e-4)):
        first = file[name][file["iters"] == 0]
        np.testing.assert_allclose(factor * (first[0] if len(first) else official), file[name], rtol=1e-5)
