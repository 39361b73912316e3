"""Masked consistency and the parts of VFM-UDA around it against the official programs' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nightjax.core.ema import ema_update
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.masking import MaskedConsistency
from nightjax.methods.parts.network import InputNormalization, SegmentationNetwork
from nightjax.methods.parts.pseudo_labels import PseudoLabels, Targets
from nightjax.ops import masking, pseudo_label
from nightjax.ops.resize import resize
from tests.helpers.golden import assert_within, every, nchw, nhwc, number, same_value

MEAN, STD = (123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)
INPUT = InputNormalization(mean=MEAN, std=STD)
MODES = {"separatetrg": "target", "separatesrc": "source", "separate": "both"}
"""Official name of a mode to ours."""


def test_block_masks(golden):
    file = golden("modern", "block_masks")
    for i, (height, width, block, ratio) in enumerate(file["cases"]):
        size, draws = (int(height), int(width)), file[f"c{i}.draws"][:, 0]
        assert masking.block_grid(size, int(block)) == draws.shape[1:]
        kept = masking.kept_pixels(jnp.asarray(draws), size, float(ratio))
        np.testing.assert_array_equal(kept, file[f"c{i}.mask"].astype(bool), err_msg=str(i))


def test_masked_image(golden):
    file = golden("modern", "block_masks")
    image = INPUT.decode(nhwc(file["image.uint8"]))
    kept = masking.kept_pixels(jnp.asarray(file["image.draws"][:, 0]), image.shape[1:3], 0.7)
    seen = nchw(INPUT.normalize(masking.mask_pixels(image, kept, INPUT.mean)))
    assert_within(seen, file["image.normalised_masked"], 1e-6)
    assert not seen[~np.broadcast_to(np.asarray(kept)[:, None], seen.shape)].any()


class Stand:
    """The file's stand-in for a network: a 1x1 convolution of mean colors."""

    def __init__(self, file):
        self.pool = number(file["pool"])
        self.weight, self.bias = jnp.asarray(file["conv_weight"]).T, jnp.asarray(file["conv_bias"])

    def __call__(self, image, weight=None, bias=None):
        """Logits of images in [0, 1], with other weights if given."""
        weight, bias = (self.weight, self.bias) if weight is None else (weight, bias)
        x = INPUT.normalize(image)
        b, h, w, c = x.shape
        x = x.reshape(b, h // self.pool, self.pool, w // self.pool, self.pool, c).mean((2, 4))
        return x @ weight + bias


def masked_part(file, monkeypatch, **options):
    """What the official module sees in one mode."""
    draws = jnp.asarray(file["draws"][:, 0])
    monkeypatch.setattr(masking, "draw_blocks", lambda key, batch, size, block: draws[:batch])
    part = MaskedConsistency(block=number(file["block"]), photometric=None, **options)
    weight = jnp.asarray(file["pseudo_weight"])
    target = Targets(
        INPUT.decode(nhwc(file["target_uint8"])),
        jnp.asarray(file["pseudo_label"]),
        jnp.zeros(weight.shape),
        weight.max((1, 2)),
    )
    rows = np.flatnonzero((file["pseudo_weight"] > 0).any((0, 2)))
    pseudo_labels = PseudoLabels(ignore_top=int(rows[0]), ignore_bottom=weight.shape[1] - 1 - int(rows[-1]))
    np.testing.assert_array_equal(pseudo_labels.pixel_weight(target), weight)
    network = SegmentationNetwork(nn.Module(), INPUT)
    source = INPUT.decode(nhwc(file["source_uint8"])), jnp.asarray(file["source_label"])
    return part, part(lambda name: jax.random.key(0), *source, target, pseudo_labels, SegmentationLoss(), network)


@pytest.mark.parametrize("mode", MODES)
def test_masked_consistency(golden, mode, monkeypatch):
    file = golden("modern", "masked_consistency")
    _, made = masked_part(file, monkeypatch, mode=MODES[mode])
    seen = nchw(INPUT.normalize(made["masked"]))
    stored, step = every(file, rf"{mode}\.masked_image_every(\d+)px")
    assert_within(seen[:, :, step // 2 :: step, step // 2 :: step], stored, 1e-6)
    stored, step = every(file, rf"{mode}\.label_every(\d+)px")
    label = np.asarray(made["masked_label"])
    assert any(np.array_equal(label[:, i::step, i::step], stored) for i in (0, step // 2))
    column = file[f"{mode}.weight_row_column"]
    if column.size:
        np.testing.assert_array_equal(made["masked_weight"][:, :, 5], column)
    else:
        assert (made["masked_weight"] == 1).all()
    stand = Stand(file)
    logits = stand(made["masked"])
    assert_within(nchw(logits), file[f"{mode}.logits"], 1e-5)

    def loss_of(logits):
        return SegmentationLoss()({"logits": logits}, made["masked_label"], made["masked_weight"])

    loss, gradient = jax.value_and_grad(loss_of)(logits)
    same_value(loss, file[f"{mode}.loss"])
    assert_within(nchw(gradient), file[f"{mode}.grad_logits"], 1e-5)
    weight, bias = jax.grad(lambda w: loss_of(stand(made["masked"], *w)))((stand.weight, stand.bias))
    assert_within(weight.T, file[f"{mode}.grad_conv_weight"], 1e-4)
    assert_within(bias, file[f"{mode}.grad_conv_bias"], 1e-4)


def test_weight_of_the_masked_loss(golden, monkeypatch):
    """Half the weight, half the loss; colors of the official program were off in this file."""
    file = golden("modern", "masked_consistency")
    part, made = masked_part(file, monkeypatch, mode="target", weight=0.5)
    loss = part.weight * SegmentationLoss()(
        {"logits": Stand(file)(made["masked"])}, made["masked_label"], made["masked_weight"]
    )
    same_value(loss, file["separatetrg_lambda0.5.loss"])
    same_value(2 * loss, file["separatetrgaug.loss"])


@pytest.mark.parametrize("threshold", ["0.968", "0.3", "None"])
def test_labels_of_a_teacher_of_its_own(golden, threshold):
    """Ours has one teacher; the rule that makes labels and weights is the same. No threshold is one of 0.

    The labels are those of the teacher after its updates.
    """
    file = golden("modern", "masked_consistency")
    teacher = {
        "pool": file["pool"],
        "conv_weight": file["own_teacher.conv_weight_after"][-1],
        "conv_bias": file["own_teacher.final_bias"],
    }
    name = f"own_teacher_threshold_{threshold}"
    column = file[f"{name}.weight_row_column"]
    rows = np.flatnonzero(column.any(0))
    top, bottom = (int(rows[0]), column.shape[1] - 1 - int(rows[-1])) if rows.size else (0, 0)
    image = INPUT.decode(nhwc(file["target_uint8"]))
    scores = jax.nn.softmax(resize(Stand(teacher)(image), image.shape[1:3], align_corners=False))
    rule = PseudoLabels(0.0 if threshold == "None" else float(threshold), ignore_top=top, ignore_bottom=bottom)
    targets = rule(image, scores)
    np.testing.assert_array_equal(targets.label, file[f"{name}.label"])
    np.testing.assert_allclose(rule.pixel_weight(targets)[:, :, 5], column, rtol=1e-6)


def test_moving_average_of_a_teacher_of_its_own(golden):
    file = golden("modern", "masked_consistency")
    teacher = {"weight": jnp.asarray(file["conv_weight"]), "bias": jnp.asarray(file["conv_bias"])}
    for step, stored in enumerate(file["own_teacher.conv_weight_after"]):
        student = {"weight": file["conv_weight"] * (step + 1), "bias": file["conv_bias"] - step}
        teacher = ema_update(teacher, student, step, 0.99)
        assert_within(teacher["weight"], stored, 1e-6)
    assert_within(teacher["bias"], file["own_teacher.final_bias"], 1e-6)


def test_flip_pseudo_label(golden):
    file = golden("modern", "flip_pseudo_label")
    logits = pseudo_label.flip_averaged(nhwc(file["logits"]), nhwc(file["logits_of_flipped_flipped_back"]))
    targets = PseudoLabels(float(file["threshold"]))(jnp.zeros(()), jax.nn.softmax(logits))
    np.testing.assert_array_equal(targets.label, file["label"])
    np.testing.assert_allclose(targets.confidence, file["confidence"], rtol=1e-6)
    np.testing.assert_allclose(targets.weight, np.full(len(targets.label), file["share"]), rtol=1e-6)
    weight = jnp.where(file["ignore"], 0, targets.weight[:, None, None])
    np.testing.assert_allclose(weight, file["weight"], rtol=1e-6)
