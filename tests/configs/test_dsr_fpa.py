"""Every row of the paper's table and every preset is a matter of arguments."""

import pytest

from nightjax import methods
from nightjax.core.classes import CITYSCAPES
from nightjax.core.config import check_key, override, to_json
from nightjax.core.errors import UserError
from nightjax.methods.parts.network import InputNormalization
from nightjax.run import references, settings
from nightjax.zoo.recipes import MIDDLE_GRAY

DZ = "data=cityscapes_to_dark_zurich,aligner=uawarpc,matcher=weights.npz"
ACDC = "data=cityscapes_to_acdc_night"


def dsr_fpa(arguments=""):
    return settings.load(f"dsr_fpa:{arguments}")


@pytest.mark.parametrize("model", ["hrda", "deeplab", "refinenet", "daformer", "daformer_b0"])
def test_rows_can_be_built(model):
    for config in (
        dsr_fpa(f"{DZ},model={model}"),
        dsr_fpa(f"{DZ},model={model},parts=refign"),
        settings.load(f"dacs:data=cityscapes_to_dark_zurich,model={model}"),
        settings.load(f"supervised:data=cityscapes_to_dark_zurich,model={model}"),
    ):
        assert config.train.steps == 40_000 and config.train.batch == 2 and config.optim.lr == 6e-4
        assert config.eval.every == 4000 and config.method.loss.class_weights is None
        methods.build(config)


def test_hrda():
    config = dsr_fpa(f"{DZ},model=hrda")
    for stream in config.data.streams.values():
        assert stream.crop == (1024, 1024) and stream.resize is None
    assert config.data.streams.source.rare_class.crop_ratio == 2.0
    assert (config.method.mixing.weight, config.method.alignment.mixed_weight) == (0.8, 0.01)
    windows = config.eval.sets.dark_zurich_val
    assert (windows.mode, windows.window, windows.stride) == ("slide", (1080, 1080), (420, 420))
    assert windows.input_size is None and config.eval.sets.bdd100k_night.input_size == (1080, 1080)


def test_others_keep_the_small_crops():
    config = dsr_fpa(f"{DZ},model=deeplab")
    assert config.data.streams.target.resize == (540, 960) and config.data.streams.source.crop == (512, 512)
    assert config.data.streams.source.rare_class.crop_ratio == 0.5
    assert config.eval.sets.dark_zurich_val.input_size == (540, 960)
    assert (config.method.mixing.weight, config.method.alignment.mixed_weight) == (1.0, 0.1)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (f"{DZ},model=daformer", False),
        (f"{DZ},model=hrda", False),
        (f"{DZ},model=deeplab", True),
        (f"{DZ},model=refinenet", True),
        (f"{DZ},model=hrda,parts=refign", True),
        (f"{ACDC},model=daformer", True),
        (f"{ACDC},model=hrda", True),
        ("", False),
    ],
)
def test_days_stand_in_for_nights_as_in_the_official_configs(arguments, expected):
    assert dsr_fpa(arguments).method.reference_swap is expected


