"""DINOv2 against the published program and transformers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.interop.torch_weights import to_torch
from nightjax.models.backbones.dinov2 import (
    POSITION_RULES,
    VARIANTS,
    DinoV2,
    PatchEmbed,
    resized_positions,
)
from nightjax.ops.masking import masked_tokens
from tests.helpers.golden import assert_within, every, nchw, nhwc, normalized, number, same_value, sizes
from tests.helpers.modern import recipe_variables


def network(file, **options):
    """The tiny network of a file, all of whose blocks are features."""
    depth = number(file["depth"])
    given = {name: number(file[name]) for name in ("dim", "heads", "pretrain_size")}
    options = {"patch": number(file.get("patch", 14)), "layers": tuple(range(depth))} | options
    return DinoV2(depth=depth, **given, **options)


def block_outputs(model, x, token_mask=None):
    """Tokens that enter, and those after every block: of the bound module."""
    tokens = model.embed(x, token_mask)
    return tokens, model.outputs(tokens, range(model.depth))


def run(model, variables, x, token_mask=None):
    """Everything the files hold of one image."""

    @jax.jit
    def outputs(variables, x, token_mask):
        tokens, blocks = model.apply(variables, x, token_mask, method=block_outputs)
        normed = [model.apply(variables, y, method=lambda module, y: module.norm(y)) for y in blocks]
        return tokens, blocks, normed, model.apply(variables, x, token_mask=token_mask)

    return outputs(variables, x, token_mask)


OTHERS = re.compile(
    r"x_uint8|last_hidden_state_transformers|token_masks|masked_patchtokens|masked_last_hidden_transformers"
    r"|cotangent|grad\..*|base_seed|dim|depth|heads|pretrain_size|patch|hidden"
)
"""Names of inputs and settings, and of what other tests here compare."""


def whole_positions(variables, x, rule, patch=14):
    """Position embedding of the class token and of the patches of an image: [1, 1 + h * w, C]."""
    stored = jnp.asarray(variables["params"]["pos_embed"])
    size = x.shape[1:3]
    place = resized_positions(stored[:, 1:], (size[0] // patch, size[1] // patch), size, rule)
    return np.concatenate([stored[:, :1], place], axis=1)


def assert_outputs(file, prefix, model, variables, x):
    """Everything under the prefix; a name that nobody compares is an error."""
    tokens, blocks, normed, features = run(model, variables, x)
    skipped = 1 + model.registers
    grid = x.shape[1] // model.patch, x.shape[2] // model.patch
    names = [name.removeprefix(prefix) for name in file if name.startswith(prefix)]
    for name in names:
        expected = file[prefix + name]
        if match := re.fullmatch(r"layer(\d+)", name):
            j = int(match[1])
            assert_within(nchw(features[f"stage{j + 1}"]), expected, 1e-4, name)
        elif match := re.fullmatch(r"layer(\d+)_without_norm", name):
            raw = blocks[int(match[1])][:, skipped:].reshape(len(x), *grid, -1)
            assert_within(nchw(raw), expected, 1e-4, name)
        elif match := re.fullmatch(r"cls(\d+)", name):
            assert_within(normed[int(match[1])][:, 0], expected, 1e-4, name)
        elif name == "registers":
            assert_within(normed[-1][:, 1:skipped], expected, 1e-4, name)
        elif name == "tokens_in":
            assert_within(tokens[:, : expected.shape[1]], expected, 1e-4, name)
        elif name.startswith("x_prenorm_first"):
            assert_within(blocks[-1][:, : expected.shape[1]], expected, 1e-4, name)
        elif name in ("pos_embed_hub", "pos_embed_transformers"):
            rule = "size" if name.endswith("transformers") and not model.registers else model.pos_rule
            found = whole_positions(variables, x, rule, model.patch)
            np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5, err_msg=name)
        else:
            assert OTHERS.fullmatch(name), f"nothing is compared with {prefix}{name}"


@pytest.mark.parametrize("name", ["dinov2_tiny", "dinov2_reg_tiny"])
def test_every_output_at_every_size(golden, name):
    file = golden("modern", name)
    registers = number(file.get("registers", 0))
    model = network(file, registers=registers, pos_rule="antialias" if registers else "offset")
    variables = recipe_variables(model, file["base_seed"], jnp.zeros((1, 84, 84, 3)))
    for i in range(len(file["sizes"])):
        assert_outputs(file, f"s{i}.", model, variables, normalized(file[f"s{i}.x_uint8"]))


def test_swiglu(golden):
    file = golden("modern", "dinov2_swiglu_tiny")
    x = normalized(file["x_uint8"])
    model = network(file, ffn="swiglu")
    variables = recipe_variables(model, file["base_seed"], x)
    assert variables["params"]["blocks"]["mlp"]["w3"]["kernel"].shape[1] == number(file["hidden"])
    assert_outputs(file, "", model, variables, x)


def test_position_rule_of_transformers(golden):
    """``size`` gives transformers' features of the same weights; ``offset`` others, but where nothing is resized."""
    file = golden("modern", "dinov2_tiny")
    theirs = network(file, pos_rule="size")
    ours = theirs.clone(pos_rule="offset")
    variables = recipe_variables(theirs, file["base_seed"], jnp.zeros((1, 84, 84, 3)))
    for i, size in enumerate(file["sizes"].tolist()):
        x, expected = normalized(file[f"s{i}.x_uint8"]), file[f"s{i}.last_hidden_state_transformers"]
        assert_within(run(theirs, variables, x)[2][-1], expected, 1e-4, f"s{i}")
        differs = np.abs(run(ours, variables, x)[2][-1] - expected).max()
        assert (differs > 0.1) == (size != [number(file["pretrain_size"])] * 2)


