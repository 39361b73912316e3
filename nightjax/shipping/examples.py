# SPDX-License-Identifier: Apache-2.0
"""Images of a folder, to check a written program with or to calibrate it."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError
from nightjax.core.types import Size
from nightjax.data import walking
from nightjax.data.folders import FolderSource
from nightjax.inference.images import read_image
from nightjax.shipping.parity import Examples, Resized

MOST = 100
"""Images of a folder that are used; of more, as many at equal distances."""


def calibration(folder: str, size: Size) -> Sequence[np.ndarray]:
    """Images of a folder at the program's size.

    Raises:
        UserError: there are none.
    """
    return Resized(_readers(folder, "int8"), size)


def examples(folder: str, size: Size, classes: ClassSet) -> Examples:
    """Images of a folder, with their labels if it is a folder data set (``images/`` and ``labels/``) that has them all.

    Raises:
        UserError: there are no images, or the labels are of other classes.
    """
    if not (epath.Path(folder) / "images").is_dir():
        read = _readers(folder, "check")
        return Examples(f"{len(read)} images of {epath.Path(folder).name}", Resized(read, size), (), len(classes))
    source = FolderSource(folder)
    names = _spread(source.names)
    if not names:
        raise UserError(f"--check={folder} holds no image")
    paths = dict(zip(source.names, source.images, strict=True))
    images = Resized([functools.partial(read_image, paths[name]) for name in names], size)
    about = f"{len(names)} images of {epath.Path(folder).name}"
    if any(name not in source.labels for name in names):
        return Examples(about, images, (), len(classes))
    if source.classes.names != classes.names:
        raise UserError(
            f"--check={folder} has labels of other classes ({', '.join(source.classes.names[:3])}, ...) than the run "
            f"({', '.join(classes.names[:3])}, ...); leave its labels out, or give a folder of the run's classes"
        )
    truths = [source.read_label(name).train_ids for name in names]
    return Examples(f"{about}, labeled", images, truths, len(classes))


def _readers(folder: str, flag: str) -> list[Callable[[], np.ndarray]]:
    if not epath.Path(folder).is_dir():
        raise UserError(f"--{flag}={folder} is no folder")
    paths = sorted(walking.walk(folder).files.values())
    if not paths:
        raise UserError(f"--{flag}={folder} holds no image")
    return [functools.partial(read_image, path) for path in _spread(paths)]


def _spread(found: Sequence) -> list:
    """At most `MOST` of them, at equal distances."""
    places = np.linspace(0, len(found) - 1, min(len(found), MOST)).round().astype(int)
    return [found[place] for place in places]
