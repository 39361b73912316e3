"""The GPU check counts operations as a person does, writes its table from partial results, and has PyTorch's network
right; its parts are run by ``scripts/gpu_check.sh --tiny``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import methods
from nightjax.core.types import NUM_CLASSES
from nightjax.interop.torch_weights import to_torch
from nightjax.run import settings
from tests.helpers.places import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def flops(function, *shapes):
    from count_flops import count_flops

    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return count_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_products_in_loops_branches_and_functions():
    product = lambda x, y: x @ y
    assert flops(product, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert flops(jax.jit(product), (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    loop = lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=7)[0]
    assert flops(loop, (6, 6)) == 7 * 2 * 6**3
    branch = lambda x: jax.lax.cond(x.sum() > 0, lambda: x @ x @ x, lambda: x)
    assert flops(branch, (6, 6)) == 2 * 2 * 6**3
    assert flops(lambda x: jnp.einsum("bij,bjk->bik", x, x), (5, 6, 6)) == 5 * 2 * 6**3


@pytest.mark.parametrize("stride", [1, 2])
def test_both_gradients_of_a_convolution_cost_what_it_costs(stride):
    def convolution(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=numbers).sum()

    shapes = (2, 8, 8, 3), (3, 3, 3, 5)
    forward = 2 * 2 * (8 // stride) ** 2 * 5 * 9 * 3
    assert flops(convolution, *shapes) == forward
    assert flops(jax.grad(convolution, (0, 1)), *shapes) == pytest.approx(3 * forward)


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
@pytest.mark.parametrize("name", ["deeplab", "tiny", "resnet18"])
def test_the_networks_in_pytorch_are_ours(name):
    torch = pytest.importorskip("torch")
    import torch_networks
    from network_forms import form_of

    small = {"model.backbone_depths": (1, 2, 2, 2), "model.backbone_widths": (4, 4, 8, 8), "model.head_dropout": 0.0}
    config = settings.override(settings.load(f"supervised:data=nightstreet_tiny,model={name}"), small)
    network = methods.build(config).network
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    variables = network.init(jax.random.key(0), image.shape[1:])
    peer = torch_networks.Segmenter(form_of(config), NUM_CLASSES)
    weights = to_torch(jax.device_get(variables), counters=True)
    peer.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    with torch.no_grad():
        seen = torch.from_numpy(np.array(network.input(image))).permute(0, 3, 1, 2)
        found = peer.eval()(seen).permute(0, 2, 3, 1).numpy()
    expected = np.asarray(network.predict(variables, image))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
