"""The step that all methods share: players, microbatches, clipping, what is logged and what is counted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nightjax.core.optim import Group, Optimizer
from nightjax.core.rng import stream_key
from nightjax.core.state import TrainState
from nightjax.core.step import Outcome, Player, Training, accumulate, first_opt_state, from_step, gradient_step

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)
TRAINING = Training(10)
ALONE = {"student": Player(SGD, ("student",))}
TWO = {
    "student": Player(SGD, ("student",)),
    "discriminators": Player(dataclasses.replace(SGD, lr=0.2, schedule="linear_tail"), ("day", "night")),
}
X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def first_state(players):
    names = [name for player in players.values() for name in player.networks]
    params = {name: {"layer": {"kernel": jnp.arange(1.0, 4.0) + i}} for i, name in enumerate(names)}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats={name: {"seen": jnp.zeros(())} for name in names},
        opt_state=first_opt_state(players, params, TRAINING.steps),
    )


def scores(params, x):
    return x @ params["layer"]["kernel"]


def student_loss(params, stats, part, i):
    """Its gradient is the mean of that of its examples; it counts them, and hands its scores on."""
    del i
    found = jnp.tanh(scores(params["student"], part["x"]))
    stats = {"student": {"seen": stats["student"]["seen"] + len(found)}}
    return found.mean(), Outcome({"loss": found.mean()}, stats, {"shown": found})


def discriminator_loss(params, stats, part, i):
    del stats, i
    loss = sum((scores(params[name], part["x"]) - part["shown"]).mean() for name in ("day", "night"))
    return loss, Outcome({"discriminators": loss})


LOSSES = {"student": student_loss, "discriminators": discriminator_loss}


def kernel(state, name="student"):
    return np.asarray(state.params[name]["layer"]["kernel"])


def student_gradient(x=X):
    loss = lambda kernel: jnp.tanh(x @ kernel).mean()
    return np.asarray(jax.grad(loss)(jnp.arange(1.0, 4.0)))


@pytest.fixture(scope="module")
def step():
    """``step(players, losses, state, training, **options)``, compiled."""

    def run(players, losses, state, training=TRAINING, **options):
        call = lambda state, x: gradient_step(state, players, losses, {"x": x}, training, **options)
        return jax.jit(call)(state, X)

    return run


def test_one_player(step):
    before = first_state(ALONE)
    after, scalars = step(ALONE, {"student": student_loss}, before)
    np.testing.assert_allclose(kernel(after), kernel(before) - 0.1 * student_gradient(), rtol=1e-6)
    assert set(scalars) == {"loss", "gradient_norm", "learning_rate"}
    np.testing.assert_allclose(scalars["gradient_norm"], np.linalg.norm(student_gradient()), rtol=1e-6)
    np.testing.assert_allclose(scalars["learning_rate"], 0.1)
    assert int(after.step) == 1 and float(after.batch_stats["student"]["seen"]) == 4


def test_several_players(step):
    """Each has its own norm and rate by name; a later one reads what an earlier one handed on before the update."""
    before = first_state(TWO)
    after, scalars = step(TWO, LOSSES, before)
    names = {f"{kind}_{name}" for kind in ("gradient_norm", "learning_rate") for name in TWO}
    assert set(scalars) == {"loss", "discriminators"} | names
    np.testing.assert_allclose(kernel(after), kernel(before) - 0.1 * student_gradient(), rtol=1e-6)
    for name in ("day", "night"):
        np.testing.assert_allclose(kernel(after, name), kernel(before, name) - 0.2 * X.mean(0), rtol=1e-6)
    shown = np.tanh(X @ kernel(before))
    expected = sum((X @ kernel(before, name) - shown).mean() for name in ("day", "night"))
    np.testing.assert_allclose(scalars["discriminators"], expected, rtol=1e-5)
    both = np.sqrt(2 * np.sum(X.mean(0) ** 2))
    np.testing.assert_allclose(scalars["gradient_norm_discriminators"], both, rtol=1e-5)
    rates = [float(scalars[f"learning_rate_{name}"]) for name in TWO]
    np.testing.assert_allclose(rates, [0.1, 0.2], rtol=1e-6)


def test_a_player_without_a_loss_rests(step):
    before = first_state(TWO)
    after, scalars = step(TWO, {"student": student_loss}, before)
    for name in ("day", "night"):
        np.testing.assert_array_equal(kernel(after, name), kernel(before, name))
    jax.tree.map(np.testing.assert_array_equal, after.opt_state["discriminators"], before.opt_state["discriminators"])
    assert set(scalars) == {"loss", "gradient_norm_student", "learning_rate_student"}


@pytest.mark.parametrize("count", [2, 4])
def test_microbatches_equal_the_whole_batch(step, count):
    before = first_state(TWO)
    whole, whole_scalars = step(TWO, LOSSES, before)
    parts, scalars = step(TWO, LOSSES, before, Training(10, accumulate=count))
    for name in ("student", "day", "night"):
        np.testing.assert_allclose(kernel(parts, name), kernel(whole, name), rtol=1e-6)
    assert scalars.keys() == whole_scalars.keys()
    for name, value in whole_scalars.items():
        np.testing.assert_allclose(scalars[name], value, rtol=1e-5, err_msg=name)
    assert float(parts.batch_stats["student"]["seen"]) == 4  # Handed on from one to the next.
    assert int(parts.step) == 1


def test_the_logged_norm_is_that_before_clipping(step):
    norm = np.linalg.norm(student_gradient())
    players = {"student": Player(dataclasses.replace(SGD, clip_norm=float(norm / 2)), ("student",))}
    before = first_state(players)
    after, scalars = step(players, {"student": student_loss}, before)
    np.testing.assert_allclose(scalars["gradient_norm"], norm, rtol=1e-6)
    np.testing.assert_allclose(kernel(after), kernel(before) - 0.05 * student_gradient(), rtol=1e-5)


def test_a_step_of_several_networks_clips_them_together(step):
    """One optimizer sees the norm over all of its networks."""
    both = np.sqrt(2 * np.sum(X.mean(0) ** 2))
    clipped = dataclasses.replace(SGD, clip_norm=float(both / 2))
    players = TWO | {"discriminators": Player(clipped, ("day", "night"))}
    before = first_state(players)
    after, _ = step(players, LOSSES, before)
    for name in ("day", "night"):
        np.testing.assert_allclose(kernel(after, name), kernel(before, name) - 0.05 * X.mean(0), rtol=1e-5)


def test_turns_count_as_one_step(step):
    """The first turn does not count the step; the second sees the first one's parameters."""
    before = first_state(TWO)
    middle, first = step(TWO, {"student": student_loss}, before, last=False)
    assert int(middle.step) == 0 and (kernel(middle) != kernel(before)).any()
    shown = jnp.tanh(X @ kernel(middle))
    loss = lambda params, stats, part, i: discriminator_loss(params, stats, part | {"shown": shown}, i)
    after, second = step(TWO, {"discriminators": loss}, middle)
    assert int(after.step) == 1
    np.testing.assert_array_equal(kernel(after), kernel(middle))
    assert set(first).isdisjoint(second)


