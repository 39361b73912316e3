"""The GPU check knows its devices, writes its table from partial results, and has PyTorch's networks right.

Its parts are run by ``scripts/gpu_check.sh --tiny``."""

import jax
import numpy as np
import pytest

from nightjax import methods
from nightjax.core.stacks import stacks_of
from nightjax.interop.torch_weights import to_torch
from nightjax.run import settings
from tests.helpers.places import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        ("NVIDIA H200", "NVIDIA H200"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80 GB"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA RTX 4090"),
        ("NVIDIA L40S", None),
    ],
)
def test_a_device_is_found_by_its_name(kind, title):
    from gpu_checks import programs

    found = programs.machine(kind)
    assert (found and found.title) == title


def test_the_table_is_written_from_what_is_there():
    from gpu_checks import report

    time = {"ms": 10.0, "ms_low": 9.0, "ms_high": 11.0, "images_per_s": 400.0, "tflops": 1.0, "mfu": None}
    rows = [
        {"table": "peer", "framework": "nightjax, jax 0", "batch": 4, "memory_gb": 1.0, "compile_s": 2.0, **time},
        {"table": "peer", "framework": "torch 0", "batch": 4, "memory_gb": 1.0, "compile_s": 2.0, **time, "ms": 15.0},
        {"table": "failed", "part": "recipes", "what": "", "why": "ended at its deadline"},
    ]
    text = report.table(rows)
    assert "| torch 0 | 4 | 15.0 (9.0 to 11.0) | 1.50 |" in text
    assert "- recipes: all: ended at its deadline" in text
    assert "## Recipes" not in text


@pytest.mark.torch
@pytest.mark.parametrize("name", ["deeplab", "tiny", "resnet18", "daformer_b0"])
def test_the_networks_in_pytorch_are_ours(name):
    torch = pytest.importorskip("torch")
    from gpu_checks import torch_networks
    from gpu_checks.network_forms import form_of

    widths = (
        {"model.backbone_dims": (8, 16, 20, 32)} if name == "daformer_b0" else {"model.backbone_widths": (4, 4, 8, 8)}
    )
    small = {"model.backbone_depths": (1, 2, 2, 2), "model.head_dropout": 0.0} | widths
    config = settings.override(settings.load(f"supervised:data=nightstreet_tiny,model={name}"), small)
    network = methods.build(config).network
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    variables = network.init(jax.random.key(0), image.shape[1:])
    peer = torch_networks.Segmenter(form_of(config), len(network.classes))
    weights = to_torch(jax.device_get(variables), stacks_of(network.model), counters=True)
    peer.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    with torch.no_grad():
        seen = torch.from_numpy(np.array(network.input(image))).permute(0, 3, 1, 2)
        found = peer.eval()(seen).permute(0, 2, 3, 1).numpy()
    expected = np.asarray(network.predict(variables, image))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
