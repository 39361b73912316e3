"""PSPNet, DeepLab-v2 and RefineNet as in DANNet: sizes, heads and small variants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models import build_segmenter
from nightjax.models.heads.deeplab import DeepLabV2Head
from nightjax.models.heads.refinenet import RefineNetHead
from nightjax.zoo.models import MODELS

DANNET_NETWORKS = {
    "pspnet": MODELS["pspnet"],
    "deeplab": MODELS["deeplab_multi"],
    "refinenet": MODELS["refinenet"],
}
PARAMETERS = {"pspnet": 70_433_254, "deeplab": 44_601_560, "refinenet": 118_047_827}
LOGITS = {
    "pspnet": {(512, 512): (65, 65), (540, 960): (68, 121)},
    "deeplab": {(512, 512): (65, 65), (540, 960): (68, 121)},
    "refinenet": {(512, 512): (128, 128), (540, 960): (135, 240)},
}
SMALL = {
    "psp": {"head_channels": 8, "auxiliary": "psp_auxiliary", "auxiliary_channels": 8},
    "deeplab_v2": {"head_summed": 2, "auxiliary": "deeplab_v2", "auxiliary_stage": "stage3"},
    "refinenet": {"head_channels": 8},
}


@pytest.mark.parametrize("network", DANNET_NETWORKS)
def test_sizes(network):
    model = build_segmenter(**DANNET_NETWORKS[network])
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == PARAMETERS[network]
    for size, expected in LOGITS[network].items():
        x = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        outputs = jax.eval_shape(model.apply, variables, x)
        assert outputs["logits"].shape == (2, *expected, 19)
        if network != "refinenet":
            assert outputs["auxiliary_logits"].shape == (2, *expected, 19)


@pytest.mark.parametrize("head", SMALL)
def test_small_variant(head):
    model = build_segmenter("resnet_tiny", head, 5, **SMALL[head])
    x = jax.random.normal(jax.random.key(0), (2, 32, 48, 3))
    variables = model.init(jax.random.key(1), x)

    @jax.jit
    def train(variables, x):
        rngs = {"dropout": jax.random.key(2)}
        return model.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])

    outputs, updated = train(variables, x)
    logits = [value for name, value in outputs.items() if name.endswith("logits")]
    assert len(logits) == 1 + ("auxiliary" in SMALL[head])
    for value in logits:
        assert value.dtype == jnp.float32
        assert np.isfinite(value).all()
    if head == "psp":
        moved = updated["batch_stats"]["auxiliary"]["1"]["mean"]
        assert np.asarray(moved).any()


def test_branches_beyond_the_summed_ones_change_nothing():
    features = {"stage4": jax.random.normal(jax.random.key(0), (1, 9, 9, 4))}
    head = DeepLabV2Head(3, summed=2)
    variables = head.init(jax.random.key(1), features)
    assert len(variables["params"]) == 4

    def logits(head, scale):
        params = dict(variables["params"])
        for i in (2, 3):
            params[f"conv2d_list_{i}"] = jax.tree.map(lambda leaf: scale * leaf + scale - 1, params[f"conv2d_list_{i}"])
        return head.apply({"params": params}, features)

    np.testing.assert_array_equal(logits(head, 1.0), logits(head, 3.0))
    assert np.abs(logits(DeepLabV2Head(3), 1.0) - logits(DeepLabV2Head(3), 3.0)).max() > 1


def test_refinenet_dropout():
    sizes = ((8, 8, 4), (4, 4, 8), (2, 2, 12), (1, 1, 16))
    features = {f"stage{i}": jax.random.normal(jax.random.key(i), (1, *size)) for i, size in enumerate(sizes, start=1)}
    head = RefineNetHead(3, channels=4)
    variables = head.init(jax.random.key(0), features)
    run = functools.partial(head.apply, variables, features, train=True)
    draws = [run(rngs={"dropout": jax.random.key(i)}) for i in (0, 1)]
    assert np.abs(draws[0] - draws[1]).max() > 0
    still = run(deterministic=True)
    np.testing.assert_array_equal(still, head.apply(variables, features))
    assert still.shape == (1, 8, 8, 3)


def test_user_errors():
    with pytest.raises(UserError, match="leave out hrda"):
        build_segmenter("mit_b0", "daformer", hrda=True, auxiliary="fpn")
    with pytest.raises(UserError, match="'psp_auxilary'.*did you mean"):
        build_segmenter("resnet_tiny", "psp", auxiliary="psp_auxilary")
    with pytest.raises(UserError, match="no model option 'auxiliary_channels'"):
        build_segmenter("resnet_tiny", "psp", auxiliary_channels=8)
