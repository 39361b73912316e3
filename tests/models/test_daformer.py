"""DAFormer and SegFormer heads: sizes, dropout, batch statistics, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.models.heads.daformer import DAFormerHead
from nightjax.models.heads.segformer import SegFormerHead

SHAPES = {
    "stage1": (2, 8, 12, 4),
    "stage2": (2, 4, 6, 5),
    "stage3": (2, 2, 3, 6),
    "stage4": (2, 1, 2, 7),
}
HEADS = {
    "daformer": DAFormerHead(num_classes=3, embed_dim=6, channels=8),
    "segformer": SegFormerHead(num_classes=3, channels=6),
    "mmseg_segformer": SegFormerHead(num_classes=3, channels=6, level_norm=True),
}


@pytest.fixture(scope="module", params=HEADS)
def head(request):
    """A head, its variables and features of four sizes."""
    model = HEADS[request.param]
    keys = jax.random.split(jax.random.key(0), len(SHAPES))
    features = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), features)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.1, 0.5, s.shape), s.dtype), shapes)
    return model, variables, features


def test_logits_have_the_size_of_stage1_and_are_float32(head):
    model, variables, features = head
    half = {name: feature.astype(jnp.bfloat16) for name, feature in features.items()}
    logits = jax.eval_shape(model.clone(dtype=jnp.bfloat16).apply, variables, half)
    assert logits.shape == (2, 8, 12, 3) and logits.dtype == jnp.float32


def test_train_updates_running_statistics_and_eval_does_not(head):
    model, variables, features = head
    run = jax.jit(model.apply, static_argnames=("train", "deterministic", "mutable"))
    _, update = run(variables, features, train=True, deterministic=True, mutable="batch_stats")
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), update["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(changed))
    _, update = run(variables, features, train=False, deterministic=True, mutable="batch_stats")
    jax.tree.map(np.testing.assert_array_equal, update["batch_stats"], variables["batch_stats"])


def test_dropout_acts_on_whole_channels_before_the_classifier(head):
    model, variables, features = head

    def run(rate, key=0):
        rngs = {"dropout": jax.random.key(key)}
        apply = functools.partial(model.clone(dropout=rate).apply, deterministic=False)
        return jax.jit(apply)(variables, features, rngs=rngs)

    assert np.any(run(0.5, 0) != run(0.5, 1))
    np.testing.assert_allclose(run(0.0), jax.jit(model.apply)(variables, features), rtol=1e-5)
    classifier = "linear_pred" if isinstance(model, SegFormerHead) else "conv_seg"
    bias = variables["params"][classifier]["bias"]
    np.testing.assert_array_equal(run(1.0), jnp.broadcast_to(bias, (2, 8, 12, 3)))


@pytest.mark.slow
def test_what_is_kept_for_the_backward_pass_changes_nothing():
    """But memory: the inputs of every tap of the dilated convolutions, of norms and of activations are not kept."""
    model = HEADS["daformer"].clone(dropout=0.0)
    keys = jax.random.split(jax.random.key(0), len(SHAPES))
    features = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)}
    variables = jax.jit(model.init)(jax.random.key(1), features)

    def loss(model, params):
        logits, updated = model.apply({**variables, "params": params}, features, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(logits)), updated

    both = (model, model.clone(remat=True))
    params = variables["params"]
    results = [jax.jit(jax.grad(functools.partial(loss, one), has_aux=True))(params) for one in both]
    for found, wanted in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    kept = [
        jax.eval_shape(lambda p, one=one: jax.vjp(functools.partial(loss, one), p, has_aux=True)[1], params)
        for one in both
    ]
    size = [sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) for tree in kept]
    assert size[1] < size[0] / 2
