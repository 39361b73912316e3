# SPDX-License-Identifier: Apache-2.0
"""The network that comes with nightjax, for a first mask without training. README.md beside this file is its card."""

import os
import pathlib

NETWORK = pathlib.Path(__file__).parent / "nightstreet"
"""Run folder of a small network, trained on NightStreet alone."""

EXAMPLES = tuple(sorted((pathlib.Path(__file__).parent / "examples").glob("*.jpg")))
"""Three NightStreet images by night that no training has seen."""


def holds(folder: str | os.PathLike) -> bool:
    """Whether a folder is in this package, into which nothing is written."""
    place = pathlib.Path(os.path.abspath(os.fspath(folder)))
    return place.is_relative_to(pathlib.Path(__file__).parent)


WHAT = (
    "the network that comes with nightjax: small, and trained on rendered streets alone. It is good for a first look; "
    "name a run of yours with --workdir"
)
"""What a user should know of it, for a line in a terminal."""
