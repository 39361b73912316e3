"""Distillation from a frozen transformer: its loss, what learns by it, and where the frozen weights come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.losses.feature import feature_distillation
from nightjax.methods.parts.distillation import FROZEN, HEAD, FeatureDistillation
from nightjax.methods.parts.network import InputNormalization
from nightjax.models.backbones import dinov2
from nightjax.models.projection import DistillationHead
from nightjax.ops.resize import resize
from nightjax.run import settings, start
from nightjax.train import train
from tests.helpers import toy
from tests.helpers.methods import distance

MODEL = {
    "backbone": "dinov2_tiny",
    "backbone_fit": "resize",
    "head": "bn_linear",
    "dtype": "float32",
}
PART = {"backbone": "dinov2_tiny", "size": 42}


def config(folder, **overrides):
    plain = toy.config(folder, "dacs").to_dict()
    plain["model"], plain["method"] = dict(MODEL), {"name": "dacs", "feature_distance": None, "distillation": PART}
    complete = settings.complete(toy.ConfigDict(plain))
    return settings.override(complete, {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


@pytest.fixture(scope="module")
def foundation(folder, tmp_path_factory):
    """A run of another seed, whose backbone the frozen network is."""
    whole = config(folder, seed=7, method__distillation=None)
    return toy.untrained_run(tmp_path_factory.mktemp("foundation"), whole)


@pytest.fixture(scope="module")
def first(folder, foundation):
    whole = config(folder, train__frozen__foundation=str(foundation))
    method, mesh = methods.build(whole), sharding.make_mesh(jax.devices()[:1])
    return method, start.first_state(whole, method, mesh), foundation


def test_the_frozen_network_is_the_runs_backbone(first):
    method, state, foundation = first
    like = {"params": state.params["student"], "batch_stats": {}}
    other = start.load_network(foundation, {"params": {"backbone": like["params"]["backbone"]}, "batch_stats": {}})
    found = state.frozen[FROZEN]["params"]["backbone"]
    assert distance(found, other["params"]["backbone"]) == 0
    assert distance(found, like["params"]["backbone"]) > 0


def test_the_loss_and_what_learns_by_it(first):
    """By hand from the pieces; both the backbone and the head get a gradient, what is frozen none."""
    method, state, _ = first
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.random((2, *toy.SIZE, 3)), jnp.float32)
    part, variables = method.distillation, method.variables(state)

    @jax.jit
    def run(params, frozen):
        outputs, _ = method.network.forward({**variables, "params": params}, image, jax.random.key(0))
        return part(params[HEAD], frozen, outputs, image)

    frozen = state.frozen[FROZEN]
    value, (own, other) = jax.jit(jax.value_and_grad(run, argnums=(0, 1)))(variables["params"], frozen)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(other))
    for name in ("qkv", "proj", "fc1"):
        assert any(
            np.any(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(own["backbone"]) if name in str(path)
        )
    assert all(np.any(leaf) for leaf in jax.tree.leaves(own[HEAD]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(own["head"]))

    assert part.sides(toy.SIZE) == (42, 56)
    seen = resize(InputNormalization().normalize(image), (42, 56), align_corners=False)
    model = dinov2.DinoV2(**dinov2.VARIANTS["dinov2_tiny"])
    wanted = model.apply({"params": frozen["params"]["backbone"]}, seen)["stage4"]
    assert wanted.shape == (2, 3, 4, 32)
    features = method.network.features(variables, image)["stage4"]
    head = DistillationHead(32).apply({"params": variables["params"][HEAD]}, features, (3, 4))
    np.testing.assert_allclose(value, 0.1 * feature_distillation(head, wanted), rtol=1e-5)


@pytest.mark.slow
def test_a_run(folder, foundation, tmp_path):
    """Both terms are logged, and the next run may start without the head."""
    whole = config(folder, train__frozen__foundation=str(foundation), train__steps=2)
    train(whole, tmp_path / "distilled")
    lines = (tmp_path / "distilled" / "metrics.jsonl").read_text()
    assert "loss_distilled_source" in lines and "loss_distilled_target" in lines
    state = toy.saved_state(tmp_path / "distilled", 2)
    assert any(f"['teacher']['params']['{HEAD}']" in name for name in state)
    plain = config(folder, method__distillation=None, train__init=str(tmp_path / "distilled"))
    start.first_state(plain, methods.build(plain), sharding.make_mesh(jax.devices()[:1]))


def test_settings():
    assert FeatureDistillation().sides((1024, 1024)) == (406, 406)
    with pytest.raises(UserError, match="method.distillation.size=7 must be 14"):
        FeatureDistillation(size=7)
    with pytest.raises(UserError, match="did you mean 'dinov2_l_reg'"):
        FeatureDistillation(backbone="dinov2_l_regs")
