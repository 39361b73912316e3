"""Reference files of the official programs, and how tests compare with them.

A folder of such files has a sub-folder for each system, as `OFFICIAL` has; ``--golden-dir`` names another one. Tests
take every shape, count and setting from the files, so sets of other sizes, seeds and settings run through the same
tests.
"""

import json
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

OFFICIAL = pathlib.Path(__file__).parents[1] / "golden"
"""The repository's own set."""


class GoldenFiles:
    """Reads the files of one set; called with a system and a name, it loads ``<root>/<system>/<name>.npz``.

    Tests of files that another set lacks are skipped; in the repository's own set every file must be there.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root.resolve()

    def __call__(self, system: str, name: str) -> dict[str, np.ndarray]:
        """The arrays of a file by their names."""
        with np.load(self._find(system, f"{name}.npz"), allow_pickle=False) as file:
            return dict(file)

    def settings(self, system: str, name: str) -> dict:
        """What ``config.json`` says about a file that the file does not say itself; empty if it says nothing."""
        path = self._folder(system) / "config.json"
        return json.loads(path.read_text()).get(name, {}) if path.is_file() else {}

    def official_names(self, system: str) -> dict:
        """Network to the names and shapes of the official state dict.

        They belong to the programs, not to the set, so a set without them uses the repository's.
        """
        path = self._folder(system) / "state_dict_keys.json"
        return json.loads((path if path.is_file() else OFFICIAL / system / path.name).read_text())

    def names(self, system: str, name: str) -> dict:
        """A list of official names in a file of its own, ``<name>.json``."""
        return json.loads(self._find(system, f"{name}.json").read_text())

    def small_networks(self, system: str) -> dict[str, dict[str, tuple[int, ...]]]:
        """Small network of this very set to the names and shapes of its state dict."""
        networks = json.loads(self._find(system, "state_dict_keys.json").read_text())["small_networks_of_this_set"]
        return {network: {name: tuple(shape) for name, shape in shapes.items()} for network, shapes in networks.items()}

    def _folder(self, system: str) -> pathlib.Path:
        return self.root / system if (self.root / system).is_dir() else self.root

    def _find(self, system: str, name: str) -> pathlib.Path:
        path = self._folder(system) / name
        if not path.is_file() and self.root != OFFICIAL:
            pytest.skip(f"--golden-dir={self.root} has no {system}/{name}")
        return path


def nhwc(x):
    """Torch's layout [B, C, ...] to [B, ..., C]."""
    return jnp.asarray(np.moveaxis(x, 1, -1))


def nchw(x):
    """[B, ..., C] to torch's layout [B, C, ...]."""
    return np.moveaxis(np.asarray(x), -1, 1)


def normalized(image_uint8):
    """Images as the DSR programs saw them."""
    return nhwc(image_uint8).astype(jnp.float32) / 64 - 2


def state_of(file, prefix="w."):
    """The arrays whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in file.items() if name.startswith(prefix)}


def number(value) -> int:
    """A whole number that is stored as a scalar or as an array of one."""
    return int(np.ravel(value)[0])


def sizes(file, pattern):
    """Name and number of every array whose name is the pattern, which has one group of digits."""
    return {name: int(match[1]) for name in file if (match := re.fullmatch(pattern, name))}


def every(file, pattern):
    """The only array whose name matches, such as ``logits_every3px``, and the step in its name."""
    ((name, step),) = sizes(file, pattern).items()
    return file[name], step


def thinned(value, like, documented, axes=(-2, -1)):
    """``value`` reduced to the sizes of ``like`` by taking every n-th element along ``axes``.

    Args:
        value: torch layout.
        like: what is stored of it.
        documented: n by the golden README; if it does not give these sizes, the smallest that does is taken.
        axes: of ``value``.
    """
    for axis in axes:
        size, wanted = value.shape[axis], like.shape[axis]
        fitting = [step for step in range(1, size + 1) if -(-size // step) == wanted]
        assert fitting, f"no regular choice of {wanted} out of {size}"
        step = documented if documented in fitting else fitting[0]
        value = np.take(value, np.arange(0, size, step), axis)
    return value


def largest(expected) -> float:
    """The scale of errors: the largest absolute value, or 1 where all are 0, so that the error is absolute."""
    return float(np.abs(expected).max()) or 1.0


def assert_within(actual, expected, fraction, name=""):
    """Every difference is at most this share of the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{name}: {actual.shape} is not {expected.shape}"
    error = np.abs(actual - expected).max() / largest(expected)
    assert error <= fraction, f"{name}: {error}"


def same_value(actual, expected, rtol=1e-5, name=""):
    """Relative, and absolute where nothing but 0 is expected."""
    atol = 0 if np.any(expected) else rtol
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=name)


def same_gradient(actual, expected, name=""):
    """Within 1e-4 of the largest value; ``expected`` has torch's layout, ``actual`` ours."""
    assert_within(nchw(actual), expected, 1e-4, name)


def unit_options(settings):
    """Options of UNIT's networks by what ``config.json`` calls them."""
    names = {"lrelu": "leaky_relu"}
    activation, pad_mode = settings.get("activation", "relu"), settings.get("pad_type", "reflect")
    return {"activation": names.get(activation, activation), "pad_mode": pad_mode}
