import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import config as configs
from nightjax.core import sharding
from nightjax.core.checkpoint import Checkpointer
from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.dacs import Dacs
from nightjax.methods.parts.feature_distance import FeatureDistance
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.methods.parts.pseudo_labels import PseudoLabels
from nightjax.methods.parts.pulling import Negatives, Pulling, QueueSize
from nightjax.methods.parts.translation import Translation
from nightjax.methods.t2s_da import T2sDa
from nightjax.methods.t2s_dg import T2sDg
from nightjax.models import build_segmenter
from nightjax.ops.fourier import fourier_adapt
from nightjax.run import settings as run_settings
from nightjax.train import compile_step
from tests.helpers.methods import changed

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)
PULL = Pulling(channels=6, queries=7, feature="stage1", negatives=Negatives(8))
PULLS = {T2sDa: PULL, T2sDg: changed(PULL, negatives__domains="source")}
TRANSLATION = Translation(beta=0.05)
SELF_TRAINING = {"pseudo_labels": PseudoLabels(0.3), "mixing": ClassMix(photometric=None)}
"""What adaptation has and generalization has not."""


@pytest.fixture(scope="module")
def settings(plain):
    """Of all methods here; without norms and feature distance, to compile fast."""
    return {"network": plain, "optimizer": SGD, "training": Training(10), "feature_distance": None}


@pytest.fixture(scope="module")
def make(settings):
    """``make(cls, **changes)``: a method with both of its parts."""

    def run(cls=T2sDa, **changes):
        own = SELF_TRAINING if cls is T2sDa else {}
        return cls(**settings, **own | {"translation": TRANSLATION, "pull": PULLS[cls]} | changes)

    return run


@pytest.fixture(scope="module")
def method(make):
    return make()


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch)


def losses(method, state, params, examples):
    return method.student_loss(state, {"student": params}, state.batch_stats, examples, 0)[1].scalars


def everything(method, state, batch):
    """What one step computes before its update, and the gradient of the pulling loss alone."""
    *_, examples, after, scalars = method.prepare(state, state.teacher, batch)

    def pull(params):
        terms = losses(method, after, params, examples)
        return terms["loss_pull"], terms

    grads, terms = jax.grad(pull, has_aux=True)(state.params["student"])
    return {"examples": examples, "after": after, "scalars": scalars, "terms": terms, "grads": grads}


@pytest.fixture(scope="module")
def default(method, state, batch):
    return jax.jit(lambda state, batch: everything(method, state, batch))(state, batch)


def program(function, *args):
    """Text of the program that XLA gets."""
    return jax.jit(function).lower(*args).as_text()


def test_without_pull_it_is_dacs(settings, batch):
    """The same program from the same inputs: bit for bit."""
    none = T2sDa(**settings, **SELF_TRAINING, translation=None, pull=None)
    dacs, key = Dacs(**settings, **SELF_TRAINING), jax.random.key(0)
    assert program(none.init, key, batch) == program(dacs.init, key, batch)
    shapes = jax.eval_shape(dacs.init, key, batch)
    assert program(none.train_step, shapes, batch) == program(dacs.train_step, shapes, batch)


def test_pulling_moves_backbone_and_projection_but_not_the_classifier(default):
    size = lambda tree: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))
    grads = default["grads"]
    assert size(grads["backbone"]["first"]) > 0 and size(grads["projection"]["conv1"]) > 0
    assert size(grads["head"]) == 0
    assert float(default["terms"]["loss_pull"]) > 0
    assert set(default["terms"]) == {"loss_source", "loss_mixed", "loss_pull"}


def test_pseudo_targets_are_the_source_under_the_targets_amplitude(method, batch, default):
    source, target = (batch[domain]["image"] / np.float32(255) for domain in ("source", "target"))
    translated = default["examples"]["translated"]
    np.testing.assert_allclose(translated, fourier_adapt(source, target, method.translation.beta), atol=1e-5)
    assert float(jnp.abs(translated - source).max()) > 0.01
    np.testing.assert_array_equal(default["examples"]["source_label"], batch["source"]["label"])


