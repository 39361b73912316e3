"""Decoding, checking, resizing, cropping and flipping keep the fields of an example aligned."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from nightjax.core.errors import UserError
from nightjax.data import transforms


def png(array):
    return cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)[1].tobytes()


def palette_png(label):
    image = Image.fromarray(label)
    image.putpalette(list(range(255, -1, -1)) * 3)
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def example():
    """Every field encodes the pixel's own place, so that any misalignment shows."""
    rows, columns = np.mgrid[:12, :20]
    label = ((rows + columns) % 19).astype(np.uint8)
    image = np.stack([rows, columns, label], -1).astype(np.uint8)
    flow = np.stack([columns, rows], -1).astype(np.float32)
    return {"image": image, "label": label, "reference": image + 1, "flow": flow, "flow_valid": label != 0}


def assert_aligned(example):
    rows, columns = (example["image"][..., i].astype(int) for i in (0, 1))
    np.testing.assert_array_equal(example["label"], example["image"][..., 2])
    np.testing.assert_array_equal(example["label"], (rows + columns) % 19)
    np.testing.assert_array_equal(example["reference"], example["image"] + 1)
    np.testing.assert_array_equal(np.abs(example["flow"]), np.stack([columns, rows], -1))
    np.testing.assert_array_equal(example["flow_valid"], example["label"] != 0)


def test_decode_reads_every_field(example):
    record = {
        "image_id": "a",
        "image": png(example["image"]),
        "label": png(example["label"]),
        "reference": png(example["reference"]),
        "flow": example["flow"],
        "flow_valid": png(example["flow_valid"].astype(np.uint8)),
    }
    decoded = transforms.decode(record, ("image", "label", "reference", "flow", "flow_valid"))
    for field, value in example.items():
        assert decoded[field].dtype == value.dtype
        np.testing.assert_array_equal(decoded[field], value)


def test_grey_alpha_and_16_bit_images_become_rgb():
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(transforms.decode_image(png(gray)), np.repeat(gray[..., None], 3, -1))
    bgra = np.zeros((3, 4, 4), np.uint8)
    bgra[..., 0], bgra[..., 3] = 9, 128
    assert transforms.decode_image(cv2.imencode(".png", bgra)[1].tobytes())[0, 0].tolist() == [0, 0, 5]  # On black.
    deep = np.full((3, 4), 200 << 8, np.uint16)
    assert (transforms.decode_image(cv2.imencode(".png", deep)[1].tobytes()) == 200).all()


def test_palette_label_gives_indices():
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(transforms.decode_label(palette_png(label)), label)


def test_sixteen_bit_labels_are_read_when_they_fit():
    label = np.array([[0, 18], [255, 3]], np.uint16)
    np.testing.assert_array_equal(transforms.decode_label(png(label)), label)
    with pytest.raises(UserError, match="holds 300"):
        transforms.decode_label(png(label + np.uint16(45)))


