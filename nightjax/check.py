"""Checks a data set before a long run. Exit code 0: nothing was found; 2: one line for every fault.

    nightjax check --data=cityscapes_seg --manual_dir=DIR
    nightjax check --data=dark_zurich/pairs --manual_dir=DIR
    nightjax check --data=folder/label_ids --manual_dir=DIR
    nightjax check --prepared=DIR

The first two check the downloaded files of a data set, or of one of its configs, as its builder would read them. The
third checks a plain folder with images/, labels/ and references/. The last checks a prepared data set, the folder of
one version (.../NAME/CONFIG/1.0.0).
"""

import sys
from collections.abc import Sequence

from absl import flags

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.data import datasets
from nightjax.prepare import check


def main(argv: Sequence[str]) -> None:
    """Prints the faults; exits with code 2 if there are any."""
    values = flags.FlagValues()
    names = ", ".join(["folder", *datasets.builder_modules()])
    flags.DEFINE_string("data", "", f"Data set to check, NAME or NAME/CONFIG; one of {names}.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Folder of the downloaded files.", flag_values=values)
    flags.DEFINE_string(
        "extract_dir", "", "Folder to unpack archives into; by default a temporary one.", flag_values=values
    )
    flags.DEFINE_string("prepared", "", "Folder of a prepared data set, instead of --data.", flag_values=values)
    cli.parse(values, argv, __doc__)
    if values.prepared:
        faults = check.check_prepared(values.prepared)
    elif values.data and values.manual_dir:
        faults = check.check_dataset(values.data, values.manual_dir, values.extract_dir)
    else:
        raise UserError("give --prepared, or both --data and --manual_dir; see --help")
    print("\n".join(faults) if faults else "no fault found")
    if faults:
        sys.exit(2)


if __name__ == "__main__":
    cli.run(main)
