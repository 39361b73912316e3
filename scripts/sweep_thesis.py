"""The eight experiments of the UIT thesis (2021) as commands, in an order in which each finds what it needs.

    python scripts/sweep_thesis.py --night=NIGHT --night_plain=NIGHT_PLAIN                       print the commands
    python scripts/sweep_thesis.py --night=NIGHT --night_plain=NIGHT_PLAIN --only=3.1,7.1 --run  run those, and what they start from

NIGHT and NIGHT_PLAIN are the labelled days translated with and without perceptual loss, such as ``translated/unit``
(see scripts/translate_dataset.py). A row is a run ``ROOT/thesis-ID-seedS``; selections and pseudo-labels lie beside it,
and what is there already is not made again. Rows on test pictures translated to day are no runs of their own: with
--converted=DATASET every run scores that set too. With --best=SET the checkpoint that is best on that validation set teaches and is gone on from, as in the
thesis; choose one without test pictures. The thesis beside ours:

    python scripts/make_results_table.py --runs='ROOT/thesis-*' --published=ROOT/published.json
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from nightjax.core import cli
from nightjax.core.config import suggestion
from nightjax.core.errors import UserError


class Row(NamedTuple):
    """One row of the thesis' tables.

    Attributes:
        labelled: D, DN or N (day, both, night), with p or n for a translator with or without perceptual loss.
        unlabelled: "day" or "night" pool, or "".
        select: all, his or fid.
        start: row whose network labels the pool and, unless ``scratch``, whose weights are the first.
        loss: see ``configs/self_training.py``.
        miou: published, on Nighttime Driving test.
        converted: published, of the same model on the test pictures translated to day.
        scratch: start from scratch although there is a teacher.
    """

    labelled: str
    unlabelled: str = ""
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
"""Ours: as many pictures drawn by chance, without which a gain of selection is no gain of selection."""

LABELLED = {"D": "day", "DN": "both", "N": "night"}
RULES = {"his": "his_dark", "fid": "fid_point", "random": "random"}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="nightstreet", help="benchmark")
    parser.add_argument("--split", default="source_day", help="split by which labelled days and nights are read")
    parser.add_argument("--night", default="", help="days translated with perceptual loss, a data set")
    parser.add_argument("--night_plain", default="", help="the same without")
    parser.add_argument("--converted", default="", help="test pictures translated to day, a data set")
    parser.add_argument(
        "--night_pool", default="nightstreet/std_pairs@target_pairs,nightstreet/std_unlabelled@target_twilight"
    )
    parser.add_argument("--day_pool", default="nightstreet/std_unlabelled@target_twilight")
    parser.add_argument("--reference", default="", help="what selected pictures should be like; by default NIGHT@SPLIT")
    parser.add_argument("--count", type=int, default=200, help="pictures to select; 1600 in the thesis")
    parser.add_argument("--features", default="random", help="inception or random, of the selection")
    parser.add_argument("--weights", default="", help="Inception weights")
    parser.add_argument("--args", default="", help="more config arguments, such as model=panoptic_fpn_tiny,steps=400")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="config value of every run; repeatable"
    )
    parser.add_argument(
        "--best",
        default="",
        metavar="SET",
        help="teach and go on from the checkpoint that is best on it, not from the last",
    )
    parser.add_argument("--data_dir", default="", help="where prepared data sets are kept")
    parser.add_argument("--manual_dir", default="", help="where downloaded files are")
    parser.add_argument("--root", default="runs", help="folder of all runs")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--only", default="", help="rows, such as 3.1,7.2; all by default")
    parser.add_argument("--run", action="store_true", help="run the commands rather than print them")
    options = parser.parse_args(argv[1:])
    wanted = needed(options.only.split(",") if options.only else [*ROWS, *RANDOM])
    root = pathlib.Path(options.root)
    for made, command in plan(options, wanted):
        if not options.run:
            print(shlex.join(command))
        elif not made.exists():
            print(shlex.join(command), flush=True)
            if code := subprocess.run([sys.executable, *command[1:]]).returncode:
                raise UserError(f"this command ended with exit code {code}: {shlex.join(command)}")
    if options.run:
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


def plan(options: argparse.Namespace, wanted: Sequence[str]) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Commands, each with the file that says it is done."""
    rows, root, seeds = ROWS | RANDOM, pathlib.Path(options.root), options.seeds.split(",")
    for rule in dict.fromkeys(rows[name].select for name in wanted):
        if rule not in ("", "all"):
            for seed in seeds if rule == "random" else seeds[:1]:
                yield pathlib.Path(_selected(options, rule, seed)) / "selected.csv", _select(options, rule, seed)
    for seed in seeds:
        for name in wanted:
            row, folder = rows[name], root / f"thesis-{name}-seed{seed}"
            if row.unlabelled:
                pseudo = root / f"pseudo-{row.start}-{row.unlabelled}-{row.select}-seed{seed}"
                yield pseudo / "pseudo_labels.json", _label(options, row, seed, pseudo)
            yield folder / "report.html", _train(options, row, seed, folder)


