import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.parts.loss import FocalMixture
from nightjax.methods.parts.network import InputNormalization
from nightjax.methods.parts.photometric import ColorJitter, Photometric
from nightjax.methods.supervised import Supervised
from tests.helpers.methods import changed


@pytest.fixture(scope="module")
def method(without_dropout):
    return Supervised(without_dropout, Optimizer(lr=1e-2, weight_decay=0.0), Training(10))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = np.repeat(np.repeat(rng.choice([0, 2, 13, 255], (2, 4, 4)), 16, 1), 16, 2).astype(np.uint8)
    image = rng.integers(0, 255, (256, 3))[label] + rng.integers(-9, 9, (*label.shape, 3))
    return {"source": {"image": jnp.asarray(np.clip(image, 0, 255), jnp.uint8), "label": jnp.asarray(label)}}


def loss(method, batch):
    state = method.init(jax.random.key(0), batch)
    return float(jax.jit(method.train_step)(state, batch)[1]["loss"])


def test_two_steps_move_the_loss(method, batch):
    state = method.init(jax.random.key(0), batch)
    step = jax.jit(method.train_step)
    losses = []
    for _ in range(3):
        state, scalars = step(state, batch)
        losses.append(float(scalars["loss"]))
    assert np.isfinite(losses).all() and losses[2] < losses[0]
    assert int(state.step) == 3


def test_normalizer(method, batch):
    valid = np.mean(np.asarray(batch["source"]["label"]) != 255)
    whole = loss(changed(method, loss__normalizer="all"), batch)
    assert whole == pytest.approx(valid * loss(method, batch), rel=1e-5)


def test_class_weights(method, batch):
    method = changed(method, loss__normalizer="all")
    doubled = changed(method, loss__class_weights=(2.0,) * 19)
    assert loss(doubled, batch) == pytest.approx(2 * loss(method, batch), rel=1e-5)
    without_cars = tuple(0.0 if c == 13 else 1.0 for c in range(19))
    source = batch["source"]
    ignored = {"source": source | {"label": jnp.where(source["label"] == 13, jnp.uint8(255), source["label"])}}
    weighted = loss(changed(method, loss__class_weights=without_cars), batch)
    assert weighted == pytest.approx(loss(method, ignored), rel=1e-5)


def test_photometric_and_exposure_change_what_is_seen(method, batch):
    plain = loss(method, batch)
    sure = Photometric(ColorJitter(probability=1.0))
    assert loss(changed(method, photometric=sure), batch) != plain
    bright = changed(method, network__input=InputNormalization(exposure=0.5))
    decoded = bright.network.input.decode(batch["source"]["image"] // 4)
    luminance = decoded @ jnp.array([0.2126, 0.7152, 0.0722])
    assert float(jnp.exp(jnp.log(luminance).mean())) == pytest.approx(0.5, abs=0.1)
    assert loss(bright, batch) != plain


def test_fine_tuning_starts_from_given_weights(method, batch):
    state = method.init(jax.random.key(0), batch)
    other = method.variables(method.init(jax.random.key(1), batch))
    kernel = lambda v: np.asarray(v["params"]["head"]["conv_seg"]["kernel"])
    started = method.variables(method.with_initial(state, {"student": other}))
    np.testing.assert_array_equal(kernel(started), kernel(other))


@pytest.mark.slow
def test_mixture_with_the_focal_loss(method, batch):
    plain = loss(method, batch)
    assert loss(changed(method, loss__focal=FocalMixture(beta=1.0)), batch) == pytest.approx(plain, rel=1e-5)
    focal = loss(changed(method, loss__focal=FocalMixture(beta=0.0)), batch)
    both = loss(changed(method, loss__focal=FocalMixture(beta=0.5)), batch)
    assert both == pytest.approx((plain + focal) / 2, rel=1e-5) and focal < plain
    divided = FocalMixture(beta=1.0, mode="batch", divide_by_batch=True)
    assert loss(changed(method, loss__focal=divided), batch) == pytest.approx(plain / 2, rel=1e-5)
