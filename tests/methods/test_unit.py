"""UNIT's step, its translations, and its runs through the loop."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.core.config import build, override
from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.method import segments, translates
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.interop.official_names import VGG16_CAFFE, to_official
from nightjax.interop.torch_weights import to_torch
from nightjax.losses.translation import perceptual_loss
from nightjax.methods.unit import Perceptual, Unit, Weights
from nightjax.models.unit import Discriminators, build_unit
from nightjax.run import references, settings, start
from nightjax.train import compile_step, train
from tests.helpers import toy, toy_translator
from tests.helpers.methods import changed

SIZE = (32, 48)
OPTIMIZER = Optimizer(name="adam", lr=1e-3, b1=0.5, weight_decay=1e-4, decay_vectors=True, schedule="step")
TERMS = ("adversarial", "reconstruction", "code", "cycle", "cycle_code")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.RandomState(0)
    image = lambda: {"image": jnp.asarray(rng.randint(0, 256, (2, *SIZE, 3)), jnp.uint8)}
    return {"source": image(), "target": image()}


@pytest.fixture(scope="module")
def method():
    return Unit(
        build_unit(features=2, blocks=1),
        OPTIMIZER,
        Training(10),
        discriminator=Discriminators(features=2, layers=2, scales=2),
        perceptual=Perceptual(channels=((1,), (1,), (2,), (2,), (2, 2, 2))),
    )


@pytest.fixture(scope="module")
def steps(method, batch):
    """The first state, the state after two steps, and the scalars of both."""
    first = state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step, scalars = jax.jit(method.train_step), []
    for _ in range(2):
        state, values = step(state, batch)
        scalars.append(jax.tree.map(float, dict(values)))
    return first, state, scalars


def total(method, terms):
    """The weighted sum of ``<term>_<domain>``."""
    weights = dataclasses.asdict(method.weights)
    if method.perceptual is not None:
        weights["perceptual"] = method.perceptual.weight
    return sum(weights[name.rpartition("_")[0]] * value for name, value in terms.items())


def test_total_of_terms_that_are_1(method):
    ones = {f"{term}_{domain}": 1.0 for term in (*TERMS, "perceptual") for domain in "ab"}
    assert total(method, ones) == pytest.approx(44.04)
    ones = {name: one for name, one in ones.items() if not name.startswith("perceptual")}
    assert total(dataclasses.replace(method, perceptual=None), ones) == pytest.approx(42.04)


def test_rate_of_the_published_schedule():
    config = settings.load("unit:data=nexet")
    rate = build(Optimizer, config.optim, "optim").schedule_fn(config.train.steps)
    for step, expected in ((99_998, 1e-4), (99_999, 5e-5), (199_999, 2.5e-5)):
        np.testing.assert_allclose(rate(step), expected, rtol=1e-6)


def test_published_settings():
    config = settings.load("unit:data=nexet,vgg=weights.npz")
    method = methods.build(config)
    assert method.discriminator == Discriminators("unit2018", 64, 4, 3, "layer")
    assert method.weights == Weights() and method.perceptual == Perceptual()
    assert (method.optimizer.b1, method.optimizer.decay_vectors, method.optimizer.weight_decay) == (0.5, True, 1e-4)
    assert config.train.frozen.to_dict() == {"vgg": "weights.npz", "segmenter": None} and config.train.batch == 1
    datasets = {(stream.dataset, stream.split) for stream in config.data.streams.values()}
    assert all(stream.antialias for stream in config.data.streams.values())
    assert not any(stream.antialias for stream in settings.load("unit").data.streams.values())
    assert datasets == {("nexet/day_agree", "train"), ("nexet/night_agree", "train")}
    config = settings.load("unit:data=nexet,form=unit2017")
    older = methods.build(config)
    assert older.optimizer.schedule == "constant" and config.data.streams.target.crop == (480, 640)
    assert older.noisy_code_loss and older.adversarial == "vanilla" and older.model.dropout == 0.5
    assert older.weights == Weights(10.0, 100.0, 0.1, 100.0, 0.1) and older.perceptual is None


def test_two_steps_are_finite_and_move_all_but_the_frozen(steps):
    first, state, scalars = steps
    assert state.step == 2 and all(np.isfinite(value) for values in scalars for value in values.values())
    assert scalars[0]["loss"] != scalars[1]["loss"]
    assert set(state.params) == {"generators", "discriminator_a", "discriminator_b"}
    for name in state.params:
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), first.params[name], state.params[name])
        assert all(jax.tree.leaves(changed)), name
    jax.tree.map(np.testing.assert_array_equal, first.frozen, state.frozen)


def test_the_losses_are_sums_of_their_terms(method, steps):
    for scalars in steps[2]:
        names = (*TERMS, "perceptual")
        terms = {name: value for name, value in scalars.items() if name.rpartition("_")[0] in names}
        assert len(terms) == 12
        np.testing.assert_allclose(scalars["loss"], total(method, terms), rtol=1e-5)
        both = scalars["discriminator_a"] + scalars["discriminator_b"]
        np.testing.assert_allclose(scalars["loss_discriminators"], both, rtol=1e-5)


def test_each_player_moves_its_own_parameters_only(method, steps, batch):
    """The autoencoders' turn comes after the discriminators', and their gradient leaves those alone."""
    first = steps[0]
    part = {"a": jnp.zeros((1, *SIZE, 3)), "b": jnp.ones((1, *SIZE, 3)) / 2}
    part |= method.draw_noise(first, part)

    def cross_gradients(state):
        discriminators = {name: state.params[name] for name in method.discriminator_names}

        def loss(params):
            now = state.replace(params=state.params | {"generators": params})
            return method.discriminator_loss(now, discriminators, {}, part, 0)[0]

        return jax.grad(loss)(state.params["generators"])

    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.jit(cross_gradients)(first)))


def test_noise_depends_on_step_and_name_and_is_that_of_the_code(method, steps):
    images = {domain: jnp.zeros((2, *SIZE, 3)) for domain in "ab"}
    noise = method.draw_noise(steps[0], images)
    later = method.draw_noise(steps[1], images)
    assert set(noise) == {f"{turn}_{domain}" for turn in ("judged", "direct", "cycle") for domain in "ab"}
    assert {x.shape for x in noise.values()} == {(2, SIZE[0] // 4, SIZE[1] // 4, 8)}
    values = [float(x[0, 0, 0, 0]) for x in (*noise.values(), *later.values())]
    assert len(set(values)) == len(values)


@pytest.mark.slow
def test_accumulated_parts_are_the_batch(method, steps, batch):
    first = steps[0]
    halves, _ = jax.jit(changed(method, training__accumulate=2).train_step)(first, batch)
    whole, _ = jax.jit(method.train_step)(first, batch)
    for name in whole.params:
        # Biases before an instance norm have no true gradient, and Adam makes steps of its rounding.
        pairs = zip(*(jax.tree.leaves(state.params[name]) for state in (halves, whole)), strict=True)
        same = np.concatenate([np.isclose(a, b, atol=1e-5).ravel() for a, b in pairs])
        assert same.mean() > 0.9, name


def test_translation_of_any_size_from_the_mean(method, steps):
    variables = method.variables(steps[1])
    image = jnp.asarray(np.random.RandomState(1).randint(0, 256, (1, 30, 45, 3)), jnp.uint8)
    night = jax.jit(method.translate)(variables, image)
    assert night.shape == image.shape and night.min() > 0 and night.max() < 1
    np.testing.assert_array_equal(night, jax.jit(method.translate)(variables, image))
    day = jax.jit(method.translate, static_argnames="to")(variables, image, to="day")
    assert np.abs(day - night).max() > 0
    assert translates(method) is method
    with pytest.raises(UserError, match="nightjax translate"):
        segments(method)


def test_visualizations(method, steps, batch):
    shown = jax.jit(method.visualizations)(steps[1], batch)
    assert list(shown) == ["a", "a_to_b", "a_to_b_to_a", "b", "b_to_a", "b_to_a_to_b"]
    assert all(picture.shape == batch["source"]["image"].shape for picture in shown.values())
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in shown.values())
    np.testing.assert_allclose(shown["a"], batch["source"]["image"] / 255, atol=1e-6)


@pytest.mark.slow
def test_the_network_of_2017(batch):
    method = Unit(
        build_unit("unit2017", features=2, blocks=1),
        OPTIMIZER,
        Training(10),
        discriminator=Discriminators("unit2017", 2, 2, 2, "none"),
        adversarial="vanilla",
        weights=Weights(10.0, 100.0, 0.1, 100.0, 0.1),
        perceptual=None,
        noisy_code_loss=True,
    )
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    assert not state.frozen

    @jax.jit
    def losses(state, image):
        images = {domain: image / 127.5 - 1 for domain in "ab"}
        part = images | method.draw_noise(state, images)
        return method.generator_loss(state, state.params, {}, part, 0)[1].scalars

    terms = losses(state, batch["source"]["image"].astype(jnp.float32))
    assert np.isfinite(terms["loss"]) and not any("perceptual" in name for name in terms)
    assert terms["code_a"] > 0.8  # The mean square of the noise is in it.


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_four_devices_agree_with_one_and_gather_no_batch(method, steps, batch, accumulate):
    method = changed(method, training__accumulate=accumulate)
    many = jax.tree.map(lambda x: jnp.concatenate([x, x[::-1, :, ::-1], 255 - x, x[:, ::-1]]), batch)
    results = []
    for devices in (1, 4):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        state = jax.device_put(jax.tree.map(jnp.copy, steps[0]), sharding.replicated(mesh))
        images = jax.device_put(many, sharding.batch_sharding(mesh))
        step = compile_step(method, state, images, mesh)
        found = re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(", step.as_text())
        assert not found, found
        results.append(sharding.to_host(step(state, images)))
    (one, first), (four, second) = results
    for name in first:
        np.testing.assert_allclose(second[name], first[name], rtol=1e-3, err_msg=name)
    for name in one.params:
        pairs = zip(*(jax.tree.leaves(state.params[name]) for state in (one, four)), strict=True)
        same = np.concatenate([np.isclose(a, b, atol=1e-5).ravel() for a, b in pairs])
        assert same.mean() > 0.9, name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    assert train(toy_translator.config(folder), workdir) == {}
    return workdir


def test_a_run_has_pictures_and_losses_but_no_scores(straight):
    assert list((straight / "visualizations").glob("*.png")) and not (straight / "eval").exists()
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss_discriminators" in line] == [1, 2, 3, 4]
    assert (straight / "report.html").exists()


@pytest.mark.slow
def test_four_steps_equal_two_save_load_two(folder, straight, tmp_path):
    toy.train_until(toy_translator.config(folder), tmp_path, 2)
    assert not (tmp_path / "checkpoints" / "0000004").exists()
    train(toy_translator.config(folder), tmp_path)
    one, two = toy.saved_state(straight, 4), toy.saved_state(tmp_path, 4)
    assert one.keys() == two.keys() and any("discriminator_b" in name for name in one)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.parametrize("names", ["caffe", "torchvision"])
def test_perceptual_weights_come_from_a_file(folder, tmp_path, names):
    channels = ((1, 1), (1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    config = toy_translator.config(folder, method__perceptual={"channels": channels})
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    abstract = start.abstract_state(config, method, mesh).frozen["vgg"]
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), abstract)
    state = to_torch(weights)
    if names == "caffe":
        state = to_official(state, VGG16_CAFFE)
        assert "conv5_3.weight" in state
    else:
        state["classifier.0.weight"] = np.zeros((3, 3), np.float32)
    np.savez(tmp_path / "vgg.npz", **state)
    loaded = start.load_frozen(tmp_path / "vgg.npz", abstract)
    jax.tree.map(np.testing.assert_array_equal, loaded, weights)


def test_a_segmentation_run_judges_translations(folder, tmp_path):
    """Its backbone takes VGG's place, with the run's weights and exposure; equal images cost nothing."""
    source = toy.config(folder, seed=7, model__input={"exposure": 0.4})
    run, mesh = toy.untrained_run(tmp_path / "source", source), sharding.make_mesh(jax.devices()[:1])
    config = toy_translator.config(folder, method__perceptual={"segmenter": f"run:{run}:model"})
    config = references.planned(override(config, {"train.frozen": {"segmenter": str(run)}}))
    method = methods.build(config)
    frozen = start.first_state(config, method, mesh).frozen["segmenter"]
    first = methods.build(source)
    theirs = first.variables(start.first_state(source, first, mesh))
    for part, tree in frozen.items():
        assert set(tree) == {"backbone"}
        jax.tree.map(np.testing.assert_array_equal, tree["backbone"], theirs[part]["backbone"])
    image = jax.random.uniform(jax.random.key(0), (2, *toy.SIZE, 3), minval=-1.0)
    features = jax.jit(lambda x: method.perceptual.features(frozen, x))
    expected = first.network.features(theirs, first.network.input.expose((image + 1) / 2))["stage4"]
    np.testing.assert_allclose(features(image), expected, rtol=1e-3, atol=1e-4)
    loss = jax.jit(lambda x: perceptual_loss(lambda y: method.perceptual.features(frozen, y), x, image))
    assert loss(image) < 1e-9 and loss(image[::-1]) > 0.01


def test_the_perceptual_loss_has_one_network():
    with pytest.raises(UserError, match="has one network"):
        settings.load("unit:vgg=vgg.npz,segmenter=runs/source")
    assert settings.load("unit").method.perceptual is None


def test_evaluation_sets_are_refused_in_one_line(folder, tmp_path):
    config = toy_translator.config(folder, steps=1)
    config = override(config, {"eval.sets": {"val": {"dataset": "folder", "split": "train", "batch": 2}}})
    with pytest.raises(UserError, match="nightjax translate"):
        train(config, tmp_path)
