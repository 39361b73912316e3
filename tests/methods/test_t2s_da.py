import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nightjax.methods.pulling import Pulling

from configs import t2s_da
from nightjax import methods
from nightjax.core import sharding
from nightjax.core.checkpoint import Checkpointer
from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.methods.dacs import Dacs
from nightjax.methods.t2s_da import T2sDa
from nightjax.methods.t2s_dg import T2sDg
from nightjax.models import build_segmenter
from nightjax.ops.fourier import fourier_adapt
from nightjax.train import compile_step

SGD = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0)
PULL = Pulling(channels=6, queries=7, negatives=8)


@pytest.fixture(scope="module")
def settings(plain_model):
    """Of all methods here; without norms and feature distance, to compile fast."""
    return {
        "model": plain_model,
        "optimizer": SGD,
        "steps": 10,
        "threshold": 0.3,
        "photometric": None,
        "feature_weight": 0.0,
    }


@pytest.fixture(scope="module")
def method(settings):
    return T2sDa(**settings, feature="stage1", fda_beta=0.05, pull=PULL)


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch)


def everything(method, state, batch):
    """What one step computes before its update, and the gradient of the pulling loss alone."""
    examples, after, scalars = method.prepare(state, state.teacher, batch)

    def pull(params):
        terms, _ = method.losses(after, params, {}, examples, 0)
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
    none = T2sDa(**settings, feature="stage1", pull=Pulling(weight=0.0))
    dacs, key = Dacs(**settings), jax.random.key(0)
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
    np.testing.assert_allclose(translated, fourier_adapt(source, target, method.fda_beta), atol=1e-5)
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
        np.stack([default["scalars"][f"similarity/{kind}/{k:02d}"] for k in range(19)]) for kind in ("own", "other")
    )
    known = own[:, 1] == 1
    assert known.any() and not (known & ~predicted).any() and (own[:, 1] == other[:, 1]).all()
    assert (np.abs([own[:, 0], other[:, 0]]) <= 1.001).all() and (own[known, 0] > other[known, 0]).any()
    assert set(state.memory) == set(memory)


def test_fine_features_are_thinned(settings, batch, make_state, default):
    """Features at a quarter, a cell every 8 pixels: labels and keys of the same places, the queries' too."""
    method = T2sDa(**settings, feature="stage1", fda_beta=0.05, cell=8, pull=PULL)
    state = make_state(method, batch)
    found = jax.jit(lambda state, batch: everything(method, state, batch))(state, batch)
    examples, every = found["examples"], default["examples"]
    assert examples["source_keys"].shape == examples["target_keys"].shape == (2, 8, 8, 6)
    for name in ("source_cells", "target_cells"):
        np.testing.assert_array_equal(examples[name], every[name][:, ::2, ::2])
    np.testing.assert_array_equal(examples["source_cells"], batch["source"]["label"][:, ::8, ::8])
    assert float(found["terms"]["loss_pull"]) > 0


@pytest.mark.slow
def test_two_steps_with_every_option(settings, batch, make_state, tmp_path):
    tables = {"ring": 2, "ring_cells": 5, "prototype_decay": 0.9, "seen_only": True}
    pull = dataclasses.replace(PULL, weight=0.2, start_step=1, per_query=True, negative_confidence=0.05, **tables)
    options = {"real_target_queries": True, "translated_weight": 0.5, "accumulate": 2}
    method = T2sDa(**settings, feature="stage1", pull=pull, **options)
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
    np.testing.assert_array_equal(last.bank["label"][0], middle.bank["label"][1])
    assert int(last.memory["prototypes_seen"].max()) == 2
    saver = Checkpointer(tmp_path)
    saver.save(1, middle, {}, {})
    again, _ = step(saver.restore(1, middle)[0], batch)
    saver.close()
    jax.tree.map(np.testing.assert_array_equal, again, last)


def test_untranslated_queries_need_no_pass_of_their_own(settings, batch):
    method = T2sDa(**settings, feature="stage1", translation="none", pull=PULL)
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    examples, after, _ = jax.eval_shape(method.prepare, shapes, shapes.teacher, batch)
    assert "translated" not in examples
    losses = lambda after, examples: method.losses(after, after.params["student"], {}, examples, 0)[0]
    assert set(jax.eval_shape(losses, after, examples)) == {"loss_source", "loss_mixed", "loss_pull"}


