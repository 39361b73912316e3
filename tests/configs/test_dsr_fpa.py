"""Every row of the paper's table and every preset is a matter of arguments."""

import pytest

from configs import dacs, dsr_fpa, supervised, t2s_da, uawarpc
from nightjax import methods
from nightjax.core.config import check_key, override, to_json
from nightjax.core.errors import UserError
from nightjax.ops.color import MIDDLE_GREY

DZ = "data=cityscapes_to_dark_zurich,aligner=uawarpc,matcher=weights.npz"
ACDC = "data=cityscapes_to_acdc_night"


def method_of(arg):
    return dict(dsr_fpa.get_config(arg).method)


@pytest.mark.parametrize("model", ["hrda", "deeplab", "refinenet", "daformer", "daformer_b0"])
def test_rows_can_be_built(model):
    for config in (
        dsr_fpa.get_config(f"{DZ},model={model}"),
        dsr_fpa.get_config(f"{DZ},model={model},parts=refign"),
        dacs.get_config(f"data=cityscapes_to_dark_zurich,model={model}"),
        supervised.get_config(f"data=cityscapes_to_dark_zurich,model={model}"),
    ):
        assert config.train.steps == 40_000 and config.train.batch == 2 and config.optim.lr == 6e-4
        assert config.eval.every == 4000 and config.method.get("class_weights") is None
        methods.build(config)


def test_hrda():
    config = dsr_fpa.get_config(f"{DZ},model=hrda")
    for stream in config.data.streams.values():
        assert stream.crop == (1024, 1024) and stream.resize is None
    assert config.data.streams.source.rare_class.crop_ratio == 2.0
    assert (config.method.mixed_weight, config.method.fpa_mixed_weight) == (0.8, 0.01)
    sets = config.eval.sets
    assert (sets.dark_zurich_val.mode, sets.dark_zurich_val.window, sets.dark_zurich_val.stride) == (
        "slide",
        (1080, 1080),
        (420, 420),
    )
    assert sets.dark_zurich_val.input_size is None and sets.bdd100k_night.input_size == (1080, 1080)


def test_others_keep_the_small_crops():
    config = dsr_fpa.get_config(f"{DZ},model=deeplab")
    assert config.data.streams.target.resize == (540, 960) and config.data.streams.source.crop == (512, 512)
    assert config.data.streams.source.rare_class.crop_ratio == 0.5
    assert config.eval.sets.dark_zurich_val.input_size == (540, 960)
    assert "mixed_weight" not in config.method and "fpa_mixed_weight" not in config.method


