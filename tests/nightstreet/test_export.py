"""NightStreet written as Dark Zurich comes back through Dark Zurich's builder."""

import subprocess
import sys

import numpy as np
import tensorflow_datasets as tfds

from nightjax.nightstreet.examples import example
from tests.helpers.places import ROOT
from tfds_builders.dark_zurich.dark_zurich_dataset_builder import Builder


def read(config, manual_dir, data_dir):
    builder = Builder(config=config, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir)))
    return builder.as_data_source()


def test_round_trip(tmp_path):
    command = [sys.executable, "-m", "scripts.export_nightstreet", f"--output={tmp_path}", "--preset=tiny"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "16 pairs, 4 labeled nights" in done.stdout, done.stderr
    pairs = read("pairs", tmp_path, tmp_path / "prepared")["train"]
    assert len(pairs) == 16
    by_frame = {record["frame"]: record for record in (pairs[i] for i in range(16))}
    for index in (0, 15):
        drawn = example("target_pairs", index, size=(64, 128))
        assert np.array_equal(by_frame[index]["image"], drawn["image"])
        assert np.array_equal(by_frame[index]["reference"], drawn["reference"])
    validation = read("val", tmp_path, tmp_path / "prepared")["validation"]
    first = next(record for record in (validation[i] for i in range(4)) if record["frame"] == 0)
    drawn = example("val_night", 0, size=(64, 128))
    assert np.array_equal(first["label"][..., 0], drawn["label"])
    assert np.array_equal(first["invalid"][..., 0], drawn["invalid"])
