import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.interop.torch_weights import from_torch, load_state_dict, sha256, to_torch, torch_name
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
    with pytest.raises(UserError, match=r"1 missing.*fc\.weight.*2 unknown.*aux\.weight"):
        from_torch(state, variables)
    with pytest.raises(UserError, match="2 unknown"):
        from_torch(state, variables, allow_missing=["fc.*"])
    same(
        from_torch(state, variables, allow_missing=["fc.weight"], allow_extra=["aux.*"]), variables
    )


def test_shape_mismatch_names_the_parameter(variables):
    state = to_torch(variables)
    state["fc.weight"] = np.zeros((8, 6))
    with pytest.raises(UserError, match=r"'fc\.weight'.*\(8, 6\).*\(7, 6\)"):
        from_torch(state, variables)


def test_npz_file_and_checksum(variables, tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **to_torch(variables))
    same(from_torch(load_state_dict(path), variables), variables)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        load_state_dict(tmp_path / "none.npz")
    strange = tmp_path / "weights.h5"
    strange.write_bytes(b"")
    with pytest.raises(UserError, match="known weights format"):
        load_state_dict(strange)


@pytest.mark.parametrize(
    "suffix,package", [(".pth", "torch"), (".safetensors", "safetensors.numpy")]
)
def test_missing_reader_names_the_extra(tmp_path, monkeypatch, suffix, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"nightjax\[convert\]"):
        load_state_dict(path)


@pytest.mark.torch
def test_pth_file(variables, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    state = {name: torch.from_numpy(value) for name, value in to_torch(variables).items()}
    torch.save({"state_dict": state, "epoch": 3}, path)
    same(from_torch(load_state_dict(path), variables), variables)