def test_keys_and_tables(default, state, batch):
    examples, memory = default["examples"], default["after"].memory
    assert examples["source_keys"].shape == examples["target_keys"].shape == (2, 16, 16, 6)
    assert examples["target_cells"].shape == (2, 16, 16) and examples["target_cells"].dtype == jnp.uint8
    np.testing.assert_array_equal(examples["source_cells"], batch["source"]["label"][:, ::4, ::4])
    predicted = np.isin(np.arange(19), examples["target_cells"])
    assert ((np.asarray(memory["confidence"]) > 0) == predicted).all() and float(memory["confidence"].max()) <= 0.01
    np.testing.assert_allclose(default["scalars"]["confidence"], memory["confidence"].mean(), rtol=1e-6)
    own, other = (
        np.stack([tuple(default["scalars"][f"similarity/{kind}/{k:02d}"]) for k in range(19)])
        for kind in ("own", "other")
    )
    known = own[:, 1] == 1
    assert known.any() and not (known & ~predicted).any() and (own[:, 1] == other[:, 1]).all()
    assert (np.abs([own[:, 0], other[:, 0]]) <= 1.001).all() and (own[known, 0] > other[known, 0]).any()
    assert set(state.memory) == set(memory)


def test_fine_features_are_subsampled(make, batch, make_state, default):
    """Features at a quarter, a cell every 8 pixels: labels and keys of the same places, the queries' too."""
    method = make(pull=changed(PULL, spacing=8))
    state = make_state(method, batch)
    found = jax.jit(lambda state, batch: everything(method, state, batch))(state, batch)
    examples, every = found["examples"], default["examples"]
    assert examples["source_keys"].shape == examples["target_keys"].shape == (2, 8, 8, 6)
    for name in ("source_cells", "target_cells"):
        np.testing.assert_array_equal(examples[name], every[name][:, ::2, ::2])
    np.testing.assert_array_equal(examples["source_cells"], batch["source"]["label"][:, ::8, ::8])
    assert float(found["terms"]["loss_pull"]) > 0


@pytest.mark.slow
def test_two_steps_with_every_option(make, batch, make_state, tmp_path):
    negatives = Negatives(8, per_query=True, min_confidence=0.05)
    tables = {"queue": QueueSize(batches=2, cells=5), "prototype_decay": 0.9, "seen_only": True}
    options = {"weight": 0.2, "start_step": 1, "real_target": True, "negatives": negatives, **tables}
    method = make(pull=dataclasses.replace(PULL, **options), translation=Translation(weight=0.5))
    method = changed(method, training__accumulate=2)
    state, step = make_state(method, batch), jax.jit(method.train_step)
    middle, first = step(state, batch)
    last, second = step(middle, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), last) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert all(np.isfinite(value).all() for scalars in (first, second) for value in scalars.values())
    assert first["loss_pull"] == 0 < second["loss_pull"] and first["loss_translated"] > 0
    for old, new in zip(
        *(jax.tree.leaves(x) for x in (state.params["student"], middle.teacher["params"])), strict=True
    ):
        np.testing.assert_array_equal(old, new)  # The first step copies all of the student, its projection included.
    assert "projection" in middle.teacher["params"]
    older, newer = (state.memory["key_queue"].label for state in (middle, last))
    np.testing.assert_array_equal(newer[0], older[1])
    assert int(last.memory["prototypes_seen"].max()) == 2
    saver = Checkpointer(tmp_path)
    saver.save(1, middle, {}, {})
    again, _ = step(saver.restore(1, middle)[0], batch)
    saver.close()
    jax.tree.map(np.testing.assert_array_equal, again, last)


def test_untranslated_queries_need_no_pass_of_their_own(make, batch):
    method = make(translation=None)
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    _, examples, after, _ = jax.eval_shape(method.prepare, shapes, shapes.teacher, batch)
    assert "translated" not in examples
    terms = jax.eval_shape(
        lambda after, examples: losses(method, after, after.params["student"], examples), after, examples
    )
    assert set(terms) == {"loss_source", "loss_mixed", "loss_pull"}


