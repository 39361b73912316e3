import io

import cv2
import numpy as np
import pytest
from PIL import Image

from nightjax.core.errors import UserError
from nightjax.inference.images import decode_image, read_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def encode(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_rgb_png_is_exact():
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(RGB))), RGB)


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated clockwise by 90 degrees
    data = encode(Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8))), "JPEG", exif=exif, quality=100)
    image = decode_image(data)
    assert image.shape == (72, 48, 3)
    error = np.abs(image[4::8, 4::8].astype(int) - np.rot90(RGB, -1).astype(int))
    assert error.mean() < 30  # JPEG thins out the colors of this noise; an unrotated image is at about 85
    assert np.abs(image[4::8, 4::8].astype(int) - np.rot90(RGB, 1).astype(int)).mean() > 50


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA"])
def test_other_modes_become_rgb(mode):
    gray = Image.fromarray(RGB).convert("L")
    data = encode(Image.fromarray(RGB).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    image = decode_image(data)
    assert image.dtype == np.uint8 and image.shape == RGB.shape
    if mode in ("L", "LA"):
        np.testing.assert_array_equal(image, np.repeat(np.asarray(gray)[..., None], 3, -1))


def test_transparency_is_laid_on_black():
    alpha = np.array([[0, 128, 255]], np.uint8)
    rgba = np.concatenate([np.full((1, 3, 3), 200, np.uint8), alpha[..., None]], axis=-1)
    np.testing.assert_allclose(decode_image(encode(Image.fromarray(rgba)))[0, :, 0], [0, 100, 200], atol=1)


def test_palette_with_transparency():
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    np.testing.assert_array_equal(decode_image(encode(image, transparency=0)), [[[0, 0, 0], [40, 50, 60]]])


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_the_high_byte(channels):
    wide = (RGB.astype(np.uint16) << 8) + 77
    wide = wide[..., 0] if channels == 1 else wide
    data = cv2.imencode(".png", wide[..., ::-1] if channels == 3 else wide)[1].tobytes()
    expected = RGB if channels == 3 else np.repeat(RGB[..., :1], 3, -1)
    np.testing.assert_array_equal(decode_image(data), expected)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_named(tmp_path, form, share):
    data = encode(
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)),
        form,
    )
    path = tmp_path / "night.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="night.img") as error:
        read_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data, word", [(b"", "empty"), (b"not an image at all", "not an image")])
def test_other_bad_files(tmp_path, data, word):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=word):
        read_image(path)


def test_floating_point_and_missing_files(tmp_path):
    with pytest.raises(UserError, match="floating-point"):
        decode_image(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))
    with pytest.raises(UserError, match="missing.png"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="folder"):
        read_image(tmp_path)
