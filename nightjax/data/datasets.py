# SPDX-License-Identifier: Apache-2.0
"""Which data sets there are: the tables that installed packages offer.

A package offers data sets by an entry point of the group ``nightjax.datasets``. The entry point names a mapping from
data set to the module whose ``Builder`` is its TFDS builder. The builders of this repository are such a package; others
can add theirs. So a table grows where the builders are, and nothing here names them.
"""

import functools
import importlib
from collections.abc import Mapping
from importlib import metadata

import tensorflow_datasets as tfds

from nightjax.core.errors import UserError

GROUP = "nightjax.datasets"
"""Group of the entry points."""


@functools.cache
def builder_modules() -> Mapping[str, str]:
    """Data set to the module of its builder, over all installed packages.

    Raises:
        UserError: no package offers data sets, a table cannot be loaded, or two packages offer one name.
    """
    points = metadata.entry_points(group=GROUP)
    if not points:
        raise UserError(f"no package offers data sets ({GROUP}): run pip install -e . in the clone of nightjax")
    table: dict[str, str] = {}
    for point in points:
        try:
            offered = point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"cannot load the data sets of {point.value} ({error}): install its package again"
            ) from error
        for name, module in offered.items():
            if table.setdefault(name, module) != module:
                raise UserError(f"data set {name!r} is offered by {table[name]} and by {module}: uninstall one of them")
    return table


def builder_class(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
    """The TFDS builder of a key of `builder_modules`."""
    return importlib.import_module(builder_modules()[name]).Builder
