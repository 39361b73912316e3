"""The TFDS builder of NightStreet: drawn, stored, read back; never through TensorFlow."""

import dataclasses

import cv2
import numpy as np
import pytest

from nightjax.core.types import IGNORE
from nightjax.nightstreet import KNOBS_VERSION, NIGHTS, PRESETS, RENDERER_VERSION, SPLITS
from nightjax.nightstreet.examples import example
from tfds_builders.nightstreet.nightstreet_dataset_builder import Builder, encoded_example

SIZE = PRESETS["tiny"].size


@pytest.fixture(scope="module")
def open_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")

    def prepare(config):
        builder = Builder(config=config, data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
        return builder

    return prepare


def test_labeled_splits(open_config):
    builder = open_config("tiny")
    labeled = [name for name, split in SPLITS.items() if split.role == "labeled"]
    assert sorted(builder.info.splits) == sorted(labeled)
    for split in labeled:
        source = builder.as_data_source(split=split)
        assert len(source) == PRESETS["tiny"].counts[split]
        stored, drawn = source[1], example(split, 1, size=SIZE)
        np.testing.assert_array_equal(stored["image"], drawn["image"])
        np.testing.assert_array_equal(stored["label"][..., 0], drawn["label"])
        np.testing.assert_array_equal(stored["invalid"][..., 0], drawn["invalid"])
        np.testing.assert_array_equal(stored["class_pixels"], drawn["class_pixels"])
        assert stored["class_pixels"].sum() == (stored["label"] != IGNORE).sum()
        assert stored["frame"] == 1 and stored["image_id"].decode() == drawn["image_id"]
        assert np.isnan(stored["gps"]).all()
        assert builder.info.features["condition"].int2str(int(stored["condition"])) == drawn["condition"]


def test_pairs_carry_flow_and_no_label(open_config):
    builder = open_config("tiny_pairs")
    source = builder.as_data_source(split="target_pairs")
    assert len(source) == PRESETS["tiny"].counts["target_pairs"]
    stored, drawn = source[2], example("target_pairs", 2, size=SIZE)
    assert not {"label", "class_pixels", "invalid"} & set(stored)
    np.testing.assert_array_equal(stored["reference"], drawn["reference"])
    assert stored["flow"].dtype == np.float16 and stored["flow"].shape == (*SIZE, 2)
    np.testing.assert_allclose(stored["flow"], drawn["flow"], rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(stored["flow_valid"] != 0, drawn["flow_valid"])


def test_twilight_has_no_label(open_config):
    builder = open_config("tiny_unlabeled")
    source = builder.as_data_source(split="target_twilight")
    assert len(source) == PRESETS["tiny"].counts["target_twilight"]
    assert set(source[0]) == {"image", "image_id", "sequence", "frame", "condition", "gps"}


def test_version_follows_the_renderer():
    assert str(Builder.VERSION) == RENDERER_VERSION
    names = [config.name for config in Builder.BUILDER_CONFIGS]
    assert names[0] == "std" and len(set(names)) == len(names)
    assert {
        "tiny",
        "std_pairs",
        "std_hard_unlabeled",
        "std_no_glare",
        "std_no_dynamics_pairs",
        "std_fog_pairs",
        "large",
    } <= set(names)


def test_other_nights_have_a_version_and_a_folder_of_their_own(tmp_path):
    def numbers(version):
        return tuple(map(int, version.split(".")))

    assert numbers(KNOBS_VERSION) >= numbers(RENDERER_VERSION)
    for config in Builder.BUILDER_CONFIGS:
        opened = Builder(config=config.name, data_dir=tmp_path)
        version = RENDERER_VERSION if config.target == "std" else KNOBS_VERSION
        assert opened.data_path == opened.data_path.parents[2] / "nightstreet" / config.name / version


def test_masks_follow_the_noise():
    """What `KNOBS_VERSION` 1.1.1 changed: before, all had the masks of the published noise."""
    assert KNOBS_VERSION > "1.1.0"
    for night, sign in (("easy", -1), ("hard", 1)):
        stored = encoded_example("val_night", 1, preset="tiny", target=night)
        mask = cv2.imdecode(np.frombuffer(stored["invalid"], np.uint8), cv2.IMREAD_UNCHANGED)
        published = dataclasses.replace(NIGHTS[night], noise=1.0)
        before = example("val_night", 1, size=SIZE, knobs=published)["invalid"]
        assert sign * (int(mask.sum()) - int(before.sum())) > 0
