# SPDX-License-Identifier: Apache-2.0
"""Lists what there is to choose from: methods, models, benchmarks, evaluation sets and configs.

    nightjax list
    nightjax list methods
    nightjax list models benchmarks

Methods have a config each, models are chosen with --config=FILE.py:model=NAME, benchmarks with data=NAME, evaluation
sets with nightjax evaluate --sets=NAME. From Python: nightjax.api.list_methods() and so on.
"""

from collections.abc import Sequence

from absl import flags

from nightjax.core import cli
from nightjax.zoo.listing import KINDS, listing


def main(argv: Sequence[str]) -> None:
    """Prints the lists that the words name."""
    kinds = cli.parse(flags.FlagValues(), argv, __doc__, words=f"[{'|'.join(KINDS)}]...")
    print(listing(kinds))


if __name__ == "__main__":
    cli.run(main)
