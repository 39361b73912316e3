"""Fast-SCNN: its shapes, and the number of parameters that the paper gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.models import build_segmenter
from nightjax.run.start import count_parameters
from nightjax.zoo.models import MODELS


@pytest.fixture(scope="module")
def network():
    return build_segmenter(**MODELS["fast"])


def shapes(network, size):
    image = jnp.zeros((2, *size, 3))
    return jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), image, train=False))


def separable(inputs, outputs):
    return 9 * inputs + inputs * outputs


def bottleneck(inputs, outputs):
    inside = 6 * inputs
    return inputs * inside + 9 * inside + inside * outputs


def test_parameters_are_those_of_the_paper(network):
    """1.11 million, with the bias of the classifier and without scale and bias of batch norms."""
    _, variables = shapes(network, (256, 512))
    norms = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if getattr(path[-2], "key", "") == "bn"
    )
    stem = 27 * 32 + separable(32, 48) + separable(48, 64)
    groups = [(64, 64), (64, 64), (64, 64), (64, 96), (96, 96), (96, 96), (96, 128), (128, 128), (128, 128)]
    pyramid = 4 * 128 * 32 + 256 * 128
    fusion = 9 * 128 + 128 * 128 + 64 * 128
    classifier = 2 * separable(128, 128) + 128 * 19 + 19
    expected = stem + sum(bottleneck(*group) for group in groups) + pyramid + fusion + classifier
    assert count_parameters(variables["params"]) - norms == expected
    assert round(expected / 1e6, 2) == 1.11


@pytest.mark.parametrize("size", [(128, 256), (72, 104)])
def test_logits_are_at_stride_8(network, size):
    outputs, _ = shapes(network, size)
    assert outputs["logits"].shape == (2, size[0] // 8, size[1] // 8, 19) and outputs["logits"].dtype == jnp.float32
    strides = {f"stage{i}": stride for i, stride in zip(range(1, 5), (8, 16, 32, 8), strict=True)}
    for stage, stride in strides.items():
        assert outputs[stage].shape[1:3] == (-(-size[0] // stride), -(-size[1] // stride)), stage


@pytest.mark.slow
def test_both_branches_matter():
    """Without the fine feature only the coarse one is left, and the other way round."""
    network = build_segmenter("fast_scnn", "separable", backbone_depths=(1, 1, 1), backbone_widths=(8, 8, 8))
    image = jax.random.normal(jax.random.key(1), (1, 64, 64, 3))
    variables = jax.jit(lambda: network.init(jax.random.key(0), image, train=False))()
    apply = jax.jit(lambda params: network.apply(variables | {"params": params}, image, train=False)["logits"])
    whole = apply(variables["params"])
    assert np.isfinite(whole).all()
    for branch in ("fuse_fine", "fuse_coarse"):
        backbone = variables["params"]["backbone"]
        without = backbone | {branch: jax.tree.map(jnp.zeros_like, backbone[branch])}
        assert np.abs(apply(variables["params"] | {"backbone": without}) - whole).max() > 1e-4
