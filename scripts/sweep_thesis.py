# SPDX-License-Identifier: Apache-2.0
"""Prints or runs the eight experiments of the UIT thesis (2021), in an order in which each finds what it needs.

    python scripts/sweep_thesis.py --night=NIGHT --night_plain=NIGHT_PLAIN
    python scripts/sweep_thesis.py --night=NIGHT --night_plain=NIGHT_PLAIN --only=3.1,7.1 --run

The first prints the commands; the second runs those of two rows, and of the rows that they start from. NIGHT and
NIGHT_PLAIN are the labeled days translated with and without perceptual loss, such as translated/unit (see nightjax
translate). A row is a run ROOT/thesis-ID-seedS. Selections and pseudo-labels lie beside it, and what is there already
is not made again. Rows on test images translated to day are no runs of their own: with --converted=DATASET every run
scores that set too. With --best=SET the checkpoint that is best on that validation set teaches and is continued from,
as in the thesis; choose a set without test images. To see the thesis beside these runs:

    nightjax table --runs='ROOT/thesis-*' --published=ROOT/published.json
"""

import json
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from absl import flags

from nightjax.core import cli
from nightjax.core.config import suggestion
from nightjax.core.errors import UserError


class Row(NamedTuple):
    """One row of the thesis' tables.

    Attributes:
        labeled: D, DN or N (day, both, night), with p or n for a translator with or without perceptual loss.
        unlabeled: "day" or "night" pool, or "".
        select: all, his or fid.
        start: row whose network labels the pool and, unless ``scratch``, whose weights are the first.
        loss: see ``configs/self_training.py``.
        miou: published, on Nighttime Driving test.
        converted: published, of the same model on the test images translated to day.
        scratch: start from scratch although there is a teacher.
    """

    labeled: str
    unlabeled: str = ""
    select: str = ""
    start: str = ""
    loss: str = "ce"
    miou: float = 0.0
    converted: float | None = None
    scratch: bool = False


ROWS = {
    "1.1": Row("D", miou=27.5),
    "1.2": Row("D", "day", "all", "1.1", miou=27.1, scratch=True),
    "1.3": Row("D", "day", "all", "1.1", miou=29.0),
    "2.1": Row("DNn", miou=31.5, converted=25.2),
    "2.2": Row("DNn", "night", "all", "2.1", miou=28.8, converted=24.7),
    "3.1": Row("DNp", miou=33.9, converted=29.3),
    "3.2": Row("DNp", "night", "all", "3.1", miou=32.1, converted=28.4),
    "4.1": Row("DNp", "night", "his", "3.1", miou=34.2, converted=29.8),
    "5.1": Row("Np", miou=29.6),
    "5.2": Row("Np", start="3.1", miou=34.7),
    "5.3": Row("Np", "night", "his", "5.1", miou=29.8),
    "5.4": Row("Np", "night", "his", "5.2", miou=33.3),
    "6.1": Row("DNp", loss="focal", miou=26.9),
    "6.2": Row("DNp", "night", "his", "6.1", "focal", miou=28.3),
    "7.1": Row("DNp", "night", "fid", "3.1", miou=38.8),
    "7.2": Row("DNp", "night", "fid", "3.1", "combined", miou=39.3),
    "7.3": Row("DNp", "night", "his", "3.1", "combined", miou=33.1),
    "8.1": Row("DNp", "night", "his", "5.2", miou=37.8),
    "8.2": Row("DNp", "night", "fid", "8.1", miou=39.5),
    "8.3": Row("DNp", "night", "fid", "8.1", "combined", miou=40.7),
}
"""Rows 2.3, 2.4, 3.3, 3.4 and 4.2 of the thesis are the ``converted`` scores of 2.1, 2.2, 3.1, 3.2 and 4.1."""

RANDOM = {"9.1": Row("DNp", "night", "random", "3.1"), "9.2": Row("DNp", "night", "random", "3.1", "combined")}
"""Ours: as many images drawn by chance, without which a gain of selection is no gain of selection."""

