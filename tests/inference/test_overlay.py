import io

import cv2
import numpy as np
import pytest
from PIL import Image

from nightjax.core.classes import CITYSCAPES, ClassSet, palette_for
from nightjax.inference import overlay

LABEL = np.array([[0, 13, 255], [18, 10, 5]], np.uint8)
IMAGE = np.full((2, 3, 3), 100, np.uint8)


def decode(data):
    return Image.open(io.BytesIO(data))


def test_label_file_holds_train_ids():
    image = decode(overlay.encode_label(LABEL))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), LABEL)


def test_palette_file_holds_ids_and_shows_colors():
    image = decode(overlay.encode_palette(LABEL))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), LABEL)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), CITYSCAPES.colors[LABEL])


def test_label_files_refuse_other_arrays():
    with pytest.raises(ValueError, match="uint8"):
        overlay.encode_label(LABEL.astype(np.int32))


def test_image_file_is_exact():
    np.testing.assert_array_equal(np.asarray(decode(overlay.encode_image(IMAGE))), IMAGE)


def test_blend():
    mixed = overlay.blend(IMAGE, LABEL, opacity=0.5)
    np.testing.assert_array_equal(mixed[0, 0], (np.array((128, 64, 128)) + 100) // 2)
    np.testing.assert_array_equal(mixed[0, 2], IMAGE[0, 2])
    np.testing.assert_array_equal(overlay.blend(IMAGE, LABEL, opacity=0), IMAGE)


def test_blend_of_any_arrays_is_the_weighted_sum():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    label = rng.choice(np.array([0, 5, 18, 255], np.uint8), (40, 30))
    expected = 0.45 * image + 0.55 * CITYSCAPES.colors[label].astype(float)
    expected = np.where((label == 255)[..., None], image, expected)
    image.setflags(write=False)
    label.setflags(write=False)
    assert np.abs(overlay.blend(image, label) - expected).max() <= 1
    np.testing.assert_array_equal(
        overlay.blend(image[::2, ::3], label[::2, ::3]), overlay.blend(image, label)[::2, ::3]
    )
    np.testing.assert_array_equal(overlay.blend(image[:, ::-1], label[:, ::-1]), overlay.blend(image, label)[:, ::-1])


def test_photos_are_near_and_may_have_any_size():
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8), (60, 50))
    photo = decode(overlay.encode_photo(image))
    assert photo.format == "JPEG" and np.abs(np.asarray(photo).astype(int) - image).mean() < 2
    long = overlay.encode_photo(np.full((4, 131_000, 3), 200, np.uint8))
    assert decode(long).size == (65_500, 2)


def test_panels_take_labels_maps_and_images():
    np.testing.assert_array_equal(overlay.to_rgb(LABEL), CITYSCAPES.colors[LABEL])
    np.testing.assert_array_equal(overlay.to_rgb(np.array([[0.0, 0.5, 2.0]]))[0, :, 1], [0, 128, 255])
    np.testing.assert_array_equal(overlay.to_rgb(IMAGE), IMAGE)
    assert overlay.to_rgb(np.zeros((2, 3, 3), np.float32)).shape == (2, 3, 3)


def test_panel_grid_places_pictures_under_captions():
    rng = np.random.default_rng(0)
    night = rng.integers(0, 255, (2, 100, 160, 3)).astype(np.uint8)
    grid = overlay.panel_grid({"night": night, "a name far too long for this little column": night[..., 0] % 19})
    assert grid.dtype == np.uint8 and grid.shape[1] == 2 * 160 + 3 * 6
    bar = grid.shape[0] - 2 * 106
    np.testing.assert_array_equal(grid[bar : bar + 100, 6:166], night[0])
    np.testing.assert_array_equal(grid[bar + 106 : bar + 206, 172:332], CITYSCAPES.colors[night[1, ..., 0] % 19])
    assert (grid[:bar, 6:166] < 128).any()  # a caption is there
    assert (grid[:, 166:172] == 255).all() and (grid[:, 332:] == 255).all()  # and stays in its column


def test_panel_grid_scales_and_pads():
    grid = overlay.panel_grid(
        {"a": [np.zeros((50, 80, 3), np.uint8)], "b": [np.zeros((200, 200), np.uint8)] * 2},
        height=100,
    )
    assert grid.shape[1] == 160 + 100 + 18


def test_the_legend_shows_every_class_in_its_color():
    many = ClassSet(tuple(f"class {k}" for k in range(40)), palette_for([f"class {k}" for k in range(40)]))
    for classes in (CITYSCAPES, many):
        picture = overlay.legend(classes)
        found = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
        assert picture.dtype == np.uint8 and set(classes.palette) <= found
