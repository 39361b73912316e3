"""Every name in the benchmarks' table leads to an existing builder, config, split and feature. No data is prepared."""

import functools
import shutil

import cv2
import numpy as np
import pytest

from nightjax.core.class_merges import CLASS_MERGES
from nightjax.core.classes import CLASS_SETS
from nightjax.core.config import build, load, suggestion
from nightjax.core.errors import UserError
from nightjax.data.datasets import builder_class, builder_modules
from nightjax.data.loading import StreamSpec
from nightjax.metrics.protocol import EvalSet
from nightjax.models import build_segmenter
from nightjax.nightstreet import SPLITS
from nightjax.zoo import benchmarks, recipes
from nightjax.zoo.models import MODELS
from tests.helpers import miniature

REAL = sorted(name for name in benchmarks.BENCHMARKS if name != "folder")


def make_camvid(root):
    for stem in ("0006R0_f00900", "Seq05VD_f00000", "0001TP_006690", "0001TP_008550"):
        for folder, array in (("train", np.zeros((8, 12, 3), np.uint8)), ("trainannot", np.zeros((8, 12), np.uint8))):
            (root / "CamVid" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "CamVid" / folder / f"{stem}.png"), array)


def make_acdc(root):
    """The miniature has fog and night."""
    miniature.make_acdc(root)
    for part in ("rgb_anon", "gt"):
        for condition in ("rain", "snow"):
            shutil.copytree(root / part / "fog", root / part / condition)


TREES = {
    "acdc": make_acdc,
    "cityscapes_seg": miniature.make_cityscapes,
    "bdd100k_seg": miniature.make_bdd100k,
    "bdd100k_night": miniature.make_bdd100k,
    "camvid": make_camvid,
} | {
    name: getattr(miniature, f"make_{name}")
    for name in ("dark_zurich", "gta5", "nexet", "nightcity", "nighttime_driving", "synthia")
}


@pytest.fixture(scope="module")
def offers(tmp_path_factory):
    """``offers("acdc/night")`` is (its splits, the features of its records), found in a miniature tree."""

    @functools.cache
    def look(name):
        dataset, _, config = name.partition("/")
        assert dataset in builder_modules(), suggestion(dataset, builder_modules())
        made = builder_class(dataset)
        assert not config or config in [item.name for item in made.BUILDER_CONFIGS], name
        root = tmp_path_factory.mktemp("tree")
        builder = made(config=config or None, data_dir=root / "prepared")
        if dataset == "nightstreet":
            splits = {name for name, split in SPLITS.items() if split.role == builder.builder_config.role}
        else:
            TREES[dataset](root)
            splits = set(builder.find(root, root / "extracted").splits)
        return splits, set(builder.info.features)

    return look


@pytest.mark.parametrize("benchmark", REAL)
def test_streams_exist(benchmark, offers):
    section = benchmarks.BENCHMARKS[benchmark]
    streams = dict(section["streams"])
    if "oracle" in section:
        streams["oracle"] = streams["source"] | section["oracle"]
    if "day" in section:
        streams["day"] = section["day"]
    for name, stream in streams.items():
        spec = build(StreamSpec, stream | {"name": name}, name)
        for dataset in spec.dataset.split("+"):
            splits, features = offers(dataset)
            assert spec.split in splits, f"{benchmark}: {dataset} has {splits}"
            assert set(spec.fields) <= features
        if spec.resize:
            assert all(side <= length for side, length in zip(spec.crop, spec.resize, strict=True))


@pytest.mark.parametrize("name", sorted(benchmarks.EVAL_SETS))
def test_evaluation_sets_exist(name, offers):
    rule = build(EvalSet, benchmarks.EVAL_SETS[name], name)
    for dataset in rule.dataset.split("+"):
        splits, features = offers(dataset)
        assert rule.split in splits and {"image", "label"} <= features
        assert not rule.uiou or "invalid" in features


@pytest.mark.parametrize("benchmark", sorted(benchmarks.BENCHMARKS))
def test_benchmarks_are_whole(benchmark):
    section = benchmarks.BENCHMARKS[benchmark]
    known = {"streams", "oracle", "day", "eval", "select", "dropped_rows", "scale", "classes", "merges"}
    assert set(section) <= known and section["eval"]
    assert section.get("scale", "paper") in ("toy", "paper")
    assert section.get("classes", "cityscapes") in ("", *CLASS_SETS)
    assert section.get("select", "") in {"", *section["eval"]}
    for name, rule in section["eval"].items():
        build(EvalSet, rule, name)


def test_the_issue_names_are_there():
    assert {
        "cityscapes_to_dark_zurich",
        "cityscapes_to_acdc",
        "cityscapes_to_acdc_fog",
        "cityscapes_to_acdc_night",
        "cityscapes_to_acdc_rain",
        "cityscapes_to_acdc_snow",
        "cityscapes_to_nightcity",
        "bdd100k",
        "bdd100k_day_to_night",
        "gta5_to_cityscapes",
        "synthia_to_cityscapes",
        "nightcity",
        "nightcity_plus",
        "nightcity_with_cityscapes",
    } <= set(benchmarks.BENCHMARKS)