def test_masked_tokens(golden):
    file = golden("modern", "dinov2_tiny")
    for name in [name for name in file if name.endswith(".token_masks")]:
        prefix = name.removesuffix("token_masks")
        model = network(file)
        x, mask = normalized(file[f"{prefix}x_uint8"]), jnp.asarray(file[name], bool)
        variables = recipe_variables(model, file["base_seed"], x)
        _, _, normed, _ = run(model, variables, x, mask)
        assert_within(normed[-1][:, 1:], file[f"{prefix}masked_patchtokens"], 1e-4, name)
        model = model.clone(pos_rule="size")
        _, _, normed, _ = run(model, variables, x, mask)
        assert_within(normed[-1], file[f"{prefix}masked_last_hidden_transformers"], 1e-4, name)


def test_gradients(golden):
    file, images = golden("modern", "dinov2_tiny_grad"), golden("modern", "dinov2_tiny")
    model = network(images)
    variables = recipe_variables(model, file["base_seed"], jnp.zeros((1, 84, 84, 3)))

    def loss(variables, x, maps, classes):
        _, blocks = model.apply(variables, x, method=block_outputs)
        normed = {j: model.apply(variables, blocks[j], method=lambda module, y: module.norm(y)) for j in maps}
        grid = x.shape[1] // model.patch, x.shape[2] // model.patch
        total = sum(jnp.sum(normed[j][:, 1:].reshape(len(x), *grid, -1) * nhwc(c)) for j, c in maps.items())
        return total + sum(jnp.sum(normed[j][:, 0] * c) for j, c in classes.items())

    for name in [name for name in file if name.endswith(".loss")]:
        prefix = name.removesuffix("loss")
        x = normalized(images[f"{prefix}x_uint8"])
        maps = {j: file[key] for key, j in sizes(file, re.escape(prefix) + r"cotangent_layer(\d+)").items()}
        classes = {j: file[key] for key, j in sizes(file, re.escape(prefix) + r"cotangent_cls(\d+)").items()}
        value, (grad, grad_x) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(variables, x, maps, classes)
        same_value(value, file[name], 1e-4, name)
        state = to_torch(grad, model.stacks)
        for key in [key for key in file if key.startswith(f"{prefix}grad.")]:
            official = key.removeprefix(f"{prefix}grad.")
            official, _, step = official.partition("_every")
            assert_within(state[official][:: int(step or 1)], file[key], 1e-4, key)
        expected, step = every({k: v for k, v in file.items() if k.startswith(prefix)}, r".*grad_x_every(\d+)px")
        assert_within(nchw(grad_x)[:, :, ::step, ::step], expected, 1e-4, "x")
        norm = np.sqrt(sum(np.square(value, dtype=np.float64).sum() for value in state.values()))
        same_value(norm, file[f"{prefix}gradnorm_all"], 1e-4, "gradnorm_all")


def test_gradients_of_registers(golden):
    file = golden("modern", "dinov2_reg_tiny")
    model = network(file, registers=number(file["registers"]), pos_rule="antialias")
    variables = recipe_variables(model, file["base_seed"], jnp.zeros((1, 84, 84, 3)))

    def loss(variables, x, cotangent):
        return jnp.sum(model.apply(variables, x)[f"stage{model.depth}"] * cotangent)

    for i in range(len(file["sizes"])):
        x, cotangent = normalized(file[f"s{i}.x_uint8"]), nhwc(file[f"s{i}.cotangent"])
        state = to_torch(jax.jit(jax.grad(loss))(variables, x, cotangent), model.stacks)
        for key in [key for key in file if key.startswith(f"s{i}.grad.")]:
            assert_within(state[key.removeprefix(f"s{i}.grad.")], file[key], 1e-4, key)


