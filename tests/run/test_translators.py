"""Runs of CycleGAN and pix2pixHD as the verbs use them: from a folder on disk to images."""

import numpy as np
import pytest

from nightjax import methods
from nightjax.core.config import override
from nightjax.core.errors import UserError
from nightjax.data.sources import ListSource
from nightjax.data.streams import StreamSpec, make_stream
from nightjax.inference.translators import network_translator
from nightjax.run import loaded, settings
from tests.helpers import toy


def tiny(config):
    names = {f"data.streams.{name}.crop": (32, 48) for name in config.data.streams}
    small = {"model.features": 2, "model.blocks": 1, "method.discriminator_features": 2, "train.devices": 1}
    return override(config, names | small)


@pytest.mark.slow
def test_cyclegan_translates_nights_to_days(tmp_path):
    workdir = toy.untrained_run(tmp_path / "cyclegan", tiny(settings.load("cyclegan")))
    run = loaded.load(workdir)
    translate, facts = network_translator(run.method.translate, run.variables, to="day")
    image = np.random.RandomState(0).randint(0, 256, (30, 46, 3)).astype(np.uint8)
    picture = translate("name", image)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    np.testing.assert_array_equal(translate("name", image), picture)
    assert run.config.method.name == "cyclegan" and facts["to"] == "day"


@pytest.mark.parametrize(
    ("path", "streams", "steps"),
    [
        ("cyclegan.py", {"source", "target"}, 600),
        ("cyclegan.py:data=nightcity", {"source", "target"}, 50_000),
        ("pix2pixhd.py", {"source"}, 600),
        ("pix2pixhd.py:translates=image", {"target"}, 600),
        ("pix2pixhd.py:data=nightcity,vgg=vgg19.npz", {"source"}, 50_000),
        ("pix2pixhd.py:data=folder,translates=image,size=full", {"target"}, 50_000),
    ],
)
def test_configs(path, streams, steps):
    config = settings.load(f"configs/{path}")
    assert set(config.data.streams) == streams and set(methods.build(config).domains) == streams
    assert config.train.steps == steps and config.train.batch == 2
    _check_candidates(config, steps == 50_000)
    assert all("val" not in stream.split and "test" not in stream.split for stream in config.data.streams.values())


def test_both_domains_are_seen_in_as_many_steps_as_the_larger_has_images():
    """An epoch: the larger domain once, the smaller again and again."""
    counts, seen = {"source": 5, "target": 3}, {}
    for name, count in counts.items():
        records = [{"image_id": f"{i}", "image": np.full((8, 8, 3), i, np.uint8)} for i in range(count)]
        spec = StreamSpec(name, "in memory", "all", crop=(8, 8), fields=("image",))
        stream = make_stream(ListSource(records), spec, batch_size=1, seed=0)
        seen[name] = [int(next(stream)["index"][0]) for _ in range(max(counts.values()))]
        stream.close()
    assert sorted(seen["source"]) == [0, 1, 2, 3, 4] and set(seen["target"]) == {0, 1, 2}


def test_checkpoints_of_unit():
    _check_candidates(settings.load("unit:data=nexet"), True)
    _check_candidates(settings.load("unit"), False)


def _check_candidates(config, real):
    """On real data FID has ten checkpoints to choose from."""
    checkpoints = config.checkpoint.every, config.checkpoint.keep
    assert (checkpoints == (5000, 10)) == real and not config.checkpoint.best


def test_nights_of_nightcity_have_no_days():
    with pytest.raises(UserError, match="nightjax pairs"):
        settings.load("pix2pixhd:data=nightcity,translates=image")
