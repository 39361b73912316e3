"""A network as methods use it: how pixels enter, its passes, and the views of HRDA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.parts.alignment import PrototypeAlignment
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import InputNormalization, deinterleave, interleave
from nightjax.methods.parts.pseudo_labels import PseudoLabels
from nightjax.methods.supervised import Supervised
from nightjax.models import build_segmenter
from nightjax.zoo.models import INPUTS

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)


@pytest.fixture(scope="module")
def method(plain_hrda):
    return DsrFpa(
        plain_hrda,
        SGD,
        Training(10),
        pseudo_labels=PseudoLabels(0.3),
        mixing=ClassMix("object_groups", photometric=None),
        alignment=PrototypeAlignment(start_step=2),
    )


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch, step=5)


@pytest.fixture(scope="module")
def source_pass(method, state, batch):
    """The student's training pass over the source."""
    image, keys = method.network.input.decode(batch["source"]["image"]), method.training.keys(state)
    return method.network.student_pass(method.variables(state), image, keys, "source")[0]


def test_caffes_input_is_bgr_minus_its_mean():
    caffe = InputNormalization(**INPUTS["caffe"])
    pixels = jnp.array([[[[10, 20, 30]]]], jnp.uint8)
    x = caffe(pixels)
    np.testing.assert_allclose(x[0, 0, 0], [30 - 104.00698793, 20 - 116.66876762, 10 - 122.67891434], rtol=1e-5)
    np.testing.assert_allclose(caffe.denormalize(x), caffe.decode(pixels), atol=1e-6)
    with pytest.raises(UserError, match="model.input.order='bgrr'.*'bgr'"):
        configs.build(InputNormalization, {"order": "bgrr"}, "model.input")


def test_interleaved_one_of_each_in_turn():
    night, day = jnp.array([1, 2]), jnp.array([10, 20])
    both = interleave([night, day])
    np.testing.assert_array_equal(both, [1, 10, 2, 20])
    np.testing.assert_array_equal(deinterleave(both, 2)[1], day)


def test_a_batch_is_decoded_whole(plain, batch):
    found = plain.decode(batch)
    assert {domain: set(fields) for domain, fields in found.items()} == {
        "source": {"image"},
        "target": {"image", "reference"},
    }
    np.testing.assert_array_equal(found["target"]["reference"], plain.input.decode(batch["target"]["reference"]))


def test_hrda_loss_and_window(method, state, batch, source_pass):
    label, outputs = batch["source"]["label"], source_pass

    def offset(name, part):
        key = method.training.keys(state, part)(f"detail_{name}")
        return np.asarray(method.network.model.draw_view(key, (64, 64))["detail_offset"])

    offsets = [offset(name, part) for name in ("source", "night", "mixed") for part in range(3)]
    assert all((offset % 8 == 0).all() and (offset <= 32).all() for offset in offsets)
    assert len({tuple(offset) for offset in offsets}) > 3

    y, x = map(int, offsets[0])
    np.testing.assert_array_equal(outputs["detail_box"], [[y, y + 32, x, x + 32]])
    weight = jnp.linspace(0, 1, label.size).reshape(label.shape)
    fused = pixel_weighted_cross_entropy(outputs["logits"], label, weight)
    window = np.s_[:, y : y + 32, x : x + 32]
    detail = pixel_weighted_cross_entropy(outputs["hr_logits"][:, 0], label[window], weight[window])
    for share in (0.1, 0.4):
        loss = SegmentationLoss(detail=share)(outputs, label, weight)
        np.testing.assert_allclose(loss, (1 - share) * fused + share * detail, rtol=1e-6)


def test_hrda_features_are_those_of_the_context_view(method, state, batch, source_pass):
    image = method.network.input.decode(batch["source"]["image"])
    features = method.network.features(method.variables(state), image)
    assert features["stage4"].shape == (2, 4, 4, 8)
    np.testing.assert_allclose(features["stage4"], source_pass["stage4"], atol=1e-5)


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


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 48])
def test_passes_of_one_size_are_one(without_dropout, batch, make_state, size):
    """Outputs, gradients and running statistics are those of passes one after the other, whatever the sizes are."""
    network, method = without_dropout, Supervised(without_dropout, SGD, Training(1))
    state = make_state(method, batch)
    images = {"source": batch["source"]["image"], "night": batch["target"]["image"]}
    images = {"day": batch["target"]["reference"][:, :size]} | images
    images = {name: network.input.decode(image) for name, image in images.items()}
    keys = method.training.keys(state)

    def together(params):
        variables = {"params": params, "batch_stats": state.batch_stats["student"]}
        found, stats = network.student_passes(variables, images, keys)
        return sum(jnp.sum(jnp.sin(outputs["logits"])) for outputs in found.values()), (found, stats)

    def apart(params):
        found, stats = {}, state.batch_stats["student"]
        for name, image in images.items():
            found[name], stats = network.student_pass({"params": params, "batch_stats": stats}, image, keys, name)
        return sum(jnp.sum(jnp.sin(outputs["logits"])) for outputs in found.values()), (found, stats)

    results = [jax.jit(jax.grad(form, has_aux=True))(state.params["student"]) for form in (together, apart)]
    for got, want in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-4 * max(1.0, float(jnp.abs(want).max())))
