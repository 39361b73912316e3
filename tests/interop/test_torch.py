"""Against torch itself: its files, its attention, transformers' SegFormer."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.interop.convert import export_file, import_files
from nightjax.interop.namings import find
from nightjax.interop.torch_weights import from_torch
from nightjax.interop.weight_files import load_state_dict, save_state_dict
from nightjax.models import build_segmenter
from nightjax.models.backbones.mit import Attention

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


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
        with pytest.raises(UserError, match=rf"{name}.pth is damaged or holds other things"):
            load_state_dict(tmp_path / f"{name}.pth")
    assert "must not run" not in capsys.readouterr().out
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="a Tensor, not a state_dict"):
        load_state_dict(tmp_path / "tensor.pth")


def test_safetensors_are_the_packages(tmp_path):
    package = pytest.importorskip("safetensors.torch")
    state = {"w": torch.randn(3, 2), "h": torch.randn(2).to(torch.bfloat16), "n": torch.tensor(3), "e": torch.zeros(0, 2)}
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
    ours = {name.removeprefix(prefix): value for name, value in find("mmseg_mit").to_ours(state).items()}
    x = np.random.default_rng(0).normal(size=(2, 3, 5, dim)).astype(np.float32)
    module = Attention(heads, 1)
    variables = from_torch(ours, jax.eval_shape(module.init, jax.random.key(0), x))
    tokens = torch.from_numpy(x.reshape(2, 15, dim))
    expected = theirs(tokens, tokens, tokens)[0].detach().numpy().reshape(x.shape)
    np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-5)


SIZES = {"hidden_sizes": [8, 16, 20, 24], "depths": [1, 2, 1, 2], "num_attention_heads": [1, 2, 5, 3]}


def huggingface_segformer(seed):
    """A random one, with batch statistics of real data."""
    transformers = pytest.importorskip("transformers")
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
    imported = import_files([str(path)], template)
    naming = imported.notes[0].split(": ")[1].split(",")[0]
    assert not imported.missing and naming.startswith("huggingface_segformer")
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(x).logits.numpy()
    logits = jax.jit(model.apply)(imported.variables, jnp.asarray(x.permute(0, 2, 3, 1).numpy()))["logits"]
    difference = np.abs(np.moveaxis(np.asarray(logits), -1, 1) - expected).max() / np.abs(expected).max()
    assert difference < 1e-4, difference
    export_file(str(back), imported.variables, naming)
    before, after = load_state_dict(path), load_state_dict(back)
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert name.endswith("tracked") or np.array_equal(after[name], value), name


def test_huggingface_classifier_gives_a_backbone(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.SegformerForImageClassification(transformers.SegformerConfig(**SIZES))
    torch.save(theirs.state_dict(), tmp_path / "mit.bin")
    _, template = our_segformer()
    imported = import_files([str(tmp_path / "mit.bin")], template, allow_missing=["head.*"])
    assert all(name.startswith("head.") for name in imported.missing)
    assert "not used: classifier.*" in imported.notes[1]
