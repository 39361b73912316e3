"""Files of named arrays, and what is said about broken ones."""

import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.interop.weight_files import load_state_dict, save_state_dict, sha256

STATE = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.count": np.asarray(7, np.int64),
    "b": np.zeros((0, 2), np.float16),
    "c": np.asarray([True, False]),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_written_files_are_read_back_equal(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    transposed = STATE | {"t": STATE["a.weight"].T}
    save_state_dict(path, transposed)
    loaded = load_state_dict(path)
    assert loaded.keys() == transposed.keys()
    for name, value in transposed.items():
        assert loaded[name].dtype == value.dtype and loaded[name].shape == value.shape
        np.testing.assert_array_equal(loaded[name], value)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_safetensors_bytes(tmp_path):
    """The documented form: length, JSON, raw arrays; metadata is no array; bfloat16 is known."""
    path = tmp_path / "x.safetensors"
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    path.write_bytes(safetensors({"__metadata__": {"format": "pt"}, "w": entry}, b"\x80\x3f\x00\xc0"))
    (loaded,) = load_state_dict(path).values()
    assert loaded.dtype == jnp.bfloat16 and loaded.astype(np.float32).tolist() == [1.0, -2.0]


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 20,
        safetensors([1]),
        safetensors({"w": ENTRY}, b"1234"),
        safetensors({"w": ENTRY | {"shape": [3]}}, b"12345678"),
        safetensors({"w": ENTRY | {"dtype": "F9"}}, b"12345678"),
        safetensors({"w": {"dtype": "F32"}}, b"12345678"),
    ],
)
def test_broken_safetensors(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="x.safetensors is damaged"):
        load_state_dict(path)


def test_broken_or_unsafe_npz(tmp_path):
    path = tmp_path / "x.npz"
    for content in (b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="x.npz is damaged"):
            load_state_dict(path)
    np.savez(path, w=np.asarray([{"code": 1}], object))
    with pytest.raises(UserError, match="x.npz is damaged"):
        load_state_dict(path)
    np.savez(path)
    with pytest.raises(UserError, match="no arrays"):
        load_state_dict(path)


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        load_state_dict(tmp_path / "none.npz")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(UserError, match="known weights format"):
        load_state_dict(tmp_path / "weights.h5")
    with pytest.raises(UserError, match="end its name in"):
        save_state_dict(tmp_path / "weights.h5", STATE)


def test_torch_files_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    for function in (load_state_dict, lambda path: save_state_dict(path, STATE)):
        with pytest.raises(UserError, match=r"nightjax\[convert\]"):
            function(path)
