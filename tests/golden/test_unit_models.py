"""UNIT's networks, blocks and perceptual loss against the official programs.

Tolerances of the golden README: 2e-5 absolute and 1e-4 relative for outputs, 1e-4 relative for losses.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.interop.official_names import VGG16_CAFFE, from_official
from nightjax.interop.torch_weights import from_torch
from nightjax.losses import translation
from nightjax.models import translation_blocks as blocks
from nightjax.models.backbones.vgg import VGG
from nightjax.models.unit import Autoencoder, Discriminators, SharedVAE
from nightjax.ops.instance_norm import instance_norm
from tests.helpers.golden import nchw, nhwc, sizes, state_of, unit_options


def fill(module, x, state):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return from_torch(state, shapes)


def assert_close(actual, expected, name=""):
    np.testing.assert_allclose(actual, expected, atol=2e-5, rtol=1e-4, err_msg=name)


def count(names, pattern):
    """How many numbers a part of a name takes."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def stages(module, variables, *args):
    """Output of every submodule by its path."""
    _, found = module.apply(variables, *args, capture_intermediates=True)
    flat = jax.tree_util.tree_flatten_with_path(found["intermediates"])[0]
    return {"/".join(key.key for key in path if hasattr(key, "key")): nchw(value) for path, value in flat}


def test_autoencoder(golden):
    file = golden("unit_fid", "unit_generator")
    state, x = state_of(file, "w/"), nhwc(file["x"])
    residual = count(state, r"dec\.model\.0\.model\.(\d+)\.")
    down = count(state, r"enc\.model\.(\d+)\.conv") - 1
    options = unit_options(golden.settings("unit_fid", "unit_generator"))
    model = Autoencoder(len(state["enc.model.0.conv.bias"]), down, residual, **options)
    variables = fill(model, x, state)
    seen = stages(model, variables, x)
    checked = set()
    for name, expected in file.items():
        if match := re.fullmatch(r"(enc|dec)_stage(\d+)", name):
            side, i = match[1], int(match[2])
            if side == "dec" and i % 2 and i < 2 * down:  # The doubling, which is no module of ours.
                actual = seen[f"dec/model_{i - 1}/__call__"].repeat(2, 2).repeat(2, 3)
            else:
                actual = seen[f"{side}/model_{i}/__call__"]
            assert_close(np.tanh(actual) if side == "dec" and i == 2 * down + 1 else actual, expected, name)
            checked.add(side)
    assert checked == {"enc", "dec"}
    code = model.apply(variables, x, method=lambda m, x: m.enc(x))
    decode = functools.partial(model.apply, variables, method=lambda m, z: m.dec(z))
    assert_close(nchw(code), file["h"])
    assert_close(nchw(decode(code)), file["recon_mean"])
    assert_close(nchw(decode(code[:1])), file["recon_mean_batch1"])
    assert_close(nchw(decode(code + nhwc(file["noise"]))), file["recon_noisy"])
    np.testing.assert_allclose(translation.code_loss(code), file["kl"], rtol=1e-4)


@pytest.mark.parametrize("norm", ["none", "ln"])
def test_discriminator(golden, norm):
    file = golden("unit_fid", f"unit_discriminator_{norm}")
    state = state_of(file, "w/")
    scales = count(state, r"cnns\.(\d+)\.")
    settings = Discriminators(
        features=len(state["cnns.0.0.conv.bias"]),
        layers=count(state, r"cnns\.0\.(\d+)\.conv"),
        scales=scales,
        norm="layer" if any("norm" in name for name in state) else "none",
    )
    model, fake, real = settings.build(), nhwc(file["x_fake"]), nhwc(file["x_real"])
    params = fill(model, fake, state)["params"]

    @jax.jit
    def scores(params, x):
        return [maps[-1] for maps in model.apply({"params": params}, x)]

    for kind, x in (("fake", fake), ("real", real)):
        for i, score in enumerate(scores(params, x)):
            assert_close(nchw(score), file[f"out_{kind}_{i}"], f"{kind} {i}")
    coarsest = fake
    for _ in range(scales - 1):
        coarsest = blocks.average_pool(coarsest)
    assert_close(nchw(coarsest), file["x_fake_coarsest"])

    def d_loss(params, kind):
        return translation.discriminator_loss(scores(params, fake), scores(params, real), kind)

    def g_loss(x, kind):
        return translation.generator_loss(scores(params, x), kind)

    for name, kind in (("lsgan", "least_squares"), ("nsgan", "vanilla")):
        np.testing.assert_allclose(d_loss(params, kind), file[f"dis_loss_{name}"], rtol=1e-4)
        np.testing.assert_allclose(g_loss(fake, kind), file[f"gen_loss_{name}"], rtol=1e-4)
    grads = jax.jit(jax.grad(lambda params: d_loss(params, "least_squares")))(params)
    for name, scale in (("grad_dis_w0", 0), ("grad_dis_w0_last", scales - 1)):
        kernel = grads[f"cnns_{scale}"]["0"]["conv"]["kernel"]
        assert_close(np.transpose(kernel, (3, 2, 0, 1)), file[name], name)
    to_image = nchw(jax.jit(jax.grad(lambda x: g_loss(x, "least_squares")))(fake))
    assert_close(to_image.mean(-1), file["grad_gen_x_rowmean"], "grad_gen_x")


