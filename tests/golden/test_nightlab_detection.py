"""Anchors, boxes, matching, suppression and losses against maskrcnn-benchmark."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.losses import detection
from nightjax.ops import anchors, boxes
from tests.helpers.golden import assert_within


def test_anchors(golden):
    data = golden("nightlab", "anchors")
    for kind, sizes in (("", data["sizes"]), ("small.", data["small.sizes"])):
        levels = []
        for i, (stride, size, grid) in enumerate(zip(data["strides"], sizes, data["grid_sizes_hw"], strict=True)):
            cell = anchors.cell_anchors(stride, [size], data["ratios"])
            if not kind:
                np.testing.assert_array_equal(cell, data[f"cell_anchors_level{i}"])
            levels.append(anchors.grid_anchors(cell, tuple(grid), stride))
        np.testing.assert_array_equal(np.concatenate(levels), data[f"{kind}anchors"])
        for i, size in enumerate(data["image_sizes_hw"]):
            visible = [anchors.inside_image(level, tuple(size)) for level in levels]
            if kind:
                np.testing.assert_array_equal(np.concatenate(visible), data[f"small.visibility_image{i}"])
            for level, seen in enumerate(visible) if not kind else ():
                np.testing.assert_array_equal(seen, data[f"visibility_image{i}_level{level}"])


def test_anchors_of_one_level(golden):
    data = golden("nightlab", "anchors")
    c4 = data["c4_cell_anchors"]
    stride = int(c4[0, 0] + c4[0, 2]) + 1  # Cells are centered at half of stride - 1.
    np.testing.assert_array_equal(anchors.cell_anchors(stride, data["sizes"], data["ratios"]), c4)
    odd = anchors.cell_anchors(int(data["odd_stride"][0]), data["odd_sizes"], data["odd_ratios"])
    np.testing.assert_array_equal(odd, data["odd_cell_anchors"])


def test_iou(golden):
    data = golden("nightlab", "box_iou")
    np.testing.assert_allclose(boxes.box_iou(data["boxes1"], data["boxes2"]), data["iou"], atol=1e-6)
    np.testing.assert_allclose(boxes.box_area(data["boxes2"]), data["area2"], rtol=1e-6)


def test_box_code(golden):
    data = golden("nightlab", "box_coder")
    proposals, gt, deltas = data["proposals"], data["gt"], data["deltas"]
    (weighted,) = (name for name in data if name.startswith("encoded_w"))
    weights = tuple(map(float, weighted.removeprefix("encoded_w").split("_")))
    assert pytest.approx(float(data["clamp_value"][0])) == boxes.MAX_LOG_SCALE
    np.testing.assert_allclose(boxes.encode_boxes(gt, proposals), data["encoded"], atol=1e-6)
    encoded = boxes.encode_boxes(gt, proposals, weights)
    np.testing.assert_allclose(encoded, data[weighted], atol=1e-5)  # Ten times the values.
    np.testing.assert_allclose(boxes.decode_boxes(deltas, proposals), data["decoded"], rtol=1e-5, atol=1e-3)
    decoded = boxes.decode_boxes(5 * deltas, proposals, weights)
    np.testing.assert_allclose(decoded, data[weighted.replace("en", "de", 1)], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(boxes.decode_boxes(data["encoded"], proposals), data["roundtrip"], rtol=1e-5, atol=1e-3)

    (clamped,) = (name for name in data if name.startswith("grad_deltas_clamp"))
    limit = float(clamped.removeprefix("grad_deltas_clamp"))

    def score(deltas):
        return jnp.sum(jnp.clip(boxes.decode_boxes(deltas, proposals), -limit, limit) * data["grad_out"])

    assert_within(jax.grad(score)(deltas), data[clamped], 1e-4, clamped)


def as_matches(index, label):
    """The official form: index of the box, -1 below, -2 between."""
    return np.where(label == 1, index, np.where(label == 0, -1, -2))


def test_matcher(golden):
    data = golden("nightlab", "matcher")
    quality, every = data["quality"], np.ones(len(data["quality"]), bool)
    np.testing.assert_array_equal(as_matches(*anchors.match_anchors(quality, every)), data["matches"])
    plain = anchors.match_anchors(quality, every, low_quality=False)
    np.testing.assert_array_equal(as_matches(*plain), data["matches_no_low_quality"])


def test_a_box_that_overlaps_nothing_matches_nothing(golden):
    data = golden("nightlab", "matcher")
    quality = data["quality_zero_row"]
    assert (data["matches_zero_row_official"] >= 0).all()  # The original's rule, which the spec does not follow.
    overlaps = quality.max(1) > 0
    ours = as_matches(*anchors.match_anchors(quality, np.ones(len(quality), bool)))
    without = as_matches(*anchors.match_anchors(quality, overlaps))
    np.testing.assert_array_equal(ours, without)
    assert (ours < 0).any()


def test_matching_of_anchors(golden):
    data = golden("nightlab", "matcher")
    gt, every = data["rpn.gt"], data["rpn.anchors"]
    index, label = anchors.match_anchors(boxes.box_iou(gt, every), np.ones(len(gt), bool))
    np.testing.assert_array_equal(as_matches(index, label), data["rpn.matched_idxs"])
    visible = anchors.inside_image(every, tuple(data["rpn.image_hw"]))
    np.testing.assert_array_equal(visible, data["rpn.visibility"])
    label = np.where(visible, label, -1)
    np.testing.assert_array_equal(label, data["rpn.labels"].astype(int))
    positive = np.flatnonzero(label == 1)
    np.testing.assert_array_equal(positive, data["rpn.positive_index"])
    targets = boxes.encode_boxes(gt[np.asarray(index)[positive]], every[positive])
    np.testing.assert_allclose(targets, data["rpn.positive_targets"], atol=1e-6)


def threshold_of(name):
    """0.7 of ``keep_7``."""
    return float(f"0.{name.rpartition('_')[2]}")


@pytest.mark.parametrize("name", ["random.keep", "exact.keep_gt", "ties.keep_gt_stable"])
def test_suppression(golden, name):
    data = golden("nightlab", "nms")
    kind = name.partition(".")[0]
    found = [key for key in data if key.startswith(name) and key.rpartition("_")[2].isdigit()]
    assert found
    for key in found:
        kept = boxes.nms(data[f"{kind}.boxes"], data[f"{kind}.scores"], threshold_of(key))
        np.testing.assert_array_equal(kept, data[key], err_msg=key)


@pytest.mark.parametrize("name", ["exact.keep_ge", "ties.keep_ge_stable", "ties.keep_ge_torch_order"])
def test_suppression_at_equality(golden, name):
    """The original's CPU rule is ours at the threshold's lower neighbor, and its order of ties ours of boxes in that
    order."""
    data = golden("nightlab", "nms")
    box, score = (data[f"{name.partition('.')[0]}.{part}"] for part in ("boxes", "scores"))
    order = data["ties.order_used"] if name.endswith("torch_order") else np.arange(len(score))
    if name.endswith("torch_order"):
        np.testing.assert_array_equal(np.sort(order), np.arange(len(score)))
        assert (np.diff(score[order]) <= 0).all()
    found = [key for key in data if key.rpartition("_")[0] == name]
    assert found
    for key in found:
        threshold = np.nextafter(np.float32(threshold_of(key)), np.float32(0))
        np.testing.assert_array_equal(boxes.nms(box[order], score[order], threshold), data[key][order], err_msg=key)


def test_smooth_l1(golden):
    data = golden("nightlab", "smooth_l1")
    x, target, beta = jnp.asarray(data["x"]), data["target"], float(data["beta"][0])
    loss = detection.smooth_l1(x, target, beta)
    np.testing.assert_allclose(loss.sum(), data["loss_sum"][0], rtol=1e-5)
    np.testing.assert_allclose(loss.mean(), data["loss_mean"][0], rtol=1e-5)
    grad = jax.grad(lambda x: detection.smooth_l1(x, target, beta).sum())(x)
    np.testing.assert_allclose(grad, data["grad_x_of_sum"], atol=1e-4)


def levels_of(data, name):
    """Per-level torch arrays in the order level, y, x, anchor: [B, N, C]."""
    found = [data[f"{name}_level{i}"] for i in range(len(data["strides"]))]
    channels = 4 if "deltas" in name else 1
    flat = []
    for x in found:
        b, c, h, w = x.shape
        flat.append(x.reshape(b, c // channels, channels, h, w).transpose(0, 3, 4, 1, 2).reshape(b, -1, channels))
    return np.concatenate(flat, 1)


@jax.jit
def match(gt, every):
    return anchors.match_anchors(boxes.box_iou(gt, every), jnp.ones(len(gt), bool))


@pytest.mark.parametrize("hdm", [False, True])
def test_losses(golden, hdm):
    data = golden("nightlab", "rpn_loss")
    logits, deltas = levels_of(data, "logits")[..., 0], levels_of(data, "deltas")
    label, target, sampled = [], [], []
    for i in range(len(logits)):
        gt = data[f"gt{i}"]
        index, found = match(gt, data["anchors"])
        found = np.where(data[f"visibility{i}"], found, -1)
        np.testing.assert_array_equal(found, data[f"labels{i}"].astype(int))
        target.append(boxes.encode_boxes(gt[np.asarray(index)], data["anchors"]))
        known = found == 1
        np.testing.assert_allclose(np.asarray(target[-1])[known], data[f"targets{i}"][known], atol=1e-5)
        sampled.append(data[f"sampled_pos{i}"] | data[f"sampled_neg{i}"])
        if hdm:
            found = detection.relabel(jnp.asarray(found), data[f"hdm.v{i}"])
            drawn = sampled[-1]
            np.testing.assert_array_equal(np.asarray(found)[drawn], data[f"hdm.labels{i}"].astype(int)[drawn])
        label.append(found)
    label, target, sampled = (jnp.stack([jnp.asarray(x) for x in each]) for each in (label, target, sampled))

    def losses(logits, deltas):
        return detection.proposal_losses(logits, deltas, label, target, sampled)

    prefix = "hdm." if hdm else ""
    objectness, offsets = losses(logits, deltas)
    np.testing.assert_allclose(objectness, data[f"{prefix}loss_objectness"][0], rtol=1e-5)
    np.testing.assert_allclose(offsets, data[f"{prefix}loss_box"][0], rtol=1e-5)
    grads = jax.jit(jax.grad(lambda *x: sum(losses(*x)), argnums=(0, 1)))(jnp.asarray(logits), jnp.asarray(deltas))
    for name, grad in (("logits", grads[0][..., None]), ("deltas", grads[1])):
        assert_within(grad, levels_of(data, f"{prefix}grad_{name}"), 1e-4, name)
