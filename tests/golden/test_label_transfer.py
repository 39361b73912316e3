"""The Label Transfer Scene Parser's network, losses, schedule and metrics against the official program's numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.optim import Optimizer
from nightjax.interop.official_names import LTSP, to_official
from nightjax.interop.torch_weights import to_torch
from nightjax.losses.segmentation import focal_mixture
from nightjax.metrics import confusion
from nightjax.models import build_segmenter
from nightjax.ops.resize import resize
from tests.helpers.golden import nchw, number, thinned
from tests.helpers.hashed_weights import hashed, hashed_variables


@pytest.mark.slow
def test_network(golden):
    file = golden("unit_fid", "seg_fpn_resnet101")
    shape = tuple(file["x_shape"])
    u = hashed(np.arange(np.prod(shape)), number(file["x_rule_seed"])) / 2**32
    x = jnp.asarray(np.moveaxis((4 * u - 2).reshape(shape), 1, -1), jnp.float32)
    classes = file["eval_logits_stride4"].shape[1]
    model = build_segmenter("resnet101", "panoptic_fpn_shared", classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)

    def official(name):
        return next(iter(to_official({name: 0}, LTSP)))

    def damped(name, value):
        return value * np.float32(0.25) if name.endswith("bn3.weight") else value

    variables = hashed_variables(shapes, official, damped)

    def forward(variables, x, train):
        outputs, updated = model.apply(variables, x, train=train, mutable=["intermediates", "batch_stats"])
        logits = outputs["logits"]
        full = resize(logits, (4 * logits.shape[1], 4 * logits.shape[2]), align_corners=True)
        return logits, updated["intermediates"]["head"]["penultimate"][0], full, updated.get("batch_stats")

    for mode in ("eval", "train"):
        logits, total, full, stats = jax.jit(forward, static_argnums=2)(variables, x, mode == "train")
        channels, sub = file[f"{mode}_sum128_ch0to7"].shape[1], file[f"{mode}_logits_sub"]
        rows = thinned(nchw(full), sub, 7, axes=(2,))
        found = {
            "logits_stride4": nchw(logits),
            "sum128_ch0to7": nchw(total)[:, :channels],
            "logits_sub": thinned(rows, sub, 5, axes=(3,)),
        }
        for name, value in found.items():
            np.testing.assert_allclose(value, file[f"{mode}_{name}"], atol=2e-3, err_msg=f"{mode}_{name}")
    updated = to_torch({"batch_stats": stats})
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(
            updated[f"backbone.bn1.{name}"], file[f"train_bn1_{name}_after"], rtol=1e-4, atol=2e-5
        )


def tenths(file, pattern):
    """Share of the cross entropy, in the name as ``05`` for 0.5, by name."""
    return {name: int(match[1]) / 10 for name in file if (match := re.fullmatch(pattern, name))}


def focal_with_share(logits, label, beta, **options):
    return focal_mixture(logits, label, beta=beta, **options)


def test_losses(golden):
    file = golden("unit_fid", "seg_losses")
    logits, label = jnp.asarray(np.moveaxis(file["logits"], 1, -1)), jnp.asarray(file["target"])
    static = ("mode", "divide_by_batch")
    mixture = jax.jit(focal_with_share, static_argnames=static)
    gradients = jax.jit(jax.grad(focal_with_share), static_argnames=static)
    mixtures = {"ce": 1.0, "focal": 0.0} | tenths(file, r"combine(\d+)")
    for name, beta in mixtures.items():
        for key, divide in ((name, True), (f"{name}_nobatchavg", False)):
            value = mixture(logits, label, beta, mode="batch", divide_by_batch=divide)
            np.testing.assert_allclose(value, file[key], rtol=1e-4, err_msg=key)
    for name, beta in ({"pp_ce": 1.0, "pp_focal": 0.0} | tenths(file, r"pp_combined(\d+)")).items():
        np.testing.assert_allclose(mixture(logits, label, beta), file[name], rtol=1e-4, err_msg=name)
    official = {"mode": "batch", "divide_by_batch": True}
    for pattern, options in ((r"grad_combine(\d+)", official), (r"grad_pp_combined(\d+)", {})):
        for name, beta in tenths(file, pattern).items():
            gradient = gradients(logits, label, beta, **options)
            np.testing.assert_allclose(nchw(gradient), file[name], rtol=1e-4, atol=2e-5, err_msg=name)


def test_learning_rate(golden):
    file = golden("unit_fid", "seg_lr_cosine")
    optimizer = Optimizer(name="sgd", lr=float(file["lr"][0]), schedule="cosine", cosine_steps=number(file["T_max"]))
    rates = jax.vmap(optimizer.schedule_fn(len(file["lr"])))(jnp.arange(len(file["lr"])))
    np.testing.assert_allclose(rates, file["lr"], rtol=1e-5, atol=1e-8)


def test_metrics(golden):
    file = golden("unit_fid", "seg_metrics")
    counts = confusion.confusion_counts(jnp.asarray(file["gt"]), jnp.asarray(file["pred"]), len(file["confusion"]))
    np.testing.assert_array_equal(counts, file["confusion"])
    summary = confusion.summarize(np.asarray(counts), [str(i) for i in range(len(counts))])
    ours = {"PA": summary["pa"], "CA": summary["ca"], "mIoU": summary["miou"]["skip"], "FWIoU": summary["fwiou"]}
    for name, value in ours.items():
        np.testing.assert_allclose(value, 100 * file[name], rtol=1e-6, err_msg=name)
