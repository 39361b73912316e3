"""Against torch itself: its files, there and back, its attention, transformers' SegFormer."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nightjax.core.errors import UserError
from nightjax.interop.convert import export_file, import_files
from nightjax.interop.namings import lookup
from nightjax.interop.torch_weights import from_torch, matches, to_torch
from nightjax.interop.weight_files import load_state_dict, save_state_dict
from nightjax.models import build_segmenter
from nightjax.models.backbones.mit import Attention
from nightjax.models.heads.segformer import SegFormerHead
from nightjax.models.relight import RelightNet
from nightjax.zoo.models import MODELS

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="needs the convert extra")


def test_files_are_torchs(tmp_path):
    state = {"a.weight": torch.randn(2, 3).T, "a.count": torch.tensor(7), "b": torch.randn(2).to(torch.bfloat16)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pth")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("wrapped.pth", "old.pt"):
        loaded = load_state_dict(tmp_path / name)
        assert loaded.keys() == state.keys()
        for key, value in state.items():
            np.testing.assert_array_equal(loaded[key], value.float() if key == "b" else value)
    save_state_dict(tmp_path / "ours.pth", {key: value for key, value in loaded.items() if key != "b"})
    back = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert torch.equal(back["a.weight"], state["a.weight"]) and back["a.count"].shape == ()


class Harmful:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_code_in_a_file_is_never_run(tmp_path, capsys):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "meta": Harmful()}, tmp_path / "x.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harmful()))
    (tmp_path / "short.pth").write_bytes(b"PK\x03\x04")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("x", "plain", "short", "empty"):
        with pytest.raises(UserError, match=rf"{name}.pth.*damaged"):
            load_state_dict(tmp_path / f"{name}.pth")
    assert "must not run" not in capsys.readouterr().out
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="a Tensor, not a state_dict"):
        load_state_dict(tmp_path / "tensor.pth")


def test_safetensors_are_the_packages(tmp_path):
    package = pytest.importorskip("safetensors.torch", reason="needs the convert extra")
    state = {
        "w": torch.randn(3, 2),
        "h": torch.randn(2).to(torch.bfloat16),
        "n": torch.tensor(3),
        "e": torch.zeros(0, 2),
    }
    package.save_file(state, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    loaded = load_state_dict(tmp_path / "theirs.safetensors")
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(loaded[name].astype(np.float32), value.float())
    save_state_dict(tmp_path / "ours.safetensors", loaded)
    for name, value in package.load_file(tmp_path / "ours.safetensors").items():
        assert value.dtype == state[name].dtype and torch.equal(value, state[name])


def test_mmsegmentations_attention_is_torchs(tmp_path):
    """One matrix of query, key and value, in this order."""
    dim, heads = 12, 3
    theirs = torch.nn.MultiheadAttention(dim, heads, batch_first=True)
    torch.nn.init.normal_(theirs.in_proj_bias)
    block = "layers.3.1.0.attn.attn."
    state = {block + name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    prefix = "backbone.block4.0.attn."
    ours = {name.removeprefix(prefix): value for name, value in lookup("mmseg_mit").to_ours(state).items()}
    x = np.random.default_rng(0).normal(size=(2, 3, 5, dim)).astype(np.float32)
    module = Attention(heads, 1)
    variables = from_torch(ours, jax.eval_shape(module.init, jax.random.key(0), x))
    tokens = torch.from_numpy(x.reshape(2, 15, dim))
    expected = theirs(tokens, tokens, tokens)[0].detach().numpy().reshape(x.shape)
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


class Relighting(nn.Module):
    """DANNet's second file."""

    relight: nn.Module

    def __call__(self, x):
        return {"logits": self.relight(x)}


DANNET_NETWORKS = {
    "pspnet": MODELS["pspnet"],
    "deeplab": MODELS["deeplab_multi"],
    "refinenet": MODELS["refinenet"],
}
NARROW = {"backbone_widths": (2, 3, 4, 5), "backbone_stem_features": 2}
NETWORKS = {
    "dannet_pspnet": DANNET_NETWORKS["pspnet"] | NARROW | {"head_channels": 3, "auxiliary_channels": 2},
    "dannet_deeplab": DANNET_NETWORKS["deeplab"] | NARROW,
    "dannet_refinenet": DANNET_NETWORKS["refinenet"] | NARROW | {"head_channels": 2},
    "dannet_light": {},
    "resnet": {"backbone": "resnet50", "head": "deeplab_v2"} | NARROW,
}
"""As deep as the published ones, with fewer channels."""


