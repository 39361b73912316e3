"""Boxes of masks, crops, relabelling and merging against the reference of the spec's formulas."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.losses.detection import relabel
from nightjax.ops import boxes, regions
from nightjax.ops.resize import resize, resize_nearest
from tests.helpers.golden import number, sizes


def test_boxes_of_masks(golden):
    data = golden("nightlab", "mask_boxes")
    hard = tuple(data["hard_classes"].tolist())
    for expected, least in ((data["components"], 1), (data["boxes_min_area"], number(data["min_area_test"]))):
        find = functools.partial(regions.label_boxes, classes=hard, count=2 * len(expected), min_area=least)
        box, kind, area = map(np.asarray, jax.jit(find)(data["label"]))
        known = area > 0
        rows = np.concatenate([kind[:, None], box.astype(int), area[:, None]], 1)[known]
        rows = rows[np.lexsort(rows.T[::-1])][:, : expected.shape[1]]
        np.testing.assert_array_equal(rows, expected[np.lexsort(expected.T[::-1])])
        assert (np.diff(area) <= 0).all()


def test_context(golden):
    data = golden("nightlab", "crops")
    box, size = data["half_open_boxes"].astype(np.float32), tuple(data["image_wh"][::-1])
    names = [name for name in data if name.startswith("context")]
    assert names
    for name in names:
        context, least = map(float, re.fullmatch(r"context([\d.]+)_min([\d.]+)", name).groups())
        found = boxes.region_of(box, size, context=context, min_side=least)
        np.testing.assert_allclose(found, data[name], atol=1e-4, err_msg=name)


def test_crops(golden):
    data = golden("nightlab", "crops")
    box = data["crop_boxes_half_open"].astype(np.float32)[None]
    image = data["image_chw_uint8"].transpose(1, 2, 0)[None].astype(np.float32)
    size = data["crop_bilinear"].shape[-1]
    found = regions.crop(image, box, size)[0]
    np.testing.assert_allclose(found, data["crop_bilinear"].transpose(0, 2, 3, 1), atol=1e-3)
    found = regions.crop(image, box, size, antialias=True)[0]
    np.testing.assert_allclose(found, data["crop_bilinear_antialias"].transpose(0, 2, 3, 1), atol=1e-3)
    labels = regions.crop_label(jnp.asarray(data["label"])[None], box, size)[0]
    np.testing.assert_array_equal(labels, data["label_nearest_half_pixel"])


def test_other_forms_of_crops(golden):
    """Not NightLab's, but the library's own resizing agrees with them."""
    data = golden("nightlab", "crops")
    size = data["crop_bilinear"].shape[-2:]
    for i, (x1, y1, x2, y2) in enumerate(data["crop_boxes_half_open"]):
        image = data["image_chw_uint8"].transpose(1, 2, 0)[None, y1:y2, x1:x2].astype(np.float32)
        found = resize(image, size, align_corners=False, antialias=True)[0]
        np.testing.assert_allclose(found, data["crop_bilinear_antialias"][i].transpose(1, 2, 0), atol=1e-3)
        label = resize_nearest(jnp.asarray(data["label"])[None, y1:y2, x1:x2], size)[0]
        np.testing.assert_array_equal(label, data["label_nearest_floor"][i])


@pytest.mark.parametrize("kind", ["", "hard"])
def test_relabelling(golden, kind):
    data = golden("nightlab", "hdm_relabel")
    logits = data["region_logits"].transpose(0, 2, 3, 1)[None]
    box = boxes.half_open(data["boxes_inclusive"].astype(np.float32))[None]
    hard = tuple(data["hard_classes"].tolist()) if kind else None
    wins, ours, image = regions.region_gain(logits, data["pred_image"][None], data["gt"][None], box, hard)
    np.testing.assert_allclose(ours[0], data[f"iou_{'hard_' if kind else ''}region"], atol=1e-6)
    np.testing.assert_allclose(image[0], data[f"iou_{'hard_' if kind else ''}image"], atol=1e-6)
    np.testing.assert_array_equal(wins[0], data["v_hard_only" if kind else "v"].astype(bool))
    if not kind:
        np.testing.assert_array_equal(relabel(jnp.asarray(data["labels"]), wins[0]), data["new_labels"])


def test_relabelling_at_native_size(golden):
    data = golden("nightlab", "hdm_relabel")
    ours, image, gt = (data[f"labels_only.{name}"] for name in ("region", "image", "gt"))
    size = gt.shape[1:]
    whole = jnp.broadcast_to(jnp.array([0, 0, size[1], size[0]], jnp.float32), (len(gt), 1, 4))
    logits = jax.nn.one_hot(ours, data["region_logits"].shape[1])[:, None]
    wins, iou, image_iou = regions.region_gain(logits, jnp.asarray(image), jnp.asarray(gt), whole)
    np.testing.assert_allclose(iou[:, 0], data["labels_only.iou_region"], atol=1e-6)
    np.testing.assert_allclose(image_iou[:, 0], data["labels_only.iou_image"], atol=1e-6)
    np.testing.assert_array_equal(wins[:, 0], data["labels_only.v"].astype(bool))


def test_merging(golden):
    data = golden("nightlab", "hdm_merge")
    names = [name for name in data if name.startswith("merged")]
    assert len(names) > 1
    for name in names:
        check_merging(data, name)


def check_merging(data, name):
    classes = data["region_logits"].shape[1]
    hard = {"merged_all_classes": tuple(range(classes)), "merged_no_hard": ()}
    hard = hard.get(name, tuple(data["hard_classes"].tolist()))
    scores = data["scores"]
    limit = sizes(data, r"merged_top(\d+)").get(name, len(scores))
    logits = jnp.asarray(data["region_logits"].transpose(0, 2, 3, 1))
    passing = jnp.asarray(data["valid"] & (scores > data["score_threshold"][0]))
    box, _, valid = boxes.best_boxes(data["boxes_inclusive"], jnp.asarray(scores), passing, limit)
    order = np.argsort(-np.where(passing, scores, -np.inf), kind="stable")[:limit]
    region = boxes.half_open(jnp.round(box))[None]
    image = jax.nn.one_hot(data["pred_image"], classes)[None]
    merged = regions.merge_regions(image, logits[order][None], region, valid[None], hard)
    np.testing.assert_array_equal(merged[0].argmax(-1), data[name], err_msg=name)
