"""The supervised config: mmsegmentation's recipes, relighting and joint training."""

import pytest

from nightjax import methods
from nightjax.core.errors import UserError
from nightjax.methods.parts.photometric import ColorJitter, Photometric
from nightjax.run import settings


def supervised(arguments=""):
    return settings.load(f"supervised:{arguments}")


def test_mmsegmentation_recipes():
    config = supervised("data=nightcity_plus,model=deeplabv3plus")
    method = methods.build(config)
    rate = method.optimizer.schedule_fn(config.train.steps)
    assert (config.train.steps, config.train.batch) == (80_000, 8)
    assert [float(rate(step)) for step in (0, 80_000)] == pytest.approx([0.01, 1e-4])
    assert (method.loss.auxiliary, method.loss.normalizer, method.loss.class_weights) == (0.4, "valid", None)
    assert method.photometric == Photometric(
        ColorJitter(1.0, 1.0, (32 / 255, 0.5, 0.5, 0.1), each=0.5, order="mmseg"), blur=None
    )
    ours = supervised("data=nightcity_plus,model=deeplabv3plus,photometric=1")
    assert methods.build(ours).photometric == Photometric()
    optimizer = method.optimizer
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.decay_vectors) == (0.9, 5e-4, True)

    config = supervised("data=nightcity_plus,model=upernet_swin_b")
    method = methods.build(config)
    rate = method.optimizer.schedule_fn(config.train.steps)
    assert float(rate(0)) == pytest.approx(6e-11) and float(rate(80_000)) == 0
    assert float(rate(40_000)) == pytest.approx(3e-5)
    assert method.optimizer.groups[0].decay == 0 and not method.optimizer.decay_vectors
    assert method.network.model.backbone.drop_path == 0.3


def test_light_adaptation_and_joint_training():
    config = supervised("data=nightcity_plus,model=deeplabv3plus,relight=1,joint=1")
    method = methods.build(config)
    assert method.network.model.relight is not None and method.domains == ("source", "day")
    assert config.train.batch == 4  # Of each domain: 1:1.
    streams = config.data.streams
    assert (streams.source.dataset, streams.day.dataset) == ("nightcity/plus", "cityscapes_seg/half")
    assert streams.source.crop == streams.day.crop == (512, 512)

    config = supervised("joint=1")
    assert (config.data.streams.source.split, config.data.streams.day.split) == ("oracle_night", "source_day")
    assert methods.build(config).network.model.relight is None


@pytest.mark.parametrize("data", ["nightstreet", "cityscapes_to_dark_zurich"])
def test_a_run_of_dannet_is_fine_tuned_with_light(data):
    """One network, so that its weights fit."""
    model = "model=pspnet," if data != "nightstreet" else ""
    before = settings.load(f"dannet:{model}data={data}")
    after = supervised(f"{model}relight=1,data={data}")
    assert after.model == before.model and after.model.relight


def test_not_every_benchmark_has_both():
    with pytest.raises(UserError, match="joint=1"):
        supervised("data=gta5_to_cityscapes,joint=1")
