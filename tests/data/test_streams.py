"""Streams: layout, determinism, exact resume, equal global batches for any number of processes, evaluation batches."""

import dataclasses
import itertools
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from nightjax.core.errors import UserError
from nightjax.data.sampling import RareClass
from nightjax.data.sources import ListSource
from nightjax.data.streams import (
    Streams,
    StreamSpec,
    make_eval_batches,
    make_stream,
    prefetch,
    record_ids,
)

SPEC = StreamSpec("source", "in-memory", "all", crop=(16, 24), max_class_share=1.0)
PAIR = StreamSpec(
    "target", "in-memory", "all", crop=(16, 24), fields=("image", "reference", "flow", "flow_valid"), flip=True
)


def png(array):
    return cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)[1].tobytes()


def record(number, height=20, width=32):
    """Red is the record's number, green and blue the pixel's place; the reference and the label repeat it."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([np.full_like(rows, number), rows, columns], -1)
    return {
        "image_id": f"frame_{number}",
        "image": png(image),
        "label": png((rows + columns + number) % 19),
        "reference": png(image),
        "flow": np.stack([columns, rows], -1).astype(np.float32),
        "flow_valid": png((rows % 2).astype(np.uint8)),
    }


@pytest.fixture(scope="module")
def source():
    return ListSource([record(i) for i in range(7)])


def take(stream, count):
    batches = [next(stream) for _ in range(count)]
    stream.close()
    return batches


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_layout(source):
    [batch] = take(make_stream(source, SPEC, batch_size=4, seed=0), 1)
    layout = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
    assert layout == {
        "image": ((4, 16, 24, 3), "uint8"),
        "label": ((4, 16, 24), "uint8"),
        "mask": ((4,), "float32"),
        "index": ((4,), "int64"),
    }
    assert (batch["mask"] == 1).all()
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
    assert record_ids(source, batch["index"]) == [f"frame_{i}" for i in batch["index"]]


def test_label_follows_the_image(source):
    for batch in take(make_stream(source, SPEC, batch_size=4, seed=0), 3):
        np.testing.assert_array_equal(batch["label"], batch["image"].astype(int).sum(-1) % 19)


def test_pairs_share_crop_and_flip(source):
    flips = set()
    for batch in take(make_stream(source, PAIR, batch_size=4, seed=0), 5):
        np.testing.assert_array_equal(batch["image"], batch["reference"])
        rows, columns = batch["image"][..., 1], batch["image"][..., 2]
        np.testing.assert_array_equal(batch["flow_valid"], rows % 2 == 1)
        np.testing.assert_array_equal(batch["flow"][..., 1], rows)
        for example, sign in zip(columns.astype(int), batch["flow"][..., 0], strict=True):
            flipped = example[0, 0] > example[0, 1]
            flips.add(bool(flipped))
            np.testing.assert_array_equal(sign, -example if flipped else example)
    assert flips == {True, False}


def test_every_epoch_shows_every_record_once(source):
    order = np.concatenate([batch["index"] for batch in take(make_stream(source, SPEC, batch_size=7, seed=0), 3)])
    for epoch in order.reshape(3, 7):
        assert sorted(epoch) == list(range(7))


def test_a_source_smaller_than_the_batch_repeats():
    source = ListSource([record(0), record(1)])
    [batch] = take(make_stream(source, SPEC, batch_size=6, seed=0), 1)
    assert sorted(batch["index"]) == [0, 0, 0, 1, 1, 1]


def test_seed_and_name_decide_the_order(source):
    def order(seed, name="source"):
        spec = dataclasses.replace(SPEC, name=name)
        return np.stack([b["index"] for b in take(make_stream(source, spec, batch_size=4, seed=seed), 6)]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, "target")


def test_resize_and_scale(source):
    spec = dataclasses.replace(SPEC, resize=(10, 16), crop=(10, 16), flip=False)
    [batch] = take(make_stream(source, spec, batch_size=2, seed=0), 1)
    expected = cv2.resize(cv2.imdecode(np.frombuffer(source[int(batch["index"][0])]["image"], np.uint8), 1), (16, 10))
    np.testing.assert_array_equal(batch["image"][0], expected[..., ::-1])
    smooth = dataclasses.replace(spec, antialias=True)
    [batch] = take(make_stream(source, smooth, batch_size=2, seed=0), 1)
    image = cv2.imdecode(np.frombuffer(source[int(batch["index"][0])]["image"], np.uint8), 1)[..., ::-1]
    np.testing.assert_array_equal(batch["image"][0], Image.fromarray(image).resize((16, 10), Image.Resampling.BILINEAR))
    [scaled] = take(make_stream(source, dataclasses.replace(SPEC, scale_range=(0.5, 0.6)), batch_size=2, seed=0), 1)
    assert (scaled["label"] == 255).any(axis=(1, 2)).all()  # Smaller than the crop, so padded.


@pytest.mark.parametrize("rare", [None, RareClass(temperature=0.1, min_pixels=20)])
def test_any_number_of_processes_sees_the_same_global_batches(source, rare):
    spec = dataclasses.replace(SPEC, rare_class=rare)
    whole = take(make_stream(source, spec, batch_size=4, seed=0), 5)
    for count in (2, 4):
        parts = [
            take(make_stream(source, spec, batch_size=4, seed=0, process_index=p, process_count=count), 5)
            for p in range(count)
        ]
        joined = [
            {key: np.concatenate([part[step][key] for part in parts]) for key in whole[step]} for step in range(5)
        ]
        assert_equal(joined, whole)


@pytest.mark.parametrize("threads", [1, 3])
def test_resume_equals_an_uninterrupted_run(source, threads):
    whole = take(make_stream(source, SPEC, batch_size=4, seed=0), 8)
    stream = make_stream(source, SPEC, batch_size=4, seed=0, threads=threads)
    assert_equal([next(stream) for _ in range(3)], whole[:3])
    state = json.loads(json.dumps(stream.get_state()))
    stream.close()
    resumed = make_stream(source, SPEC, batch_size=4, seed=0)
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_equal(take(resumed, 5), whole[3:])


def test_state_can_move_backwards_and_between_process_counts(source):
    stream = make_stream(source, SPEC, batch_size=4, seed=0)
    first = [next(stream) for _ in range(4)]
    stream.set_state({"next_index": 1})
    assert_equal(take(stream, 3), first[1:])
    half = make_stream(source, SPEC, batch_size=4, seed=0, process_index=1, process_count=2)
    half.set_state({"next_index": 3})
    assert_equal(take(half, 1), [{key: value[2:] for key, value in first[3].items()}])


def test_worker_processes_change_nothing(source):
    whole = take(make_stream(source, PAIR, batch_size=4, seed=0), 7)
    stream = make_stream(source, PAIR, batch_size=4, seed=0, workers=2)
    assert_equal([next(stream) for _ in range(3)], whole[:3])
    state = stream.get_state()
    stream.close()
    resumed = make_stream(source, PAIR, batch_size=4, seed=0, workers=1)
    resumed.set_state(state)
    assert_equal(take(resumed, 4), whole[3:])


def test_a_user_error_in_a_worker_arrives_as_one():
    bad = record(0) | {"label": png(np.full((20, 32), 19, np.uint8))}
    stream = make_stream(ListSource([bad]), SPEC, batch_size=1, seed=0, workers=1)
    with pytest.raises(UserError, match="'frame_0': label id 19"):
        next(stream)
    stream.close()


def test_prefetch_reads_ahead_but_its_state_does_not(source):
    def open_both():
        pair = dataclasses.replace(PAIR, name="target")
        return Streams(
            {
                "source": make_stream(source, SPEC, batch_size=4, seed=0),
                "target": make_stream(source, pair, batch_size=2, seed=0),
            }
        )

    plain = open_both()
    whole = [next(plain) for _ in range(8)]
    plain.close()
    ahead = prefetch(open_both(), lambda batch: {**batch, "put": True}, depth=3)
    assert {name: part["next_index"] for name, part in ahead.get_state().items()} == {"source": 0, "target": 0}
    for expected in whole[:4]:
        batch = next(ahead)
        assert batch.pop("put")
        assert_equal([batch["source"], batch["target"]], [expected["source"], expected["target"]])
    state = json.loads(json.dumps(ahead.get_state()))
    assert {name: part["next_index"] for name, part in state.items()} == {"source": 4, "target": 4}
    ahead.close()
    resumed = prefetch(open_both(), lambda batch: batch)
    resumed.set_state(state)
    assert_equal([next(resumed)["target"] for _ in range(4)], [batch["target"] for batch in whole[4:]])
    resumed.close()
    resumed.close()


def test_a_state_of_another_order_is_refused(source):
    stream = make_stream(source, SPEC, batch_size=4, seed=0)
    state = stream.get_state()
    order = state["order"]
    for change, message in (
        (
            {"grain": "0.0.1", "sha256": "0"},
            r"saved with grain 0\.0\.1 .*'source'.* pip install grain==0\.0\.1 numpy==",
        ),
        (
            {"numpy": "1.0", "sha256": "0"},
            r"and numpy 1\.0; grain .* another order: pip install .*numpy==1\.0 to continue",
        ),
        ({"records": 8}, "'source' had 8 records when the checkpoint was saved and has 7 now: restore the data set"),
        ({"sha256": "0"}, "'source' does not draw the records .* restore the data set, or start again"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            stream.set_state({"next_index": 3, "order": order | change})
        assert "\n" not in str(refused.value)
    assert stream.get_state() == state


def test_another_version_of_the_same_order_continues(source):
    stream = make_stream(source, SPEC, batch_size=4, seed=0)
    whole = take(stream, 5)
    order = stream.get_state()["order"]
    for changed in (
        {"order": order | {"grain": "99.0", "numpy": "99.0"}},
        {},
    ):  # The latter as saved before there was one.
        stream.set_state({"next_index": 3} | changed)
        assert_equal(take(stream, 2), whole[3:])
        assert stream.get_state() == {"next_index": 5, "order": order}


def test_an_error_arrives_through_prefetch():
    bad = record(0) | {"image": b"nothing"}
    ahead = prefetch(make_stream(ListSource([bad]), SPEC, batch_size=1, seed=0), lambda batch: batch)
    with pytest.raises(UserError, match="frame_0"):
        next(ahead)
    ahead.close()


def test_state_of_other_streams_is_refused(source):
    streams = Streams({"source": make_stream(source, SPEC, batch_size=4, seed=0)})
    with pytest.raises(UserError, match="source.*target|target.*source"):
        streams.set_state({"source": {"next_index": 1}, "target": {"next_index": 1}})


def test_rare_class_crops_keep_their_class():
    """Class 5 sits in one corner; a plain crop misses it most of the time."""
    label = np.zeros((64, 64), np.uint8)
    label[:12, :12] = 5
    rows = [{"image_id": str(i), "image": png(np.zeros((64, 64, 3), np.uint8)), "label": png(label)} for i in range(3)]
    plain = StreamSpec("source", "in-memory", "all", crop=(32, 32), max_class_share=1.0)
    rare = dataclasses.replace(plain, rare_class=RareClass(temperature=0.01, min_pixels=100, crop_ratio=0.5))

    def share(spec):
        batches = take(make_stream(ListSource(rows), spec, batch_size=20, seed=0), 5)
        return np.mean([(batch["label"] == 5).sum((1, 2)) > 50 for batch in batches])

    assert share(plain) < 0.15 and share(rare) > 3 * share(plain) + 0.1


def test_crops_of_one_class_are_drawn_again():
    label = np.zeros((32, 256), np.uint8)
    label[:, 128:] = 1
    source = ListSource([{"image_id": "a", "image": png(np.zeros((32, 256, 3), np.uint8)), "label": png(label)}])

    def mixed(share):
        spec = StreamSpec("source", "in-memory", "all", crop=(32, 32), max_class_share=share)
        [batch] = take(make_stream(source, spec, batch_size=60, seed=0), 1)
        return np.mean([len(np.unique(crop)) == 2 for crop in batch["label"]])

    assert mixed(1.0) < 0.3 < mixed(0.75)


@pytest.mark.parametrize("count", [1, 2])
def test_eval_batches_cover_everything_once(count):
    sizes = [(20, 32)] * 5 + [(12, 16)] + [(20, 32)] * 2
    source = ListSource([record(i, *size) for i, size in enumerate(sizes)])
    parts = [
        list(make_eval_batches(source, 4, process_index=p, process_count=count, threads=1 + p)) for p in range(count)
    ]
    assert len({len(part) for part in parts}) == 1
    batches = [{k: np.concatenate([part[i][k] for part in parts]) for k in parts[0][i]} for i in range(len(parts[0]))]
    assert [b["index"].tolist() for b in batches] == [[0, 1, 2, 3], [4, 6, 7, -1], [5, -1, -1, -1]]
    assert [b["image"].shape for b in batches] == [(4, 20, 32, 3)] * 2 + [(4, 12, 16, 3)]
    for batch in batches:
        real = batch["index"] >= 0
        np.testing.assert_array_equal(batch["mask"], real.astype(np.float32))
        np.testing.assert_array_equal(batch["image"][real, 0, 0, 0], batch["index"][real])
        assert (batch["label"][~real] == 255).all() and (batch["image"][~real] == 0).all()
    assert record_ids(source, batches[1]["index"]) == ["frame_4", "frame_6", "frame_7", ""]


def test_eval_batches_at_a_given_size():
    source = ListSource([record(0, 20, 32), record(1, 12, 16), record(2, 20, 32)])
    batches = list(make_eval_batches(source, 2, size=(10, 16), fields=("image", "label", "flow", "flow_valid")))
    assert [b["image"].shape for b in batches] == [(2, 10, 16, 3)] * 2
    assert batches[1]["flow"].dtype == np.float32 and batches[1]["flow_valid"].dtype == bool
    np.testing.assert_array_equal(batches[1]["mask"], [1, 0])


def test_wrong_requests_are_user_errors(source):
    empty = ListSource([])
    for make in (
        lambda s, b, **k: make_stream(s, SPEC, batch_size=b, seed=0, **k),
        lambda s, b, **k: make_eval_batches(s, b, **k),
    ):
        with pytest.raises(UserError, match="no records"):
            make(empty, 4)
        for batch_size, count in ((3, 2), (0, 1), (-1, 1)):
            with pytest.raises(UserError, match="does not divide" if batch_size > 0 else "must be 1 or more"):
                make(source, batch_size, process_count=count)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": ("image", "lable")}, "unknown field 'lable'.*'label'"),
        ({"fields": ("label", "image")}, "first field must be 'image'"),
        ({"fields": ()}, "first field must be 'image'"),
        ({"fields": ("image",), "rare_class": RareClass()}, "needs the field 'label'"),
        ({"crop": (0, 0)}, r"stream 'source': crop=\(0, 0\) must be \(height, width\)"),
        ({"crop": (16, -24)}, "crop="),
        ({"crop": (16,)}, "crop="),
        ({"crop": None}, "crop=None"),
        ({"crop": (16.0, 24.0)}, "whole pixels"),
        ({"resize": (0, 24)}, "resize="),
        ({"crop_resize": (-1, -1)}, "crop_resize="),
        ({"scale_range": (2.0, 0.5)}, "scale_range=.*smallest, largest"),
        ({"scale_range": (0.0, 1.0)}, "scale_range="),
        ({"scale_range": (-1.0, 1.0)}, "scale_range="),
        ({"scale_range": (1.0, float("inf"))}, "scale_range="),
        ({"scale_range": (float("nan"), 1.0)}, "scale_range="),
        ({"max_class_share": 0.0}, "max_class_share=0.0"),
        ({"max_class_share": 75.0}, "max_class_share=75.0"),
        ({"misaligned": 4.0}, "misaligned=4.0 must be a share"),
        ({"misaligned": -0.1}, "misaligned=-0.1"),
        ({"misaligned": float("nan")}, "misaligned=nan"),
        ({"misaligned": 0.1}, "'reference', which is not read"),
    ],
)
def test_wrong_specs_are_user_errors(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SPEC, **change)


@pytest.mark.parametrize("change", [{"min_pixels": -1}, {"crop_ratio": -0.5}, {"crop_ratio": float("nan")}])
def test_wrong_rules_of_rare_classes_are_user_errors(change):
    (key,) = change
    with pytest.raises(UserError, match=f"{key} is .*; give 0 or more"):
        RareClass(**change)


def test_misaligned_references_move_by_that_share(source):
    """A quarter of 32 columns to either side, the same every time; blue is the column of a pixel."""
    spec = dataclasses.replace(PAIR, crop=(20, 32), flip=False, misaligned=0.25)
    batches = take(make_stream(source, spec, batch_size=7, seed=3), 4)
    columns = np.concatenate([batch["reference"][:, 0, :, 2].astype(int) for batch in batches])
    left, right = np.clip(np.arange(32) + 8, 0, 31), np.clip(np.arange(32) - 8, 0, 31)
    moved = [(row == left).all() - 1.0 * (row == right).all() for row in columns]
    assert set(moved) == {-1.0, 1.0} and abs(sum(moved)) < 16
    assert_equal(batches, take(make_stream(source, spec, batch_size=7, seed=3), 4))
    for batch in batches:
        np.testing.assert_array_equal(batch["image"][:, 0, :, 2], np.broadcast_to(np.arange(32), (7, 32)))


def test_reading_ahead_is_bounded(source):
    """A slow consumer does not make the stream decode the whole future."""

    class Counting(ListSource):
        reads = itertools.count()

        def __getitem__(self, index):
            next(self.reads)
            return super().__getitem__(index)

    counting = Counting([source[i] for i in range(7)])
    take(make_stream(counting, SPEC, batch_size=4, seed=0, threads=2), 2)
    assert next(counting.reads) <= 4 * (2 + 4 + 2)
