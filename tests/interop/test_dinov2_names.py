"""DINOv2's names, of the published program and of transformers, in and out again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.stacks import Stack
from nightjax.interop.convert import export_file, import_files
from nightjax.interop.dinov2_names import unwrapped
from nightjax.interop.namings import lookup, recognize
from nightjax.interop.torch_weights import from_torch, named_leaves, to_torch
from nightjax.interop.weight_files import load_state_dict, save_state_dict
from nightjax.models import BACKBONES

STACKS = (Stack("backbone/blocks"),)
NAMINGS = {
    "hub": "dinov2",
    "transformers_files": "huggingface_dinov2",
    "transformers_5_state_dict": "huggingface_dinov2_5",
}
"""The list's word for a form to its naming."""


def our_name(official):
    """``dinov2_vitl14_reg`` is ``dinov2_l_reg``."""
    return official.replace("vit", "").replace("14", "")


def shapes_of(name, depth=1):
    model = BACKBONES[name](depth=depth, layers=(0,))
    shapes = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 28, 28, 3))), jax.random.key(0))
    return {"params": {"backbone": shapes["params"]}}


def random_state(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("form", NAMINGS)
def test_official_lists(golden, form):
    """Names and shapes of one block and of everything outside, for every published size; and how many there are."""
    for official, forms in golden.names("modern", "state_dict_names").items():
        listed, name = forms[form], our_name(official)
        names = {key: tuple(shape) for key, shape in listed["names_of_block_0_and_outside"].items()}
        state, template = random_state(names), shapes_of(name)
        ours = named_leaves(template, STACKS)
        assert recognize(state, ours, "file")[0] == NAMINGS[form]
        naming = lookup(NAMINGS[form])
        renamed = naming.to_ours(state)
        assert renamed.keys() == ours.keys(), official
        variables = from_torch(renamed, template, STACKS)
        back = naming.to_official(to_torch(variables, STACKS))
        assert back.keys() == state.keys()
        for key, value in state.items():
            np.testing.assert_array_equal(back[key], value, err_msg=key)
        block = [key for key in names if ".0." in key]
        depth = BACKBONES[name]().depth
        assert listed["entries"] == len(names) + (depth - 1) * len(block)
        size = lambda keys, names=names: sum(int(np.prod(names[key])) for key in keys)
        assert listed["parameters"] == size(names) + (depth - 1) * size(block)


@pytest.mark.parametrize(
    ("naming", "form", "names"),
    [
        ("huggingface_dinov2", "attention.attention.{}", ("key", "value", "query")),
        ("huggingface_dinov2_5", "attention.{}_proj", "kvq"),
    ],
)
def test_query_key_and_value_are_in_this_order(naming, form, names):
    """Whatever the order in the file."""
    values = {name: np.full(2, ord(name[0]), np.float32) for name in names}
    state = {f"encoder.layer.0.{form.format(name)}.bias": value for name, value in values.items()}
    (joined,) = lookup(naming).to_ours(state).values()
    assert joined.tolist() == [ord(letter) for letter in "qqkkvv"]


TINY = {"dim": 16, "heads": 2, "depth": 3, "pretrain_size": 28, "layers": (0, 1, 2)}


def tiny(**options):
    model = BACKBONES["dinov2_s"](**TINY, **options)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    return {"params": {"backbone": variables["params"]}}


@pytest.mark.parametrize("naming", NAMINGS.values())
@pytest.mark.parametrize("registers", [0, 4])
def test_files_there_and_back(tmp_path, naming, registers):
    variables = tiny(registers=registers)
    export_file(str(tmp_path / "a.npz"), variables, naming, STACKS)
    state = load_state_dict(tmp_path / "a.npz")
    save_state_dict(tmp_path / "b.npz", state | {"classifier.weight": np.zeros((3, 16), np.float32)})
    found = import_files([str(tmp_path / "b.npz")], jax.tree.map(jnp.zeros_like, variables), STACKS)
    assert jax.tree.all(jax.tree.map(np.array_equal, found.variables, jax.tree.map(np.asarray, variables)))
    assert naming in found.notes[0] and "classifier" in found.notes[1]


def test_wrapped_names(tmp_path):
    """Of models with a head, and of training checkpoints, whose blocks are in chunks."""
    variables = tiny()
    export_file(str(tmp_path / "a.npz"), variables, "dinov2", STACKS)
    state = load_state_dict(tmp_path / "a.npz")
    chunked = {f"teacher.backbone.{name.replace('blocks.', 'blocks.0.')}": value for name, value in state.items()}
    assert unwrapped(chunked).keys() == state.keys()
    export_file(str(tmp_path / "c.npz"), variables, "huggingface_dinov2", STACKS)
    headed = {f"dinov2.{name}": value for name, value in load_state_dict(tmp_path / "c.npz").items()}
    for wrapped in (chunked, headed):
        save_state_dict(tmp_path / "b.npz", wrapped)
        found = import_files([str(tmp_path / "b.npz")], jax.tree.map(jnp.zeros_like, variables), STACKS).variables
        assert jax.tree.all(jax.tree.map(np.array_equal, found, jax.tree.map(np.asarray, variables)))


def test_registers_belong_to_the_file(tmp_path):
    plain, registers = tiny(), tiny(registers=4)
    for given, wanted, words in ((plain, registers, "has no register"), (registers, plain, "has register tokens")):
        export_file(str(tmp_path / "a.npz"), given, "dinov2", STACKS)
        with pytest.raises(UserError, match=rf"a.npz {words}"):
            import_files([str(tmp_path / "a.npz")], wanted, STACKS, allow_missing=["*"], allow_surplus=["*"])


def test_other_vision_transformers_are_not_taken_for_it(tmp_path):
    ours = named_leaves(tiny(), STACKS)
    names = {
        "timm's ViT": ["cls_token", "pos_embed", "blocks.0.attn.qkv.weight", "norm.weight"],
        "Swin": ["layers.0.blocks.0.attn.qkv.weight", "patch_embed.proj.weight"],
        "transformers' ViT": [
            "embeddings.cls_token",
            "embeddings.patch_embeddings.projection.weight",
            "encoder.layer.0.attention.attention.query.weight",
        ],
    }
    for entries in names.values():
        state = dict.fromkeys(entries, np.zeros(1, np.float32))
        with pytest.raises(UserError, match="x.npz holds no weights for this model"):
            recognize(state, ours, "x.npz")
    state = {"reg_token": np.zeros(1), "blocks.0.ls1.gamma": np.zeros(1)}
    save_state_dict(tmp_path / "timm.npz", state)
    with pytest.raises(UserError, match="timm's names"):
        import_files([str(tmp_path / "timm.npz")], tiny(), STACKS)