NIGHT_POOL = "nightstreet/std_pairs@target_pairs,nightstreet/std_unlabeled@target_twilight"
DAY_POOL = "nightstreet/std_unlabeled@target_twilight"
LABELED = {"D": "day", "DN": "both", "N": "night"}
RULES = {"his": "his_dark", "fid": "fid_point", "random": "random"}


def main(argv: Sequence[str]) -> None:
    """Prints or runs the commands."""
    values = flags.FlagValues()
    flags.DEFINE_string("data", "nightstreet", "Benchmark.", flag_values=values)
    flags.DEFINE_string("split", "source_day", "Split by which labeled days and nights are read.", flag_values=values)
    flags.DEFINE_string("night", "", "Data set: days translated with perceptual loss.", flag_values=values)
    flags.DEFINE_string("night_plain", "", "Data set: days translated without it.", flag_values=values)
    flags.DEFINE_string("converted", "", "Data set: test images translated to day.", flag_values=values)
    flags.DEFINE_string("night_pool", NIGHT_POOL, "Unlabeled nights.", flag_values=values)
    flags.DEFINE_string("day_pool", DAY_POOL, "Unlabeled days.", flag_values=values)
    flags.DEFINE_string(
        "reference", "", "Images that selected ones should resemble; by default NIGHT@SPLIT.", flag_values=values
    )
    flags.DEFINE_integer("count", 200, "Images to select; 1600 in the thesis.", flag_values=values)
    flags.DEFINE_string("features", "random", "Features of the selection: inception or random.", flag_values=values)
    flags.DEFINE_string("weights", "", "File of the Inception weights.", flag_values=values)
    flags.DEFINE_string(
        "args", "", "More config arguments, such as model=panoptic_fpn_tiny,steps=400.", flag_values=values
    )
    flags.DEFINE_multi_string("set", [], "KEY=VALUE of every run's config; may be repeated.", flag_values=values)
    flags.DEFINE_string(
        "best", "", "Set whose best checkpoint teaches and is continued from, not the last.", flag_values=values
    )
    cli.define_folders(values)
    flags.DEFINE_string("root", "runs", "Folder of all runs.", flag_values=values)
    flags.DEFINE_string("seeds", "0", "Seeds, such as 0,1,2.", flag_values=values)
    flags.DEFINE_string("only", "", "Rows, such as 3.1,7.2; by default all.", flag_values=values)
    flags.DEFINE_bool("run", False, "Run the commands instead of printing them.", flag_values=values)
    cli.parse(values, argv, __doc__)
    wanted = needed(values.only.split(",") if values.only else [*ROWS, *RANDOM])
    root = pathlib.Path(values.root)
    for made, command in plan(values, wanted):
        if not values.run:
            print(shlex.join(command))
        elif not made.exists():
            print(shlex.join(command), flush=True)
            if code := subprocess.run([sys.executable, *command[1:]]).returncode:
                raise UserError(f"this command ended with exit code {code}: {shlex.join(command)}")
    if values.run:
        (root / "published.json").write_text(json.dumps(published(), indent=1) + "\n")


def published() -> dict[str, dict[str, float]]:
    """Column to run to mIoU of the thesis, on Nighttime Driving test."""
    return {
        "thesis": {f"thesis-{name}": row.miou for name, row in ROWS.items()},
        "thesis, converted": {
            f"thesis-{name}": row.converted for name, row in ROWS.items() if row.converted is not None
        },
    }


def needed(only: Iterable[str]) -> list[str]:
    """These rows and those that they start from, each after what it starts from.

    Raises:
        UserError: no such row.
    """
    rows, found = ROWS | RANDOM, []

    def add(name: str) -> None:
        if name not in rows:
            raise UserError(f"the thesis has no row {name!r}{suggestion(name, rows)}")
        if rows[name].start:
            add(rows[name].start)
        if name not in found:
            found.append(name)

    for name in only:
        add(name)
    return found


