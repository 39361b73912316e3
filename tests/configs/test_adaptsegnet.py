"""AdaptSegNet's config: the paper's settings, its single-level recipes, and what it refuses."""

import pytest

from nightjax.core.errors import UserError
from nightjax.methods import build
from nightjax.models.discriminator import VARIANTS
from nightjax.run import settings, start
from tests.helpers.rates import learning_rates

DARK_ZURICH = "configs/dannet.py:data=cityscapes_to_dark_zurich"
GTA5 = "configs/adaptsegnet.py:data=gta5_to_cityscapes"


def method_of(path):
    return build(settings.load(path))


def test_adaptsegnet_has_the_official_settings():
    config = settings.load(GTA5)
    method = build(config)
    assert method.segmentation_weights == (0.1, 1.0) and method.adversarial_weights == (0.0002, 0.001)
    assert method.discriminators.kind == "vanilla" and method.discriminator_names == ("level1", "level2")
    assert method.discriminators.network.strides == VARIANTS["adaptsegnet"]["strides"]
    assert method.network.input.order == "bgr" and method.training.steps == 250_000
    streams = start.stream_specs(config, method)
    assert {name: spec.size for name, spec in streams.items()} == {"source": (720, 1280), "target": (512, 1024)}
    assert not any(spec.flip for spec in streams.values())
    rates = learning_rates(GTA5)
    frozen = {path for path, rate in rates.items() if rate == 0}
    norms = {path for path in rates if path.startswith("backbone/") and path.endswith(("/scale", "/bias"))}
    unused = {path for path in rates if "conv2d_list_2" in path or "conv2d_list_3" in path}
    assert norms and unused and frozen == norms | unused
    fast = {path for path, rate in rates.items() if rate == 10}
    assert fast == {path for path in rates if path.startswith(("head/", "auxiliary/"))} - frozen


def test_one_network_of_adaptsegnet_and_dannet():
    """The same module; only DANNet's has relighting in front."""
    dannet, adaptsegnet = (method_of(path).network.model for path in (f"{DARK_ZURICH},model=deeplab", GTA5))
    assert dannet.clone(relight=None) == adaptsegnet
    assert dannet.relight is not None


def test_single_level_recipes():
    least_squares = method_of(f"{GTA5},gan=least_squares")
    assert least_squares.adversarial_weights == (0.0, 0.01) and least_squares.discriminator_names == ("level2",)
    assert method_of(f"{GTA5},levels=1").adversarial_weights == (0.0, 0.001)
    assert method_of("configs/adaptsegnet.py").discriminator_names == ("level2",)
    assert learning_rates(f"{GTA5},levels=1")["auxiliary/conv2d_list_0/kernel"] == 0


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("configs/adaptsegnet.py:gan=ls", "gan='ls'"),
        (f"{GTA5},levels=2,gan=least_squares", "levels,gan='2,least_squares'"),
        ("configs/adaptsegnet.py:levels=2", "auxiliary classifier"),
    ],
)
def test_refused(path, words):
    with pytest.raises(UserError) as error:
        method_of(path)
    assert words in str(error.value) and "\n" not in str(error.value)
