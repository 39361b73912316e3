import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models.pix2pixhd import LocalEnhancer, build_generator, multiscale, one_hot_labels
from nightjax.models.translation_blocks import average_pool


def count(model, *shape):
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(3, 182_443_267), (19, 182_493_443), (20, 182_496_579), (35, 182_543_619), (36, 182_546_755)],
)
def test_global_generator_parameters(channels, expected):
    assert count(build_generator("global"), 1, 32, 32, channels) == expected


def test_small_and_local_generator_parameters():
    assert count(build_generator("global", downsamplings=3), 1, 32, 32, 3) == 45_593_347
    assert count(build_generator("local"), 1, 64, 64, 36) == 182_857_059


@pytest.mark.parametrize(("channels", "expected"), [(6, 2_767_809), (23, 2_785_217), (38, 2_800_577), (39, 2_801_601)])
def test_discriminator_parameters(channels, expected):
    assert count(multiscale(), 1, 64, 64, channels) == 2 * expected


def test_second_discriminator_sees_half_the_size():
    x = jax.random.normal(jax.random.key(0), (1, 48, 64, 4))
    model = multiscale(2)
    variables = model.init(jax.random.key(1), x)
    outputs = jax.jit(model.apply)(variables, x)
    assert [len(maps) for maps in outputs] == [5, 5]
    finest, half = (maps[0].shape[1:3] for maps in outputs)
    assert finest == (25, 33) and half == (13, 17)
    swapped = {"params": {"cnns_0": variables["params"]["cnns_1"]}}
    alone = jax.jit(multiscale(2, scales=1).apply)(swapped, average_pool(x))
    np.testing.assert_allclose(outputs[1][-1], alone[0][-1], atol=1e-5)


def test_halving_keeps_a_constant_at_the_border():
    np.testing.assert_allclose(average_pool(jnp.full((1, 6, 7, 2), 3.0)), 3.0, rtol=1e-6)


def test_one_hot_labels():
    label = jnp.array([[[0, 18, 19, 255, -1, 7]]])
    channels = one_hot_labels(label)
    np.testing.assert_array_equal(channels.argmax(-1), [[[0, 18, 19, 19, 19, 7]]])
    np.testing.assert_array_equal(channels.sum(-1), 1)
    assert channels.shape == (1, 1, 6, 20)
    np.testing.assert_array_equal(one_hot_labels(label.astype(jnp.uint8))[0, 0, 4].argmax(), 19)


def test_local_enhancer_gives_an_image():
    x = jnp.zeros((1, 32, 48, 20))
    model = LocalEnhancer(2, downsamplings=2, blocks=1, local_blocks=1)
    y, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
    assert y.shape == (1, 32, 48, 3)
    with pytest.raises(UserError, match="multiples of 8"):
        jax.eval_shape(model.init, jax.random.key(0), x[:, :28])


def test_forms_are_checked():
    with pytest.raises(UserError, match="global"):
        build_generator("globl")