@pytest.mark.parametrize("damage", ["half", "tail", "text", "empty"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("field", ["image", "label"])
def test_damaged_files_are_named(damage, suffix, field):
    whole = cv2.imencode(suffix, np.random.default_rng(0).integers(0, 19, (64, 64), np.uint8))[1].tobytes()
    data = {"half": whole[: len(whole) // 2], "tail": whole[:-20], "text": b"<html>not found", "empty": b""}[damage]
    blank = {"image": png(np.zeros((64, 64, 3), np.uint8)), "label": png(np.zeros((64, 64), np.uint8))}
    with pytest.raises(UserError, match="frame_7"):
        transforms.decode({"image_id": "frame_7"} | blank | {field: data}, ("image", "label"))


def test_corrupt_content_with_an_end_marker_is_an_error():
    data = bytearray(png(np.random.default_rng(0).integers(0, 19, (64, 64), np.uint8)))
    data[12:30] = b"\0" * 18
    for decode in (transforms.decode_image, transforms.decode_label):
        with pytest.raises(UserError, match="damaged"):
            decode(bytes(data), "x")


@pytest.mark.parametrize("value", [19, 33, 254])
def test_wrong_label_value_is_named(value):
    label = np.zeros((4, 4), np.uint8)
    label[1, 2] = value
    with pytest.raises(UserError, match=f"'frame_7': label id {value} "):
        transforms.decode({"image_id": "frame_7", "label": png(label)}, ("label",))


def test_size_mismatch_missing_field_and_color_label():
    record = {"image_id": "a", "image": png(np.zeros((4, 6, 3), np.uint8)), "label": png(np.zeros((4, 5), np.uint8))}
    with pytest.raises(UserError, match="label is 5x4 pixels but image is 6x4"):
        transforms.decode(record, ("image", "label"))
    with pytest.raises(UserError, match="'a' has no 'reference'"):
        transforms.decode(record, ("image", "reference"))
    with pytest.raises(UserError, match="color"):
        transforms.decode(record | {"label": png(np.full((4, 6, 3), [1, 2, 3], np.uint8))}, ("image", "label"))


def test_image_size_agrees_with_decoding():
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(buffer, "jpeg", exif=exif)
        data = buffer.getvalue()
        assert transforms.image_size({"image": data}) == transforms.decode_image(data).shape[:2]


def test_resize_follows_opencv_and_scales_flow(example):
    half = transforms.resize(example, (6, 10))
    np.testing.assert_array_equal(half["image"], cv2.resize(example["image"], (10, 6), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_array_equal(half["label"], example["label"][::2, ::2])
    np.testing.assert_array_equal(half["flow_valid"], example["flow_valid"][::2, ::2])
    assert half["flow_valid"].dtype == bool
    # The mean of columns 0 and 1, halved in length.
    np.testing.assert_allclose(half["flow"][0, 0], [0.25, 0.25])
    wide = transforms.resize({"image": example["image"], "flow": np.ones((12, 20, 2), np.float32)}, (12, 60))
    np.testing.assert_allclose(wide["flow"], np.broadcast_to([3.0, 1.0], (12, 60, 2)))


def test_antialiased_resize_follows_pillow(example):
    stripes = np.zeros((12, 20, 3), np.uint8)
    stripes[:, ::4] = 255
    pillow = lambda size: np.asarray(Image.fromarray(stripes).resize(size, Image.Resampling.BILINEAR))
    half = transforms.resize(example | {"image": stripes}, (6, 5), antialias=True)
    np.testing.assert_array_equal(half["image"], pillow((5, 6)))
    assert (half["image"] != transforms.resize({"image": stripes}, (6, 5))["image"]).any()
    np.testing.assert_array_equal(
        half["label"], Image.fromarray(example["label"]).resize((5, 6), Image.Resampling.NEAREST)
    )
    scaled = transforms.random_scale({"image": stripes}, (0.5, 0.5), np.random.default_rng(0), antialias=True)
    np.testing.assert_array_equal(scaled["image"], pillow((10, 6)))


def test_crop_is_shared_and_reaches_every_place(example):
    tops, lefts = set(), set()
    for seed in range(200):
        crop = transforms.random_crop(example, (8, 16), np.random.default_rng(seed))
        assert crop["image"].shape == (8, 16, 3)
        assert_aligned(crop)
        tops.add(int(crop["image"][0, 0, 0]))
        lefts.add(int(crop["image"][0, 0, 1]))
    assert tops == lefts == set(range(5))


def test_small_images_are_padded(example):
    crop = transforms.random_crop(example, (16, 24), np.random.default_rng(0))
    assert all(value.shape[:2] == (16, 24) for value in crop.values())
    np.testing.assert_array_equal(crop["image"][:12, :20], example["image"])
    assert (crop["image"][12:] == 0).all()
    assert (crop["label"][12:] == 255).all() and (crop["label"][:, 20:] == 255).all()
    assert not crop["flow_valid"][:, 20:].any()


def test_flip_mirrors_everything_and_turns_flow_around(example):
    flipped = transforms.flip(example)
    assert_aligned(flipped)
    np.testing.assert_array_equal(flipped["image"], example["image"][:, ::-1])
    np.testing.assert_array_equal(flipped["flow"][..., 0], -example["flow"][:, ::-1, 0])
    np.testing.assert_array_equal(flipped["flow"][..., 1], example["flow"][:, ::-1, 1])
    twice = transforms.flip(flipped)
    for field, value in example.items():
        np.testing.assert_array_equal(twice[field], value)


def test_flipped_flow_still_points_at_the_same_content():
    """If image(p) = reference(p + flow), so it is after the flip."""
    reference = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    image = np.roll(reference, -2, axis=1)  # image(x) = reference(x + 2)
    flow = np.zeros((6, 9, 2), np.float32)
    flow[..., 0] = 2
    flipped = transforms.flip({"image": image, "reference": reference, "flow": flow})
    for x in range(2, 9):
        target = x + int(flipped["flow"][0, x, 0])
        np.testing.assert_array_equal(flipped["image"][:, x], flipped["reference"][:, target])


@pytest.mark.parametrize("pixels", [3, -2, 0])
def test_a_shifted_reference_has_a_shifted_flow(pixels):
    """If image(p) = reference(p + flow), so it is after the shift, wherever the flow stays inside."""
    reference = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    example = {"image": reference, "reference": reference}
    example |= {"flow": np.zeros((6, 9, 2), np.float32), "flow_valid": np.ones((6, 9), bool)}
    example["flow_valid"][2] = False
    shifted = transforms.shift_reference(example, pixels)
    assert (shifted["flow"] == (pixels, 0)).all() and not shifted["flow_valid"][2].any()
    assert shifted["flow_valid"][0].sum() == 9 - abs(pixels)
    for x in np.flatnonzero(shifted["flow_valid"][0]):
        np.testing.assert_array_equal(shifted["image"][:, x], shifted["reference"][:, x + pixels])
    edge = reference[:, :1] if pixels > 0 else reference[:, -1:]
    outside = shifted["reference"][:, :pixels] if pixels > 0 else shifted["reference"][:, 9 + pixels :]
    assert (outside == edge).all() and (shifted["image"] == reference).all()


def test_mixed_classes_rule():
    label = np.full((10, 10), 255, np.uint8)
    assert not transforms.has_mixed_classes(label)
    label[0] = 3
    assert not transforms.has_mixed_classes(label)
    label[1, :3] = 4  # 10 of 13 labeled pixels: 77 %
    assert not transforms.has_mixed_classes(label)
    label[1, 3] = 5  # 10 of 14: 71 %
    assert transforms.has_mixed_classes(label)
    label[1, :4] = [4, 4, 4, 255]
    label[0, 1:] = [3, 3, 3, 3, 3, 3, 3, 3, 4]  # 9 of 13
    assert transforms.has_mixed_classes(label)


def test_share_of_exactly_three_quarters_is_refused():
    assert not transforms.has_mixed_classes(np.array([[1, 1, 1, 2]], np.uint8))


def test_crop_is_drawn_again_until_accepted():
    label = np.zeros((8, 200), np.uint8)
    label[:, 100:] = 1
    example = {"image": np.zeros((8, 200, 3), np.uint8), "label": label}
    seen = []

    def accept(window):
        seen.append(window)
        return len(seen) == 4

    transforms.random_crop(example, (8, 8), np.random.default_rng(0), accept=accept)
    assert len(seen) == 4
    seen.clear()
    last = transforms.random_crop(example, (8, 8), np.random.default_rng(0), accept=lambda w: seen.append(w))
    assert len(seen) == 11 and last["label"].shape == (8, 8)
    shares = [
        transforms.has_mixed_classes(
            transforms.random_crop(example, (8, 40), np.random.default_rng(seed), accept=transforms.has_mixed_classes)[
                "label"
            ]
        )
        for seed in range(100)
    ]
    assert np.mean(shares) > 0.6  # One draw in eight alone; 1 - (7/8)^11 = 77 % with retries.


def test_random_scale_stays_in_range(example):
    for seed in range(20):
        scaled = transforms.random_scale(example, (0.5, 2.0), np.random.default_rng(seed))
        height, width = scaled["label"].shape
        assert 6 <= height <= 24 and 10 <= width <= 40 and abs(height / 12 - width / 20) < 0.1
