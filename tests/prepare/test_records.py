"""Image files and records: strict reading, mismatch rules, half sizes."""

import contextlib
import io

import cv2
import hypothesis
import numpy as np
import pytest
from PIL import Image

from nightjax.core.classes import CITYSCAPES
from nightjax.data import imagefiles
from nightjax.prepare.records import ExampleFiles, Recipe, encode_record

LABEL = np.kron(np.arange(8, dtype=np.uint8).reshape(2, 4), np.ones((8, 8), np.uint8))


def encoded(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def photo(size=(16, 32)):
    return np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)


@pytest.fixture
def record(tmp_path):
    """``record(label, image)`` saves both and returns the ExampleFiles."""

    def make(label=LABEL, image=None, **facts):
        (tmp_path / "image.png").write_bytes(encoded(photo() if image is None else image))
        (tmp_path / "label.png").write_bytes(encoded(label))
        return ExampleFiles("key", str(tmp_path / "image.png"), "id", str(tmp_path / "label.png"), **facts)

    return make


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_original_bytes_are_kept(record):
    outcome = encode_record(record(), Recipe())
    assert outcome.fault == "" and outcome.example["image"].endswith("image.png")  # a path: TFDS copies the bytes
    assert np.array_equal(decoded(outcome.example["label"]), LABEL)


def test_grey_and_alpha_photos_become_rgb(record):
    """Transparent pixels are laid on black, as everywhere."""
    gray = photo()[..., 0]
    rgba = np.dstack([photo(), np.arange(32, dtype=np.uint8) // 16 * np.full((16, 1), 255, np.uint8)])
    black = rgba[..., :3] * (rgba[..., 3:] // 255)
    for image, expected in ((gray, np.dstack([gray] * 3)), (rgba, black)):
        stored = encode_record(record(image=image), Recipe()).example["image"]
        assert np.array_equal(decoded(stored), expected)


def test_half_size(record):
    example = encode_record(record(), Recipe(divide_by=2)).example
    expected = photo().reshape(8, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(decoded(example["image"]) - expected).max() <= 0.5
    assert np.array_equal(decoded(example["label"]), LABEL[::2, ::2])
    assert example["class_pixels"].sum() == LABEL.size // 4


def test_size_mismatch_rules(record):
    twice = record(label=LABEL.repeat(2, 0).repeat(2, 1))
    assert encode_record(twice, Recipe()).fault == "label is 64x32, its image 32x16"
    assert np.array_equal(decoded(encode_record(twice, Recipe(mismatch="resize_label")).example["label"]), LABEL)
    cut = encode_record(record(label=LABEL[:14], image=photo((16, 30))), Recipe(mismatch="crop")).example
    assert decoded(cut["label"]).shape == (14, 30) and decoded(cut["image"]).shape == (14, 30, 3)


def test_nearest_resize_follows_the_floor_rule():
    label = np.arange(35, dtype=np.uint8).reshape(5, 7)
    small = imagefiles.resize_label(label, (2, 3))
    assert small.tolist() == [[0, 2, 4], [14, 16, 18]]


def test_palette_files_give_indices(tmp_path, record):
    made = record(label_encoding="label_ids")
    image = Image.fromarray(CITYSCAPES.to_ids[LABEL])
    image.putpalette(np.random.default_rng(0).integers(0, 255, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "label.png")
    outcome = encode_record(made, Recipe())
    stored = Image.open(io.BytesIO(outcome.example["label"]))
    assert stored.mode == "L" and np.array_equal(np.asarray(stored), LABEL)


def test_color_label_is_refused(record):
    assert encode_record(record(label=CITYSCAPES.colorize(LABEL)), Recipe()).fault.startswith("label is a color image")


def test_sixteen_bit_ids_above_255_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4, 3), 300, np.uint16))
    for read in (imagefiles.read_first_channel, imagefiles.read_indexed):
        with pytest.raises(imagefiles.BrokenFile):
            read(str(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_photos_are_refused(kind):
    data = encoded(photo(), kind)
    for keep in range(0, len(data) - 20, 7):  # the last bytes only close the file
        with pytest.raises(imagefiles.BrokenFile):
            imagefiles.read_image(data[:keep])


def test_damaged_headers_raise_nothing_else():
    strategies = hypothesis.strategies
    originals = [encoded(photo(), "PNG"), encoded(photo(), "JPEG"), encoded(LABEL)]
    edits = strategies.lists(strategies.tuples(strategies.integers(0, 200), strategies.integers(0, 255)), min_size=1)

    @hypothesis.settings(max_examples=150, deadline=None)
    @hypothesis.given(strategies.sampled_from(originals), edits)
    def check(original, edits):
        data = bytearray(original)
        for place, value in edits:
            data[place % len(data)] = value
        for read in (imagefiles.read_image, imagefiles.read_indexed):
            with contextlib.suppress(imagefiles.BrokenFile):
                assert read(bytes(data)).dtype == np.uint8

    check()


def test_decompression_bomb_is_refused():
    data = bytearray(encoded(photo()))
    data[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height in the header
    with pytest.raises(imagefiles.BrokenFile):
        imagefiles.read_image(bytes(data))


def test_missing_file_is_named(tmp_path):
    assert encode_record(ExampleFiles("key", str(tmp_path / "no.png"), "no"), Recipe()).fault == "image is missing"
