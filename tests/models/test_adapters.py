"""Low-rank adapters: their first output, their gradients' home, what they count, and what they merge into."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.partition import joined, split
from nightjax.models import BACKBONES
from nightjax.models.adapters import PARTS, has_adapters, merged
from nightjax.run.start import count_parameters
from tests.helpers.golden import assert_within
from tests.helpers.methods import distance

TRAINED = {
    ("dinov2_s", 8): 663_552,
    ("dinov2_b", 8): 1_327_104,
    ("dinov2_l", 8): 3_538_944,
    ("dinov2_s", 16): 1_327_104,
    ("dinov2_b", 16): 2_654_208,
    ("dinov2_l", 16): 7_077_888,
}
"""Network and rank to the parameters of its adapters."""

QUERY_AND_VALUE = {"dinov2_s": 147_456, "dinov2_b": 294_912, "dinov2_l": 786_432}
"""The same of rank 8 on query and value alone."""


def is_adapter(path):
    return "lora_" in path


def adapters_of(name, **options):
    model = BACKBONES[name](**options)
    shapes = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 28, 28, 3))), jax.random.key(0))["params"]
    return split(shapes, is_adapter)[1]


@pytest.mark.parametrize(("name", "rank"), TRAINED)
def test_counts_at_full_size(name, rank):
    assert count_parameters(adapters_of(name, lora_rank=rank)) == TRAINED[name, rank]
    if rank == 8:
        assert count_parameters(adapters_of(name, lora_rank=8, lora_parts=("q", "v"))) == QUERY_AND_VALUE[name]


def test_first_weights():
    """``b`` is 0, and ``a`` uniform up to the inverse root of the inputs."""
    model = BACKBONES["dinov2_s"](lora_rank=16, depth=2, layers=(1,))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))["params"]["blocks"]
    for place, inputs in ((params["attn"], 384), (params["mlp"], 384)):
        for name, pair in place.items():
            if name.startswith("lora_"):
                inputs = 4 * 384 if name == "lora_fc2" else inputs
                a = np.asarray(pair["a"])
                assert a.shape == (2, inputs, 16) and not np.any(pair["b"])
                assert np.abs(a).max() <= inputs**-0.5
                np.testing.assert_allclose(a.std(), (3 * inputs) ** -0.5, rtol=0.05)
                assert not np.array_equal(a[0], a[1])


CASES = {
    "dinov2_tiny": (56, {"layers": (1, 3)}),
    "mit_tiny": (64, {"drop_path": 0.0}),
    "swin_tiny": (64, {"drop_path": 0.0}),
}


@pytest.mark.parametrize(
    "name", ["dinov2_tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mit_tiny", "swin_tiny"))]
)
def test_adapted_is_the_base_at_first_and_the_merged_network_later(name):
    side, options = CASES[name]
    x = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype(np.float32)
    base, adapted = BACKBONES[name](**options), BACKBONES[name](**options, lora_rank=4, lora_alpha=8.0)
    params = jax.jit(adapted.init)(jax.random.key(0), x)["params"]
    rest, pairs = split(params, is_adapter)
    assert has_adapters(params) and not has_adapters(rest)
    assert jax.tree.structure(rest) == jax.tree.structure(jax.eval_shape(base.init, jax.random.key(0), x)["params"])
    run, run_base = (jax.jit(lambda p, m=m: m.apply({"params": p}, x)) for m in (adapted, base))
    first, expected = run(params), run_base(rest)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, expected))

    rng = np.random.default_rng(1)
    pairs = jax.tree.map(lambda p: jnp.asarray(0.3 * rng.normal(size=p.shape), jnp.float32), pairs)
    params = joined(rest, pairs)
    whole = merged(params, 8.0)
    assert jax.tree.map(jnp.shape, whole) == jax.tree.map(jnp.shape, rest)
    later, again = run(params), run_base(whole)
    for stage, y in later.items():
        assert_within(again[stage], y, 2e-5, stage)
        assert np.abs(y - first[stage]).max() > 1e-2
    changed = [path for path in ("attn", "mlp", "ffn") if path in str(jax.tree_util.tree_structure(rest))]
    assert changed and distance(whole, rest) > 0


def test_query_key_and_value_are_apart():
    """A pair on the value changes a third of the joint matrix and leaves the others."""
    model = BACKBONES["dinov2_tiny"](lora_rank=2, lora_parts=("v",))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))["params"]
    pair = params["blocks"]["attn"]["lora_v"]
    params["blocks"]["attn"]["lora_v"] = {"a": pair["a"], "b": jnp.ones_like(pair["b"])}
    before, after = (p["blocks"]["attn"]["qkv"]["kernel"] for p in (params, merged(params, 2.0)))
    np.testing.assert_array_equal(before[..., :64], after[..., :64])
    assert np.abs(after[..., 64:] - before[..., 64:]).min() > 0


def test_mistakes():
    x = jnp.zeros((1, 28, 28, 3))
    with pytest.raises(UserError, match="lora_rank=-1"):
        BACKBONES["dinov2_tiny"](lora_rank=-1).init(jax.random.key(0), x)
    with pytest.raises(UserError, match="lora_parts: 'qkv'.*q, k, v"):
        BACKBONES["dinov2_tiny"](lora_rank=1, lora_parts=("qkv",)).init(jax.random.key(0), x)
    assert set(PARTS) == {"q", "k", "v", "proj", "fc1", "fc2"}