@pytest.mark.parametrize("rule", POSITION_RULES)
def test_position_embedding(golden, rule):
    file = golden("modern", "pos_embed")
    stored = jnp.asarray(file["pos_embed"])
    for i, grid in enumerate(file["grids"].tolist()):
        size = (14 * grid[0], 14 * grid[1])
        table = np.asarray(resized_positions(stored[:, 1:], tuple(grid), size, rule)).reshape(*grid, -1)
        expected = file[f"g{i}.{rule}"]
        step = next(n for n in (1, 5) if table[::n, ::n].shape == expected.shape)
        np.testing.assert_allclose(table[::step, ::step], expected, rtol=0, atol=5e-5)


def test_stored_positions_are_used_as_they_are():
    """Of a square with as many patches; another shape with as many patches is resized."""
    stored = jnp.asarray(np.random.default_rng(0).normal(size=(1, 36, 4)), jnp.float32)
    for rule in POSITION_RULES:
        assert np.array_equal(resized_positions(stored, (6, 6), (84, 84), rule), stored)
        assert np.abs(resized_positions(stored, (4, 9), (56, 126), rule) - stored).max() > 0.1


@pytest.mark.slow  # At full size what the tiny networks test.
@pytest.mark.parametrize("name", ["dinov2_vits14_recipe", "dinov2_vits14_reg_recipe"])
def test_full_size(golden, name):
    file = golden("modern", name)
    registers = number(file["registers"])
    model = DinoV2(**VARIANTS["dinov2_s_reg" if registers else "dinov2_s"] | {"layers": tuple(range(12))})
    x = normalized(file["x_uint8"])
    variables = recipe_variables(model, file["base_seed"], x)
    _, _, normed, features = run(model, variables, x)
    for key, step in sizes(file, r"layer\d+_every(\d+)ch").items():
        j = int(re.match(r"layer(\d+)", key)[1])
        assert_within(nchw(features[f"stage{j + 1}"])[:, ::step], file[key], 1e-4, key)
    for key, j in sizes(file, r"cls(\d+)").items():
        assert_within(normed[j][:, 0], file[key], 1e-4, key)
    for key, j in sizes(file, r"tap(\d+)\.mean").items():
        y = np.asarray(features[f"stage{j + 1}"], np.float64)
        tap = key.removesuffix("mean")
        largest = np.abs(y).max()
        np.testing.assert_allclose(y.mean(), file[key], rtol=0, atol=1e-4 * largest)
        np.testing.assert_allclose(np.abs(y).mean(), file[f"{tap}absmean"], rtol=1e-4)
        np.testing.assert_allclose(y.mean((0, 1, 2)), file[f"{tap}chan_mean"], rtol=0, atol=1e-4 * largest)
    expected, step = every(file, r"pos_embed_every(\d+)ch")
    whole = whole_positions(variables, x, model.pos_rule)
    np.testing.assert_allclose(whole[..., ::step], expected, rtol=0, atol=5e-5)


def test_token_masking(golden):
    """VFM-UDA's strictness: a draw equal to the ratio keeps its patch, the next one below masks it."""
    file = golden("modern", "token_masks")
    masked = masked_tokens(jnp.asarray(file["draws"]), float(file["ratio"]))
    assert np.array_equal(masked, file["masked"].astype(bool))
    tokens = np.where(np.asarray(masked)[..., None], file["mask_token"], file["tokens"])
    np.testing.assert_array_equal(tokens, file["masked_tokens"])


def test_patch_embedding_is_by_rows():
    """Patch i of the tokens is row i // w, column i % w."""
    model = DinoV2(dim=8, depth=1, heads=1, pretrain_size=28, layers=(0,))
    x = np.random.default_rng(0).normal(size=(1, 28, 42, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    tokens = model.apply(variables, x, method="embed")
    patch = PatchEmbed(8, 14)
    embed = {"params": variables["params"]["patch_embed"]}
    one = patch.apply(embed, x[:, 14:28, 28:42])[:, 0, 0]
    place = resized_positions(variables["params"]["pos_embed"][:, 1:], (2, 3), (28, 42), "offset")
    np.testing.assert_allclose(tokens[:, 1 + 5], one + place[:, 5], atol=1e-5)
