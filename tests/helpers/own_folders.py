"""Plain folders of a few small pictures, for tests of what people's folders look like."""

import json
import pathlib

import numpy as np

from tests.helpers.odd_files import encoded

SIZE = (24, 32)
CODES = {"0": "ignore", "1": "road", "2": "car", "3": "sky"}


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth photo, uint8 [H, W, 3], unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(rows * a + columns * b + c) for a, b, c in rng.uniform(0, 0.7, (3, 3))]
    return (np.stack(waves, -1) * 100 + 128).astype(np.uint8)


def values(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A label of the values 0 to 3, uint8 [H, W]."""
    return (
        np.random.default_rng(seed).integers(0, 4, (size[0] // 4, size[1] // 4)).repeat(4, 0).repeat(4, 1).astype("u1")
    )


def write(root: pathlib.Path, name: str, data: bytes | str) -> pathlib.Path:
    """Writes a file below a folder."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def make(root: pathlib.Path, count: int = 3, split: str = "train") -> pathlib.Path:
    """Images, labels and a labels.json of four values, of which 0 is ignored."""
    for seed in range(count):
        write(root, f"images/{split}/f{seed}.png", encoded(picture(seed)))
        write(root, f"labels/{split}/f{seed}.png", encoded(values(seed)))
    write(root, "labels.json", json.dumps(CODES))
    return root
