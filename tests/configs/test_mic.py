"""Masked consistency as arguments of the self-training configs, with the published settings by benchmark."""

import pytest

from nightjax import methods
from nightjax.core.config import check_key
from nightjax.core.errors import UserError
from nightjax.methods.parts.masking import MaskedConsistency
from nightjax.methods.parts.photometric import Photometric
from nightjax.run import settings
from nightjax.zoo.self_training import mask_block


def masking(config):
    return methods.build(settings.load(config)).masking


@pytest.mark.parametrize("model, block", [("daformer", 32), ("hrda", 64)])
@pytest.mark.parametrize("data", ["cityscapes_to_dark_zurich", "cityscapes_to_acdc", "gta5_to_cityscapes"])
def test_published_rows(data, model, block):
    config = settings.load(f"mic:data={data},model={model}")
    gta = data == "gta5_to_cityscapes"
    expected = MaskedConsistency("target" if gta else "both", 0.7, block, photometric=Photometric() if gta else None)
    assert methods.build(config).masking == expected
    rows = (config.method.pseudo_labels.ignore_top, config.method.pseudo_labels.ignore_bottom)
    assert rows == ({"daformer": (15, 120), "hrda": (30, 240)}[model] if gta else (0, 0))
    assert (config.train.steps, config.train.batch, config.optim.lr, config.optim.schedule) == (
        40_000,
        2,
        6e-4,
        "mmseg_poly",
    )
    assert config.method.teacher.decay == 0.999 and config.method.feature_distance.weight == 0.005
    crop = {"daformer": 512, "hrda": 1024}[model]
    assert config.data.streams.target.crop == config.data.streams.source.crop == (crop, crop)


@pytest.mark.parametrize("name", ["dacs", "dsr_fpa", "t2s_da"])
@pytest.mark.parametrize("data", ["gta5_to_cityscapes", "synthia_to_cityscapes", "cityscapes_to_dark_zurich"])
def test_rows_without_weight_follow_the_size_of_the_images(name, data):
    rows = {
        model: settings.load(f"{name}:data={data},model={model}").method.pseudo_labels for model in ("daformer", "hrda")
    }
    found = {model: (section.ignore_top, section.ignore_bottom) for model, section in rows.items()}
    city = {"daformer": (15, 120), "hrda": (30, 240)}
    assert found == (dict.fromkeys(rows, (0, 0)) if data == "cityscapes_to_dark_zurich" else city)


def test_without_masking_it_is_dacs():
    for arguments in ("", "data=cityscapes_to_dark_zurich,model=hrda", "data=gta5_to_cityscapes"):
        plain = settings.load(f"mic:{arguments},masking=none")
        assert plain == settings.load(f"dacs:{arguments}") and plain.method.masking is None


@pytest.mark.parametrize("name", ["dacs", "dsr_fpa", "t2s_da"])
def test_an_argument_of_the_other_configs(name):
    assert masking(f"{name}:") is None
    assert masking(f"{name}:masking=auto") == MaskedConsistency("target", block=8)
    given = masking(f"{name}:masking=both,mask_ratio=0.5,mask_block=4")
    assert (given.mode, given.ratio, given.block) == ("both", 0.5, 4)
    night = masking(f"{name}:data=cityscapes_to_acdc_night,masking=target")
    assert night == MaskedConsistency("target", block=32, photometric=None)
    config = settings.load(f"{name}:masking=auto")
    for key in ("weight", "running_statistics", "photometric.jitter.strength"):
        check_key(config, f"method.masking.{key}")


def test_small_crops_have_small_blocks():
    assert masking("dsr_fpa:data=cityscapes_to_dark_zurich,model=hrda,mem=11,masking=auto").block == 48
    assert [mask_block(crop) for crop in ((1024, 1024), (512, 1024), (64, 128), (180, 240), (97, 97), (8, 8))] == [
        64, 32, 4, 12, 6, 1,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "config, match",
    [
        ("dacs:mask_ratio=0.5", "mask_ratio=0.5 has no use without masking"),
        ("dsr_fpa:mask_block=8", "mask_block=8 has no use without masking"),
        ("t2s_da:mode=dg,masking=target", "mode=dg has none"),
        ("mic:masking=tarqet", "did you mean 'target'"),
    ],
)
def test_mistakes(config, match):
    with pytest.raises(UserError, match=match):
        settings.load(config)


def test_a_share_above_one_is_refused():
    with pytest.raises(UserError, match="ratio=2"):
        masking("mic:mask_ratio=2")
