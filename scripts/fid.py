"""Distance between two sets of pictures: FID, and KID beside it.

    python scripts/fid.py translated real_night --weights=pt_inception-2015-12-05-6726825d.pth
    python scripts/fid.py nightstreet/std@val_day nightstreet/std@val_night --features=random

A set is a folder of PNG or JPEG files or DATASET@SPLIT. Without Inception weights, ``--features=random`` gives the same
distances
between the features of an untrained network: good for more or less, no FID. Compare only numbers of equal n, rule and
    features.

Of several sets before the last, all are compared with that one, and the best is named; of sets less than 0.1 FID apart
it is the later. So the checkpoint of a translator is chosen:

    for step in $(seq 5000 5000 50000); do
        python scripts/translate_dataset.py --workdir=RUN --step=$step --data=DAYS --split=train --name=step_$step
    done
    python scripts/fid.py $(seq -f 'translated/step_%.0f@train' 5000 5000 50000) NIGHTS@train --weights=FILE

Several processes share large sets: the same command on all of them, with --distributed on a TPU pod, elsewhere with
--coordinator=HOST:PORT --processes=N --process_id=I. KID, which needs all features in one place, is then left out.
"""

import argparse
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.metrics import fid
from nightjax.selection import image_features
from nightjax.selection.images import Pictures

NAMES = {"inception": ("FID", "KID"), "random": ("random-feature Fréchet distance", "random-feature kernel distance")}

TIE = {"inception": 0.1, "random": 0.0}
"""Distances that differ by less are no reason to choose the earlier set."""


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="SET", help="a folder, or DATASET@SPLIT; two or more")
    parser.add_argument("--features", default="inception", help="inception or random")
    parser.add_argument("--weights", default="", metavar="FILE", help="Inception weights (.pth, .safetensors or .npz)")
    parser.add_argument("--resize", default="pytorch_fid", help="pytorch_fid or clean")
    parser.add_argument("--batch", type=int, default=32, help="pictures at a time")
    parser.add_argument("--data_dir", default="", help="where prepared data sets are kept")
    parser.add_argument("--manual_dir", default="", help="where downloaded files are")
    parser.add_argument(
        "--distributed", action="store_true", help="share the pictures with the other processes of this job"
    )
    parser.add_argument("--coordinator", help="host:port of process 0, where it is not found")
    parser.add_argument("--processes", type=int, help="number of processes, with --coordinator")
    parser.add_argument("--process_id", type=int, help="number of this process, with --coordinator")
    options = parser.parse_args(argv[1:])
    if len(options.sets) < 2:
        raise UserError("give two sets, or several and what all of them are compared with")
    cli.use_compilation_cache()
    if options.distributed or options.coordinator:
        cli.join_processes(options.coordinator, options.processes, options.process_id)
    describe = image_features.describe_with(
        options.features, weights=options.weights, rule=options.resize, batch=options.batch
    )
    *sets, last = (Pictures(where, data_dir=options.data_dir, manual_dir=options.manual_dir) for where in options.sets)
    if len(sizes := {len(pictures) for pictures in sets}) > 1:
        raise UserError(
            f"the sets to choose from hold {sorted(sizes)} pictures: distances compare at equal numbers only"
        )
    rows = lambda pictures: np.concatenate(list(describe(_share(pictures))))
    merged = lambda features: fid.merge_over_processes(fid.statistics([features]))
    other = rows(last)
    reference, distances = merged(other), []
    distance, kernel = NAMES[options.features]
    for pictures in sets:
        one = rows(pictures)
        whole = merged(one)
        if jax.process_index() > 0:
            continue
        name = f"{pictures.where}: " if len(sets) > 1 else ""
        print(
            f"{name}{whole.count} and {reference.count} pictures, {options.features} features, resize {options.resize}"
        )
        distances.append(fid.frechet_distance(whole, reference))
        print(f"{distance}: {max(distances[-1], 0.0):.4f}")  # Rounding may leave equal sets a little below 0.
        if jax.process_count() == 1:
            print("{}: {:.6f} ± {:.6f}".format(kernel, *fid.kernel_distance(one, other)))
    if len(distances) > 1:
        print(f"best: {sets[best_of(distances, TIE[options.features])].where}")


def best_of(distances: Sequence[float], tie: float) -> int:
    """Position of the smallest distance, or the last one less than ``tie`` above it."""
    least = min(distances)
    return max(i for i, distance in enumerate(distances) if distance == least or distance - least < tie)


def _share(pictures: Pictures) -> Iterator[np.ndarray]:
    """The pictures that this process describes: every n-th of n processes."""
    if len(pictures) < jax.process_count():
        raise UserError(
            f"{pictures.where} has {len(pictures)} pictures for {jax.process_count()} processes: use fewer processes"
        )
    return (pictures[i][1] for i in range(jax.process_index(), len(pictures), jax.process_count()))


if __name__ == "__main__":
    cli.run(main)