def test_groups_are_relative_to_the_network(step):
    frozen = dataclasses.replace(SGD, groups=(Group("^layer/", lr=0.0),))
    players = TWO | {"discriminators": Player(frozen, ("day", "night"))}
    before = first_state(players)
    after, _ = step(players, LOSSES, before)
    for name in ("day", "night"):
        np.testing.assert_array_equal(kernel(after, name), kernel(before, name))


def test_keys_are_a_function_of_seed_step_stream_and_microbatch():
    training, state = Training(10, seed=3), first_state(ALONE)
    later = state.replace(step=state.step + 1)
    data = lambda key: tuple(jax.random.key_data(key).tolist())
    expected = jax.random.fold_in(stream_key(3, state.step, "mix"), 2)
    assert data(training.key(state, "mix", 2)) == data(training.keys(state, 2)("mix")) == data(expected)
    others = [
        training.key(state, "mix"),
        training.key(state, "mix", 1),
        training.key(state, "blur"),
        training.key(later, "mix"),
        Training(10, seed=4).key(state, "mix"),
    ]
    assert len(set(map(data, others))) == len(others)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_accumulated_gradient_is_that_of_the_whole(parts):
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    w = np.array([1.0, -2.0, 0.5], np.float32)

    def gradients(carry, part, i):
        del i
        loss, grads = jax.value_and_grad(lambda w: jnp.mean(jnp.tanh(part @ w)))(w)
        return grads, carry + part.shape[0], {"loss": loss}

    grads, seen, scalars = jax.jit(lambda x: accumulate(gradients, jnp.zeros((), jnp.int32), x, parts))(x)
    whole = jax.grad(lambda w: jnp.mean(jnp.tanh(x @ w)))(w)
    np.testing.assert_allclose(grads, whole, atol=1e-6 * np.abs(whole).max())
    assert int(seen) == 8
    np.testing.assert_allclose(scalars["loss"], np.tanh(x @ w).mean(), atol=1e-6)  # Terms are of order 1.


