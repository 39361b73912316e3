import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.method import segments
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.losses import translation
from nightjax.methods.cyclegan import CycleGAN
from nightjax.models.cyclegan import ResnetGenerator
from tests.helpers.methods import changed


@pytest.fixture(scope="module")
def method():
    optimizer = Optimizer(name="adam", lr=1e-3, b1=0.5, weight_decay=0.0, schedule="linear_tail")
    return CycleGAN(ResnetGenerator(2, blocks=1), optimizer, Training(10), discriminator_features=2, buffer=4)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.RandomState(0)
    image = lambda: jnp.asarray(rng.randint(0, 256, (2, 32, 32, 3)), jnp.uint8)
    return {"source": {"image": image()}, "target": {"image": image()}}


@pytest.fixture(scope="module")
def steps(method, batch):
    """The first state, the state after three steps, and the scalars of each."""
    first = state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step, scalars = jax.jit(method.train_step), []
    for _ in range(3):
        state, values = step(state, batch)
        scalars.append(values)
    return first, state, scalars


def test_steps_are_finite_and_move_both_players(steps):
    first, state, scalars = steps
    assert int(state.step) == 3
    assert all(np.isfinite(value) for values in scalars for value in values.values())
    assert scalars[0]["loss"] != scalars[1]["loss"]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params, state.params)
    assert all(jax.tree.leaves(moved))


def test_loss_is_the_sum_of_its_weighted_terms(steps):
    for values in steps[2]:
        total = sum(values[f"adversarial_{d}"] + 10 * values[f"cycle_{d}"] + 5 * values[f"identity_{d}"] for d in "ab")
        np.testing.assert_allclose(values["loss"], total, rtol=1e-5)


@pytest.mark.slow
def test_generators_and_discriminators_do_not_train_each_other(method, batch, steps):
    state = steps[0]
    part = {"a": batch["source"]["image"] / 127.5 - 1.0, "b": batch["target"]["image"] / 127.5 - 1.0}

    def discriminators(params):
        fakes = {f"shown_{d}": method._to(params["generators"], d, part[o]) for d, o in (("a", "b"), ("b", "a"))}
        return method.discriminator_loss(state.params, {}, part | jax.lax.stop_gradient(fakes), 0)[0]

    gradient = jax.jit(jax.grad(discriminators))(state.params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))
    still, _ = changed(method, optimizer__lr=0.0).train_step(state, batch)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), still.params, state.params)))


def test_perfect_scores():
    """Real 1 and fake 0: the discriminator's loss is 0 and each generator's 1."""
    fake, real = [jnp.zeros((1, 3, 3, 1))], [jnp.ones((1, 3, 3, 1))]
    assert float(translation.discriminator_loss(fake, real)) == 0
    assert float(translation.generator_loss(fake)) == 1


def test_identity_generators_have_no_cycle_or_identity_loss(method, steps, batch, monkeypatch):
    monkeypatch.setattr(CycleGAN, "_to", lambda self, own, domain, x: x)
    part = {"a": batch["source"]["image"] / 127.5 - 1.0, "b": batch["target"]["image"] / 127.5 - 1.0}
    _, outcome = method.generator_loss(steps[0], steps[0].params, {}, part, 0)
    assert all(float(outcome.scalars[f"{name}_{d}"]) == 0 for name in ("cycle", "identity") for d in "ab")


def test_buffers_fill_and_are_dealt_to_the_examples(steps):
    first, state, _ = steps
    for domain in "ab":
        before, after = (s.memory[f"images_{domain}"] for s in (first, state))
        assert before.image.shape == (2, 2, 32, 32, 3)
        assert int(before.count) == 0 and int(after.count) == 2
        assert np.any(after.image[1])


@pytest.mark.slow
def test_accumulation_gives_the_same_step(method, batch, steps):
    whole, _ = jax.jit(method.train_step)(steps[0], batch)
    parts, _ = jax.jit(changed(method, training__accumulate=2).train_step)(steps[0], batch)
    for a, b in zip(jax.tree.leaves(whole.memory), jax.tree.leaves(parts.memory), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    flat = lambda state: {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(state.opt_state)}
    first, second = flat(whole), flat(parts)
    for name in (name for name in first if ".mu" in name and "kernel" in name):
        np.testing.assert_allclose(first[name], second[name], atol=1e-4 * np.abs(first[name]).max(), err_msg=name)


def test_translation_of_any_size(method, steps):
    image = jnp.asarray(np.random.RandomState(1).randint(0, 256, (1, 30, 37, 3)), jnp.uint8)
    variables = method.variables(steps[1])
    for to in ("day", "night"):
        picture = method.translate(variables, image, to)
        assert picture.shape == image.shape and picture.dtype == jnp.float32
        assert float(picture.min()) >= 0 and float(picture.max()) <= 1
    with pytest.raises(UserError, match="nightjax translate"):
        segments(method)


def test_visualizations(method, steps, batch):
    shown = jax.jit(method.visualizations)(steps[1], batch)
    assert set(shown) == {"a", "a_to_b", "a_to_b_to_a", "b", "b_to_a", "b_to_a_to_b"}
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in shown.values())