def test_sample_norm(golden):
    file = golden("unit_fid", "unit_ops")
    batches = sizes(file, r"ln_x_b(\d+)").values()
    assert batches
    for size in batches:
        check_sample_norm(file, f"b{size}")


def check_sample_norm(file, batch):
    x, r = nhwc(file[f"ln_x_{batch}"]), nhwc(file[f"ln_r_{batch}"])
    params = {name: jnp.asarray(file[f"ln_{name}"]) for name in ("gamma", "beta")}

    def apply(params, x):
        return blocks.SampleNorm().apply({"params": params}, x)

    grads, dx = jax.grad(lambda p, x: (apply(p, x) * r).sum(), argnums=(0, 1))(params, x)
    assert_close(nchw(apply(params, x)), file[f"ln_y_{batch}"])
    assert_close(nchw(dx), file[f"ln_dx_{batch}"])
    assert_close(grads["gamma"], file[f"ln_dgamma_{batch}"])


def test_pixel_operations(golden):
    file = golden("unit_fid", "unit_ops")
    for case in state_of(file, "pool_x_"):
        assert_close(nchw(blocks.average_pool(nhwc(file[f"pool_x_{case}"]))), file[f"pool_y_{case}"], case)
    assert_close(nchw(blocks.double(nhwc(file["up_x"]))), file["up_y"])
    assert_close(nchw(translation.caffe_bgr(nhwc(file["vggpre_x"]))), file["vggpre_y"])


def test_conv_blocks(golden):
    file = golden("unit_fid", "unit_ops")
    cases = [name[:-2] for name in file if name.startswith("block_") and name.endswith("_x")]
    assert cases
    norms = {"in": "instance", "ln": "layer", "none": "none"}
    for case in cases:
        norm, activation, pad_mode, kernel, stride = case.split("_")[1:]
        kernel, stride = int(kernel[1:]), int(stride[1:])
        x, state = nhwc(file[f"{case}_x"]), state_of(file, f"{case}_w/")
        module = blocks.ConvBlock(
            len(state["conv.bias"]),
            kernel=kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
            pad_mode=pad_mode,
            norm=norms[norm],
            activation=activation.replace("lrelu", "leaky_relu"),
        )
        assert_close(nchw(module.apply(fill(module, x, state), x)), file[f"{case}_y"], case)


def test_residual_block(golden):
    file = golden("unit_fid", "unit_ops")
    x, module = nhwc(file["res_x"]), blocks.ResidualBlock()
    assert_close(nchw(module.apply(fill(module, x, state_of(file, "res_w/")), x)), file["res_y"])


def narrow_vgg(state):
    """A VGG-16 of the file's widths: group and number are in the names."""
    widths = {name: len(value) for name, value in state.items() if name.endswith(".bias")}
    groups = {}
    for name in sorted(widths):
        groups.setdefault(name[4], []).append(widths[name])
    return VGG(channels=tuple(tuple(group) for group in groups.values()), pools=3)


def test_perceptual_loss(golden):
    file = golden("unit_fid", "unit_vgg_loss")
    state, image, target = state_of(file, "w/"), nhwc(file["img"]), nhwc(file["target"])
    model = narrow_vgg(state)
    variables = fill(model, image, from_official(state, VGG16_CAFFE))

    @jax.jit
    def features(x):
        return model.apply(variables, translation.caffe_bgr(x))["relu5_3"]

    for name, x in (("img", image), ("target", target)):
        np.testing.assert_allclose(nchw(features(x)), file[f"feat_{name}"], atol=2e-5, rtol=1e-4)
        assert_close(nchw(instance_norm(features(x))), file[f"in_{name}"], name)
    loss, grad = jax.jit(jax.value_and_grad(lambda x: translation.perceptual_loss(features, x, target)))(image)
    np.testing.assert_allclose(loss, file["loss"], rtol=1e-4)
    assert_close(nchw(grad), file["grad_img"])


