"""The supervised config: mmsegmentation's recipes, relighting and joint training."""

import pytest
from nightjax.methods.network import Photometric

from configs import dannet, supervised
from nightjax import methods
from nightjax.core.errors import UserError
from nightjax.ops import color


def test_mmsegmentation_recipes():
    config = supervised.get_config("data=nightcity_plus,model=deeplabv3plus")
    method = methods.build(config)
    rate = method.optimizer.schedule_fn(config.train.steps)
    assert (config.train.steps, config.train.batch) == (80_000, 8)
    assert [float(rate(step)) for step in (0, 80_000)] == pytest.approx([0.01, 1e-4])
    assert (method.auxiliary_weight, method.divisor, method.class_weights) == (0.4, "valid", None)
    assert method.photometric == Photometric(**color.MMSEG_DISTORTION)
    ours = supervised.get_config("data=nightcity_plus,model=deeplabv3plus,photometric=1")
    assert methods.build(ours).photometric == Photometric()
    assert (method.optimizer.momentum, method.optimizer.weight_decay, method.optimizer.decay_vectors) == (
        0.9,
        5e-4,
        True,
    )

    config = supervised.get_config("data=nightcity_plus,model=upernet_swin_b")
    method = methods.build(config)
    rate = method.optimizer.schedule_fn(config.train.steps)
    assert float(rate(0)) == pytest.approx(6e-11) and float(rate(80_000)) == 0
    assert float(rate(40_000)) == pytest.approx(3e-5)
    assert method.optimizer.groups[0].decay == 0 and not method.optimizer.decay_vectors
    assert method.model.backbone.drop_path == 0.3


def test_light_adaptation_and_joint_training():
    config = supervised.get_config("data=nightcity_plus,model=deeplabv3plus,light=1,joint=1")
    method = methods.build(config)
    assert method.model.light is not None and method.streams == ("source", "day")
    assert config.train.batch == 4  # Of each domain: 1:1.
    streams = config.data.streams
    assert (streams.source.dataset, streams.day.dataset) == ("nightcity/plus", "cityscapes_seg/half")
    assert streams.source.crop == streams.day.crop == (512, 512)

    config = supervised.get_config("joint=1")
    assert (config.data.streams.source.split, config.data.streams.day.split) == ("oracle_night", "source_day")
    assert methods.build(config).model.light is None


@pytest.mark.parametrize("data", ["nightstreet", "cityscapes_to_dark_zurich"])
def test_a_run_of_dannet_is_fine_tuned_with_light(data):
    """One network, so that its weights fit."""
    model = "model=pspnet," if data != "nightstreet" else ""
    before, after = (
        config.get_config(f"{arg}data={data}") for config, arg in ((dannet, model), (supervised, f"{model}light=1,"))
    )
    assert after.model == before.model and after.model.light


def test_not_every_benchmark_has_both():
    with pytest.raises(UserError, match="joint=1"):
        supervised.get_config("data=gta5_to_cityscapes,joint=1")
