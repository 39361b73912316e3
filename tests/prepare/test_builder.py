"""The builders' base: ordered parallel work and clear errors."""

import os

import pytest

from nightjax.core.errors import UserError
from nightjax.prepare import builder
from tests.helpers.places import ROOT


def test_parallel_map_keeps_order():
    assert list(builder.parallel_map(abs, [-3, 2, -1], desc="few")) == [3, 2, 1]
    many = list(range(-100, 0))
    assert list(builder.parallel_map(abs, many, desc="many", workers=2)) == [-number for number in many]


def test_exceptions_of_workers_come_through():
    with pytest.raises(ValueError, match="invalid literal"):
        list(builder.parallel_map(int, ["1"] * 70 + ["x"], desc="bad", workers=2))


def test_a_dead_worker_is_a_clear_error():
    with pytest.raises(UserError, match="a worker process died"):
        list(builder.parallel_map(os._exit, [1] * 70, desc="dead", workers=2))


def test_schema_is_uniform():
    common = {"image", "image_id", "sequence", "frame", "condition", "gps"}
    assert set(builder.features(labeled=False)) == common
    full = builder.features(labeled=True, paired=True, invalid=True)
    assert set(full) == common | {"label", "class_pixels", "reference", "reference_id", "invalid"}


def test_prepared_halves_and_compresses():
    config = builder.prepared(builder.Config(name="full", description="All.", paired=True), "prepared")
    assert (config.name, config.paired, config.recipe.divide_by, config.recipe.image_format) == (
        "prepared",
        True,
        2,
        "jpeg",
    )


def test_all_builders_declare_what_users_need():
    import importlib

    folder = ROOT / "tfds_builders"
    for path in sorted(folder.glob("*/*_dataset_builder.py")):
        name = path.parent.name
        made = importlib.import_module(f"tfds_builders.{name}.{path.stem}").Builder
        assert made.name == name and (path.parent / "README.md").is_file() and made.BUILDER_CONFIGS, name
        if issubclass(made, builder.SegmentationBuilder):
            assert made.LAYOUT.page in made.MANUAL_DOWNLOAD_INSTRUCTIONS
