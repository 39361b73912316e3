# SPDX-License-Identifier: Apache-2.0
"""TFDS builders, one package a data set.

``import tfds_builders`` makes every data set of `BUILDERS` known to TFDS by its name. A builder's module is imported
when its data set is first asked for. nightjax finds the table by the entry point ``nightjax.datasets`` in setup.cfg,
so a new data set is one folder here and one line below.
"""

import importlib

import tensorflow_datasets as tfds

BUILDERS = {
    "acdc": "tfds_builders.acdc.acdc_dataset_builder",
    "bdd100k_night": "tfds_builders.bdd100k_night.bdd100k_night_dataset_builder",
    "bdd100k_seg": "tfds_builders.bdd100k_seg.bdd100k_seg_dataset_builder",
    "camvid": "tfds_builders.camvid.camvid_dataset_builder",
    "cityscapes_seg": "tfds_builders.cityscapes_seg.cityscapes_seg_dataset_builder",
    "dark_zurich": "tfds_builders.dark_zurich.dark_zurich_dataset_builder",
    "gta5": "tfds_builders.gta5.gta5_dataset_builder",
    "nexet": "tfds_builders.nexet.nexet_dataset_builder",
    "nightcity": "tfds_builders.nightcity.nightcity_dataset_builder",
    "nightstreet": "tfds_builders.nightstreet.nightstreet_dataset_builder",
    "nighttime_driving": "tfds_builders.nighttime_driving.nighttime_driving_dataset_builder",
    "synthia": "tfds_builders.synthia.synthia_dataset_builder",
}
"""Data set to the module whose ``Builder`` prepares it."""


class _Provider:
    """Lets TFDS find a builder by the name of its data set without importing the others."""

    def has_dataset(self, name: str) -> bool:
        return name in BUILDERS

    def get_builder_cls(self, name: str) -> type[tfds.core.DatasetBuilder]:
        return importlib.import_module(BUILDERS[name]).Builder


# First in line: TFDS would otherwise import all of its own builders to see whether one of them has the name.
tfds.core.add_dataset_builder_provider(_Provider(), index=0)
