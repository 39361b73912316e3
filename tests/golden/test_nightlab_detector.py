"""The proposal network, its proposals and its schedule against maskrcnn-benchmark."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.schedules import warmup_multistep
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.models.backbones.resnet import ResNet
from nightjax.models.detector import Body, Detector, ProposalHead, Proposals, Proposer, build_detector
from nightjax.models.norm import BatchNorm
from nightjax.ops import anchors
from tests.helpers.golden import largest, nchw, nhwc, number, state_of


@pytest.fixture
def official_keys(golden):
    (found,) = (value for name, value in golden.official_names("nightlab").items() if "RPN" in name)
    return {name: tuple(shape) for name, shape in found}


def from_maskrcnn(state):
    """A state dict of maskrcnn-benchmark under our names: no ``module.`` in front, no ``stem`` in the ResNet."""
    return {name.removeprefix("module.").replace("body.stem.", "body."): value for name, value in state.items()}


def to_maskrcnn(state):
    """The inverse of `from_maskrcnn`."""
    stem = ("backbone.body.conv1.", "backbone.body.bn1.")
    return {
        name.replace("body.", "body.stem.", 1) if name.startswith(stem) else name: value
        for name, value in state.items()
    }


def shapes_of(model, x):
    return jax.eval_shape(model.init, jax.random.key(0), x)


def small_detector(weights):
    """The detector whose widths and depths a state dict shows."""
    stages = [f"layer{i}" for i in range(1, 5)]
    body = ResNet(
        depths=tuple(len({k.split(".")[3] for k in weights if k.startswith(f"backbone.body.{s}.")}) for s in stages),
        widths=tuple(len(weights[f"backbone.body.{s}.0.conv1.weight"]) for s in stages),
        stem_features=len(weights["backbone.body.stem.conv1.weight"]),
        style="caffe",
        norm=functools.partial(BatchNorm, frozen=True, epsilon=0.0),
    )
    features = len(weights["rpn.head.conv.weight"])
    head = ProposalHead(features, len(weights["rpn.head.cls_logits.weight"]))
    return Detector(Body(body, tuple(f"stage{i}" for i in range(1, 5)), features), Proposer(head))


def as_official(flat, size, channels):
    """[B, h * w * A(, 4)] to torch's [B, A(* 4), h, w]."""
    return nchw(np.asarray(flat).reshape(len(flat), *size, channels))


def assert_levels(found, data, fraction):
    for i, (level, logits, code) in enumerate(zip(found["levels"], found["logits"], found["code"], strict=True)):
        size = level.shape[1:3]
        for name, value in ((f"logits{i}", logits), (f"deltas{i}", code)):
            expected = data[name]
            value = as_official(value, size, expected.shape[1])
            assert_close(value, expected, fraction, name)


def assert_close(value, expected, fraction, name):
    np.testing.assert_allclose(value, expected, atol=fraction * largest(expected), err_msg=name)


def test_small_network(golden):
    data = golden("nightlab", "resnet_fpn_rpn_small")
    weights = state_of(data)
    model, x = small_detector(weights), nhwc(data["x"])
    variables = from_torch(from_maskrcnn(weights), shapes_of(model, x))
    found = jax.jit(model.apply)(variables, x)
    for name in (key for key in data if key in ("C2", "C3", "C4", "C5")):
        assert_close(nchw(found[f"stage{int(name[1]) - 1}"]), data[name], 1e-5, name)
    for i, level in enumerate(found["levels"]):
        assert_close(nchw(level), data[f"P{i + 2}"], 1e-5, f"P{i + 2}")
    assert_levels(found, data, 1e-5)
    back = to_maskrcnn(to_torch(variables))
    assert back.keys() == {name for name in weights if not name.endswith("num_batches_tracked")}
    for name, value in back.items():
        np.testing.assert_array_equal(value, weights[name])


