"""Losses of the matcher: values by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.losses import matching
from nightjax.losses.matching import NUMBERS, balanced

flow_likelihood, warp_supervision, bipath = map(
    jax.jit, (matching.flow_likelihood, matching.warp_supervision, matching.bipath)
)
LOG_2PI = math.log(2 * math.pi)
SIZE = (8, 12)


def constant(value, *shape):
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (*shape, np.size(value)))


def levels(flow, log_variance):
    """Four levels of one flow, at sizes that divide the image by 1, 2, 2 and 4."""
    found = {}
    for number, factor in zip(NUMBERS, (4, 2, 2, 1), strict=True):
        size = (1, SIZE[0] // factor, SIZE[1] // factor)
        found |= {f"flow{number}": constant(flow, *size), f"logvar{number}": constant(log_variance, *size)}
    return found


@pytest.mark.parametrize(
    "difference, robust", [((0.0, 0.0), 0.0), ((0.5, 0.0), 0.25), ((3.0, -4.0), 5.0 + 7.0), ((1.0, 0.5), 1.25)]
)
def test_likelihood(difference, robust):
    log_variance = math.log(4.0)
    value = flow_likelihood(
        constant(difference, 1, 2, 3),
        constant(log_variance, 1, 2, 3),
        jnp.zeros((1, 2, 3, 2)),
        jnp.ones((1, 2, 3), bool),
    )
    np.testing.assert_allclose(value, robust / 8 + log_variance + LOG_2PI, rtol=1e-6)


def test_likelihood_is_a_density():
    """Within a pixel it is the Gaussian's: the best variance is half the squared error."""
    loss = lambda s: flow_likelihood(
        constant((0.6, 0.8), 1, 1, 1), s[None, None, None], jnp.zeros((1, 1, 1, 2)), jnp.ones((1, 1, 1))
    )
    np.testing.assert_allclose(jax.grad(loss)(jnp.log(jnp.array([0.5]))), 0, atol=1e-6)


def test_masked_pixels_do_not_count_and_an_empty_mask_gives_zero():
    flow = jnp.zeros((1, 1, 2, 2)).at[0, 0, 1].set(jnp.nan)
    mask = jnp.array([[[True, False]]])
    run = lambda flow, mask: flow_likelihood(flow, jnp.zeros((1, 1, 2, 1)), jnp.zeros((1, 1, 2, 2)), mask)
    np.testing.assert_allclose(run(flow, mask), LOG_2PI, rtol=1e-6)
    assert run(jnp.zeros_like(flow), jnp.zeros_like(mask)) == 0
    assert np.isfinite(jax.grad(lambda f: run(f, jnp.zeros_like(mask)))(jnp.zeros_like(flow))).all()


def test_warp_supervision_sums_the_levels_in_pixels_of_the_image():
    truth, valid = constant((3.0, -2.0), 1, *SIZE), jnp.ones((1, *SIZE), bool)
    np.testing.assert_allclose(warp_supervision(levels((3.0, -2.0), 0.0), truth, valid), 4 * LOG_2PI, rtol=1e-5)
    off = warp_supervision(levels((3.5, -2.0), 0.0), truth, valid)
    np.testing.assert_allclose(off - 4 * LOG_2PI, 4 * 0.25 / 2, rtol=1e-4)


