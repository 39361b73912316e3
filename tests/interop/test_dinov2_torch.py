"""Random DINOv2 models of transformers convert, agree, and convert back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.stacks import Stack
from nightjax.interop.convert import export_file, import_files
from nightjax.interop.weight_files import load_state_dict, save_state_dict
from nightjax.models.backbones.dinov2 import DinoV2
from tests.helpers.golden import assert_within, nhwc

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="needs the convert extra")
transformers = pytest.importorskip("transformers", reason="needs the convert extra")

STACKS = (Stack("backbone/blocks"),)
CASES = {
    "small": ({"dim": 32, "depth": 3, "heads": 4, "pretrain_size": 84}, [(84, 84), (56, 126), (98, 70)]),
    "wide": ({"dim": 64, "depth": 2, "heads": 2, "pretrain_size": 56}, [(112, 84), (28, 42)]),
    "swiglu": ({"dim": 24, "depth": 2, "heads": 3, "pretrain_size": 42, "ffn": "swiglu"}, [(42, 42), (56, 70)]),
}


def theirs(options, registers):
    config = {
        "hidden_size": options["dim"],
        "num_hidden_layers": options["depth"],
        "num_attention_heads": options["heads"],
        "image_size": options["pretrain_size"],
        "patch_size": 14,
        "use_swiglu_ffn": options.get("ffn") == "swiglu",
        "layerscale_value": 0.7,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    if registers:
        return transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**config, num_register_tokens=registers)
        ).eval()
    return transformers.Dinov2Model(transformers.Dinov2Config(**config)).eval()


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("case", CASES)
def test_conversion(tmp_path, case, registers):
    options, sizes = CASES[case]
    model = theirs(options, registers)
    for parameter in model.parameters():  # Biases, tokens and norms are constants at first.
        parameter.data += 0.1 * torch.randn_like(parameter)
    rule = "antialias" if registers else "size"
    ours = DinoV2(**options, registers=registers, pos_rule=rule, layers=tuple(range(options["depth"])))
    shapes = jax.eval_shape(lambda key: ours.init(key, jnp.zeros((1, 56, 56, 3))), jax.random.key(0))
    template = {"params": {"backbone": shapes["params"]}}
    model.save_pretrained(tmp_path / "files")
    save_state_dict(tmp_path / "state.npz", {name: value.numpy() for name, value in model.state_dict().items()})
    found = {}
    for file, naming in (("files/model.safetensors", "huggingface_dinov2"), ("state.npz", "huggingface_dinov2_5")):
        imported = import_files([str(tmp_path / file)], template, STACKS)
        assert f"{naming}," in imported.notes[0]
        found[naming] = imported.variables
        back = tmp_path / f"back_{naming}.npz"
        export_file(str(back), imported.variables, naming, STACKS)
        before, after = load_state_dict(tmp_path / file), load_state_dict(back)
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    first, second = found.values()
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))

    for size in sizes:
        x = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(x)).last_hidden_state[:, 1 + registers :].numpy()
        features = ours.apply({"params": first["params"]["backbone"]}, nhwc(x))
        actual = np.asarray(features[f"stage{options['depth']}"]).reshape(expected.shape)
        assert_within(actual, expected, 1e-4, str(size))
