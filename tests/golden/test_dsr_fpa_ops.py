"""Parameter-free operations of DSR + FPA against the official code's numbers."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.ema import ema_update
from nightjax.core.schedules import warmup_poly
from nightjax.data.sampling import rare_class_probabilities
from nightjax.ops import bank as banks
from nightjax.ops import blur, color, mixing, pseudo_label, warp
from tests.helpers.golden import largest, nchw, nhwc, sizes, thinned

SLOTS = len(CITYSCAPES) + 1


def class_set(rows, slots=SLOTS):
    """Golden class lists, padded with -1, as bool [B, slots]; the ignore value has the last slot."""
    return jnp.asarray(np.stack([np.isin(np.arange(slots), np.minimum(row[row >= 0], slots - 1)) for row in rows]))


def close(actual, expected, atol):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def test_composite_mask(golden):
    file = golden("dsr_fpa", "composite_mask")
    label = jnp.asarray(file["labels"])
    drawn = class_set(file["drawn_classes"])
    closed = mixing.add_object_groups(drawn, mixing.present_classes(label))
    np.testing.assert_array_equal(closed, class_set(file["closed_classes"]))
    np.testing.assert_array_equal(mixing.class_mask(label, closed), file["mask"].astype(bool))
    present = mixing.present_classes(label)
    np.testing.assert_array_equal(drawn.sum(1), (present.sum(1) + 1) // 2)


def mixed_target(file, threshold):
    """Mask, pseudo-label and share from a golden file with recorded class draws."""
    label = jnp.asarray(file["label_src"])
    closed = mixing.add_object_groups(class_set(file["drawn_classes"]), mixing.present_classes(label))
    pseudo, confidence = pseudo_label.pseudo_label(nhwc(file["probs_trg"]))
    share = pseudo_label.confident_fraction(confidence, float(threshold))
    return mixing.class_mask(label, closed), pseudo.astype(label.dtype), share


def mixed_weight(mask, share, *rows):
    """1 on source pixels, that of the pseudo-label elsewhere."""
    return mixing.mix(mask, jnp.ones(mask.shape), pseudo_label.pixel_weight(share, mask.shape[1:], *rows))


def test_mixup(golden):
    file = golden("dsr_fpa", "mixup")
    mask, pseudo, share = mixed_target(file, file["threshold"])
    image = mixing.mix(mask, nhwc(file["image_src"]), nhwc(file["image_trg"]))
    close(image, nhwc(file["mixed_image"]), 1e-5)
    np.testing.assert_array_equal(mixing.mix(mask, jnp.asarray(file["label_src"]), pseudo), file["mixed_label"])
    close(mixed_weight(mask, share), file["mixed_weight"], 1e-5)
    top, bottom = (int(n) for n in file["rows_top_bottom"])
    close(mixed_weight(mask, share, top, bottom), file["rows.mixed_weight"], 1e-5)


def test_mixup_strong(golden):
    file = golden("dsr_fpa", "mixup_strong")
    mask, pseudo, share = mixed_target(file, file.get("threshold", 0.968))
    image = mixing.mix(mask, nhwc(file["image_src"]), nhwc(file["image_trg"]))
    jittered = color.normalize(color.apply_jitter(color.denormalize(image), jitter_of(file)))
    sigma = jnp.asarray(file["sigma"])
    blurred = blur.gaussian_blur(jittered, sigma, max_sigma=float(file["sigma"].max()))
    close(blurred, nhwc(file["mixed_image"]), 1e-4)
    np.testing.assert_array_equal(mixing.mix(mask, jnp.asarray(file["label_src"]), pseudo), file["mixed_label"])
    close(mixed_weight(mask, share), file["mixed_weight"], 1e-5)


def test_pseudo_weight(golden):
    file = golden("dsr_fpa", "pseudo_weight")
    label, confidence = pseudo_label.pseudo_label(nhwc(file["probs"]))
    np.testing.assert_array_equal(label, file["pseudo_label"])
    np.testing.assert_array_equal(confidence, file["confidence"])
    for name, threshold in decimals(file, "q_").items():
        share = pseudo_label.confident_fraction(confidence, threshold)
        np.testing.assert_allclose(share, np.full(len(label), file[name]), rtol=1e-6)


def jitter_of(file):
    names = ("brightness", "contrast", "saturation", "hue")
    factors = {name: jnp.asarray(file[f"{name}_factor"]) for name in names}
    return color.Jitter(order=jnp.asarray(file["order"].astype(np.int32)), **factors)


def test_color_jitter(golden):
    file = golden("dsr_fpa", "color_jitter")
    image = nhwc(file["image01"])
    close(color.normalize(image), nhwc(file["image_normalised"]), 1e-5)
    out = color.apply_jitter(color.denormalize(nhwc(file["image_normalised"])), jitter_of(file))
    error = np.abs(np.asarray(color.normalize(out)) - nhwc(file["out_normalised"]))
    assert error.max() < 1e-4
    assert np.median(error) < 1e-6


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_color_jitter_single_operation(golden, name):
    file = golden("dsr_fpa", "color_jitter")
    image = nhwc(file["image01"])[file["op.input_indices"]]
    one = jnp.ones(len(image))
    factors = {"brightness": one, "contrast": one, "saturation": one, "hue": 0 * one}
    source = {"brightness": "add", "contrast": "mul", "saturation": "mul", "hue": "turns"}[name]
    factors[name] = jnp.asarray(file[f"op.{name}_{source}"]) + (name == "brightness")
    jitter = color.Jitter(order=jnp.tile(jnp.arange(4), (len(image), 1)), **factors)
    close(color.apply_jitter(image, jitter), nhwc(file[f"op.{name}"]), 1e-5)


def test_blur(golden):
    file = golden("dsr_fpa", "blur")
    for name, case in sizes(file, r"x(\d+)").items():
        x, sigma = nhwc(file[name]), jnp.full(len(file[name]), file[f"sigma{case}"])
        size = blur.blur_kernel_size(x.shape[1]), blur.blur_kernel_size(x.shape[2])
        assert size == tuple(file[f"kernel_yx{case}"])
        close(jax.jit(blur.gaussian_blur)(x, sigma), nhwc(file[f"y{case}"]), 1e-5)
        truncate = functools.partial(blur.gaussian_blur, max_sigma=float(file[f"sigma{case}"]))
        truncated = jax.jit(truncate)(x, sigma)
        close(truncated, nhwc(file[f"y{case}"]), 1e-5)
    kernels = [blur.blur_kernel_size(int(side)) for side in file["side_table"]]
    np.testing.assert_array_equal(kernels, file["kernel_table"])


def test_bank(golden):
    file = golden("dsr_fpa", "bank")
    bank = banks.empty_bank(nhwc(file["t0.image"]))
    steps = len([name for name in file if name.endswith(".bank_len")])
    for t in range(steps):
        bank = banks.push(bank, nhwc(file[f"t{t}.image"]), jnp.asarray(file[f"t{t}.label"]))
        assert int(bank.valid.sum()) == file[f"t{t}.bank_len"]
        mixed = nhwc(file[f"t{t}.mixed_image_in"])
        weight = jnp.full(mixed.shape[:3], 0.25)
        image, label, kept = banks.paste(bank, mixed, jnp.asarray(file[f"t{t}.mixed_label_in"]), weight)
        np.testing.assert_array_equal(image, nhwc(file[f"t{t}.mixed_image_out"]))
        np.testing.assert_array_equal(label, file[f"t{t}.mixed_label_out"])
        np.testing.assert_array_equal(kept, weight)


def decimals(file, prefix):
    """Name and number of every array whose name is the prefix and a decimal number."""
    return {name: float(name.removeprefix(prefix)) for name in file if re.fullmatch(rf"{prefix}[\d.]+", name)}


def test_refine(golden):
    file = golden("dsr_fpa", "refine")
    night, day = nhwc(file["logits_night"]), nhwc(file["logits_day"])
    confidence, valid = jnp.asarray(file["confidence"][:, 0]), jnp.asarray(file["warp_valid"])
    cases = {
        "aligned": pseudo_label.refine(night, day, confidence, valid),
        "aligned_all_valid": pseudo_label.refine(night, day, confidence),
        "unaligned": pseudo_label.refine(night, day),
        "disable_M": pseudo_label.refine(night, day, confidence, valid, use_static_mask=False),
        "disable_P": pseudo_label.refine(night, day, None, valid),
    }
    for name, gamma in decimals(file, "gamma_").items():
        cases[name] = pseudo_label.refine(night, day, confidence, valid, gamma=gamma)
    for name, out in cases.items():
        expected = file[name]
        np.testing.assert_allclose(thinned(nchw(out), expected, 2), expected, rtol=0, atol=1e-5, err_msg=name)
    for name, logits in (("eta_night", night), ("eta_day", day)):
        probs = jnp.exp(logits) / jnp.exp(logits).sum(-1, keepdims=True)
        close(pseudo_label.normalized_entropy(probs), file[name], 1e-5)
        if name == "eta_night":
            trust = pseudo_label.normalized_entropy(probs).mean((1, 2)) ** 0.25
            np.testing.assert_allclose(trust, file["trust_s"], rtol=1e-5)


def test_warp(golden):
    file = golden("dsr_fpa", "warp")
    for name, case in sizes(file, r"x(\d+)").items():
        warped, inside = jax.jit(warp.flow_warp)(nhwc(file[name]), nhwc(file[f"flow{case}"]))
        expected = file[f"y{case}"]
        close(warped, nhwc(expected), 1e-4 * largest(expected))
        np.testing.assert_array_equal(inside, file[f"mask{case}"])
    close(warp.flow_confidence(jnp.asarray(file["logvar"])), file["P_R1"], 1e-6)


def test_ema(golden):
    file = golden("dsr_fpa", "ema")
    for t in file["steps"]:
        before, student = (
            jnp.asarray(file[f"s{t}.teacher_before"]),
            jnp.asarray(file[f"s{t}.student"]),
        )
        after = ema_update({"w": before}, {"w": student}, int(t))["w"]
        np.testing.assert_allclose(after, file[f"s{t}.teacher_after"], rtol=1e-6, atol=1e-7)


def test_lr_schedule(golden):
    file = golden("dsr_fpa", "lr_schedule")
    factors = [warmup_poly(int(t), 40000, 1500) for t in file["iters"]]
    np.testing.assert_allclose(factors, file["factor_f64"], rtol=1e-5, atol=1e-12)
    total, warmup = (int(n) for n in file["small_max_warmup"])
    (name,) = (name for name in file if name.startswith("small_factor_power"))
    power = float(re.sub(r"\D*(\d)(\d*)_f64", r"\1.\2", name))
    factors = [warmup_poly(int(t), total, warmup, power=power) for t in file["small_iters"]]
    np.testing.assert_allclose(factors, file[name], rtol=1e-5, atol=1e-12)


def test_rare_class_probabilities(golden):
    file = golden("dsr_fpa", "rcs_probs")
    for name in (name for name in file if "probs_by_class_T" in name):
        case, temperature = name.split(".probs_by_class_T")
        counts = file[f"{case}.pixel_counts"]
        probs = rare_class_probabilities(counts, float(temperature))
        # The official code works in float32, whose rounding of 1 - f is divided by the temperature.
        np.testing.assert_allclose(probs, file[name], rtol=1e-5, atol=1e-12)
        order = file[f"{case}.classes_ascending_T{temperature}"]
        expected = file[f"{case}.probs_T{temperature}"]
        np.testing.assert_allclose(probs[order], expected, rtol=1e-5, atol=1e-12)
        np.testing.assert_array_equal(np.sort(order), np.arange(len(probs)))
        assert (np.diff(counts.sum(0)[order]) >= 0).all()
