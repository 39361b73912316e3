"""The Beam path writes the same records as the ordinary one."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.helpers import miniature

beam = pytest.importorskip("apache_beam", reason="needs the beam extra")


def test_direct_runner(tmp_path, read):
    from tfds_builders.gta5.gta5_dataset_builder import Builder

    expected = miniature.make_gta5(tmp_path / "gta5")
    builder = Builder(config="full", data_dir=tmp_path / "prepared", file_format="array_record")
    options = beam.options.pipeline_options.PipelineOptions(["--direct_running_mode=in_memory"])
    config = tfds.download.DownloadConfig(manual_dir=str(tmp_path), beam_runner="DirectRunner", beam_options=options)
    builder.download_and_prepare(download_config=config)
    records = read(builder, "train")
    assert [record["image_id"] for record in records] == ["00001", "00002"]
    for record in records:
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]])
    assert builder.info.metadata["notes"] == ["train: prepared by Beam, 1 of 3 records left out"]
