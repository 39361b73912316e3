import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import targets
from nightjax.core.errors import UserError
from nightjax.metrics.confusion import confusion_counts
from nightjax.models.backbones import transformer
from nightjax.models.backbones.transformer import loop
from nightjax.models.layers import Conv, max_pool
from nightjax.ops.resize import resize

IMAGE = np.random.default_rng(0).normal(size=(2, 8, 12, 6)).astype(np.float32)


def network(x):
    """Every operation that has more than one form, on one input."""
    outputs = []
    for conv in (Conv(5, 1, stride=2), Conv(6, 3, groups="depthwise", dilation=2)):
        outputs.append(conv.apply(conv.init(jax.random.key(0), x), x))
    many = jnp.tile(x[:, :3, :3, :1], (300, 1, 1, 1))
    tiny = Conv(4, 3)
    outputs += [max_pool(x, 3, 2, 1), resize(x, (24, 24), align_corners=False)]
    outputs.append(tiny.apply(tiny.init(jax.random.key(1), many), many))
    truth = jnp.argmax(x[..., :3], -1)
    return [*outputs, confusion_counts(truth, jnp.argmax(x[..., 3:], -1), 3)]


@pytest.mark.parametrize("target", [*targets.FORMS])
def test_forms_of_every_target_agree(target):
    expected = network(IMAGE)
    for ours, theirs in zip(jax.jit(targets.written_for(target, network))(IMAGE), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["depthwise", "pool"])
def test_a_form_that_no_target_takes_yet_agrees(name, monkeypatch):
    other = targets.Forms(**{"depthwise": "library"} if name == "depthwise" else {"pool": "window"})
    monkeypatch.setitem(targets.FORMS, "tpu", other)
    expected = network(IMAGE)
    for ours, theirs in zip(targets.written_for("tpu", network)(IMAGE), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_attention_in_rows_agrees(monkeypatch):
    """In value and gradient, for a number of tokens that the groups do not divide."""
    query, key, value = np.random.default_rng(0).normal(size=(3, 2, 7, 3, 4)).astype(np.float32)

    def loss(*args):
        return jnp.sum(jnp.sin(transformer.attention(*args)))

    both = jax.value_and_grad(loss, argnums=(0, 1, 2))
    whole = both(query, key, value)
    monkeypatch.setattr(transformer, "ATTENTION_LIMIT", 3 * 7 * 2)
    assert str(jax.make_jaxpr(both)(query, key, value)).count("scan") == 0  # On a CPU.
    tpu = targets.written_for("tpu", both)
    assert "scan" in str(jax.make_jaxpr(tpu)(query, key, value))
    for ours, theirs in zip(jax.tree.leaves(tpu(query, key, value)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_jit_knows_targets_apart():
    """Also the ones inside: another target is another program, the same target is not."""
    traced = []

    @jax.jit
    def inner(x):
        traced.append(targets.forms())
        return x + 1

    outer = lambda x: inner(x)
    for target in ("cpu", "tpu", "cpu", "tpu"):
        jax.jit(targets.written_for(target, outer))(IMAGE)
    assert traced == [targets.FORMS["cpu"], targets.FORMS["tpu"]]
    assert targets.written_for("tpu", network) == targets.written_for("tpu", network)


def test_equal_blocks_are_a_loop_or_one_after_the_other():
    def run(target, unroll=False):
        layers = {"w": jnp.arange(12.0).reshape(3, 4), "keep": None}
        function = lambda x: loop(lambda x, layer: (x + layer["w"], 2 * x), x, layers, unroll)
        written = targets.written_for(target, function)
        return str(jax.make_jaxpr(written)(jnp.ones(4))), jax.jit(written)(jnp.ones(4))

    (looped, expected), (unrolled, found) = run("cpu"), run("onnx")
    assert "scan" in looped and "scan" in run("cpu", unroll=True)[0] and "scan" not in unrolled
    assert jax.tree.all(jax.tree.map(np.array_equal, expected, found))


def test_names():
    assert [targets.for_platform(name) for name in ("cpu", "gpu", "rocm", "tpu")] == ["cpu", "cuda", "cuda", "tpu"]
    assert targets.of(jax.devices()) == "cpu"
    with pytest.raises(UserError, match="metal"):
        targets.for_platform("metal")
    with pytest.raises(UserError, match="gpu3"):
        targets.written_for("gpu3", network)
