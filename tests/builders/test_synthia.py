"""SYNTHIA: the id is in the red channel of a 16-bit file."""

import numpy as np

from tests.helpers import miniature


def test_reads_back_exactly(tmp_path, prepare, read):
    expected = miniature.make_synthia(tmp_path / "RAND_CITYSCAPES")
    records = read(prepare("synthia", "full", tmp_path), "train")
    assert [record["frame"] for record in records] == [0, 1]
    for record in records:
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]])
