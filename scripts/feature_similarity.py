"""How close the features of night are to the class prototypes of day, by true labels: what T2S-DA means to change.

    python scripts/feature_similarity.py --workdir=runs/source,runs/dacs,runs/t2s_da --set=val_night

Prototypes are the mean features of each class over labelled source images. ``own`` is the mean cosine of a class's
features in the evaluation set to its prototype, ``other`` to the prototypes of the other classes; the table shows the
means over classes, and with
--classes every class. The features are those that the classifier reads, of the network that the run evaluates.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from nightjax import run
from nightjax.core import cli
from nightjax.core import config as configs
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.data import sources, transforms
from nightjax.methods.network import NetworkMethod
from nightjax.ops.class_cells import class_means
from nightjax.ops.prototypes import unit_vectors
from nightjax.ops.resize import resize_nearest

BATCH = 4


def labelled(
    section: dict, size: tuple[int, int] | None, count: int, **folders: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Up to ``count`` images of a data set, as large as the network sees them, with their labels, in batches of `BATCH`
    and a rest."""
    source = sources.open_source(section["dataset"], section["split"], **folders)
    count = min(count, len(source))
    for start in range(0, count, BATCH):
        pairs = [transforms.decode(source[i], ("image", "label")) for i in range(start, min(start + BATCH, count))]
        images = [
            transforms.resize({"image": pair["image"]}, size)["image"] if size else pair["image"] for pair in pairs
        ]
        yield np.stack(images), np.stack([pair["label"] for pair in pairs])


@functools.partial(jax.jit, static_argnames=("method", "unit"))
def sums(method: NetworkMethod, variables, image, label, *, unit: bool):
    """Sum of the features of each class [K, C], and their number [K]."""
    features = method.decoded(variables, image)
    features = unit_vectors(features) if unit else features
    mean, count = class_means(features, resize_nearest(label, features.shape[1:3]))
    return mean * count[:, None], count


def similarity(loaded: run.Run, eval_set: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines [K] to the own prototype and to the others, NaN for classes that either side lacks."""
    config = loaded.config
    folders = {"data_dir": config.data.dir, "manual_dir": config.data.manual_dir}
    stream, section = config.data.streams.source, configs.choose(config.eval.sets, eval_set, "--set")
    totals = []
    for data, size, unit in ((stream, stream.get("resize"), False), (section, section.get("input_size"), True)):
        batches = labelled(data, size, count, **folders)
        found = [sums(loaded.method, loaded.variables, *batch, unit=unit) for batch in batches]
        if not found:
            raise UserError(f"{data['dataset']}@{data['split']} holds no images")
        total, number = (np.sum(part, axis=0) for part in zip(*jax.device_get(found), strict=True))
        totals.append((total / np.maximum(number, 1)[:, None], number > 0))
    (prototypes, known), (features, seen) = totals
    cosine = features @ np.asarray(unit_vectors(jnp.asarray(prototypes))).T
    others = known[None] & ~np.eye(len(known), dtype=bool)
    own, other = np.diagonal(cosine), np.where(others, cosine, 0).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
    return np.where(known & seen, own, np.nan), np.where(known & seen, other, np.nan)


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_list("workdir", [], "Folders of runs, with commas between.", flag_values=values)
    flags.DEFINE_string("set", "val_night", "Evaluation set of the runs' configs, labelled.", flag_values=values)
    flags.DEFINE_integer("images", 100, "At most so many of either domain.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("classes", False, "Show every class.", flag_values=values)
    cli.parse(values, argv, required=("workdir",))
    cli.use_compilation_cache()
    width = max(map(len, (*values.workdir, *CITYSCAPES.names)))
    print(f"{'':{width}}{'own':>8}{'other':>8}{'margin':>8}")
    for workdir in values.workdir:
        loaded = run.load(workdir)
        if not isinstance(loaded.method, NetworkMethod) or "source" not in loaded.method.streams:
            raise UserError(
                f"{workdir} is a run of {loaded.config.method.name!r}, which has no classes of a source to compare"
            )
        own, other = similarity(loaded, values.set, values.images)
        rows = [(workdir, np.nanmean(own), np.nanmean(other))]
        rows += zip(CITYSCAPES.names, own, other, strict=True) if values.classes else ()
        for name, x, y in rows:
            print(f"{name:{width}}{x:8.3f}{y:8.3f}{x - y:8.3f}", flush=True)


if __name__ == "__main__":
    cli.run(main)