def test_translated_images_may_have_a_loss_and_no_pull(make, batch):
    method = make(pull=None, translation=Translation(weight=1.0))
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    assert "projection" not in shapes.params["student"] and shapes.memory == {}
    scalars = jax.eval_shape(method.train_step, shapes, batch)[1]
    terms = {name for name in scalars if name.startswith("loss_")}
    assert terms == {"loss_source", "loss_mixed", "loss_translated"}
    assert not [name for name in scalars if name.startswith(("similarity/", "confidence"))]


def test_generalization_reads_no_target(make, batch, make_state):
    method = make(T2sDg)
    assert method.domains == ("source",)
    alone = {"source": batch["source"]}
    state = make_state(method, alone)
    found = jax.jit(lambda state, batch: everything(method, state, batch))(state, alone)
    assert set(found["terms"]) == {"loss_source", "loss_pull"} and float(found["terms"]["loss_pull"]) > 0
    source, translated = alone["source"]["image"] / np.float32(255), found["examples"]["translated"]
    assert (
        float(jnp.abs(translated - source).max()) > 0.01
        and 0 <= float(translated.min()) <= float(translated.max()) <= 1
    )
    assert float(found["after"].memory["confidence"].max()) > 0
    assert set(jax.eval_shape(method.visualizations, state, alone)) == {"source", "truth", "translated", "prediction"}
    shapes = jax.eval_shape(method.train_step, state, alone)[0]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


DAFORMER = {"backbone": "mit_tiny", "head": "daformer", "head_embed_dim": 4, "head_channels": 8}
NETWORKS = {
    "deeplab": ({"backbone": "resnet_tiny", "head": "deeplab_v2"}, 8),
    "daformer": (DAFORMER, 4),
    "hrda": (DAFORMER | {"hrda": True, "attention_channels": 4}, 8),
}
"""To the network and the stride of its keys, those of HRDA on the context view at half size."""


