"""One decoder of photos: orientation, alpha, depth, formats, and files that are not whole."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from nightjax.data import containers, photos
from nightjax.data.containers import BrokenFile
from tests.helpers.odd_files import chunk, encoded, gray_png

PIXELS = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 61, 3)).astype(np.uint8), (0, 0), 2)
MOVIE = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_applied_in_every_format(form, orientation):
    data = encoded(PIXELS, form, orientation, **({"lossless": True} if form == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(photos.decode_photo(data), expected)
    header = containers.read_header(data)
    assert header.size == expected.shape[:2] and header.stored == PIXELS.shape[:2]
    assert header.orientation == (orientation if 1 <= orientation <= 8 else 1)


def test_orientation_behind_the_pixels_of_a_png():
    exif = encoded(PIXELS, "PNG", 6)
    start = exif.index(b"eXIf") - 4
    content = exif[start + 8 : start + 8 + int.from_bytes(exif[start : start + 4], "big")]
    plain = encoded(PIXELS)
    data = plain[:-12] + chunk(b"eXIf", content) + plain[-12:]
    np.testing.assert_array_equal(photos.decode_photo(data), np.rot90(PIXELS, -1))
    assert containers.read_header(data).size == (61, 40)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP"])
def test_lossless_formats_are_exact(form):
    pixels = np.repeat(PIXELS[..., :1], 3, axis=-1) if form == "GIF" else PIXELS
    data = encoded(pixels, form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(photos.decode_photo(data), pixels)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_black_whatever_color_they_hide(form, mode):
    image = Image.fromarray(PIXELS).convert("RGB" if mode == "RGBA" else "L")
    alpha = np.zeros(PIXELS.shape[:2], np.uint8)
    alpha[:, 30:] = 255
    image.putalpha(Image.fromarray(alpha))
    buffer = io.BytesIO()
    image.save(buffer, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    pixels = photos.decode_photo(buffer.getvalue())
    assert (pixels[:, :30] == 0).all() and pixels[:, 30:].mean() > 100


def test_gray_of_16_bits_is_scaled_by_the_sensor():
    for bits in (9, 10, 12, 14, 16):
        values = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
        for data in (gray_png(values, 16), encoded(values, "TIFF")):
            pixels = photos.decode_photo(data)
            assert (pixels[..., 0] == pixels[..., 2]).all() and pixels.max() == (127 if bits == 9 else 255)
    assert photos.decode_photo(gray_png([[0, 200]], 16))[0, 1, 0] == 200  # 8 bits in 16.


def test_colors_of_16_bits_keep_their_high_byte():
    deep = PIXELS.astype(np.uint16) * 256 + 77
    np.testing.assert_array_equal(photos.decode_photo(cv2.imencode(".png", deep[..., ::-1])[1].tobytes()), PIXELS)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_data_behind_the_end_is_no_fault(form):
    data = encoded(PIXELS, form, orientation=6)
    np.testing.assert_array_equal(photos.decode_photo(data + MOVIE), photos.decode_photo(data))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_off_inside_is_refused_whatever_stands_behind_it(progressive):
    thumbnail = encoded(PIXELS[:8, :8], "JPEG")
    data = encoded(PIXELS, "JPEG", progressive=progressive, comment=thumbnail)
    assert thumbnail in data
    assert photos.decode_photo(data).shape == PIXELS.shape
    for end in range(len(data) - 2, data.index(thumbnail) + len(thumbnail), -37):
        for tail in (b"", bytes(500)):
            with pytest.raises(BrokenFile, match="truncated"):
                photos.decode_photo(data[:end] + tail)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_files_cut_off_are_refused(form):
    data = encoded(PIXELS, form)
    for share in (0.05, 0.3, 0.6, 0.95):
        with pytest.raises(BrokenFile, match="truncated|damaged|cannot be read"):
            photos.decode_photo(data[: int(len(data) * share)])


def test_a_wrong_byte_in_a_png_is_found():
    data = bytearray(encoded(PIXELS))
    data[len(data) // 2] ^= 1
    with pytest.raises(BrokenFile, match="damaged"):
        photos.decode_photo(bytes(data))


def test_names_of_formats_that_cannot_be_read():
    for data, words in (
        (b"", "empty"),
        (b"<html>no", "not an image"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "expected PNG"),
    ):
        with pytest.raises(BrokenFile, match=words):
            photos.decode_photo(data)
    with pytest.raises(BrokenFile, match="pillow-heif|damaged"):
        photos.decode_photo(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(BrokenFile, match="floating-point"):
        photos.decode_photo(encoded(np.ones((4, 4), np.float32), "TIFF"))
    with pytest.raises(BrokenFile, match="32-bit"):
        photos.decode_photo(encoded(np.full((4, 4), 70_000, np.int32), "TIFF"))


def test_the_end_is_found_in_the_files_last_bytes(tmp_path):
    for form in ("JPEG", "PNG", "BMP"):
        data = encoded(PIXELS, form)
        (tmp_path / "a").write_bytes(data)
        kind = containers.read_header(tmp_path / "a").kind
        assert containers.has_end(tmp_path / "a", kind)
        (tmp_path / "a").write_bytes(data[:-100])
        assert containers.has_end(tmp_path / "a", kind) == (form == "BMP")