def test_generalisation_reads_no_target(settings, batch, make_state):
    method = T2sDg(**settings, feature="stage1", fda_beta=0.05, pull=dataclasses.replace(PULL, negatives_from="source"))
    assert method.streams == ("source",)
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
    assert set(jax.eval_shape(method.panels, state, alone)) == {"source", "truth", "translated", "prediction"}
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
def test_networks_of_the_papers(settings, batch, network, cls):
    """Traced only, to be fast."""
    options, stride = NETWORKS[network]
    changes = {"model": build_segmenter(**options), "feature_weight": 0.005}
    pull = PULL if cls is T2sDa else dataclasses.replace(PULL, negatives_from="source")
    method = cls(**settings | changes, fda_beta=0.05, pull=pull)
    batch = {name: batch[name] for name in method.streams}
    state = jax.eval_shape(method.init, jax.random.key(0), batch)
    examples, prepared, _ = jax.eval_shape(method.prepare, state, state.teacher, batch)
    cells = (2, 64 // stride, 64 // stride)
    assert examples["source_keys"].shape == examples["target_keys"].shape == (*cells, 6)
    assert examples["target_cells"].shape == cells and examples["translated"].shape == (2, 64, 64, 3)
    after, scalars = jax.eval_shape(method.train_step, state, batch)
    for new in (prepared, after):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    losses = {"loss", "loss_source", "loss_feature_distance", "loss_pull"}
    assert {name for name in scalars if name.startswith("loss")} == losses | ({"loss_mixed"} if cls is T2sDa else set())


@pytest.mark.parametrize("cls", [T2sDa, T2sDg])
def test_no_step_gathers_the_batch(settings, batch, cls):
    """On four devices; the passes through real networks are those of `Dacs`, of which `test_graph` knows."""
    changes = {"ring": 2, "ring_cells": 5} if cls is T2sDa else {"negatives_from": "source"}
    pull = dataclasses.replace(PULL, prototype_decay=0.9, **changes)
    method = cls(**settings, feature="stage1", fda_beta=0.05, pull=pull)
    mesh = sharding.make_mesh(jax.devices()[:4])
    place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    split = sharding.batch_sharding(mesh)
    eight = {name: batch[name] for name in method.streams}
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
        (T2sDa, {"translation": "fdaa"}, "did you mean 'fda'"),
        (T2sDa, {"translation": "none", "translated_weight": 1.0}, "translated_weight needs translated images"),
        (T2sDg, {"pull": PULL}, "method.pull.negatives_from asks for target features"),
        (T2sDg, {"real_target_queries": True}, "method.real_target_queries asks for target features"),
    ],
)
def test_wrong_settings(settings, cls, changes, message):
    with pytest.raises(UserError, match=message) as error:
        cls(**settings, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes, message", [({"fda_beta": 0.5}, "beta=0.5 is out of range"), ({"feature": "stage9"}, "choose from")]
)
def test_settings_that_the_network_or_the_image_forbids(method, batch, changes, message):
    method = dataclasses.replace(method, **changes)
    with pytest.raises(UserError, match=message):
        shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
        jax.eval_shape(method.prepare, shapes, shapes.teacher, batch)


BENCHMARKS = ("cityscapes_to_dark_zurich", "cityscapes_to_acdc_night", "gta5_to_cityscapes", "synthia_to_cityscapes")


@pytest.mark.parametrize("data", ("nightstreet", *BENCHMARKS))
def test_configs(data):
    config = t2s_da.get_config(f"data={data}")
    method = methods.build(config)
    assert isinstance(method, T2sDa) and method.streams == tuple(config.data.streams)
    assert (method.ignore_top, method.ignore_bottom) == ((15, 120) if data.endswith("cityscapes") else (0, 0))
    assert method.pull.temperature == 0.2 and method.pull.channels == (64 if data == "nightstreet" else 256)


def test_config_of_generalisation_has_no_target_stream():
    config = t2s_da.get_config("data=gta5_to_cityscapes,mode=dg")
    assert isinstance(methods.build(config), T2sDg) and list(config.data.streams) == ["source"]
    styled = t2s_da.get_config("mode=dg,style=weights.npz")
    assert styled.train.frozen.style == "weights.npz" and methods.build(styled).translation == "style"


@pytest.mark.parametrize("parts", t2s_da.PARTS)
def test_every_part_is_a_method(parts):
    method = methods.build(t2s_da.get_config(f"parts={parts},preset=u2pl"))
    assert bool(method.pull.weight) == (parts not in ("none", "fda")) and method.pull.temperature == 0.5
    if parts in t2s_da.PARTS_OF_DG:
        methods.build(t2s_da.get_config(f"parts={parts},mode=dg"))
    else:
        with pytest.raises(UserError, match="mode=dg has none"):
            t2s_da.get_config(f"parts={parts},mode=dg")


@pytest.mark.parametrize(
    "arg, message",
    [
        ("mode=uad", "did you mean 'uda'"),
        ("parts=ful", "did you mean 'full'"),
        ("preset=x", "preset"),
        ("translation=style", "belong together"),
    ],
)
def test_wrong_arguments(arg, message):
    with pytest.raises(UserError, match=message):
        t2s_da.get_config(arg)


def test_learning_rates():
    """DAFormer's, for a base of 6e-5 in the backbone; head and projection ten times as much."""
    config = t2s_da.get_config("data=gta5_to_cityscapes")
    optimizer = methods.build(config).optimizer
    rate = optimizer.schedule_fn(config.train.steps)
    np.testing.assert_allclose([0.1 * rate(t) for t in (49, 1500, 20000)], [1.9577e-6, 5.775e-5, 3e-5], rtol=1e-4)
    leaf = jnp.zeros((2, 2))
    params = {part: {"kernel": leaf, "bias": leaf[0]} for part in ("backbone", "head", "projection")}
    params["backbone"]["norm1"] = {"scale": leaf[0]}
    factors, decays = (tree["student"] for tree in optimizer._factors({"student": params}))
    assert [factors[part]["kernel"] for part in ("backbone", "head", "projection")] == [0.1, 1.0, 1.0]
    assert (factors["backbone"]["norm1"]["scale"], decays["backbone"]["norm1"]["scale"]) == (0.1, 0.0)
    assert decays["backbone"]["bias"] == decays["head"]["bias"] == 1.0