def test_first_step_of_fpa():
    start = lambda arguments: dsr_fpa(arguments).method.alignment.start_step
    assert start(DZ) == 9664 == 8 * (2416 // 2)
    assert start(ACDC) == 1600 == 8 * (400 // 2)
    assert start("steps=1000") == 240
    assert start(f"{DZ},steps=8000") == 1933 and dsr_fpa(f"{DZ},steps=800").optim.warmup == 200


def test_refinenet_has_no_feature_distance():
    assert dsr_fpa(f"{DZ},model=refinenet").method.feature_distance is None
    assert dsr_fpa(f"{DZ},model=deeplab").method.feature_distance.weight == 0.005


def test_parts():
    def parts(arguments):
        method = dsr_fpa(arguments).method
        return (method.mixing.mode, *(method[name] is not None for name in ("bank", "refinement", "alignment")))

    assert parts("parts=none") == ("classmix", False, False, False)
    assert parts("parts=dsr") == ("object_groups", True, True, False)
    assert parts("parts=fpa") == ("classmix", False, False, True)
    assert parts("") == ("object_groups", True, True, True)
    assert parts("parts=refign") == ("dacs", False, True, False)
    with pytest.raises(UserError, match="did you mean 'refign'"):
        dsr_fpa("parts=refine")


def test_memory():
    for memory, microbatches, stored, crop in (
        ("80", 1, "inputs", 1024),
        ("48", 1, "products", 1024),
        ("24", 1, "products", 1024),
        ("11", 2, "products", 768),
    ):
        config = dsr_fpa(f"{DZ},model=hrda,mem={memory}")
        assert config.train.batch == 2 and config.train.accumulate == microbatches
        assert config.model.backbone_stored == stored
        assert config.model.backbone_remat is config.model.head_remat is (memory != "80")
        assert config.data.streams.target.crop == config.data.streams.source.crop == (crop, crop)
        methods.build(config)
    assert dsr_fpa(f"{DZ},mem=11").train.accumulate == 1
    assert dsr_fpa(f"{DZ},model=deeplab,mem=11").train.accumulate == 2
    assert dsr_fpa(f"{DZ},model=deeplab,mem=11").data.streams.target.crop == (512, 512)
    with pytest.raises(UserError, match="mem"):
        dsr_fpa("mem=12")


def test_dacs_on_real_data_is_daformers():
    config = settings.load("dacs:data=gta5_to_cityscapes")
    assert (config.method.pseudo_labels.ignore_top, config.method.pseudo_labels.ignore_bottom) == (15, 120)
    assert config.optim.schedule == "mmseg_poly" and config.optim.decay_vectors
    none = settings.load("t2s_da:data=gta5_to_cityscapes,parts=none")
    assert none.optim == config.optim and none.data == config.data
    assert none.train.to_dict() | {"frozen": {"foundation": None}} == config.train.to_dict()
    shared = set(none.method) & set(config.method) - {"name"}
    assert {"loss", "teacher", "pseudo_labels", "mixing", "feature_distance", "source_photometric"} <= shared
    assert all(none.method[name] == config.method[name] for name in shared)


def test_every_setting_is_a_flag():
    config = dsr_fpa(DZ)
    for key in (
        "mixing.include_ignore",
        "bank.classes",
        "bank.pasted_weight",
        "alignment.class_weight",
        "alignment.pixel_share",
        "refinement.static",
        "mixing.photometric.blur.sigma",
        "source_photometric",
    ):
        check_key(config, f"method.{key}")
    check_key(config, "optim.clip_norm")
    check_key(config, "model.input.exposure")
    assert not {"network", "model", "training", "optimizer"} & set(config.method)


@pytest.mark.parametrize("weight", ["overlap", "ds_inv", "dannet"])
def test_weights_of_fpa(weight):
    method = methods.build(override(dsr_fpa(), {"method.alignment.class_weight": weight}))
    assert method.alignment.class_weight == weight
    assert method.alignment.pixel_share is None and method.network.classes.pixel_share == CITYSCAPES.pixel_share


def test_a_matcher_sees_what_it_was_trained_on(tmp_path):
    (tmp_path / "config.json").write_text(to_json(settings.load("uawarpc:exposure=1")))
    config = dsr_fpa(f"aligner=uawarpc,matcher={tmp_path},input=caffe")
    method = methods.build(settings.complete(references.resolve(config)))
    matcher = method.refinement.matcher_input
    assert matcher.exposure == MIDDLE_GRAY and matcher.order == "rgb" and method.network.input.order == "bgr"
    with pytest.raises(UserError, match="aligner=uawarpc beside it"):
        dsr_fpa("matcher=runs/uawarpc")


def test_a_file_of_weights_says_nothing_about_its_input():
    assert methods.build(dsr_fpa(DZ)).refinement.matcher_input == InputNormalization()


def test_aligner_needs_its_weights_and_pairs():
    with pytest.raises(UserError, match="matcher=FOLDER"):
        dsr_fpa("aligner=uawarpc")
    with pytest.raises(UserError, match="day references"):
        dsr_fpa("data=camvid_day_to_dusk,aligner=uawarpc,matcher=runs/uawarpc")
    config = dsr_fpa("aligner=uawarpc,matcher=runs/uawarpc")
    assert config.method.refinement.matcher == "uawarpc_tiny" and config.train.frozen.aligner == "runs/uawarpc"
    assert dsr_fpa(DZ).method.refinement.matcher == "uawarpc"
    assert dsr_fpa().train.frozen.aligner is None


def test_matcher_training():
    small, full = settings.load("uawarpc"), settings.load("uawarpc:data=cityscapes_to_dark_zurich")
    for config in (small, full):
        assert list(config.data.streams) == ["target"] and config.data.streams.target.fields == ("image", "reference")
        assert not config.eval.sets and config.model.dtype == "float32"
        methods.build(config)
    assert small.model.variant == "uawarpc_tiny" and full.model.variant == "uawarpc"