def test_a_cell_counts_if_all_of_its_support_does():
    truth = constant((0.0, 0.0), 1, *SIZE)
    valid = jnp.ones((1, *SIZE), bool).at[:, :, 6:].set(False)
    wrong = levels((0.0, 0.0), 0.0)
    wrong = {name: x.at[:, :, x.shape[2] // 2 :].set(9.0) if "flow" in name else x for name, x in wrong.items()}
    np.testing.assert_allclose(warp_supervision(wrong, truth, valid), 4 * LOG_2PI, rtol=1e-5)


def test_bipath_adds_flows_and_variances():
    truth, valid = constant((3.0, 1.0), 1, *SIZE), jnp.ones((1, *SIZE), bool)
    first, second = levels((1.0, 2.0), math.log(1.5)), levels((2.0, -1.0), math.log(0.5))
    value = bipath(first, second, truth, valid)
    # Zero padding reaches no cell: a shift by part of a cell at the coarse levels stays inside where it counts.
    np.testing.assert_allclose(value, 4 * (math.log(2.0) + LOG_2PI), rtol=1e-5)


def test_bipath_looks_up_the_second_flow_where_the_first_leads():
    truth, valid = constant((2.0, 0.0), 1, *SIZE), jnp.ones((1, *SIZE), bool)
    first, second = levels((2.0, 0.5), 0.0), levels((0.0, -0.5), 0.0)
    for number, factor in zip(NUMBERS, (4, 2, 2, 1), strict=True):  # Wrong where nothing leads: the first columns.
        x = second[f"flow{number}"]
        second[f"flow{number}"] = x.at[:, :, : 2 // factor].set(50.0)
    np.testing.assert_allclose(bipath(first, second, truth, valid), 4 * (math.log(2.0) + LOG_2PI), rtol=1e-5)


def test_the_flow_that_leads_has_no_gradient_from_looking_up():
    truth, valid = constant((0.0, 0.0), 1, *SIZE), jnp.ones((1, *SIZE), bool)
    ramp = jnp.linspace(0.0, 3.0, SIZE[1])[None, None, :, None]
    first = {"flow1": constant((0.5, 0.5), 1, *SIZE), "logvar1": constant(0.0, 1, *SIZE)}
    second = {"flow1": jnp.concatenate([jnp.broadcast_to(ramp, (1, *SIZE, 1)), constant(0.0, 1, *SIZE)], -1)}
    second["logvar1"] = constant(0.0, 1, *SIZE)
    others = {name: x for name, x in levels((0.0, 0.0), 0.0).items() if not name.endswith("1")}

    def loss(flow):
        return bipath(others | first | {"flow1": flow}, others | second, truth, valid)

    def composed_only(flow):  # What remains if the place is taken as it is.
        moved = ramp + 0.5 * (ramp[0, 0, 1] - ramp[0, 0, 0])
        seen = flow + jnp.concatenate([jnp.broadcast_to(moved, (1, *SIZE, 1)), constant(0.0, 1, *SIZE)], -1)
        inside = np.zeros((1, *SIZE), bool)
        inside[:, :-1, :-1] = True
        return flow_likelihood(seen, constant(math.log(2.0), 1, *SIZE), truth, inside)

    np.testing.assert_allclose(
        jax.jit(jax.grad(loss))(first["flow1"]), jax.jit(jax.grad(composed_only))(first["flow1"]), atol=1e-6
    )


def test_hidden_pixels_can_be_left_out():
    truth, valid = constant((0.0, 0.0), 1, *SIZE), jnp.ones((1, *SIZE), bool)
    first, second = levels((0.0, 0.0), 0.0), levels((5.0, 0.0), 0.0)
    right = {name: x.at[:, : x.shape[1] // 2].set(0.0) for name, x in second.items()}
    value = bipath(first, right, truth, valid, visible_only=True)
    np.testing.assert_allclose(value, 4 * (math.log(2.0) + LOG_2PI), rtol=1e-5)
    assert bipath(first, right, truth, valid) > value
    # 0.6^2 <= 0.03 * (0.6^2) + 0.5 stays, 0.8^2 does not.
    near, far = (bipath(first, levels((d, 0.0), 0.0), truth, valid, True) for d in (0.6, 0.8))
    assert near > 0 and far == 0


def test_balance():
    np.testing.assert_allclose(balanced(jnp.float32(2), jnp.float32(6)), 12)
    np.testing.assert_allclose(balanced(jnp.float32(6), jnp.float32(2)), 12)
    np.testing.assert_allclose(balanced(jnp.float32(0.01), jnp.float32(6)), 7)  # At most a hundredfold.
    np.testing.assert_allclose(balanced(jnp.float32(-3), jnp.float32(-1)), -4)
    up, down = jax.grad(balanced, (0, 1))(jnp.float32(2), jnp.float32(6))
    np.testing.assert_allclose([up, down], [3, 1])
