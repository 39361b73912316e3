"""TFDS's own builder test, which needs TensorFlow: run with ``-m tf`` and the export extra."""

import importlib
import unittest

import pytest
import tensorflow_datasets as tfds

from tests.helpers import miniature

CASES = [
    ("cityscapes_seg", "full", miniature.make_cityscapes, {"train": 2, "validation": 1}),
    ("dark_zurich", "pairs", miniature.make_dark_zurich, {"train": 3}),
    ("dark_zurich", "val", miniature.make_dark_zurich, {"validation": 1}),
    ("acdc", "night", miniature.make_acdc, {"train": 2, "validation": 2}),
    ("nighttime_driving", "corrected", miniature.make_nighttime_driving, {"test": 2}),
    ("bdd100k_seg", "full", miniature.make_bdd100k, {"train": 2, "validation": 2}),
    ("bdd100k_night", "mgcda_list", miniature.make_bdd100k, {"test": 1}),
    ("nightcity", "plus", miniature.make_nightcity, {"train": 2, "validation": 1}),
    ("nexet", "all", miniature.make_nexet, {"train": 3}),
    ("gta5", "full", miniature.make_gta5, {"train": 2}),
    ("synthia", "full", miniature.make_synthia, {"train": 2}),
]


@pytest.mark.tf
@pytest.mark.parametrize("name,config,make,splits", CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_contract(name, config, make, splits, tmp_path):
    pytest.importorskip("tensorflow", reason="needs the export extra")
    make(tmp_path)
    module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")

    class Contract(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = module.Builder
        BUILDER_CONFIG_NAMES_TO_TEST = [config]
        EXAMPLE_DIR = str(tmp_path)
        SPLITS = splits
        SKIP_CHECKSUMS = True
        SKIP_TF1_GRAPH_MODE = True

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Contract)
    result = unittest.TextTestRunner().run(suite)
    assert result.testsRun > len(result.skipped)
    assert result.wasSuccessful(), result.failures + result.errors
