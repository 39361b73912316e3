"""One decoder of labels: the values in the file, or a refusal."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from nightjax.data.containers import BrokenFile
from nightjax.data.label_images import decode_label
from tests.helpers.odd_files import encoded, gray_png, gray_tiff, palette_png

VALUES = np.array([[0, 1, 2, 3, 1], [3, 2, 1, 0, 0]])
COLORS = np.stack([VALUES * 40, VALUES * 7, 255 - VALUES], -1).astype(np.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_values_at_any_depth(bits):
    values = VALUES % 2**bits
    label = decode_label(gray_png(values, bits))
    np.testing.assert_array_equal(label.values, values)
    assert label.form == "gray" and label.values.dtype in (np.uint8, np.uint16)
    if bits < 16:
        for white_is_zero in (False, True):
            np.testing.assert_array_equal(decode_label(gray_tiff(values, bits, white_is_zero)).values, values)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_indices_of_a_palette_at_any_depth(bits):
    label = decode_label(palette_png(VALUES, [9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200], bits))
    np.testing.assert_array_equal(label.values, VALUES)
    assert label.form == "palette" and label.colors[0, 1].tolist() == [200, 0, 0]


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_every_lossless_format(form):
    gray = np.tile(VALUES.astype(np.uint8), (4, 4))
    if form == "WEBP":
        data = encoded(np.repeat(gray[..., None], 3, -1), form, lossless=True)
    else:
        data = encoded(gray, form)
    np.testing.assert_array_equal(decode_label(data).values, gray)


def test_three_equal_channels_are_one():
    gray = VALUES.astype(np.uint8)
    opaque = np.full(gray.shape, 255, np.uint8)
    for channels in ([gray] * 3, [gray] * 3 + [opaque]):
        label = decode_label(encoded(np.stack(channels, -1)))
        np.testing.assert_array_equal(label.values, VALUES)
        assert label.form == "color"
    deep = np.repeat(gray[..., None].astype(np.uint16) + 300, 3, -1)
    np.testing.assert_array_equal(decode_label(cv2.imencode(".png", deep)[1].tobytes()).values, VALUES + 300)


def test_colors():
    for form in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode_label(encoded(COLORS, form)).values, COLORS)


def test_orientation_is_applied_as_to_photos():
    np.testing.assert_array_equal(decode_label(encoded(COLORS, "PNG", 6)).values, np.rot90(COLORS, -1))
    np.testing.assert_array_equal(decode_label(encoded(COLORS, "TIFF", 3)).values, COLORS[::-1, ::-1])


def jpeg_in_tiff():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, "TIFF", compression="jpeg")
    return buffer.getvalue()


def two_pages():
    buffer = io.BytesIO()
    pages = [Image.fromarray(np.full((4, 4), k, np.uint8)) for k in (1, 2)]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encoded(COLORS, "JPEG"), "is a JPEG, whose compression changes label values"),
        (encoded(np.zeros((9, 9), np.uint8), "JPEG", quality=100), "is a JPEG"),
        (encoded(COLORS, "WEBP"), "is a lossy WebP"),
        (jpeg_in_tiff(), "TIFF with JPEG compression"),
        (two_pages(), "has 2 pages"),
        (encoded(np.dstack([COLORS, np.full((2, 5), 128, np.uint8)])), "transparent"),
        (encoded(np.ones((4, 4), np.float32), "TIFF"), "kind F"),
        (encoded(COLORS, "PPM"), "PGM or PPM"),
        (encoded(COLORS)[:-20], "truncated"),
        (b"", "empty"),
    ],
)
def test_what_is_refused(data, words):
    with pytest.raises(BrokenFile, match=words):
        decode_label(data)


def test_colors_of_16_bits_are_refused():
    deep = COLORS.astype(np.uint16) * 256
    with pytest.raises(BrokenFile, match="16 bits"):
        decode_label(cv2.imencode(".png", deep)[1].tobytes())