def test_microbatches_are_taken_by_stride():
    def gradients(carry, part, i):
        return jnp.zeros(()), carry.at[i].set(part), {}

    _, seen, _ = accumulate(gradients, jnp.zeros((2, 3), jnp.int32), jnp.arange(6), 2)
    np.testing.assert_array_equal(seen, [[0, 2, 4], [1, 3, 5]])


def from_step_program(start, calls):
    def run(step, x):
        def compute():
            jax.debug.callback(lambda: calls.append(1))
            return {"sum": x.sum(), "twice": 2 * x}

        return from_step(step, start, compute, {"sum": jnp.zeros(()), "twice": jnp.zeros_like(x)})

    return run


def test_nothing_is_computed_before_the_start():
    calls = []
    run, x = jax.jit(from_step_program(2, calls)), jnp.arange(3.0)
    for step in range(4):
        found = run(jnp.int32(step), x)
        jax.block_until_ready(found)
        jax.effects_barrier()
        assert len(calls) == max(0, step - 1)
        np.testing.assert_array_equal(found["twice"], 2 * x if step >= 2 else 0 * x)
        np.testing.assert_array_equal(found["sum"], x.sum() if step >= 2 else 0)


def test_a_start_at_once_leaves_no_condition():
    program = lambda start: str(jax.make_jaxpr(from_step_program(start, []))(jnp.int32(0), jnp.arange(3.0)))
    assert "cond[" in program(2)
    assert "cond[" not in program(0)


def test_what_has_not_started_has_no_gradient():
    def loss(w, step):
        return from_step(step, 3, lambda: (w**2).sum(), jnp.zeros(()))

    grads = jax.jit(jax.grad(loss))
    w = jnp.arange(3.0)
    np.testing.assert_array_equal(grads(w, jnp.int32(2)), 0 * w)
    np.testing.assert_array_equal(grads(w, jnp.int32(3)), 2 * w)


def test_first_state_of_the_optimizers():
    """Of each one's own parameters."""
    state = first_state(TWO)
    assert set(state.opt_state) == set(TWO)
    momentum = {"all": Player(dataclasses.replace(SGD, momentum=0.9), ("day", "night"))}
    trace = optax.tree.get(first_opt_state(momentum, state.params, 10)["all"], "trace")
    assert set(trace) == {"day", "night"}


def test_several_losses_of_one_player(step):
    """Their gradients are added, and running statistics go from one to the next, in the microbatches too."""

    def twice(params, stats, part, i):
        loss, outcome = student_loss(params, stats, part, i)
        return 2 * loss, outcome._replace(scalars={"twice": 2 * loss})

    before = first_state(ALONE)
    for count in (1, 2):
        training = Training(10, accumulate=count)
        after, scalars = step(ALONE, {"student": [student_loss, twice]}, before, training)
        np.testing.assert_allclose(kernel(after), kernel(before) - 0.3 * student_gradient(), rtol=1e-6)
        np.testing.assert_allclose(scalars["twice"], 2 * scalars["loss"], rtol=1e-6)
        assert float(after.batch_stats["student"]["seen"]) == 8