def test_published_settings():
    dark_zurich = benchmarks.BENCHMARKS["cityscapes_to_dark_zurich"]["streams"]
    assert dark_zurich["source"]["resize"] == (512, 1024) and dark_zurich["target"]["resize"] == (540, 960)
    assert dark_zurich["source"]["rare_class"] == {"temperature": 0.01, "min_pixels": 3000, "crop_ratio": 0.5}
    sets = benchmarks.EVAL_SETS
    assert sets["dark_zurich_val_windows"]["window"] == (1080, 1080) and sets["dark_zurich_val_windows"]["stride"] == (
        420,
        420,
    )
    assert sets["dark_zurich_val_dannet"]["class_weight_std"] == 0.16
    assert (
        sets["dark_zurich_val_dsr"]["absent_classes"] == "zero"
        and sets["dark_zurich_val"].get("absent_classes", "skip") == "skip"
    )
    assert CLASS_MERGES[sets["cityscapes_val_16"]["merge"]].num_classes == 16


def test_overlapping_sets_are_named_by_beginnings_that_exist():
    for dataset, others in benchmarks.OVERLAPS.items():
        assert dataset in {rule["dataset"] for rule in benchmarks.EVAL_SETS.values()}
        assert all(other.partition("/")[0] in builder_modules() for other in others)


@pytest.mark.parametrize("benchmark", sorted(benchmarks.BENCHMARKS))
def test_a_recipe_takes_every_benchmark(benchmark):
    section = benchmarks.BENCHMARKS[benchmark]
    config = recipes.make(recipes.Recipe({"name": "supervised"}), benchmark, tuple(section["streams"]))
    assert list(config.data.streams) == list(section["streams"]) and set(config.eval.sets) == set(section["eval"])
    assert config.checkpoint.best == section.get("select", "")
    config.data.streams.source.split = "changed"  # A copy.
    assert section["streams"]["source"]["split"] != "changed"


def test_what_a_benchmark_has_not():
    with pytest.raises(UserError, match="has no target stream"):
        recipes.streams_of("nightcity", ("source", "target"))
    with pytest.raises(UserError, match="has no labeled target"):
        recipes.oracle("cityscapes_to_dark_zurich")
    oracle = recipes.oracle("cityscapes_to_acdc_night")["data.streams.source"]
    assert oracle["dataset"] == "acdc/night" and oracle["fields"] == ("image", "label")


def test_full_resolution_is_read_whole_and_tested_by_windows():
    """By a network of the table that needs it, and only on real data."""
    for data, size in (("cityscapes_to_dark_zurich", (1024, 1024)), ("nightstreet", (128, 256))):
        config = recipes.make(recipes.Recipe({"name": "supervised"}, "hrda"), data, ("source",))
        assert config.data.streams.source.crop == size
    assert benchmarks.BENCHMARKS["cityscapes_to_dark_zurich"]["streams"]["source"]["crop"] == (512, 512)


def test_warm_up_and_evaluation_follow_the_steps():
    recipe = recipes.toy({"name": "supervised"}, optim={"name": "adamw", "warmup": 100})
    for steps, warmup, every in ((None, 100, 250), (100, 25, 25), (1, 0, 1)):
        config = recipes.make(recipe, "nightstreet", ("source",), steps=steps)
        assert (config.optim.warmup, config.eval.every, config.checkpoint.every) == (warmup, every, every)
    with pytest.raises(UserError, match="steps=0 must be 1 or more"):
        recipes.make(recipe, "nightstreet", ("source",), steps=0)


def test_config_files_take_a_benchmark_by_name():
    assert "target" not in load("supervised:data=nightcity").data.streams
    assert "target" in load("dsr_fpa:data=cityscapes_to_dark_zurich").data.streams
    with pytest.raises(UserError, match="'cityscapes_to_acdc_night'"):
        load("dacs:data=cityscapes_to_acdc_nigth")


@pytest.mark.parametrize("name", MODELS)
def test_named_models_exist(name):
    section = dict(MODELS[name])
    build_segmenter(**section)
    assert recipes.make(recipes.Recipe({"name": "supervised"}), "nightstreet", ("source",), model=name).model.backbone


def test_sets_of_other_data_are_optional_until_they_are_named():
    sets = benchmarks.evaluation_sets("cityscapes_to_dark_zurich")
    assert {name for name, rule in sets.items() if rule.get("optional")} == {"nighttime_driving", "bdd100k_night"}
    named = benchmarks.evaluation_sets("cityscapes_to_dark_zurich", ("nighttime_driving",))
    assert not named["nighttime_driving"]["optional"]


def test_methods_for_labeled_nights_train_on_the_nights_of_bdd100k():
    config = load("nightlab:data=bdd100k_day_to_night,joint=1")
    assert config.data.streams.source.dataset == "bdd100k_seg/night"
    assert config.data.streams.day.dataset == "bdd100k_seg/day"