def published_names(naming, golden):
    """Of DANNet's networks the goldens' list; of ResNet-50 torchvision's rule, its classifier included."""
    if naming != "resnet":
        return golden.official_names("dannet")[naming.replace("_light", "_lightnet")].keys()
    blocks = [f"layer{i}.{j}." for i, depth in enumerate((3, 4, 6, 3), start=1) for j in range(depth)]
    convs, norms = ["conv1"], ["bn1"]
    for block in blocks:
        down = [f"{block}downsample."] * block.endswith(".0.")
        convs += [f"{block}conv{k}" for k in (1, 2, 3)] + [f"{name}0" for name in down]
        norms += [f"{block}bn{k}" for k in (1, 2, 3)] + [f"{name}1" for name in down]
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return (
        {f"{conv}.weight" for conv in convs}
        | {f"{norm}.{kind}" for norm in norms for kind in kinds}
        | {"fc.weight", "fc.bias"}
    )


def random_tensor(name, shape):
    if name.endswith("num_batches_tracked"):
        return torch.randint(1, 150_000, ())
    return torch.rand(shape) + 0.5 if name.endswith("running_var") else 0.1 * torch.randn(shape)


@pytest.mark.parametrize("naming", NETWORKS)
def test_published_files_come_back_bit_for_bit(tmp_path, golden, naming):
    """Counters of batches excepted, which nothing here reads: they come back as zeros."""
    torch.manual_seed(0)
    model = Relighting(RelightNet()) if naming == "dannet_light" else build_segmenter(**NETWORKS[naming])
    image, missing = jnp.zeros((1, 64, 64, 3)), ["head.*"] if naming == "resnet" else []
    template = jax.eval_shape(model.init, jax.random.key(0), image)
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
    ours = {name: value for name, value in to_torch(empty, counters=True).items() if not matches(name, missing)}
    shapes = {name: value.shape for name, value in lookup(naming).to_official(ours).items()}
    if naming == "resnet":
        shapes |= {"fc.weight": (1000, 20), "fc.bias": (1000,)}
    assert shapes.keys() == published_names(naming, golden)

    before = {name: random_tensor(name, shape) for name, shape in shapes.items()}
    torch.save(before, tmp_path / "in.pth")
    imported = import_files([str(tmp_path / "in.pth")], template, allow_missing=missing)
    assert f": {naming}, " in imported.notes[0] and len(imported.missing) == (8 if missing else 0)
    variables = jax.tree.map(lambda x, y: x if isinstance(x, np.ndarray) else y, imported.variables, empty)
    outputs = jax.jit(model.apply)(variables, image)
    assert all(np.isfinite(value).all() for value in outputs.values())
    export_file(str(tmp_path / "out.pth"), variables, naming, allow_missing=missing)

    after = torch.load(tmp_path / "out.pth", weights_only=True)
    assert after.keys() == {name for name in before if not name.startswith("fc.")}
    for name, value in after.items():
        assert value.dtype == before[name].dtype and value.shape == before[name].shape, name
        expected = torch.zeros_like(value) if name.endswith("num_batches_tracked") else before[name]
        assert value.numpy().tobytes() == expected.numpy().tobytes(), name


SIZES = {"hidden_sizes": [8, 16, 20, 24], "depths": [1, 2, 1, 2], "num_attention_heads": [1, 2, 5, 3]}


def huggingface_segformer(seed):
    """A random one, with batch statistics of real data."""
    transformers = pytest.importorskip("transformers", reason="needs the convert extra")
    torch.manual_seed(seed)
    config = transformers.SegformerConfig(decoder_hidden_size=12, num_labels=19, initializer_range=0.3, **SIZES)
    model = transformers.SegformerForSemanticSegmentation(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0 if (parameter == 1).all() else 0.0, 0.2)
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    return model.eval()


