"""VFM-UDA's teacher, learning rate and feature distillation against recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core import schedules
from nightjax.core.ema import ema_update
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.losses.feature import feature_distillation
from nightjax.models.projection import DistillationHead
from tests.helpers.golden import assert_within, nchw, nhwc, number, same_gradient, same_value


def test_teacher_shares(golden):
    file = golden("modern", "ema_and_schedule")
    for cap, official, exact in zip(file["caps"], file["official_share_of_teacher"], file["formula_f64"], strict=True):
        ours = [float(ema_update(jnp.ones(()), jnp.zeros(()), int(t), float(cap))) for t in file["iters"]]
        np.testing.assert_allclose(ours, exact, rtol=1e-6)
        np.testing.assert_allclose(ours, official, rtol=1e-6)
    # VFM-UDA averages after the optimizer's step: its average is ours one step later.
    later = [float(ema_update(jnp.ones(()), jnp.zeros(()), int(t) + 1, 0.999)) for t in file["iters"]]
    np.testing.assert_allclose(later, file["vfm_uda_alpha_after_optimizer_step_f64"], rtol=1e-6)


def test_schedule_of_vfm_uda(golden):
    """Of 40,000 steps with 1500 of warm-up, as the README says."""
    file = golden("modern", "ema_and_schedule")
    ours = [float(schedules.warmup_line(int(step), 40_000, 1500)) for step in file["vfm_uda_lr_steps"]]
    np.testing.assert_allclose(ours, file["vfm_uda_lr_factor_f64"], rtol=1e-6, atol=1e-9)


def test_feature_distillation(golden, recipe):
    file = golden("modern", "feature_distillation")
    x, frozen = nhwc(file["x"]), nhwc(file["frozen"])
    head, size = DistillationHead(frozen.shape[-1]), frozen.shape[1:3]
    template = jax.tree.map(np.asarray, head.init(jax.random.key(0), x, size))
    names = to_torch(template)
    variables = from_torch({n: recipe(n, v.shape, number(file["base_seed"])) for n, v in names.items()}, template)
    assert_within(nchw(head.apply(variables, x, size)), file["head_out"], 1e-5)

    def loss(variables, x):
        return feature_distillation(head.apply(variables, x, size), frozen)

    value, (weights, gradient) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(variables, x)
    same_value(value, file["loss"])
    np.testing.assert_allclose(value, file["per_cell"].mean(), rtol=1e-5)
    same_gradient(gradient, file["grad_x"])
    first = to_torch(weights)["feat_project.0.weight"]
    assert_within(first.reshape(file["grad_first"].shape), file["grad_first"], 1e-4)
    assert not jnp.any(jax.grad(lambda f: feature_distillation(frozen, f))(frozen))
