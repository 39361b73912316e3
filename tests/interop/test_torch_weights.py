import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.stacks import Stack
from nightjax.interop.torch_weights import brief, from_torch, named_leaves, to_torch, torch_name
from nightjax.models import build_segmenter


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    return {
        "params": {
            "layer1_0": {
                "conv1": {"kernel": rng.normal(size=(3, 1, 4, 5))},
                "bn1": {"scale": np.ones(5)},
            },
            "conv__0": {"kernel": rng.normal(size=(1, 1, 2, 3)), "bias": np.ones(3)},
            "up": {"kernel_t": rng.normal(size=(3, 2, 4, 5))},
            "fc": {"kernel": rng.normal(size=(6, 7))},
            "attn": {"relative_position_bias_table": rng.normal(size=(9, 2))},
        },
        "batch_stats": {"layer1_0": {"bn1": {"mean": np.zeros(5), "var": np.ones(5)}}},
    }


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_and_layouts(variables):
    state = to_torch(variables, counters=True)
    assert {name: value.shape for name, value in state.items()} == {
        "layer1.0.conv1.weight": (5, 4, 3, 1),
        "layer1.0.bn1.weight": (5,),
        "layer1.0.bn1.running_mean": (5,),
        "layer1.0.bn1.running_var": (5,),
        "layer1.0.bn1.num_batches_tracked": (),
        "conv_0.weight": (3, 2, 1, 1),
        "conv_0.bias": (3,),
        "up.weight": (4, 5, 3, 2),
        "fc.weight": (7, 6),
        "attn.relative_position_bias_table": (9, 2),
    }
    kernel = variables["params"]["layer1_0"]["conv1"]["kernel"]
    assert state["layer1.0.conv1.weight"][4, 3, 2, 0] == kernel[2, 0, 3, 4]
    transposed = variables["params"]["up"]["kernel_t"]
    assert state["up.weight"][3, 4, 2, 1] == transposed[2, 1, 3, 4]
    assert state["fc.weight"][6, 5] == variables["params"]["fc"]["kernel"][5, 6]


@pytest.mark.parametrize(
    "path,name",
    [
        (("model_10", "conv_block_1", "kernel"), "model.10.conv_block.1.weight"),
        (("layer_0_1", "bias"), "layer.0.1.bias"),
        (("pred_conv__1", "kernel"), "pred_conv_1.weight"),
        (("conv1", "kernel"), "conv1.weight"),
        (("linear_c1", "proj", "kernel"), "linear_c1.proj.weight"),
        (("bn2", "mean"), "bn2.running_mean"),
    ],
)
def test_torch_name(path, name):
    assert torch_name(path) == name


def test_round_trip_is_exact(variables):
    same(from_torch(to_torch(variables, counters=True), variables), variables)
    model = build_segmenter("resnet_tiny", "fpn", 5, backbone_stem="v1c")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    real = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    same(from_torch(to_torch(real), shapes), real)


STACKS = (
    Stack("block1"),
    Stack("stages_0/blocks_plain", block="stages_0/blocks", first=0, step=2),
    Stack("stages_0/blocks_shifted", block="stages_0/blocks", first=1, step=2),
)


@pytest.fixture
def stacked():
    """Variables with the arrays of `STACKS`."""
    rng = np.random.default_rng(0)
    kernel = lambda count: {"fc": {"kernel": rng.normal(size=(count, 4, 5))}}
    return {"params": {"block1": kernel(3), "stages_0": {"blocks_plain": kernel(2), "blocks_shifted": kernel(2)}}}


def test_equal_blocks_are_entries_of_their_own(stacked):
    state = to_torch(stacked, STACKS)
    assert list(state) == [f"block1.{i}.fc.weight" for i in range(3)] + [
        f"stages.0.blocks.{i}.fc.weight" for i in range(4)
    ]
    same(from_torch(state, stacked, STACKS), stacked)
    assert named_leaves(stacked, STACKS).keys() == state.keys()
    np.testing.assert_array_equal(state["block1.2.fc.weight"], stacked["params"]["block1"]["fc"]["kernel"][2].T)
    np.testing.assert_array_equal(
        state["stages.0.blocks.3.fc.weight"], stacked["params"]["stages_0"]["blocks_shifted"]["fc"]["kernel"][1].T
    )