def test_names_and_shapes(official_keys):
    model = build_detector("resnet50")
    shapes = shapes_of(model, jnp.zeros((1, model.multiple, model.multiple, 3)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    assert {name: value.shape for name, value in to_maskrcnn(to_torch(zeros)).items()} == official_keys


@pytest.mark.slow
def test_full_network(golden, recipe, official_keys):
    data = golden("nightlab", "resnet_fpn_rpn_full_recipe")
    model, x = build_detector("resnet50"), nhwc(data["x"])
    weights = {name: recipe(name, shape, number(data["base_seed"])) for name, shape in official_keys.items()}
    found = jax.jit(model.apply)(from_torch(from_maskrcnn(weights), shapes_of(model, x)), x)
    features = {f"C{i + 1}": found[f"stage{i}"] for i in range(1, 5)}
    features |= {f"P{i + 2}": level for i, level in enumerate(found["levels"])}
    for name, value in features.items():
        value, pixels = nchw(value), data[f"{name}.pix"]
        scale = largest(pixels)
        np.testing.assert_allclose(value.mean((2, 3)), data[f"{name}.chan_mean"], atol=1e-5 * scale, err_msg=name)
        np.testing.assert_allclose(value[:, : pixels.shape[1]], pixels, atol=1e-5 * scale, err_msg=name)
    assert_levels(found, data, 1e-5)


def proposal_inputs(data, image):
    """Logits, offsets and anchors of every level of one image."""
    inputs = []
    for i, (stride, side) in enumerate(zip(data["strides"], data["sizes"], strict=True)):
        logits, deltas = data[f"logits_level{i}"][image], data[f"deltas_level{i}"][image]
        count, *grid = logits.shape
        cell = anchors.cell_anchors(stride, [side], data.get("ratios", Detector.ratios))
        assert len(cell) == count, (
            "the file has anchors of other ratios than the official default and does not name them"
        )
        code = deltas.reshape(count, 4, *grid).transpose(2, 3, 0, 1).reshape(-1, 4)
        inputs.append((logits.transpose(1, 2, 0).reshape(-1), code, anchors.grid_anchors(cell, grid, stride)))
    return tuple(map(list, zip(*inputs, strict=True)))


def assert_proposals(found, boxes, scores):
    box, score, valid = map(np.asarray, found)
    assert valid.sum() == len(boxes)
    np.testing.assert_allclose(score[valid], scores, atol=1e-6)
    np.testing.assert_allclose(box[valid], boxes, atol=2e-3, rtol=1e-5)


def settings(data, **changes):
    names = {"before": "pre_nms_top_n", "after": "post_nms_top_n", "total": "fpn_post_nms_top_n"}
    values = {ours: number(data[name]) for ours, name in names.items()}
    choose = Proposals(**values | {"threshold": float(np.ravel(data["nms_thresh"])[0])} | changes)
    return jax.jit(choose.__call__)


def test_proposals(golden):
    data = golden("nightlab", "rpn_post")
    for image in range(len(data["image_sizes_hw"])):
        check_proposals(data, image)


def check_proposals(data, image):
    inputs, size = proposal_inputs(data, image), tuple(data["image_sizes_hw"][image])
    choose = settings(data)
    assert_proposals(choose(*inputs, size), data[f"test.boxes{image}"], data[f"test.scores{image}"])
    least = settings(data, min_side=float(np.ravel(data["min_size_b"])[0]))
    assert_proposals(least(*inputs, size), data[f"test_minsize.boxes{image}"], data[f"test_minsize.scores{image}"])
    for level in range(len(data["strides"])):
        found = choose(*([part[level]] for part in inputs), size)
        expected = data[f"level{level}.boxes{image}"], data[f"level{level}.scores{image}"]
        assert_proposals(found, *expected)
    # In training the original appends the true boxes; ours are the rest.
    count = len(data[f"gt{image}"])
    expected = data[f"train_per_image.boxes{image}"][:-count], data[f"train_per_image.scores{image}"][:-count]
    assert_proposals(choose(*inputs, size), *expected)


def test_proposals_of_a_batch(golden):
    """The original's choice over both images in training, made from our levels; NightLab chooses image by image."""
    data = golden("nightlab", "rpn_post")
    choose, found = settings(data), []
    for image in range(len(data["image_sizes_hw"])):
        inputs, size = proposal_inputs(data, image), tuple(data["image_sizes_hw"][image])
        for level in range(len(data["strides"])):
            box, score, valid = map(np.asarray, choose(*([part[level]] for part in inputs), size))
            found += [(image, b, s) for b, s in zip(box[valid], score[valid], strict=True)]
    limit = sorted((score for _, _, score in found), reverse=True)[number(data["fpn_post_nms_top_n"]) - 1]
    for image in range(len(data["image_sizes_hw"])):
        count = len(data[f"gt{image}"])
        kept = [(b, s) for i, b, s in found if i == image and s >= limit]
        boxes, scores = map(np.stack, zip(*kept, strict=True))
        np.testing.assert_allclose(boxes, data[f"train_per_batch.boxes{image}"][:-count], atol=2e-3, rtol=1e-5)
        np.testing.assert_allclose(scores, data[f"train_per_batch.scores{image}"][:-count], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "lr", "milestones"), [("coco", 0.02, (60_000, 80_000)), ("cityscapes", 0.01, (18_000,))]
)
def test_schedule(golden, name, lr, milestones):
    data = golden("nightlab", "lr_schedule_rpn")
    found = [lr * float(warmup_multistep(step, milestones, 500, 1 / 3)) for step in data["iterations"]]
    np.testing.assert_allclose(found, data[f"{name}_lr_f64"], rtol=1e-6)
