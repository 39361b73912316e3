"""Pairs of nights and synthetic days."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.data import sources
from nightjax.prepare import pairs as prepare
from tests.helpers import toy


def test_pairs_have_the_names_and_sizes_of_the_nights(tmp_path):
    nights = toy.write_folder(tmp_path / "nights", count=3)
    source = sources.open_source("folder", "train", manual_dir=str(nights))
    seen = []

    def translate(label):
        seen.append(label.shape)
        return jnp.repeat((label[..., None] == 255).astype(jnp.float32), 3, -1)

    prepare.make_pairs(source, translate, tmp_path / "pairs")
    pairs = sources.open_source("folder", "train", manual_dir=str(tmp_path / "pairs"))
    assert [record["image_id"].split("/")[-1] for record in pairs] == ["frame_00", "frame_01", "frame_02"]
    assert seen == 3 * [(1, *toy.SIZE)]
    for name in ("frame_00", "frame_01", "frame_02"):
        found = {part: next((tmp_path / "pairs" / part).rglob(f"{name}.png")) for part in ("images", "references")}
        label = cv2.imread(str(nights / "labels" / "train" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        original = cv2.imread(str(nights / "images" / "train" / f"{name}.png"))
        np.testing.assert_array_equal(cv2.imread(str(found["images"])), original)
        np.testing.assert_array_equal(cv2.imread(str(found["references"]))[..., 0] == 255, label == 255)
    prepare.make_pairs(source, None, tmp_path / "pairs")  # Nothing is left to do.


def test_labels_that_test_something_are_refused():
    for split in ("validation", "test_night", "val_day", "train+validation", "train[:50%] + val_night[:10]"):
        with pytest.raises(UserError, match="training labels"):
            prepare.check_split(split)
    prepare.check_split("train")
    prepare.check_split("oracle_night[:50%]+source_day")
