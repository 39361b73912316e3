"""DANNet's config: the paper's settings, the ablation, and what it refuses."""

import numpy as np
import pytest

from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.methods import build
from nightjax.metrics.protocol import EvalSet
from nightjax.run import settings, start
from nightjax.zoo.benchmarks import EVAL_SETS
from tests.helpers.rates import learning_rates

DARK_ZURICH = "configs/dannet.py:data=cityscapes_to_dark_zurich"


def method_of(path):
    return build(settings.load(path))


def test_dannet_has_the_official_settings():
    method = method_of(DARK_ZURICH)
    assert method.target_size == (960, 960) and method.training.steps == 50_000
    assert (method.static.weight, method.adversarial.weight) == (1.0, 0.01)
    assert (method.relight.source, method.relight.target) == (1.0, 0.01)
    assert (method.form, method.normalizer, method.static.neighborhood) == ("official", "weights", "center")
    assert method.class_weights == method.static.class_weights
    np.testing.assert_allclose(method.class_weights[:2], [0.9041376, 0.9542429], atol=1e-6)
    student, discriminators = method.optimizer, method.adversarial.discriminators.optimizer
    assert (student.name, student.lr, student.momentum, student.weight_decay) == ("sgd", 2.5e-4, 0.9, 5e-4)
    adam = (discriminators.name, discriminators.lr, discriminators.b1, discriminators.b2, discriminators.eps)
    assert adam == ("adam", 1e-4, 0.9, 0.99, 1e-8)
    assert student.decay_vectors and discriminators.weight_decay == 0
    for optimizer in (student, discriminators):
        factor = optimizer.schedule_fn(method.training.steps)(35_000) / optimizer.lr
        np.testing.assert_allclose(factor, 0.3**0.9, rtol=1e-5)


def test_dannet_reads_and_tests_as_the_official_code():
    config = settings.load(DARK_ZURICH)
    streams = start.stream_specs(config, build(config))
    assert {name: spec.size for name, spec in streams.items()} == {"source": (512, 512), "target": (512, 512)}
    assert streams["target"].crop == (960, 960) and streams["target"].scale_range == (0.9, 1.1)
    assert streams["source"].scale_range == (0.5, 1.0) and streams["source"].rare_class is None
    assert all(spec.bicubic and spec.flip and spec.resize is None for spec in streams.values())
    assert config.train.batch == 2 and 35_000 % config.checkpoint.every == 0
    assert set(config.eval.sets) == {"dark_zurich_val_dannet", "nighttime_driving_dannet"}
    for section in config.eval.sets.values():
        rule = configs.build(EvalSet, section, "eval")
        assert rule.input_size == (540, 960) and rule.class_weight_std == 0.16
        assert rule.align_corners and rule.antialias and rule.absent_classes == "skip"
    assert EVAL_SETS["dark_zurich_val_dannet"]["native_size"] == (1080, 1920)


@pytest.mark.parametrize("network", ["pspnet", "deeplab", "refinenet"])
def test_dannet_freezes_what_the_official_code_does(network):
    rates = learning_rates(f"{DARK_ZURICH},model={network}")
    frozen = {path for path, rate in rates.items() if rate == 0}
    expected = {path for path in rates if path.startswith("auxiliary/")}
    if network == "deeplab":
        norms = (path for path in rates if path.startswith("backbone/layer") and path.endswith(("/scale", "/bias")))
        branches = (f"head/conv2d_list_{i}/{leaf}" for i in (2, 3) for leaf in ("kernel", "bias"))
        expected |= {*norms, *branches}
    assert frozen == expected
    assert {rate for path, rate in rates.items() if path not in frozen} == {1.0}


def test_every_part_can_be_left_out():
    whole = method_of("configs/dannet.py")
    assert whole.network.model.relight is not None and whole.static.weight and whole.discriminator_names
    without = {
        "light": lambda method: method.network.model.relight is None,
        "static": lambda method: method.static is None,
        "adversarial": lambda method: method.adversarial is None,
    }
    nothing = method_of("configs/dannet.py:without=" + "+".join(without))
    for part, is_out in without.items():
        method = method_of(f"configs/dannet.py:without={part}")
        assert [name for name, other in without.items() if other(method)] == [part]
        assert is_out(nothing)
    assert nothing.discriminator_names == ()


def test_the_input_is_a_choice_of_every_config():
    for file in ("supervised", "dannet", "dacs", "dsr_fpa", "t2s_da"):
        assert method_of(f"{file}:input=caffe").network.input.order == "bgr"
    assert method_of("configs/adaptsegnet.py").network.input.order == "rgb"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("configs/dannet.py:without=ligth", "light, static, adversarial"),
        ("configs/dannet.py:data=gta5_to_cityscapes", "no day views"),
        ("configs/dannet.py:input=cafe", "'caffe'"),
    ],
)
def test_refused(path, words):
    with pytest.raises(UserError) as error:
        method_of(path)
    assert words in str(error.value) and "\n" not in str(error.value)
