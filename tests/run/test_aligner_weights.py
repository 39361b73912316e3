"""Weights of the matcher: from a run's folder or from a file, into the first state of DSR+FPA."""

import jax
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.interop.torch_weights import to_torch
from nightjax.models.matcher import Matcher, build_matcher
from nightjax.run import start
from tests.helpers import toy

SIZE = (1, *toy.SIZE, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


def config_of(folder, weights):
    refinement = {"method__refinement__aligner": "uawarpc", "method__refinement__matcher": "uawarpc_tiny"}
    return toy.config(folder, "dsr_fpa", batch=2, train__frozen__aligner=str(weights), **refinement)


def abstract_matcher(matcher):
    image = jax.ShapeDtypeStruct(SIZE, np.float32)
    return jax.eval_shape(matcher.init, jax.random.key(0), image, image)


def random_weights(matcher):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), abstract_matcher(matcher))


def load(config, name="aligner"):
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    shapes = start.abstract_state(config, method, mesh)
    return start.load_frozen(config.train.frozen[name], shapes.frozen[name])


def test_file_of_official_names(folder, tmp_path):
    weights = random_weights(build_matcher("uawarpc_tiny"))
    whole = to_torch(weights) | {
        "backbone.patch_embed1.proj.weight": np.zeros(3)
    }  # A segmentation model's file holds more.
    assert "alignment_backbone.features.0.weight" in whole and "alignment_head.decoder4.conv_0.conv.weight" in whole
    np.savez(tmp_path / "uawarpc.npz", **whole)
    found = load(config_of(folder, tmp_path / "uawarpc.npz"))
    jax.tree.map(np.testing.assert_array_equal, found, weights)


def test_file_of_another_matcher(folder, tmp_path):
    np.savez(tmp_path / "other.npz", **to_torch(random_weights(Matcher(((4,), (4,), (4,)), 128, 4))))
    with pytest.raises(UserError, match="alignment_backbone"):
        load(config_of(folder, tmp_path / "other.npz"))


def test_nothing_there(folder, tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        load(config_of(folder, tmp_path / "nowhere"))


def test_a_network_that_the_method_has_not(folder, tmp_path):
    config = toy.config(folder, "dsr_fpa", batch=2, train__frozen__aligner=str(tmp_path))  # It aligns nothing.
    with pytest.raises(UserError, match="train.frozen"):
        start.first_state(config, methods.build(config), sharding.make_mesh(jax.devices()[:1]))


@pytest.mark.slow
def test_run_of_the_matcher_becomes_the_aligner(folder, tmp_path):
    toy.untrained_run(tmp_path / "uawarpc", toy.config(folder, "uawarpc", batch=2))
    aligning = config_of(folder, tmp_path / "uawarpc")
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = start.first_state(aligning, methods.build(aligning), mesh)
    saved = toy.saved_state(tmp_path / "uawarpc", 0)
    for path, value in jax.tree.leaves_with_path(state.frozen["aligner"]):
        collection, *names = path
        key = jax.tree_util.keystr((collection, jax.tree_util.DictKey("matcher"), *names))
        np.testing.assert_array_equal(value, saved[key], err_msg=key)
