"""Checks data before a long run. Exit code 0: nothing found; 2: one line a fault.

python scripts/check_data.py --data=cityscapes_seg --manual_dir=DIR      the files, as the builder
would read them python scripts/check_data.py --data=dark_zurich/pairs --manual_dir=DIR   one config
of a data set python scripts/check_data.py --data=folder/label_ids --manual_dir=DIR    images/,
labels/, references/ of your own python scripts/check_data.py --prepared=DIR
     a prepared data set (.../name/config/1.0.0)
"""

import argparse
import importlib
import pathlib
import sys
import tempfile

from nightjax.core.errors import UserError
from nightjax.prepare import check

DATA_SETS = (
    "acdc",
    "bdd100k_night",
    "bdd100k_seg",
    "camvid",
    "cityscapes_seg",
    "dark_zurich",
    "gta5",
    "nexet",
    "nightcity",
    "nighttime_driving",
    "synthia",
)


def main(arguments: list[str] | None = None) -> int:
    """Runs the check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="NAME[/CONFIG]", help=f"folder or one of {', '.join(DATA_SETS)}")
    parser.add_argument("--manual_dir", metavar="DIR", help="where the downloaded files are")
    parser.add_argument(
        "--extract_dir",
        metavar="DIR",
        help="where archives are unpacked; default a temporary folder",
    )
    parser.add_argument("--prepared", metavar="DIR", help="a prepared data set instead of --data")
    options = parser.parse_args(arguments)
    try:
        faults = _faults(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(faults) if faults else "no fault found")
    return 2 if faults else 0


def _faults(options: argparse.Namespace) -> list[str]:
    if options.prepared:
        return check.check_prepared(options.prepared)
    if not options.data or not options.manual_dir:
        raise UserError("name --prepared, or both --data and --manual_dir (see --help)")
    name, _, config = options.data.partition("/")
    if name == "folder":
        return check.check_scan(check.scan_folder(options.manual_dir, config or "train_ids"))
    if name not in DATA_SETS:
        raise UserError(f"unknown data set {name!r}; one of folder, {', '.join(DATA_SETS)}")
    builder_class = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder").Builder
    configs = [item.name for item in builder_class.BUILDER_CONFIGS]
    if config and config not in configs:
        raise UserError(f"{name} has no config {config!r}; one of {', '.join(configs)}")
    with tempfile.TemporaryDirectory() as scratch:
        builder = builder_class(config=config or None, data_dir=scratch, file_format="array_record")
        scan = builder.find(options.manual_dir, pathlib.Path(options.extract_dir or scratch))
        return check.check_scan(scan, builder.builder_config.recipe)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    sys.exit(main())
