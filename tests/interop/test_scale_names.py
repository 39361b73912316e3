"""The network that AdaptSegNet starts from: names behind ``Scale.``, no layer6, and a layer5 of other classes."""

import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import adaptsegnet
from nightjax.core.errors import UserError
from nightjax.interop.convert import import_files
from nightjax.interop.namings import lookup
from nightjax.interop.torch_weights import to_torch
from nightjax.interop.weight_files import save_state_dict
from nightjax.models import build_segmenter
from nightjax.zoo.models import MODELS

TINY = {"backbone_widths": (2, 2, 4, 4), "backbone_depths": (1, 1, 1, 1), "backbone_stem_features": 2}


@pytest.fixture(scope="module")
def template():
    model = build_segmenter(**MODELS["deeplab_multi"], **TINY)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


@pytest.fixture(scope="module")
def backbone(template):
    """Our names to random arrays."""
    rng = np.random.default_rng(0)
    state = to_torch(jax.tree.map(lambda x: rng.random(x.shape, np.float32), template))
    return {name: value for name, value in state.items() if name.startswith("backbone.")}


@pytest.fixture(params=["Scale.", "module.", ""])
def path(request, tmp_path, backbone):
    state = lookup("dannet_deeplab").to_official(backbone)
    for i in range(4):
        state[f"layer5.conv2d_list.{i}.weight"] = np.ones((21, 16, 3, 3), np.float32)
        state[f"layer5.conv2d_list.{i}.bias"] = np.ones(21, np.float32)
    save_state_dict(tmp_path / "init.npz", {request.param + name: value for name, value in state.items()})
    return str(tmp_path / "init.npz")


def documented_flags():
    """``allow_missing`` and ``allow_surplus`` of the command in the config's docstring."""
    command = re.search(r"nightjax.convert(.*?)\n    python", adaptsegnet.__doc__, re.DOTALL)[1]
    flags = (word.removeprefix("--").partition("=") for word in shlex.split(command) if word.startswith("--allow"))
    return {name: values.split(",") for name, _, values in flags}


def test_the_documented_flags_take_the_backbone_alone(path, template, backbone):
    imported = import_files([path], template, **documented_flags())
    assert ": dannet_deeplab, " in imported.notes[0] and imported.notes[1] == "  not used: layer5.*"
    assert {name.partition(".")[0] for name in imported.missing} == {"head", "auxiliary"}
    taken = to_torch({kind: {"backbone": tree["backbone"]} for kind, tree in imported.variables.items()})
    assert taken.keys() == backbone.keys()
    for name, value in backbone.items():
        np.testing.assert_array_equal(taken[name], value, err_msg=name)


def test_without_them_it_ends(path, template):
    flags = documented_flags()
    with pytest.raises(UserError, match=r"'auxiliary.conv2d_list.0.*is \(21,.*number of classes"):
        import_files([path], template)
    with pytest.raises(UserError, match=r"missing.*auxiliary\.\*, head\.\*"):
        import_files([path], template, allow_surplus=flags["allow_surplus"])
