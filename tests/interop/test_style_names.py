import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.interop.style_names import FILES, from_published, read_published
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.models.style import EMBEDDING, StyleRandomizer

OFFICIAL = {
    "transformer": {
        "layers.0.conv.weight": (32, 3, 9, 9),
        "layers.3.conv2.bias": (128,),
        "layers.7.fc_beta1.weight": (128, 100),
        "layers.10.fc_gamma.bias": (3,),
    },
    "predictor": {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3dbl_3.bn.running_var": (96,),
        "Mixed_6e.branch7x7dbl_5.bn.weight": (192,),
        "Mixed_6e.branch_pool.conv.weight": (192, 768, 1, 1),
        "fc.weight": (100, 768),
    },
}
"""Some names and shapes of the official checkpoints."""


@pytest.fixture(scope="module")
def template():
    image, noise = jnp.zeros((1, 48, 48, 3)), jnp.zeros((1, EMBEDDING))
    return jax.eval_shape(StyleRandomizer().init, jax.random.key(0), image, noise)


@pytest.fixture(scope="module")
def published(template):
    """Noise under the official names: those of our own parameters without the network's prefix."""
    rng = np.random.default_rng(0)
    own = to_torch(jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), template))
    parts = {"transformer": "ghiasi.", "predictor": "stylePredictor."}
    states = {part: {n.removeprefix(p): x for n, x in own.items() if n.startswith(p)} for part, p in parts.items()}
    spread = rng.standard_normal((EMBEDDING, EMBEDDING))
    statistics = {
        "pbn_embedding_mean": rng.standard_normal((1, EMBEDDING)),
        "pbn_embedding_covariance": spread @ spread.T,
    }
    return states | {"embeddings": statistics}


def test_names_and_shapes_are_the_official_ones(published):
    for part, expected in OFFICIAL.items():
        assert {name: published[part][name].shape for name in expected} == expected


def test_everything_is_filled(template, published):
    variables = from_torch(from_published(**published), template)
    kernel = variables["params"]["ghiasi"]["layers_0"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, published["transformer"]["layers.0.conv.weight"].transpose(2, 3, 1, 0))
    factor = np.asarray(variables["params"]["embedding_factor"], np.float64)
    np.testing.assert_allclose(
        factor @ factor.T, published["embeddings"]["pbn_embedding_covariance"], rtol=1e-3, atol=1e-2
    )
    mean = published["embeddings"]["pbn_embedding_mean"][0]
    np.testing.assert_allclose(variables["params"]["embedding_mean"], mean, rtol=1e-6)


def test_mistakes(published, tmp_path):
    with pytest.raises(UserError, match="pbn_embedding_covariance"):
        from_published(**published | {"embeddings": {"pbn_embedding_mean": np.zeros((1, EMBEDDING))}})
    with pytest.raises(UserError, match=FILES["transformer"]):
        read_published(tmp_path)
