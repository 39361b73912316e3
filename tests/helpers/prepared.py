"""Fixtures that prepare a data set with its TFDS builder and read it back."""

import importlib

import pytest
import tensorflow_datasets as tfds


@pytest.fixture
def prepare(tmp_path):
    """``prepare("acdc", "night", manual_dir)`` builds and returns the TFDS builder."""

    def run(name, config, manual_dir):
        module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
        builder = module.Builder(config=config, data_dir=tmp_path / "prepared", file_format="array_record")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir)))
        return builder

    return run


@pytest.fixture
def read():
    """``read(builder, split)`` decodes every record; Text comes back as str."""

    def run(builder, split):
        source = builder.as_data_source(split=split)
        return [
            {key: value.decode() if isinstance(value, bytes) else value for key, value in source[i].items()}
            for i in range(len(source))
        ]

    return run
