"""Images from folders and data sets, by position."""

import cv2
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.selection.images import ImageSet


@pytest.fixture
def folder(tmp_path):
    """Two plain images of different size, and a list that is none."""
    for name, shape, value in (("b.png", (4, 6), 10), ("part/a.jpg", (8, 6), 200)):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((*shape, 3), value, np.uint8))
    (tmp_path / "images" / "notes.txt").write_text("")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "some.txt").write_text("part/a\n")
    return tmp_path


def test_a_plain_folder(folder):
    pictures = ImageSet(str(folder / "images"))
    assert len(pictures) == 2 and pictures.names() == ["b", "part/a"] and pictures.sizes() == {(4, 6), (8, 6)}
    assert [int(image.mean().round()) for image in pictures.images()] == [10, 200]


def test_a_split_of_a_data_set(folder):
    pictures = ImageSet(f"folder:{folder}@some")
    ((name, image),) = list(pictures)
    assert name == "part/a" and image.shape == (8, 6, 3)


def test_several(folder):
    both = ImageSet(f"folder:{folder}@some,{folder}/images/part")
    assert both.names() == ["part/a", "a"]
    with pytest.raises(UserError, match="two images are called 'part/a'"):
        ImageSet(f"folder:{folder}@some,{folder}/images").names()


def test_nothing_there(folder):
    with pytest.raises(UserError, match="is no folder"):
        ImageSet(str(folder / "none"))
    with pytest.raises(UserError, match="holds no images"):
        ImageSet(str(folder / "lists"))
    with pytest.raises(UserError, match="no split 'sum'"):
        ImageSet(f"folder:{folder}@sum")
