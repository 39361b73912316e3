"""What `NetworkMethod` gives to every method: the losses, and the views of an HRDA model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nightjax.methods.network import NetworkMethod

from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.models import build_segmenter

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)


@pytest.fixture(scope="module")
def method(plain_hrda):
    return DsrFpa(model=plain_hrda, optimizer=SGD, steps=10, threshold=0.3, photometric=None, fpa_start_step=2)


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch, step=5)


def test_class_weights_and_divisor(plain_model, batch):
    method = NetworkMethod(model=plain_model, optimizer=SGD, steps=1)
    label = batch["source"]["label"]
    assert method.label_weight(label) is None
    table = np.linspace(0.5, 2, 19)
    weighted = dataclasses.replace(method, class_weights=tuple(table))
    weight = weighted.label_weight(label)
    pixels = np.where(label == 255, 0, table[np.minimum(label, 18)])
    np.testing.assert_allclose(weight, pixels, rtol=1e-6)
    logits = jax.random.normal(jax.random.key(0), (2, 16, 16, 19))
    for divisor in ("all", "valid"):
        got = weighted.segmentation_loss({"logits": logits}, label, weight, normalizer=divisor)
        want = pixel_weighted_cross_entropy(logits, label, pixels, normalizer=divisor)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_hrda_loss_and_window(method, state, batch):
    image, label = method.input.decode(batch["source"]["image"]), batch["source"]["label"]
    offsets = [
        np.asarray(method.detail_offset(state, name, part, (64, 64)))
        for name in ("source", "night", "mixed")
        for part in range(3)
    ]
    assert all((offset % 8 == 0).all() and (offset <= 32).all() for offset in offsets)
    assert len({tuple(offset) for offset in offsets}) > 3

    outputs, _ = method.student_forward(state, state.params["student"], {}, image, "source")
    y, x = map(int, method.detail_offset(state, "source", 0, (64, 64)))
    np.testing.assert_array_equal(outputs["detail_box"], [[y, y + 32, x, x + 32]])
    weight = jnp.linspace(0, 1, label.size).reshape(label.shape)
    fused = pixel_weighted_cross_entropy(outputs["logits"], label, weight)
    window = np.s_[:, y : y + 32, x : x + 32]
    detail = pixel_weighted_cross_entropy(outputs["hr_logits"][:, 0], label[window], weight[window])
    for share in (0.1, 0.4):
        loss = dataclasses.replace(method, detail_weight=share).segmentation_loss(outputs, label, weight)
        np.testing.assert_allclose(loss, (1 - share) * fused + share * detail, rtol=1e-6)


def test_hrda_features_are_those_of_the_context_view(method, state, batch):
    image = method.input.decode(batch["source"]["image"])
    outputs, _ = method.student_forward(state, state.params["student"], {}, image, "source")
    features = method.features(method.variables(state), image)
    assert features["stage4"].shape == (2, 4, 4, 8)
    np.testing.assert_allclose(features["stage4"], outputs["stage4"], atol=1e-5)


@pytest.mark.slow
def test_hrda_two_steps(method, state, batch):
    step = jax.jit(method.train_step)
    after, first = step(state, batch)
    _, second = step(after, batch)
    assert all(np.isfinite(value) for scalars in (first, second) for value in scalars.values())
    assert second["loss_source"] < first["loss_source"]
    assert min(first[f"loss_{term}"] for term in ("fpa", "feature_distance", "mixed")) > 0
    assert method.predict(method.variables(after), batch["target"]["image"]).shape == (
        2,
        16,
        16,
        19,
    )


def test_hrda_is_built_by_name():
    model = build_segmenter("mit_tiny", "segformer", 7, hrda=True, head_channels=8, attention_channels=4)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    assert set(shapes) == {"backbone", "head", "hrda_scale_attention"}
    assert shapes["hrda_scale_attention"]["linear_pred"]["kernel"].shape[-2:] == (4, 7)
    with pytest.raises(UserError, match="attention_channels"):
        build_segmenter("mit_tiny", "segformer", attention_channels=4)


@pytest.mark.parametrize("size", [64, 48])
def test_passes_of_one_size_are_one(small_resnet, batch, make_state, size):
    """Outputs, gradients and running statistics are those of passes one after the other, whatever the sizes are."""
    model = small_resnet.clone(head=small_resnet.head.clone(dropout=0.0))
    method = NetworkMethod(model=model, optimizer=SGD, steps=1)
    state = make_state(method, batch)
    images = {"source": batch["source"]["image"], "night": batch["target"]["image"]}
    images = {"day": batch["target"]["reference"][:, :size]} | images
    images = {name: method.input.decode(image) for name, image in images.items()}

    def together(params):
        found, stats = method.student_passes(state, params, state.batch_stats["student"], images)
        return sum(jnp.sum(jnp.sin(outputs["logits"])) for outputs in found.values()), (found, stats)

    def apart(params):
        found, stats = {}, state.batch_stats["student"]
        for name, image in images.items():
            found[name], stats = method.student_forward(state, params, stats, image, name)
        return sum(jnp.sum(jnp.sin(outputs["logits"])) for outputs in found.values()), (found, stats)

    results = [jax.jit(jax.grad(form, has_aux=True))(state.params["student"]) for form in (together, apart)]
    for got, want in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-4 * max(1.0, float(jnp.abs(want).max())))
