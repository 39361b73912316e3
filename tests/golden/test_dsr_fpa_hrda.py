"""HRDA in training and in evaluation against the official program."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.losses.segmentation import cross_entropy
from nightjax.models.backbones.mit import MiT
from nightjax.models.heads.daformer import DAFormerHead
from nightjax.models.heads.segformer import SegFormerHead
from nightjax.models.hrda import HRDA, OFFSET_STRIDE, detail_crop, offset_choices, view_size
from nightjax.ops.resize import resize
from tests.helpers.golden import assert_within, every, largest, nchw, normalized, number, state_of

HR_WEIGHT = 0.1
MIX_WEIGHT = 0.8


@pytest.fixture(scope="module")
def network(golden, recipe):
    """``network(base_seed)``: the tiny HRDA network, its sizes read from the stored key list.

    The number of attention heads, which no file holds, is found by the context view's features.
    """
    shapes = golden.small_networks("dsr_fpa")["hrda_tiny"]

    @functools.cache
    def variables(seed):
        weights = {
            name: recipe(name, tuple(shape), seed)
            for name, shape in shapes.items()
            if not name.endswith("num_batches_tracked")
        }
        model, x = build_model(shapes, (1, 1, 1, 1)), jnp.zeros((1, 64, 64, 3))
        template = jax.eval_shape(model.init, jax.random.key(0), x)
        template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
        return from_torch(weights, template, model.stacks)

    file, sizes = golden("dsr_fpa", "hrda_tiny_train"), mit_sizes(shapes)
    backbone = {"params": variables(number(file["base_seed"]))["params"]["backbone"]}
    x, expected = normalized(file["x_uint8"]), file["lr_feat_stage4"]
    context = resize(x, view_size(x.shape[1:3]), align_corners=False)
    candidates = [c for c in itertools.product(range(1, 9), repeat=4) if not np.any(np.mod(sizes["dims"], c))]
    for heads in sorted(candidates, key=lambda c: np.abs(np.subtract(c, (1, 2, 3, 4))).sum()):
        got = nchw(jax.jit(MiT(**sizes, heads=heads).apply)(backbone, context)["stage4"])
        if np.abs(got - expected).max() < 1e-4 * largest(expected):
            model = build_model(shapes, heads)
            return lambda seed: (model, variables(seed))
    pytest.fail("no number of attention heads gives the context view's features")


def build_model(shapes, heads):
    return HRDA(
        backbone=MiT(**mit_sizes(shapes), heads=heads),
        head=DAFormerHead(
            num_classes=shapes["head.conv_seg.weight"][0],
            embed_dim=shapes["head.embed_layers.0.proj.weight"][0],
            channels=shapes["head.conv_seg.weight"][1],
        ),
        hrda_scale_attention=SegFormerHead(
            num_classes=shapes["hrda_scale_attention.linear_pred.weight"][0],
            channels=shapes["hrda_scale_attention.linear_pred.weight"][1],
        ),
    )


def mit_sizes(shapes):
    """Constructor arguments of a MiT, heads excepted, from the shapes of its weights."""
    sizes = {"dims": [], "depths": [], "mlp_ratios": [], "sr_ratios": []}
    for i in range(1, 5):
        block = f"backbone.block{i}.0."
        hidden, dim = shapes[f"{block}mlp.fc1.weight"]
        reduction = shapes.get(f"{block}attn.sr.weight", (0, 0, 1, 1))
        sizes["dims"].append(dim)
        blocks = {name.split(".")[2] for name in shapes if name.startswith(f"backbone.block{i}.")}
        sizes["depths"].append(len(blocks))
        sizes["mlp_ratios"].append(hidden // dim)
        sizes["sr_ratios"].append(reduction[2])
    return {name: tuple(values) for name, values in sizes.items()}


def pixel_loss(logits, label, weight):
    logits = resize(logits, label.shape[1:], align_corners=False)
    return jnp.mean(cross_entropy(logits, label) * weight)


def hrda_loss(out, offset, label, weight):
    """0.9 of the fused logits' loss and 0.1 of the detail logits' on their window."""
    fused = pixel_loss(out["logits"], label, weight)
    crops = detail_crop(label, offset), detail_crop(weight, offset)
    return (1 - HR_WEIGHT) * fused + HR_WEIGHT * pixel_loss(out["hr_logits"][:, 0], *crops)


def test_offset_choices(golden):
    file = golden("dsr_fpa", "hrda_tiny_train")
    np.testing.assert_array_equal(offset_choices(file["x_uint8"].shape[2:]), file["n_choices"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "train_bn_eval"])
def test_hrda_train(golden, network, mode):
    file = golden("dsr_fpa", "hrda_tiny_train")
    model, variables = network(number(file["base_seed"]))
    x = normalized(file["x_uint8"])
    offset = jnp.asarray(file["draws"], jnp.int32) * OFFSET_STRIDE
    label = jnp.asarray(file["labels"], jnp.int32)

    @functools.partial(jax.grad, has_aux=True)
    def step(params):
        out, update = model.apply(
            {**variables, "params": params},
            x,
            train=mode == "train",
            deterministic=True,
            detail_offset=offset,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, MiT),
        )
        weight = jnp.asarray(file["pixel_weight"])
        mix = MIX_WEIGHT * hrda_loss(out, offset, label, weight)
        source = hrda_loss(out, offset, label, jnp.ones_like(weight))
        views = update["intermediates"]["backbone"]["__call__"][0]["stage4"]
        return source, (out, update["batch_stats"], views, source, mix)

    grad, (out, batch_stats, views, source, mix) = jax.jit(step)(variables["params"])
    tolerance = 1e-3 if mode == "train" else 1e-4
    y1, y2, x1, x2 = file["crop_box"]
    np.testing.assert_array_equal(out["detail_box"], [[y1, y2, x1, x2]])
    assert_within(nchw(out["logits"]), file[f"{mode}.logits"], tolerance, "logits")
    window = resize(out["hr_logits"][:, 0], (y2 - y1, x2 - x1), align_corners=False)
    expected, stride = every(file, rf"{mode}\.hr_logits_every(\d+)px")
    assert_within(nchw(window)[:, :, ::stride, ::stride], expected, tolerance, "hr_logits")
    np.testing.assert_allclose(source, file[f"{mode}.loss_src"], rtol=1e-5)
    np.testing.assert_allclose(mix, file[f"{mode}.loss_mix"], rtol=1e-5)
    for part, tree in grad.items():
        norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(tree)))
        np.testing.assert_allclose(norm, file[f"{mode}.gradnorm_src.{part}"], rtol=1e-4)
    grads = to_torch({"params": grad}, model.stacks)
    stored = state_of(file, f"{mode}.grad.")
    assert stored
    for name, expected in stored.items():
        assert_within(grads[name], expected, 1e-4, name)
    if mode == "train_bn_eval":
        assert_within(nchw(out["attention"]), file["train_bn_eval.attention"], 1e-4, "attention")
        assert_within(nchw(out["stage4"]), file["lr_feat_stage4"], 1e-4, "stage4")
        details = nchw(views.reshape(len(x), 2, *views.shape[1:])[:, 1])  # Views alternate: context, detail.
        assert_within(details, file["hr_feat_stage4"], 1e-4, "detail stage4")
    else:
        after = to_torch({"params": variables["params"], "batch_stats": batch_stats}, model.stacks)
        stored = state_of(file, "after_train.")
        assert stored
        for name, expected in stored.items():
            assert_within(after[name], expected, 1e-3, name)


@pytest.mark.slow
def test_hrda_eval_whole(golden, network):
    file = golden("dsr_fpa", "hrda_tiny_eval")
    model, variables = network(number(file["base_seed"]))
    x = normalized(file["x_whole_uint8"])
    out = jax.jit(model.apply)(variables, x)
    logits = out["logits"]
    assert_within(nchw(logits), file["whole.fused_logits"], 1e-4, "fused")
    full = nchw(resize(logits, x.shape[1:3], align_corners=False))
    expected, stride = every(file, r"whole\.upsampled_every(\d+)")
    assert_within(full[:, :, ::stride, ::stride], expected, 1e-4, "upsampled")
    np.testing.assert_array_equal(out["detail_box"], file["whole.hr_boxes"])


def test_hrda_eval_slide(golden, network):
    file = golden("dsr_fpa", "hrda_tiny_eval")
    model, variables = network(number(file["base_seed"]))
    x = normalized(file["x_slide_uint8"])
    size, crop, stride = x.shape[1:3], file["slide_crop"], file["slide_stride"]
    starts = [
        [min(i * s, n - c) for i in range(-(-(n - c) // s) + 1)] for n, c, s in zip(size, crop, stride, strict=True)
    ]
    apply = jax.jit(model.apply)
    total, count = 0, 0
    for top in starts[0]:
        for left in starts[1]:
            view = x[:, top : top + crop[0], left : left + crop[1]]
            logits = resize(apply(variables, view)["logits"], tuple(crop), align_corners=False)
            below, right = size[0] - top - crop[0], size[1] - left - crop[1]
            border = ((0, 0), (top, below), (left, right), (0, 0))
            total += jnp.pad(logits, border)
            count += jnp.pad(jnp.ones_like(logits[..., :1]), border)
    logits = total / count
    expected, step = every(file, r"slide\.logits_every(\d+)")
    assert_within(nchw(logits)[:, :, ::step, ::step], expected, 1e-4, "slide")
    np.testing.assert_array_equal(jnp.argmax(logits, axis=-1), file["slide.argmax"])
    name = next(name for name in file if name.startswith("slide.resized_"))
    *target, step = map(int, re.findall(r"\d+", name))
    resized = nchw(resize(logits, tuple(target), align_corners=False))
    assert_within(resized[:, :, ::step, ::step], file[name], 1e-4, "resized")
