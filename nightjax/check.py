# SPDX-License-Identifier: Apache-2.0
"""Checks a data set before a long run. Exit code 0: nothing was found; 2: one line for every fault.

    nightjax check --data=cityscapes_seg --manual_dir=DIR
    nightjax check --data=dark_zurich/pairs --manual_dir=DIR
    nightjax check --data=folder/label_ids --manual_dir=DIR
    nightjax check --prepared=DIR
    nightjax check --verify=runs/dsr_fpa

The first two check the downloaded files of a data set, or of one of its configs, as its builder would read them. The
third checks a plain folder with images/, labels/ and references/ as training reads it, and says what it holds: sizes,
classes, values that nobody named; --sheet=FILE.png shows some of its images beside their labels. --prepared checks a
prepared data set, the folder of one version (.../NAME/CONFIG/1.0.0). --verify compares every file of a run's
checkpoints with the hashes that were written when it was saved.
"""

import sys
from collections.abc import Sequence

from absl import flags

from nightjax.core import checkpoint, cli
from nightjax.core.errors import UserError
from nightjax.data import datasets, sources
from nightjax.prepare import check, folder_check


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
    flags.DEFINE_string("sheet", "", "PNG file to write with some images of a plain folder.", flag_values=values)
    flags.DEFINE_string(
        "verify", "", "Run folder whose checkpoints are checked, instead of --data.", flag_values=values
    )
    cli.parse(values, argv, __doc__)
    if values.sheet and not values.data.startswith("folder"):
        raise UserError("--sheet is for plain folders, --data=folder")
    if values.verify:
        faults = _verify(values.verify)
    elif values.prepared:
        faults = check.check_prepared(values.prepared)
    elif (values.data == "folder" or values.data.startswith(("folder/", "folder:"))) and not values.prepared:
        faults = _check_folder(values.data, values.manual_dir, values.sheet)
    elif values.data and values.manual_dir:
        faults = check.check_dataset(values.data, values.manual_dir, values.extract_dir)
    else:
        raise UserError("give --prepared, --verify, or both --data and --manual_dir; see --help")
    print("\n".join(faults) if faults else "no fault found")
    if faults:
        sys.exit(2)


def _verify(workdir: str) -> list[str]:
    """Prints what is true of every checkpoint of a run, and returns those that are damaged."""
    found = checkpoint.faults(workdir)
    for folder, fault in found.items():
        print(f"{folder}: {fault or 'whole'}")
    return [fault for fault in found.values() if fault]


def _check_folder(data: str, manual_dir: str, sheet: str) -> list[str]:
    """Prints what a plain folder holds and the warnings, and returns the faults."""
    name, _, path = data.partition(":")
    root = sources.folder_root(path, manual_dir)
    report = folder_check.check_folder(root, name.partition("/")[2] or "train_ids", sheet)
    print("\n".join([*report.lines, *(f"warning: {line}" for line in report.warnings)]))
    return report.faults


if __name__ == "__main__":
    cli.run(main)