@pytest.mark.parametrize(
    "arg, expected",
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
def test_adapt_to_ref(arg, expected):
    assert method_of(arg)["adapt_to_ref"] is expected


def test_first_step_of_fpa():
    assert method_of(DZ)["fpa_start_step"] == 9664 == 8 * (2416 // 2)
    assert method_of(ACDC)["fpa_start_step"] == 1600 == 8 * (400 // 2)
    assert method_of("steps=1000")["fpa_start_step"] == 240
    assert (
        method_of(f"{DZ},steps=8000")["fpa_start_step"] == 1933
        and dsr_fpa.get_config(f"{DZ},steps=800").optim.warmup == 200
    )


def test_refinenet_has_no_feature_distance():
    assert method_of(f"{DZ},model=refinenet")["feature_weight"] == 0.0
    assert "feature_weight" not in method_of(f"{DZ},model=deeplab")


def test_parts():
    on = lambda arg: tuple(method_of(arg)[name] for name in ("mask_mode", "bank", "refine", "fpa"))
    assert on("parts=none") == ("classmix", False, False, False)
    assert on("parts=dsr") == ("object_groups", True, True, False)
    assert on("parts=fpa") == ("classmix", False, False, True)
    assert on("") == ("object_groups", True, True, True)
    assert on("parts=refign") == ("dacs", False, True, False)
    with pytest.raises(UserError, match="did you mean 'refign'"):
        dsr_fpa.get_config("parts=refine")


def test_memory():
    for memory, parts, remat, crop in (
        ("80", 1, False, 1024),
        ("48", 2, False, 1024),
        ("24", 2, True, 1024),
        ("11", 2, True, 768),
    ):
        config = dsr_fpa.get_config(f"{DZ},model=hrda,mem={memory}")
        assert config.train.batch == 2 and config.train.accumulate == parts
        assert config.model.get("backbone_remat", False) is remat
        assert config.data.streams.target.crop == config.data.streams.source.crop == (crop, crop)
        methods.build(config)
    assert dsr_fpa.get_config(f"{DZ},model=deeplab,mem=11").data.streams.target.crop == (512, 512)
    with pytest.raises(UserError, match="mem"):
        dsr_fpa.get_config("mem=12")


def test_dacs_on_real_data_is_daformers():
    config = dacs.get_config("data=gta5_to_cityscapes")
    assert (config.method.ignore_top, config.method.ignore_bottom) == (15, 120)
    assert config.optim.schedule == "mmseg_poly" and config.optim.decay_vectors
    none = t2s_da.get_config("data=gta5_to_cityscapes,parts=none")
    assert none.optim == config.optim and none.data == config.data and none.train == config.train
    shared = {name: value for name, value in none.method.items() if name in config.method and name != "name"}
    assert shared == {name: value for name, value in config.method.items() if name != "name"}


def test_every_setting_is_a_flag():
    config = methods.with_defaults(dsr_fpa.get_config(DZ))
    for name in (
        "mask_include_ignore",
        "bank_classes",
        "bank_weight",
        "fpa_class_weight",
        "pixel_share",
        "refine_static",
    ):
        check_key(config, f"method.{name}")
    check_key(config, "method.photometric.blur_sigma")
    check_key(config, "optim.clip_norm")
    assert methods.build(config) == methods.build(dsr_fpa.get_config(DZ))
    assert "model" not in config.method and "steps" not in config.method


@pytest.mark.parametrize("weight", ["overlap", "ds_inv", "dannet"])
def test_weights_of_fpa(weight):
    assert methods.build(
        override(methods.with_defaults(dsr_fpa.get_config()), {"method.fpa_class_weight": weight})
    ).pixel_share


def test_a_matcher_sees_what_it_was_trained_on(tmp_path):
    (tmp_path / "config.json").write_text(to_json(uawarpc.get_config("exposure=1")))
    config = dsr_fpa.get_config(f"aligner=uawarpc,matcher={tmp_path},input=caffe")
    method = methods.build(config)
    assert (
        method.matcher_input.exposure == MIDDLE_GREY
        and method.matcher_input.order == "rgb"
        and method.input.order == "bgr"
    )
    with pytest.raises(UserError, match="aligner=uawarpc beside it"):
        dsr_fpa.get_config("matcher=runs/uawarpc")


def test_aligner_needs_its_weights_and_pairs():
    with pytest.raises(UserError, match="matcher=FOLDER"):
        dsr_fpa.get_config("aligner=uawarpc")
    with pytest.raises(UserError, match="day references"):
        dsr_fpa.get_config("data=camvid_day_to_dusk,aligner=uawarpc,matcher=runs/uawarpc")
    config = dsr_fpa.get_config("aligner=uawarpc,matcher=runs/uawarpc")
    assert config.method.matcher == "uawarpc_tiny" and config.train.frozen.aligner == "runs/uawarpc"
    assert dsr_fpa.get_config(DZ).method.matcher == "uawarpc"
    assert "frozen" not in dsr_fpa.get_config("").train


def test_matcher_training():
    small, full = uawarpc.get_config(), uawarpc.get_config("data=cityscapes_to_dark_zurich")
    for config in (small, full):
        assert list(config.data.streams) == ["target"] and config.data.streams.target.fields == ("image", "reference")
        assert not config.eval.sets and config.model.dtype == "float32"
        methods.build(config)
    assert small.model.variant == "uawarpc_tiny" and full.model.variant == "uawarpc"