@pytest.mark.parametrize("cls", [T2sDa, T2sDg])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_of_the_papers(make, batch, network, cls):
    """Traced only, to be fast."""
    options, stride = NETWORKS[network]
    method = make(cls, pull=changed(PULLS[cls], feature="penultimate"))
    network = SegmentationNetwork(build_segmenter(**options))
    method = dataclasses.replace(method, network=network, feature_distance=FeatureDistance())
    batch = {name: batch[name] for name in method.domains}
    state = jax.eval_shape(method.init, jax.random.key(0), batch)
    *_, examples, prepared, _ = jax.eval_shape(method.prepare, state, state.teacher, batch)
    cells = (2, 64 // stride, 64 // stride)
    assert examples["source_keys"].shape == examples["target_keys"].shape == (*cells, 6)
    assert examples["target_cells"].shape == cells and examples["translated"].shape == (2, 64, 64, 3)
    after, scalars = jax.eval_shape(method.train_step, state, batch)
    for new in (prepared, after):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    losses = {"loss", "loss_source", "loss_feature_distance", "loss_pull"}
    assert {name for name in scalars if name.startswith("loss")} == losses | ({"loss_mixed"} if cls is T2sDa else set())


@pytest.mark.parametrize("cls", [T2sDa, T2sDg])
def test_no_step_gathers_the_batch(make, batch, cls):
    """On four devices; the passes through real networks are those of `Dacs`, of which `test_graph` knows."""
    changes = {"queue": QueueSize(batches=2, cells=5)} if cls is T2sDa else {}
    method = make(cls, pull=dataclasses.replace(PULLS[cls], prototype_decay=0.9, **changes))
    mesh = sharding.make_mesh(jax.devices()[:4])
    place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    split = sharding.batch_sharding(mesh)
    eight = {name: batch[name] for name in method.domains}
    eight = jax.tree.map(lambda x: place(jax.ShapeDtypeStruct((8, *x.shape[1:]), x.dtype), split), eight)
    shapes = jax.eval_shape(method.init, jax.random.key(0), eight)
    shapes = jax.tree.map(place, shapes, sharding.state_sharding(mesh, shapes))
    text = compile_step(method, shapes, eight, mesh).as_text()
    assert "all-reduce" in text
    found = re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(.*", text)
    assert not found, found


@pytest.mark.parametrize(
    "cls, changes, message",
    [
        (T2sDa, {"translation": {"kind": "fdaa"}}, "did you mean 'fda'"),
        (T2sDa, {"pull": None}, "method.translation has no effect without a pulling loss"),
        (T2sDg, {"pull": None}, "method.translation has no effect without a pulling loss"),
        (T2sDg, {"pull": PULL}, "method.pull.negatives.domains asks for target features"),
        (T2sDg, {"pull": {"real_target": True}}, "method.pull.real_target asks for target features"),
        (T2sDg, {"pull": {"queue": {}}}, "method.pull.queue asks for target features"),
    ],
)
def test_wrong_settings(settings, cls, changes, message):
    with pytest.raises(UserError, match=message) as error:
        configs.build(cls, settings | changes, "method")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [({"translation__beta": 0.5}, "beta=0.5 is out of range"), ({"pull__feature": "stage9"}, "choose from")],
)
def test_settings_that_the_network_or_the_image_forbids(method, batch, changes, message):
    method = changed(method, **changes)
    with pytest.raises(UserError, match=message):
        shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
        jax.eval_shape(method.prepare, shapes, shapes.teacher, batch)


BENCHMARKS = ("cityscapes_to_dark_zurich", "cityscapes_to_acdc_night", "gta5_to_cityscapes", "synthia_to_cityscapes")
PARTS = ("none", "fda", "uniform", "full", "source_negatives", "untranslated", "real_target")


def load(arguments):
    """The config for these arguments, and its method."""
    config = run_settings.load(f"t2s_da:{arguments}")
    return config, methods.build(config)


@pytest.mark.parametrize("data", ("nightstreet", *BENCHMARKS))
def test_configs(data):
    config, method = load(f"data={data}")
    assert isinstance(method, T2sDa) and method.domains == tuple(config.data.streams)
    rows = (method.pseudo_labels.ignore_top, method.pseudo_labels.ignore_bottom)
    assert rows == ((15, 120) if data.endswith("cityscapes") else (0, 0))
    assert method.pull.temperature == 0.2 and method.pull.channels == (64 if data == "nightstreet" else 256)


def test_config_of_generalization_has_no_target_stream():
    config, method = load("data=gta5_to_cityscapes,mode=dg")
    assert isinstance(method, T2sDg) and list(config.data.streams) == ["source"]
    styled, method = load("mode=dg,style=weights.npz")
    assert styled.train.frozen.style == "weights.npz" and method.translation.kind == "style"


@pytest.mark.parametrize("parts", PARTS)
def test_every_part_is_a_method(parts):
    method = load(f"parts={parts},preset=u2pl")[1]
    assert (method.pull is None) == (parts in ("none", "fda"))
    assert method.pull is None or method.pull.temperature == 0.5
    if parts in ("source_negatives", "real_target"):
        with pytest.raises(UserError, match="mode=dg has none"):
            load(f"parts={parts},mode=dg")
    else:
        load(f"parts={parts},mode=dg")


@pytest.mark.parametrize(
    "arguments, message",
    [("mode=uad", "did you mean 'uda'"), ("parts=ful", "did you mean 'full'"), ("preset=x", "preset")],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        load(arguments)


def test_learning_rates():
    """DAFormer's, for a base of 6e-5 in the backbone; head and projection ten times as much."""
    config, method = load("data=gta5_to_cityscapes")
    optimizer = method.optimizer
    rate = optimizer.schedule_fn(config.train.steps)
    np.testing.assert_allclose([0.1 * rate(t) for t in (49, 1500, 20000)], [1.9577e-6, 5.775e-5, 3e-5], rtol=1e-4)
    leaf = jnp.zeros((2, 2))
    params = {part: {"kernel": leaf, "bias": leaf[0]} for part in ("backbone", "head", "projection")}
    params["backbone"]["norm1"] = {"scale": leaf[0]}
    factors, decays = (tree["student"] for tree in optimizer._factors({"student": params}, ()))
    assert [factors[part]["kernel"] for part in ("backbone", "head", "projection")] == [0.1, 1.0, 1.0]
    assert (factors["backbone"]["norm1"]["scale"], decays["backbone"]["norm1"]["scale"]) == (0.1, 0.0)
    assert decays["backbone"]["bias"] == decays["head"]["bias"] == 1.0