@functools.cache
def our_segformer():
    sizes = {"dims": tuple(SIZES["hidden_sizes"]), "depths": tuple(SIZES["depths"])}
    sizes["heads"] = tuple(SIZES["num_attention_heads"])
    options = {f"backbone_{name}": value for name, value in sizes.items()} | {"head_channels": 12}
    model = build_segmenter("mit_b0", "segformer", **options)
    return model, jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_huggingface_segformer_agrees_and_comes_back(tmp_path, suffix):
    """As ``save_pretrained`` writes it, and as the state dict of this version of transformers."""
    theirs = huggingface_segformer(seed=len(suffix))
    path, back = tmp_path / f"model{suffix}", tmp_path / f"back{suffix}"
    if suffix == ".safetensors":
        theirs.save_pretrained(tmp_path)
    else:
        torch.save(theirs.state_dict(), path)
    model, template = our_segformer()
    imported = import_files([str(path)], template, model.stacks)
    naming = imported.notes[0].split(": ")[1].split(",")[0]
    assert not imported.missing and naming.startswith("huggingface_segformer")
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(x).logits.numpy()
    logits = jax.jit(model.apply)(imported.variables, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))["logits"]
    difference = np.abs(np.moveaxis(np.asarray(logits), -1, 1) - expected).max() / np.abs(expected).max()
    assert difference < 1e-4, difference
    export_file(str(back), imported.variables, naming, model.stacks)
    before, after = load_state_dict(path), load_state_dict(back)
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert name.endswith("tracked") or np.array_equal(after[name], value), name


def test_mmsegmentations_segformer_head_agrees():
    """Its forward pass written out: normed 1x1 convolutions resized, concatenated fine to coarse, fused, classified."""
    rng = np.random.default_rng(0)
    dims, sides, width = (8, 16, 20, 24), (16, 8, 4, 2), 6
    state = {"conv_seg.weight": rng.normal(size=(19, width, 1, 1)), "conv_seg.bias": rng.normal(size=19)}
    for layer, inputs in [*((f"convs.{i}", dim) for i, dim in enumerate(dims)), ("fusion_conv", 4 * width)]:
        state[f"{layer}.conv.weight"] = rng.normal(size=(width, inputs, 1, 1)) / inputs**0.5
        for kind in ("weight", "bias", "running_mean", "running_var"):
            state[f"{layer}.bn.{kind}"] = rng.uniform(0.5, 1.5, width)
    state = {name: value.astype(np.float32) for name, value in state.items()}
    features = [rng.normal(size=(2, dim, side, side)).astype(np.float32) for dim, side in zip(dims, sides, strict=True)]

    weight = {name: torch.from_numpy(value) for name, value in state.items()}
    functional = torch.nn.functional

    def layer(name, x):
        x = functional.conv2d(x, weight[f"{name}.conv.weight"])
        mean, var, scale, bias = (
            weight[f"{name}.bn.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu(functional.batch_norm(x, mean, var, scale, bias))

    levels = [layer(f"convs.{i}", torch.from_numpy(x)) for i, x in enumerate(features)]
    levels = [functional.interpolate(x, size=(16, 16), mode="bilinear", align_corners=False) for x in levels]
    expected = functional.conv2d(
        layer("fusion_conv", torch.cat(levels, 1)), weight["conv_seg.weight"], weight["conv_seg.bias"]
    )

    head = SegFormerHead(19, channels=width, level_norm=True)
    inputs = {f"stage{i}": jnp.asarray(np.moveaxis(x, 1, -1)) for i, x in enumerate(features, start=1)}
    template = jax.eval_shape(head.init, jax.random.key(0), inputs)
    ours = lookup("mmseg_segformer").to_ours({f"decode_head.{name}": value for name, value in state.items()})
    variables = from_torch({name.removeprefix("head."): value for name, value in ours.items()}, template)
    logits = np.moveaxis(np.asarray(jax.jit(head.apply)(variables, inputs)), -1, 1)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_huggingface_classifier_gives_a_backbone(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the convert extra")
    theirs = transformers.SegformerForImageClassification(transformers.SegformerConfig(**SIZES))
    torch.save(theirs.state_dict(), tmp_path / "mit.bin")
    model, template = our_segformer()
    imported = import_files([str(tmp_path / "mit.bin")], template, model.stacks, allow_missing=["head.*"])
    assert all(name.startswith("head.") for name in imported.missing)
    assert "not used: classifier.*" in imported.notes[1]
