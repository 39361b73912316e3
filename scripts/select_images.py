"""Chooses the pictures of an unlabelled pool that are most like a reference set, or darkest.

    python scripts/select_images.py --rule=fid_point --count=200 --output=selected/fid --features=random \
        --pool=nightstreet/std_pairs@target_pairs,nightstreet/std_unlabelled@target_twilight --reference=translated/images

Sets are folders or DATASET@SPLIT. Rules: his_dark (darkest nights), his_ref (nearest luminance histogram), random,
fid_point, fid_maha, fid_group, fid_greedy (see `nightjax.selection.coverage`). The output folder gets selected.csv (name
and score, best first), selection.json (what was done, and the Fréchet distance of the selection beside that of random
ones) and contact_sheet.png. Pictures on which results are scored are refused unless --transductive says that this is
wanted; selection.json says so then.
"""

import argparse
import csv
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from nightjax.core import cli
from nightjax.core.config import suggestion
from nightjax.core.errors import UserError
from nightjax.inference import overlay
from nightjax.metrics import fid
from nightjax.selection import brightness, image_features
from nightjax.selection import coverage as selection
from nightjax.selection.images import Pictures, scored_by

RULES_WITHOUT_REFERENCE = ("his_dark", "random")
RULES_WITHOUT_FEATURES = (*RULES_WITHOUT_REFERENCE, "his_ref")
SHEET_ROWS = 8


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", required=True, help="how to choose")
    parser.add_argument("--pool", required=True, help="unlabelled pictures to choose from")
    parser.add_argument("--reference", default="", help="what they should be like; his_dark and random need none")
    parser.add_argument("--count", type=int, required=True, help="how many to choose")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--transductive", action="store_true", help="allow a reference on which results are scored")
    parser.add_argument("--seed", type=int, default=0, help="of the rule random")
    parser.add_argument("--features", default="inception", help="inception or random, of the fid rules")
    parser.add_argument("--weights", default="", metavar="FILE", help="Inception weights")
    parser.add_argument("--resize", default="pytorch_fid", help="pytorch_fid or clean")
    parser.add_argument("--data_dir", default="", help="where prepared data sets are kept")
    parser.add_argument("--manual_dir", default="", help="where downloaded files are")
    options = parser.parse_args(argv[1:])
    cli.use_compilation_cache()
    _check(options)
    opened = lambda where: Pictures(where, data_dir=options.data_dir, manual_dir=options.manual_dir)
    pool, reference = opened(options.pool), opened(options.reference) if options.reference else None
    names = pool.names()
    if not 0 < options.count <= len(names):
        raise UserError(f"--count={options.count}, but the pool holds {len(names)} pictures")
    if options.rule in RULES_WITHOUT_FEATURES:
        chosen, distances = _without_features(options, names, pool, reference), {}
    else:
        chosen, distances = _by_features(options, names, pool, reference)
    write(pathlib.Path(options.output), names, chosen, pool, reference, _record(options, chosen, distances))
    print(f"{len(chosen)} of {len(names)} pictures chosen by {options.rule}, see {options.output}/contact_sheet.png")


def _check(options: argparse.Namespace) -> None:
    known = (*RULES_WITHOUT_FEATURES, *selection.RULES)
    if options.rule not in known:
        raise UserError(f"--rule={options.rule} is unknown{suggestion(options.rule, known)}")
    if options.rule not in RULES_WITHOUT_REFERENCE and not options.reference:
        raise UserError(f"--rule={options.rule} needs --reference, the pictures that the selection should be like")
    for flag in ("pool", "reference"):
        where = getattr(options, flag)
        if (scored := scored_by(where)) and not options.transductive:
            raise UserError(
                f"--{flag}={where} is {scored}, on which results are scored: choose other pictures, or say "
                "--transductive and "
                "report it with the results"
            )


def _without_features(options, names: list[str], pool: Pictures, reference: Pictures | None) -> selection.Scored:
    if options.rule == "random":
        order = np.random.default_rng(options.seed).permutation(len(names))[: options.count]
        return [(sorted(names)[i], 0.0) for i in order]
    if options.rule == "his_dark":
        gammas = [brightness.brightness(image) for image in pool.images()]
        return brightness.select_darkest(dict(zip(names, gammas, strict=True)), options.count)
    mean = np.mean([brightness.luminance_histogram(image) for image in reference.images()], axis=0)
    histograms = [brightness.luminance_histogram(image) for image in pool.images()]
    return brightness.select_by_histogram(dict(zip(names, histograms, strict=True)), mean, options.count)


def _by_features(options, names: list[str], pool: Pictures, reference: Pictures):
    """The selection, and Fréchet distances to the reference of it, of random ones (mean of 10), and of the whole
    pool."""
    describe = image_features.describe_with(options.features, weights=options.weights, rule=options.resize)
    features, wanted = (np.concatenate(list(describe(pictures.images()))) for pictures in (pool, reference))
    chosen = selection.select(options.rule, names, features, wanted, options.count)
    whole = fid.statistics([wanted])
    distance = lambda index: fid.frechet_distance(fid.statistics([features[index]]), whole)
    position = {name: i for i, name in enumerate(names)}
    chance = [np.random.default_rng(seed).choice(len(names), len(chosen), replace=False) for seed in range(10)]
    return chosen, {
        "selected": distance([position[name] for name, _ in chosen]),
        "random": float(np.mean([distance(index) for index in chance])),
        "pool": distance(np.arange(len(names))),
    }


def _record(options: argparse.Namespace, chosen: selection.Scored, distances: dict[str, float]) -> dict:
    used = {key: getattr(options, key) for key in ("rule", "pool", "reference", "transductive", "count")}
    if distances:
        used |= {"features": options.features, "resize": options.resize, "frechet": distances}
    return used | {"chosen": len(chosen)}


def write(
    folder: pathlib.Path,
    names: list[str],
    chosen: selection.Scored,
    pool: Pictures,
    reference: Pictures | None,
    record: dict,
) -> None:
    """Writes the list, the record and the contact sheet: the best, the last chosen, left out, and the reference."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "selected.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "score"), *((name, f"{score:.6g}") for name, score in chosen)])
    (folder / "selection.json").write_text(json.dumps(record, indent=1) + "\n")
    position = {name: i for i, name in enumerate(names)}
    rows = [position[name] for name, _ in chosen]
    left = sorted(set(position.values()) - set(rows))
    columns = {"best": rows[:SHEET_ROWS], "last chosen": rows[-SHEET_ROWS:], "left out": _spread(left)}
    sheet = {title: [pool[i][1] for i in index] for title, index in columns.items() if index}
    if reference is not None:
        sheet["reference"] = [reference[i][1] for i in _spread(range(len(reference)))]
    (folder / "contact_sheet.png").write_bytes(overlay.encode_image(overlay.panel_grid(sheet, height=128)))


def _spread(index: Sequence[int]) -> list[int]:
    """A few of them, evenly spread."""
    return (
        [index[i] for i in np.unique(np.linspace(0, len(index) - 1, SHEET_ROWS).round().astype(int))] if index else []
    )


if __name__ == "__main__":
    cli.run(main)
