"""Losses of DSR + FPA against the official code: values to 1e-5, gradients to 1e-4 of their max."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.losses.contrastive import fpa_loss, prototype_alignment
from nightjax.losses.feature import downscale_label, feature_distance
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from tests.helpers.golden import nhwc, same_gradient, same_value


@pytest.mark.parametrize("weighting", ["unweighted", "weighted"])
def test_pixel_weighted_cross_entropy(golden, weighting):
    file = golden("dsr_fpa", "pwce")
    weight = jnp.asarray(file["pixel_weight"]) if weighting == "weighted" else None
    label = jnp.asarray(file["labels"])
    logits = nhwc(file["logits_lowres"])
    loss, gradient = jax.jit(jax.value_and_grad(pixel_weighted_cross_entropy))(logits, label, weight)
    same_value(loss, file[f"loss_{weighting}"])
    same_gradient(gradient, file[f"grad_{weighting}"])
    ignored = pixel_weighted_cross_entropy(logits, jnp.full_like(label, 255), weight)
    assert ignored == file["loss_all_ignored"] == 0


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1))
def aligned(a, b, label_a, label_b):
    return prototype_alignment(a, label_a, b, label_b, zero_is_absent=True)[0]


def pair(file, a, b, i):
    """Loss and both gradients of FPA between image i of two domains."""
    names = (f"feat_{a}", f"label_{a}", f"feat_{b}", f"label_{b}")
    feat_a, label_a, feat_b, label_b = (file[name][i : i + 1] for name in names)

    return aligned(nhwc(feat_a), nhwc(feat_b), jnp.asarray(label_a), jnp.asarray(label_b))


@pytest.mark.parametrize("domains", ["sn", "sm", "nm"])
def test_fpa_pairs(golden, domains):
    file = golden("dsr_fpa", "fpa")
    a, b = domains
    for i in range(len(file["feat_s"])):
        value, (gradient_a, gradient_b) = pair(file, a, b, i)
        same_value(value, file[f"{domains}{i}.loss"])
        same_gradient(gradient_a, file[f"{domains}{i}.grad_{a}"])
        suffix = "n_if_not_stopped" if domains == "sn" else b
        same_gradient(gradient_b, file[f"{domains}{i}.grad_{suffix}"])


def test_fpa_total(golden):
    file = golden("dsr_fpa", "fpa")
    domains = [(nhwc(file[f"feat_{d}"]), jnp.asarray(file[f"label_{d}"])) for d in "snm"]
    for name in (name for name in file if name.startswith("L_fpa_zeta_")):
        same_value(fpa_loss(*domains, mixed_weight=float(name.removeprefix("L_fpa_zeta_"))), file[name])


@pytest.mark.parametrize("rule", ["code", "zeros_kept"])
def test_fpa_zeros(golden, rule):
    file = golden("dsr_fpa", "fpa_zeros")
    labels = jnp.asarray(file["label_a"]), jnp.asarray(file["label_b"])

    def loss(a, b):
        return prototype_alignment(a, labels[0], b, labels[1], zero_is_absent=rule == "code").mean()

    features = nhwc(file["feat_a"]), nhwc(file["feat_b"])
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*features)
    same_value(value, file[f"loss_{rule}"])
    for name, feature, gradient in zip("ab", features, gradients, strict=True):
        expected = file[f"grad_{name}_{rule}"]
        if rule == "zeros_kept":
            # At feature vectors that are zero torch divides by its clamped norm, 1e-8, and gets
            # gradients up to 1e10. Here only the gradient through the prototype is left there.
            zero = np.asarray((feature == 0).all(-1, keepdims=True))
            assert np.abs(gradient).max() < 10
            gradient, expected = (
                np.where(zero, 0, gradient),
                np.where(np.moveaxis(zero, -1, 1), 0, expected),
            )
        same_gradient(gradient, expected)


def test_feature_distance(golden):
    file = golden("dsr_fpa", "feat_dist")
    label, scale = jnp.asarray(file["labels"]), int(file["scale"])
    for name in (name for name in file if name.startswith("down_")):
        np.testing.assert_array_equal(downscale_label(label, scale, float(name[5:])), file[name])
    np.testing.assert_array_equal(np.isin(downscale_label(label, scale), CITYSCAPES.group("thing")), file["omega"])

    features, frozen = nhwc(file["feat"]), nhwc(file["feat_init"])
    for suffix, given in (("", label), ("_no_mask", None)):
        value, gradient = jax.value_and_grad(lambda x, y=given: 0.005 * feature_distance(x, frozen, y))(features)
        same_value(value, file[f"loss{suffix}"])
        same_gradient(gradient, file[f"grad{suffix}"])