@pytest.mark.parametrize("name", ["for_each", "even", "odd", "blocks_even"])
def test_a_name_alone_makes_no_stack(name):
    variables = {"params": {name: {"kernel": np.zeros((3, 4))}}}
    assert {key: value.shape for key, value in to_torch(variables, STACKS).items()} == {f"{name}.weight": (4, 3)}
    same(from_torch({f"{name}.weight": np.zeros((4, 3))}, variables, STACKS), variables)


def test_equal_blocks_come_all_together(stacked):
    state = to_torch(stacked, STACKS)
    del state["block1.1.fc.weight"]
    with pytest.raises(UserError, match=r"1 missing.*block1.1.fc.weight.*2 unknown"):
        from_torch(state, stacked, STACKS)
    filled = from_torch(state, stacked, STACKS, allow_missing=["block1.1.*"], allow_surplus=["block1.*"])
    assert filled["params"]["block1"]["fc"]["kernel"] is stacked["params"]["block1"]["fc"]["kernel"]
    state = to_torch(stacked, STACKS) | {"block1.1.fc.weight": np.zeros((5, 3))}
    with pytest.raises(UserError, match=r"'block1.1.fc.weight'.*\(5, 3\).*\(5, 4\)"):
        from_torch(state, stacked, STACKS)


def test_import_takes_a_literal_underscore(variables):
    """A model that calls a torch ``conv_0`` simply ``conv_0`` can still be filled."""
    template = {"params": {"conv_0": {"kernel": np.zeros((1, 1, 2, 3), np.float32)}}}
    weight = np.arange(6.0).reshape(3, 2, 1, 1)
    filled = from_torch({"conv_0.weight": weight}, template)["params"]["conv_0"]["kernel"]
    np.testing.assert_array_equal(filled[0, 0], weight[:, :, 0, 0].T)
    assert filled.dtype == np.float32


def test_differences_stop_unless_named(variables):
    state = to_torch(variables)
    del state["fc.weight"]
    state["aux.weight"] = np.zeros(3)
    state["aux.bias"] = np.zeros(3)
    with pytest.raises(UserError, match=r"1 missing.*fc\.\*.*2 unknown.*aux\.\*"):
        from_torch(state, variables)
    with pytest.raises(UserError, match="2 unknown"):
        from_torch(state, variables, allow_missing=["fc.*"])
    same(from_torch(state, variables, allow_missing=["fc.weight"], allow_surplus=["aux.*"]), variables)


def test_shape_mismatch_names_the_parameter(variables):
    state = to_torch(variables)
    state["fc.weight"] = np.zeros((8, 6))
    with pytest.raises(UserError, match=r"'fc\.weight'.*\(8, 6\).*\(7, 6\)"):
        from_torch(state, variables)


def test_a_classifier_of_other_classes_starts_from_scratch_if_allowed(variables):
    state = to_torch(variables)
    state["fc.weight"] = np.zeros((150, 6))
    with pytest.raises(UserError, match="number of classes, or start it from scratch by allow_missing"):
        from_torch(state, variables)
    same(from_torch(state, variables, allow_missing=["fc.*"]), variables)


def test_named_leaves_have_the_names_of_the_state_dict(variables):
    leaves = named_leaves(variables)
    assert leaves.keys() == to_torch(variables).keys()
    assert leaves["fc.weight"] is variables["params"]["fc"]["kernel"]


def test_brief_names_whole_parts_by_a_pattern():
    whole = ["head.a", "head.b", "body.a", "body.b"]
    assert brief(["head.a", "head.b", "body.b"], whole) == "head.*, body.b"
    assert brief([f"x.{i}" for i in range(5)], ["x.9"], limit=2) == "x.0, x.1, ..."
    assert brief([]) == "none"
