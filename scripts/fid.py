"""Distance between two sets of pictures: FID, and KID beside it.

    python scripts/fid.py translated real_night --weights=pt_inception-2015-12-05-6726825d.pth
    python scripts/fid.py nightstreet/std@val_day nightstreet/std@val_night --features=random

A set is a folder of PNG or JPEG files or DATASET@SPLIT. Without Inception weights, ``--features=random`` gives the same distances
between the features of an untrained network: good for more or less, no FID. Compare only numbers of equal n, rule and features.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from nightjax import image_features
from nightjax.core import cli
from nightjax.data.pictures import Pictures
from nightjax.metrics import fid

NAMES = {"inception": ("FID", "KID"), "random": ("random-feature Fréchet distance", "random-feature kernel distance")}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs=2, metavar="SET", help="a folder, or DATASET@SPLIT")
    parser.add_argument("--features", default="inception", help="inception or random")
    parser.add_argument("--weights", default="", metavar="FILE", help="Inception weights (.pth, .safetensors or .npz)")
    parser.add_argument("--resize", default="pytorch_fid", help="pytorch_fid or clean")
    parser.add_argument("--batch", type=int, default=32, help="pictures at a time")
    parser.add_argument("--data_dir", default="", help="where prepared data sets are kept")
    parser.add_argument("--manual_dir", default="", help="where downloaded files are")
    options = parser.parse_args(argv[1:])
    cli.use_compilation_cache()
    describe = image_features.describe_with(
        options.features, weights=options.weights, rule=options.resize, batch=options.batch
    )
    sets = [Pictures(where, data_dir=options.data_dir, manual_dir=options.manual_dir) for where in options.sets]
    one, other = (np.concatenate(list(describe(pictures.images()))) for pictures in sets)
    distance, kernel = NAMES[options.features]
    print(f"{len(one)} and {len(other)} pictures, {options.features} features, resize {options.resize}")
    frechet = fid.frechet_distance(fid.statistics([one]), fid.statistics([other]))
    print(f"{distance}: {max(frechet, 0.0):.4f}")  # Rounding may leave equal sets a little below 0.
    print("{}: {:.6f} ± {:.6f}".format(kernel, *fid.kernel_distance(one, other)))


if __name__ == "__main__":
    cli.run(main)