def _selected(options: argparse.Namespace, rule: str, seed: str) -> str:
    """Folder of a selection; what chance chooses is another for every seed."""
    return f"{options.root}/selected/{rule}" + (f"-seed{seed}" if rule == "random" else "")


def _select(options: argparse.Namespace, rule: str, seed: str) -> list[str]:
    flags = {
        "rule": RULES[rule],
        "seed": seed if rule == "random" else "",
        "pool": options.night_pool,
        "reference": options.reference or (options.night and f"{options.night}@{options.split}"),
        "count": options.count,
        "features": options.features,
        "weights": options.weights,
        "output": _selected(options, rule, seed),
    }
    return _command("scripts/select_images.py", flags | _folders(options))


def _label(options: argparse.Namespace, row: Row, seed: str, folder: pathlib.Path) -> list[str]:
    flags = {
        "workdir": f"{options.root}/thesis-{row.start}-seed{seed}",
        "images": options.day_pool if row.unlabelled == "day" else options.night_pool,
        "list": "" if row.select == "all" else f"{_selected(options, row.select, seed)}/selected.csv",
        "split": options.split,
        "step": "best" if options.best else "",
        "output": folder,
    }
    return _command("scripts/make_pseudo_labels.py", flags | _folders(options))


def _train(options: argparse.Namespace, row: Row, seed: str, folder: pathlib.Path) -> list[str]:
    """The row as a chain of config overrides."""
    kind, translator = row.labelled.rstrip("pn"), row.labelled[-1]
    night = {"p": options.night, "n": options.night_plain}.get(translator, "")
    if kind != "D" and not night:
        flag = {"p": "--night", "n": "--night_plain"}[translator]
        raise UserError(
            f"rows on {row.labelled} need {flag}=DATASET, the translated days; or leave them out with --only"
        )
    arguments = {
        "data": options.data,
        "labelled": LABELLED[kind],
        "night": night,
        "loss": row.loss,
        "converted": options.converted,
    }
    if row.unlabelled:
        arguments["pseudo"] = f"{options.root}/pseudo-{row.start}-{row.unlabelled}-{row.select}-seed{seed}"
    words = [f"{key}={value}" for key, value in arguments.items() if value] + ([options.args] if options.args else [])
    start = f"{options.root}/thesis-{row.start}-seed{seed}" + ("@best" if options.best else "")
    flags = {
        "config": f"configs/self_training.py:{','.join(words)}",
        "config.seed": seed,
        "config.train.init": start if row.start and not row.scratch else "",
        "config.checkpoint.best": options.best,
        "config.data.dir": options.data_dir,
        "config.data.manual_dir": options.manual_dir,
        "workdir": folder,
    }
    flags |= {f"config.{key}": value for key, _, value in (item.partition("=") for item in options.set)}
    return _command("-m nightjax.main", flags)


def _folders(options: argparse.Namespace) -> dict[str, str]:
    return {"data_dir": options.data_dir, "manual_dir": options.manual_dir}


def _command(program: str, flags: dict[str, object]) -> list[str]:
    return ["python", *program.split(), *(f"--{key}={value}" for key, value in flags.items() if str(value))]


if __name__ == "__main__":
    cli.run(main)
