# SPDX-License-Identifier: Apache-2.0
"""Files of named arrays: ``.npz``, ``.safetensors``, and torch's, which alone need torch.

safetensors is read and written here: a length, a JSON header, raw little-endian arrays. Its
package would be a dependency for forty lines, and its numpy form does not read bfloat16.
"""

import hashlib
import json
import math
import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from nightjax.core.errors import UserError, first_line
from nightjax.core.files import check_file, read_json
from nightjax.interop.wrappers import open_wrappers

TORCH = (".pth", ".pt", ".bin", ".ckpt")
SAVED = (".npz", ".safetensors", ".pth")
"""Suffixes that can be written."""

_DTYPES = {
    "BOOL": np.dtype(bool),
    "BF16": np.dtype(jnp.bfloat16),
    **{f"{letter}{8 * size}": np.dtype(f"<{letter.lower()}{size}") for letter in "UI" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}


_DAMAGE = (ValueError, KeyError, TypeError, IndexError, EOFError, OSError, RuntimeError, NotImplementedError)
"""What readers raise on files that are damaged or of another kind."""

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""What the weights of a folder in the form of Hugging Face are called; large ones are split in several files."""


def load_state_dict(path: str | os.PathLike, network: str = "student") -> dict[str, np.ndarray]:
    """Reads the arrays of one network; see `load_network`."""
    return load_network(path, network)[0]


def load_network(path: str | os.PathLike, network: str = "student") -> tuple[dict[str, np.ndarray], bool]:
    """Reads ``.npz``, ``.safetensors``, torch's ``.pth``, ``.pt``, ``.bin`` and ``.ckpt``, or a folder with
    `FOLDER_FILES`.

    torch files are read without executing code from them. What trainers wrap around a network's arrays is opened; see
    `wrappers.open_wrappers`.

    Returns:
        Name to array, and whether it is the moving average of a file that has one.

    Raises:
        UserError: if the file is missing, damaged, of another kind, or needs the extra ``convert``.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        parts = [load_network(file, network) for file in files_of(path)]
        return {name: value for state, _ in parts for name, value in state.items()}, any(ema for _, ema in parts)
    check_file(path)
    if not os.path.isfile(path):
        raise UserError(f"no weights file at {path}; give the path of a .npz, .safetensors or .pth file")
    kind = os.path.splitext(path)[1].lower()
    readers = {".npz": _load_npz, ".safetensors": _load_safetensors} | dict.fromkeys(TORCH, _load_torch)
    if kind not in readers:
        raise UserError(f"{path} is of no known weights format; use .npz, .safetensors or .pth")
    return open_wrappers(readers[kind](path), network, path)


def files_of(folder: str) -> list[str]:
    """The files of weights in a folder in the form of Hugging Face.

    Raises:
        UserError: there are none.
    """
    for name in FOLDER_FILES:
        index, whole = os.path.join(folder, f"{name}.index.json"), os.path.join(folder, name)
        if os.path.isfile(whole):
            return [whole]
        if os.path.isfile(index):
            parts = read_json(index, dict, "get the folder again").get("weight_map")
            if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
                raise UserError(f"{index} has no weight_map of names to files: get the folder again")
            return [os.path.join(folder, os.path.basename(part)) for part in sorted(set(parts.values()))]
    raise UserError(f"{folder} has no weights: expected {' or '.join(FOLDER_FILES)}, as save_pretrained writes them")


def save_state_dict(path: str | os.PathLike, state: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, in the format of the suffix: one of `SAVED`.

    Raises:
        UserError: another suffix, or torch is needed and not installed.
    """
    path = os.fspath(path)
    kind = os.path.splitext(path)[1].lower()
    writers = {".npz": _save_npz, ".safetensors": _save_safetensors, ".pth": _save_torch}
    if kind not in writers:
        raise UserError(f"cannot write weights to {path}; end its name in {', '.join(SAVED)}")
    writers[kind](path, {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in state.items()})


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, or of the first file of a folder's weights, as 64 hexadecimal digits."""
    with open(files_of(os.fspath(path))[0] if os.path.isdir(path) else path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_npz(path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (zipfile.BadZipFile, zlib.error, MemoryError, *_DAMAGE) as error:  # MemoryError: a header that is not true.
        raise UserError(f"{path} is damaged or no .npz file of plain arrays ({error}); get it again") from error


def _save_npz(path: str, state: Mapping[str, np.ndarray]) -> None:
    np.savez(path, **cast(Mapping[str, Any], state))


def _load_safetensors(path: str) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        content = memoryview(file.read())
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(bytes(content[8:start]))
        return {name: _array(content[start:], **entry) for name, entry in header.items() if name != "__metadata__"}
    except (AttributeError, RecursionError, *_DAMAGE) as error:
        raise UserError(f"{path} is damaged or no .safetensors file ({error}); get it again") from error


def _array(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    begin, end = data_offsets
    kind, size = _DTYPES[dtype], math.prod(shape)
    if not 0 <= begin <= end <= len(data) or end - begin != size * kind.itemsize:
        raise ValueError("an array lies outside of the file")
    return np.frombuffer(data, kind, size, begin).reshape(shape)


def _save_safetensors(path: str, state: Mapping[str, np.ndarray]) -> None:
    codes, header, end = {dtype: code for code, dtype in _DTYPES.items()}, {}, 0
    for name, value in state.items():
        begin, end = end, end + value.nbytes
        header[name] = {"dtype": codes[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in state.values():
            file.write(value.tobytes())


def _torch(path: str) -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"{path} needs torch: pip install 'nightjax[convert]'") from error
    return torch


def _load_torch(path: str) -> dict[str, Any]:
    torch = _torch(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of archives that hold programs, which are refused anyway.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, AttributeError, *_DAMAGE) as error:
        raise UserError(
            f"{path} is damaged or holds other things than arrays, which are never run here; if you trust it, save its "
            "state_dict alone with torch and convert that"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a state_dict; save model.state_dict() with torch"
        )

    def arrays(value: Any) -> Any:
        if isinstance(value, torch.Tensor):  # numpy has no bfloat16.
            return (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
        return {key: arrays(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value

    try:
        return arrays(content)
    except _DAMAGE as error:  # Tensors without data ("meta"), sparse or quantized ones.
        raise UserError(
            f"{path} holds tensors that are no plain arrays ({first_line(error)}); save a state_dict of ordinary "
            "tensors with torch"
        ) from error


def _save_torch(path: str, state: Mapping[str, np.ndarray]) -> None:
    torch = _torch(path)
    torch.save({name: torch.from_numpy(value.copy()) for name, value in state.items()}, path)
