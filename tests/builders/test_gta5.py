"""GTA5: palette labels, unequal sizes, black frames, missing labels."""

import numpy as np

from tests.helpers import miniature


def test_reads_back_exactly(tmp_path, prepare, read):
    expected = miniature.make_gta5(tmp_path / "gta5")
    builder = prepare("gta5", "full", tmp_path)
    records = read(builder, "train")
    assert [record["image_id"] for record in records] == ["00001", "00002"]
    for record in records:
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]])
        assert np.array_equal(record["image"], miniature.scene(record["frame"]))
    report = builder.info.metadata
    assert report["splits"]["train"]["broken"] == {"00003": "image is of one color"}
    assert report["unmatched"] == ["00004 has no label"]


def test_many_records_are_prepared_in_worker_processes_in_order(tmp_path, prepare, read):
    for number in range(1, 71):
        miniature.save(tmp_path / f"images/{number:05d}.png", miniature.scene(number))
        miniature.save(
            tmp_path / f"labels/{number:05d}.png",
            miniature.label_ids(miniature.train_ids(number)),
            True,
        )
    records = read(prepare("gta5", "full", tmp_path), "train")
    assert [record["frame"] for record in records] == list(range(1, 71))
    assert np.array_equal(records[42]["label"][..., 0], miniature.train_ids(43))
