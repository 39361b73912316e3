"""Networks and losses of CycleGAN and pix2pixHD against the official programs.

Tolerances are the golden README's: small networks 1e-5 absolute, losses 1e-5 relative, gradients 1e-4 of their largest
value, full CycleGAN networks 1e-4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.schedules import linear_tail
from nightjax.interop.official_names import from_official, to_official
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.losses.feature_matching import feature_matching_loss, vgg_loss
from nightjax.losses.translation import discriminator_loss, generator_loss
from nightjax.models.backbones.vgg import VGG
from nightjax.models.cyclegan import ResnetGenerator, patchgan
from nightjax.models.pix2pixhd import LocalEnhancer, multiscale, one_hot_labels
from nightjax.models.translation_blocks import average_pool
from nightjax.ops import image_pool
from tests.helpers.golden import assert_within, every, nchw, nhwc, number, sizes, state_of
from tests.helpers.translation_names import LOCAL_ENHANCER, MULTISCALE, PATCHGAN


def shapes_of(model, *args, **options):
    return jax.eval_shape(functools.partial(model.init, **options), jax.random.key(0), *args)


def loaded(model, state, x, table=None):
    return from_torch(from_official(state, table) if table else state, shapes_of(model, x))


def close(actual, expected, tolerance=1e-5, name=""):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=name)


def generator_of(state, **options):
    """The generator whose sizes are those of a state dict."""
    blocks = sum(name.endswith("conv_block.1.weight") for name in state)
    convolutions = sum(name.endswith(".weight") for name in state) - 2 * blocks
    last = options.get("channels", 3) is not None
    halvings = (convolutions - 1 - last) // 2
    return ResnetGenerator(len(state["model.1.bias"]), halvings, blocks, **options)


def vgg_of(state):
    """VGG-19's layers, with the widths of a state dict of torchvision's numbering."""
    indices, groups = sorted(int(name.split(".")[0]) for name in state if name.endswith("weight")), [[]]
    for before, index in zip([indices[0] - 2, *indices[:-1]], indices, strict=True):
        if index - before == 3:
            groups.append([])
        groups[-1].append(len(state[f"{index}.bias"]))
    return VGG(channels=tuple(map(tuple, groups)))


def multiscale_names(scales):
    """`MULTISCALE` for any number of scales: the official ones count from the coarsest."""
    layers = {key.partition("_")[2]: name.split(".", 2)[2] for key, name in MULTISCALE.items()}
    names = {f"scale{scales - 1 - i}_{key}": f"cnns.{i}.{name}" for i in range(scales) for key, name in layers.items()}
    assert scales != 2 or names == MULTISCALE
    return names


@pytest.fixture(scope="module")
def official_keys(golden):
    return {name: dict(keys) for name, keys in golden.official_names("nightlab").items()}


@pytest.mark.parametrize(
    ("key", "model", "channels", "table"),
    [
        ("cyclegan_generator_9blocks", ResnetGenerator(), 3, {}),
        ("patchgan_discriminator", patchgan(), 3, PATCHGAN),
        ("pix2pixhd_global_3ch", ResnetGenerator(downsamplings=4), 3, {}),
        ("pix2pixhd_multiscale_D_6ch_2scales", multiscale(), 6, MULTISCALE),
    ],
)
def test_names_and_shapes(key, model, channels, table, official_keys):
    shapes = shapes_of(model, jnp.zeros((1, 64, 64, channels)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.bool_), shapes)
    actual = {name: list(value.shape) for name, value in to_official(to_torch(zeros), table).items()}
    assert actual == official_keys[key]


@pytest.mark.parametrize("name", ["cyclegan_generator_small", "pix2pixhd_global_small"])
def test_generators(name, golden):
    file = golden("nightlab", name)
    state, x = state_of(file), nhwc(file["x"])
    model = generator_of(state)
    variables = loaded(model, state, x)

    def weighted(variables, x):
        y = model.apply(variables, x)
        return (y * nhwc(file["grad_out"])).sum(), y

    (grads, grad_x), y = jax.jit(jax.grad(weighted, argnums=(0, 1), has_aux=True))(variables, x)
    close(nchw(y), file["y"])
    assert_within(nchw(grad_x), file["grad_x"], 1e-4, "x")
    grads = to_torch(grads)
    for key, expected in state_of(file, "g.").items():
        assert_within(grads[key], expected, 1e-4, key)


def test_patchgan(golden):
    file = golden("nightlab", "patchgan_small")
    state, x = state_of(file), nhwc(file["x"])
    model = patchgan(len(state["model.0.bias"]))
    variables = loaded(model, state, x, PATCHGAN)

    def real(variables, x):
        scores = model.apply(variables, x)[-1]
        return generator_loss([scores]), scores

    (grads, grad_x), scores = jax.jit(jax.grad(real, argnums=(0, 1), has_aux=True))(variables, x)
    close(nchw(scores), file["y"])
    for name, kind in (("lsgan", "least_squares"), ("vanilla", "vanilla")):
        as_real = generator_loss([scores], kind)
        np.testing.assert_allclose(as_real, np.ravel(file[f"{name}_real"])[0], rtol=1e-5)
        both = discriminator_loss([scores], [scores], kind)
        np.testing.assert_allclose(both - as_real, np.ravel(file[f"{name}_fake"])[0], rtol=1e-5)
    assert_within(nchw(grad_x), file["grad_x_of_lsgan_real"], 1e-4, "x")
    grads = to_official(to_torch(grads), PATCHGAN)
    for key, expected in state_of(file, "g.").items():
        assert_within(grads[key], expected, 1e-4, key)


@pytest.mark.slow
def test_full_cyclegan(golden, recipe, official_keys):
    file = golden("nightlab", "cyclegan_full_recipe")
    networks = {
        "generator": ("cyclegan_generator_9blocks", ResnetGenerator(), {}, "x", "y"),
        "discriminator": ("patchgan_discriminator", patchgan(), PATCHGAN, "x_d", "y_d"),
    }
    for name, (key, model, table, given, wanted) in networks.items():
        seed = number(file[f"base_seed_{name}"])
        state = {k: recipe(k, tuple(shape), seed) for k, shape in official_keys[key].items()}
        x = nhwc(file[given])
        y = jax.jit(model.apply)(loaded(model, state, x, table), x)
        close(nchw(y if name == "generator" else y[-1]), file[wanted], 1e-4, name)


def test_local_enhancer(golden):
    file = golden("nightlab", "pix2pixhd_local_small")
    state, x = state_of(file), nhwc(file["x"])
    close(nchw(average_pool(x)), file["x_half"])
    coarse = generator_of({k: v for k, v in state.items() if k.startswith("model.")}, channels=None)
    model = LocalEnhancer(
        features=len(state["model1_1.1.bias"]),
        downsamplings=coarse.downsamplings,
        blocks=coarse.blocks,
        local_blocks=sum(k.startswith("model1_2.") and k.endswith("conv_block.1.weight") for k in state),
    )
    variables = loaded(model, state, x, LOCAL_ENHANCER)
    close(nchw(jax.jit(model.apply)(variables, x)), file["y"])


def test_pix2pixhd_losses(golden):
    file = golden("nightlab", "pix2pixhd_losses")
    state, vgg_state = state_of(file), state_of(file, "vgg.")
    condition, fake, real = (nhwc(file[name]) for name in ("cond", "fake", "real"))
    scales = len({name.partition("_")[0] for name in state})
    judge = multiscale(len(state["scale0_layer0.0.bias"]), scales)
    variables = loaded(judge, state, jnp.concatenate([condition, real], -1), multiscale_names(scales))
    vgg = vgg_of(vgg_state)
    assert sum(map(len, vgg.channels)) == len(file["vgg_widths"])
    features = {f"features.{name}": value for name, value in vgg_state.items()}
    vgg_variables = loaded(vgg, features, real)

    def judged(x):
        return judge.apply(variables, jnp.concatenate([condition, x], -1))

    def losses(fake):
        ours, theirs = judged(fake), judged(real)
        taps = vgg.apply(vgg_variables, real)
        values = {
            "gan": generator_loss([maps[-1] for maps in ours]),
            "feat": 10 * feature_matching_loss(ours, theirs),
            "vgg": 10 * vgg_loss(vgg.apply(vgg_variables, fake), taps),
        }
        return jnp.stack(list(values.values())), (ours, theirs, taps)

    values, (ours, theirs, taps) = jax.jit(losses)(fake)
    gradients = jax.jit(jax.jacrev(lambda x: losses(x)[0]))(fake)
    for i, (name, key) in enumerate((("gan", "GAN"), ("feat", "feat"), ("vgg", "vgg"))):
        np.testing.assert_allclose(values[i], np.ravel(file[f"loss_G_{key}"])[0], rtol=1e-5, err_msg=name)
        assert_within(nchw(gradients[i]), file[f"grad_fake_{name}"], 1e-4, name)
    scores = [[maps[-1] for maps in outputs] for outputs in (ours, theirs)]
    as_real = generator_loss(scores[1])
    np.testing.assert_allclose(as_real, np.ravel(file["loss_D_real"])[0], rtol=1e-5)
    np.testing.assert_allclose(discriminator_loss(*scores) - as_real, np.ravel(file["loss_D_fake"])[0], rtol=1e-5)
    for name, outputs in (("fake", ours), ("real", theirs)):
        for scale, maps in enumerate(outputs):
            for layer, value in enumerate(maps):
                key = f"{name}_scale{scale}_map{layer}"
                if key in file:
                    close(nchw(value), file[key], name=key)
    means = sizes(file, r"vgg_tap(\d)_mean")
    assert means
    for name, tap in means.items():
        close(np.asarray(taps[f"relu{tap + 1}_1"]).mean((1, 2)), file[name], name=name)


def test_pix2pixhd_input(golden):
    file = golden("nightlab", "pix2pixhd_input")
    one_hot, _ = every(file, r"one_hot_(\d+)")
    np.testing.assert_array_equal(nchw(one_hot_labels(jnp.asarray(file["label"][:, 0]))), one_hot)


def test_image_pool(golden):
    file = golden("nightlab", "image_pool")
    images, size = file["images"], number(file["pool_size"])
    free = len(images) - len(file["draw_p"])
    swap = np.concatenate([np.zeros(free, bool), file["draw_p"] > 0.5])
    index = np.concatenate([np.zeros(free, np.int32), np.maximum(file["draw_index"], 0)])
    pool = image_pool.empty_pool(jnp.zeros(1), size)
    pool, returned = jax.jit(image_pool.query)(pool, jnp.asarray(images), jnp.asarray(swap), jnp.asarray(index))
    np.testing.assert_array_equal(returned, file["returned"])
    np.testing.assert_array_equal(pool.image[:, 0], file["final_pool"])


def test_learning_rates(golden):
    file = golden("nightlab", "lr_schedule_translation")
    factor = file["cyclegan_factor_f64"]
    epochs = len(file["cyclegan_lr_f64"])
    half = np.sum(factor == factor[0])  # Epochs before the fall.
    ours = linear_tail(np.arange(len(factor)) + 1, epochs + 1, half)
    np.testing.assert_allclose(ours, factor, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours[:epochs] * file["cyclegan_lr_f64"][0], file["cyclegan_lr_f64"], rtol=1e-5)
    expected, epochs = every(file, r"pix2pixhd_lr_epoch_1_to_(\d+)_f64")
    ours = linear_tail(np.arange(1, epochs + 1), epochs + 1, np.sum(expected == expected[0]))
    np.testing.assert_allclose(ours * expected[0], expected, rtol=1e-5)