def shared_state(state):
    """Names of the 2017 program as ours: ``encode_A.0.model.0`` is a convolution or, with a ``.3``, a residual
    block."""
    residual = {name.partition(".model.3")[0] for name in state if ".model.3." in name}
    renamed = {}
    for name, value in state.items():
        layer, _, rest = name.partition(".model.")
        side, number = layer.split(".")[:2]
        domain = side.partition("_")[2].lower()
        kind = side.partition("_")[0]
        if layer in residual:
            first = min(int(r.split(".")[1]) for r in residual if r.startswith(f"{side}."))
            index, leaf = rest.split(".")
            place = side if "shared" in side else f"{kind}_{domain}.blocks"
            ours = f"{place}.model.{int(number) - first}.model.{0 if index == '0' else 1}.conv.{leaf}"
        elif rest:
            shift = 1 if kind == "decode" else 0  # One list of convolutions follows the residual blocks.
            blocks_before = len({r for r in residual if r.startswith(f"{side}.")}) * shift
            ours = f"{kind}_{domain}.{int(number) - blocks_before}.conv.{rest.split('.')[1]}"
        else:
            leaf = name.rpartition(".")[2]
            ours = f"image_{domain}.{leaf}"
            value = value.swapaxes(0, 1) if leaf == "weight" else value
        renamed[ours.replace(".blocks", "_blocks")] = value
    return renamed


@pytest.mark.parametrize("program", ["resgen2", "resgen"])
def test_shared_network(golden, program):
    file = golden("unit_fid", "unit_nips_shared")
    state = state_of(file, "gen_w/")
    own = count([name for name in state if ".model.3." in name], r"encode_A\.(\d+)\.")
    model = SharedVAE(
        features=len(state["encode_A.0.model.0.bias"]),
        downsamplings=count(state, r"encode_A\.(\d+)\.") - own - 1,
        blocks=own,
        shared=count(state, r"enc_shared\.(\d+)\."),
        norm={"resgen2": "none", "resgen": "instance"}[program],
    )
    images = {domain: nhwc(file[f"x_{domain}"]) for domain in "ab"}
    variables = fill(model, images["a"], shared_state(state))
    encode = functools.partial(model.apply, variables, method="encode")
    decode = functools.partial(model.apply, variables, method="decode")
    codes = {domain: encode(x, domain) for domain, x in images.items()}
    stacked = jnp.concatenate([codes["a"], codes["b"]])
    assert_close(nchw(stacked), file[f"{program}/shared"])
    np.testing.assert_allclose(translation.code_loss(stacked), file[f"{program}/kl"], rtol=1e-4)
    for origin in "ab":
        for domain in "ab":
            picture = nchw(decode(codes[origin], domain))
            assert_close(picture, file[f"{program}/x_{origin}{domain}"], f"{origin} to {domain}")
    assert_close(nchw(decode(codes["a"], "b")), file[f"{program}/a2b"])


def test_shared_discriminator(golden):
    """The official pyramid cuts the width to the height; ours does not, so its scales are compared one by one."""
    file = golden("unit_fid", "unit_nips_shared")
    named = state_of(file, "msdis_w/")
    names = sorted({name.split(".")[0] for name in named if "_A." in name})
    settings = Discriminators(
        form="unit2017",
        features=len(named[f"{names[0]}.0.model.0.bias"]),
        layers=count(named, rf"{names[0]}\.(\d+)\.model"),
        scales=len(names),
        norm="none",
    )
    model, x = settings.build(), nhwc(file["x_a"])
    state = {}
    for scale, name in enumerate(names):
        for key, value in state_of(named, f"{name}.").items():
            state[f"cnns.{scale}.{key.replace('model.0', 'conv')}"] = value
    params = fill(model, x, state)["params"]
    half = blocks.binomial_pool(x)
    side = file["msdis/down1"].shape[-1]
    assert half.shape[1:3] == tuple(-(-n // 2) for n in x.shape[1:3])
    assert_close(nchw(half[:, :, :side]), file["msdis/down1"])
    assert_close(nchw(blocks.binomial_pool(nhwc(file["x_square"]))), file["msdis/down_square"])
    seen = x
    for scale in range(len(names)):
        scores = model.patch().apply({"params": params[f"cnns_{scale}"]}, seen)[-1]
        assert_close(scores.ravel(), file[f"msdis/outA_{scale}"], f"scale {scale}")
        seen = blocks.binomial_pool(seen)
        seen = seen[:, :, : seen.shape[1]]
    whole = model.apply({"params": params}, x)[0][-1]
    assert_close(whole.ravel(), file["msdis/outA_0"])