def plan(options: flags.FlagValues, wanted: Sequence[str]) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Commands, each with the file that says it is done."""
    rows, root, seeds = ROWS | RANDOM, pathlib.Path(options.root), options.seeds.split(",")
    for rule in dict.fromkeys(rows[name].select for name in wanted):
        if rule not in ("", "all"):
            for seed in seeds if rule == "random" else seeds[:1]:
                yield pathlib.Path(_selected(options, rule, seed)) / "selected.csv", _select(options, rule, seed)
    for seed in seeds:
        for name in wanted:
            row, folder = rows[name], root / f"thesis-{name}-seed{seed}"
            if row.unlabeled:
                pseudo = root / f"pseudo-{row.start}-{row.unlabeled}-{row.select}-seed{seed}"
                yield pseudo / "pseudo_labels.json", _label(options, row, seed, pseudo)
            yield folder / "report.html", _train(options, row, seed, folder)


def _selected(options: flags.FlagValues, rule: str, seed: str) -> str:
    """Folder of a selection; what chance chooses is another for every seed."""
    return f"{options.root}/selected/{rule}" + (f"-seed{seed}" if rule == "random" else "")


def _select(options: flags.FlagValues, rule: str, seed: str) -> list[str]:
    settings = {
        "rule": RULES[rule],
        "seed": seed if rule == "random" else "",
        "pool": options.night_pool,
        "reference": options.reference or (options.night and f"{options.night}@{options.split}"),
        "count": options.count,
        "features": options.features,
        "weights": options.weights,
        "output": _selected(options, rule, seed),
    }
    return _command("nightjax.select", settings | _folders(options))


def _label(options: flags.FlagValues, row: Row, seed: str, folder: pathlib.Path) -> list[str]:
    settings = {
        "workdir": f"{options.root}/thesis-{row.start}-seed{seed}",
        "images": options.day_pool if row.unlabeled == "day" else options.night_pool,
        "list": "" if row.select == "all" else f"{_selected(options, row.select, seed)}/selected.csv",
        "split": options.split,
        "step": "best" if options.best else "",
        "output": folder,
    }
    return _command("nightjax.pseudo_label", settings | _folders(options))


def _train(options: flags.FlagValues, row: Row, seed: str, folder: pathlib.Path) -> list[str]:
    """The row as a chain of config overrides."""
    kind, translator = row.labeled.rstrip("pn"), row.labeled[-1]
    night = {"p": options.night, "n": options.night_plain}.get(translator, "")
    if kind != "D" and not night:
        flag = {"p": "--night", "n": "--night_plain"}[translator]
        raise UserError(
            f"rows on {row.labeled} need {flag}=DATASET, the translated days; or leave them out with --only"
        )
    arguments = {
        "data": options.data,
        "labeled": LABELED[kind],
        "night": night,
        "loss": row.loss,
        "converted": options.converted,
    }
    if row.unlabeled:
        arguments["pseudo"] = f"{options.root}/pseudo-{row.start}-{row.unlabeled}-{row.select}-seed{seed}"
    words = [f"{key}={value}" for key, value in arguments.items() if value] + ([options.args] if options.args else [])
    start = f"{options.root}/thesis-{row.start}-seed{seed}" + ("@best" if options.best else "")
    settings = {
        "config": f"configs/self_training.py:{','.join(words)}",
        "config.seed": seed,
        "config.train.init": start if row.start and not row.scratch else "",
        "config.checkpoint.best": options.best,
        "config.data.dir": options.data_dir,
        "config.data.manual_dir": options.manual_dir,
        "workdir": folder,
    }
    settings |= {f"config.{key}": value for key, _, value in (item.partition("=") for item in options.set)}
    return _command("nightjax.main", settings)


def _folders(options: flags.FlagValues) -> dict[str, str]:
    return {"data_dir": options.data_dir, "manual_dir": options.manual_dir}


def _command(module: str, settings: dict[str, object]) -> list[str]:
    return ["python", "-m", module, *(f"--{key}={value}" for key, value in settings.items() if str(value))]


if __name__ == "__main__":
    cli.run(main)
