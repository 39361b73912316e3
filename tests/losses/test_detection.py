import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.losses.detection import proposal_losses, relabel, smooth_l1


@pytest.mark.parametrize(("distance", "loss"), [(0.05, 0.01125), (1 / 9, 0.0555556), (1.0, 0.9444444)])
def test_smooth_l1(distance, loss):
    assert float(smooth_l1(jnp.float32(distance), 0.0)) == pytest.approx(loss, abs=1e-6)


def losses(label, sampled=(True, True)):
    label, sampled = jnp.array([label]), jnp.array([sampled])
    code = jnp.zeros((1, 2, 4)).at[0, 0, 0].set(1.0)
    return proposal_losses(jnp.array([[2.0, -1.0]]), code, label, jnp.zeros((1, 2, 4)), sampled)


def test_losses_before_and_after_relabelling():
    objectness, offsets = losses([1, 0])
    assert float(objectness) == pytest.approx(0.2200948, abs=1e-6)
    assert float(offsets) == pytest.approx(0.4722222, abs=1e-6)
    objectness, offsets = losses([0, 0])
    assert float(objectness) == pytest.approx(1.2200948, abs=1e-6)
    assert float(offsets) == 0.0


def test_nothing_sampled_is_no_loss():
    for value in (*losses([1, 0], (False, False)), *losses([-1, -1])):
        assert float(value) == 0.0


def test_gradients_without_positives_are_finite():
    label, sampled = jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), bool)
    target = jnp.full((1, 3, 4), jnp.nan)  # What has no true box has no target.

    def total(logits, code):
        return sum(proposal_losses(logits, code, label, target, sampled))

    grads = jax.grad(total, argnums=(0, 1))(jnp.ones((1, 3)), jnp.ones((1, 3, 4)))
    assert np.isfinite(grads[0]).all() and (np.asarray(grads[0]) != 0).all()
    np.testing.assert_array_equal(grads[1], 0.0)


def test_relabelling():
    label = jnp.array([1, 1, 0, -1])
    np.testing.assert_array_equal(relabel(label, jnp.array([1, 0, 1, 1])), [1, 0, 0, -1])
    np.testing.assert_array_equal(relabel(label, jnp.zeros(4, bool)), [0, 0, 0, -1])
    np.testing.assert_array_equal(relabel(label, jnp.ones(4, bool)), label)
