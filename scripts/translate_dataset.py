"""Turns a labelled day set into a labelled night set, by a trained translator or by Fourier domain adaptation (FDA).

    python scripts/translate_dataset.py --workdir=runs/unit --data=nightstreet/std --split=source_day
    python scripts/translate_dataset.py --fda=nightstreet/std_pairs --fda_split=target_pairs --data=nightstreet/std \\
        --split=source_day

The first takes the newest checkpoint of a run whose method translates, the second gives every picture the low
frequencies of one of the night pictures. The result is a prepared data set, ``translated/NAME``: train on it with
``--config.data.streams.source.dataset=translated/NAME``, and join it with its days by
``nightstreet/std+translated/NAME``. Labels and names are those of the days; the split ``all`` becomes ``train``. Its
``metadata.json`` says what made it.

Killed and started again it goes on, and ends with the same bytes. Several processes share the work with ``--shard=0/4``
to ``--shard=3/4``; the last one to finish writes the records.
"""

import hashlib
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from tqdm import tqdm

from nightjax import run
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.data import sources, transforms
from nightjax.ops import fourier
from nightjax.ops.resize import resize
from nightjax.prepare.translated import Provenance, Translation

Translator = Callable[[str, np.ndarray], np.ndarray]
"""(name of the record, uint8 [H, W, 3]) to uint8 [H, W, 3]: a function of its arguments alone."""

CONDITION = {"a": "day", "b": "night"}


def main(argv: Sequence[str]) -> None:
    """Translates this process's share, and writes the records if that was the last."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "Folder of a run whose method translates.", flag_values=values)
    flags.DEFINE_integer("step", None, "Step of its checkpoint; the newest by default.", flag_values=values)
    flags.DEFINE_enum("to", "b", ["a", "b"], "b makes day night, a makes night day.", flag_values=values)
    flags.DEFINE_list("size", [], "height,width the translator sees; by default the picture's own.", flag_values=values)
    flags.DEFINE_bool(
        "stretch", False, "Stretch every picture to the full range, as the authors do.", flag_values=values
    )
    flags.DEFINE_string("fda", "", "Data set whose low frequencies to take instead of a run.", flag_values=values)
    flags.DEFINE_string("fda_split", "train", "Its split.", flag_values=values)
    flags.DEFINE_float("beta", 0.01, "Share of the shorter side that is half of FDA's window.", flag_values=values)
    flags.DEFINE_string("data", None, "Data set to translate.", flag_values=values)
    flags.DEFINE_list("split", None, "Its splits.", flag_values=values)
    flags.DEFINE_string(
        "name", "", "Name of the result; by default of the run, or fda, and of the data.", flag_values=values
    )
    flags.DEFINE_string("shard", "0/1", "Which part of how many this process does.", flag_values=values)
    flags.DEFINE_string("data_dir", "", "Where prepared data sets are kept.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Where downloaded files are.", flag_values=values)
    cli.parse(values, argv, required=("data", "split"))
    if bool(values.workdir) == bool(values.fda):
        raise UserError("give either --workdir, a translator's run, or --fda, a data set of nights")
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that its builder's class does not list.
    cli.use_compilation_cache()
    shard, shards = _shard(values.shard)
    if values.workdir:
        translate, made_by = from_run(values.workdir, values.step, values.to, _size(values.size), values.stretch)
    else:
        translate, made_by = from_fda(_open(values, values.fda, values.fda_split), values.beta)
    opened = {"train" if split == "all" else split: _open(values, values.data, split) for split in values.split}
    made_of = {split: {"records": len(source), "labels": source.label_version} for split, source in opened.items()}
    translation = Translation(
        name=values.name or default_name(values.workdir, values.data),
        data_dir=pathlib.Path(sources.prepared_dir(values.data_dir)),
        sources=opened,
        provenance={"made_by": made_by, "data": values.data, "splits": made_of},
        condition=CONDITION[values.to],
    )
    if not translation.is_done():
        make_pictures(translation, translate, shard, shards)
    if translation.finish():
        print(f"{translation.path} is ready: use it as dataset=translated/{translation.name}")
    else:
        left = sum(1 for _ in translation.missing())
        print(
            f"part {shard}/{shards} is done, {left} pictures of other parts are missing: the last part writes the "
            "records"
        )


def make_pictures(translation: Translation, translate: Translator, shard: int = 0, shards: int = 1) -> None:
    """Translates the records of one part that have no picture yet."""
    translation.begin()
    for split, index in tqdm(list(translation.missing(shard, shards)), unit="image", disable=None):
        record = translation.sources[split][index]
        image = transforms.decode(record, ("image",))["image"]
        translation.write_picture(split, index, translate(str(record["image_id"]), image))


def from_run(
    workdir: str, step: int | None, to: str, size: tuple[int, int] | None, stretch: bool
) -> tuple[Translator, Provenance]:
    """The translator of a run, and what it is.

    Args:
        workdir, step: of the checkpoint; the newest if step is None.
        to: domain to translate to.
        size: (height, width) that the network sees; pictures are shrunk with antialiasing and brought back to their own
            size.
        stretch: bring the smallest and the largest value of every picture to 0 and 255. Nights lose their darkness by
            it.

    Raises:
        UserError: no such run or checkpoint, or it translates nothing.
    """
    loaded = run.load(workdir, "student", step)
    if not hasattr(loaded.method, "translate"):
        name = loaded.config.method.name
        raise UserError(f"{workdir} is a run of {name!r}, which translates no pictures; give one of configs/unit.py")

    @jax.jit
    def picture(variables, image):
        seen = image
        if size:
            seen = resize(image.astype(jnp.float32), size, align_corners=False, antialias=True)
            seen = jnp.round(seen).astype(jnp.uint8)
        y = loaded.method.translate(variables, seen, to)
        if stretch:
            y = (y - y.min()) / (y.max() - y.min() + 0.5e-5)  # The official constant is that of [-1, 1].
        if size:
            y = resize(y, image.shape[1:3], align_corners=False)
        return jnp.round(255 * jnp.clip(y, 0, 1)).astype(jnp.uint8)

    def translate(name, image):
        del name
        return np.asarray(picture(loaded.variables, image[None]))[0]

    settings = {"to": to, "size": list(size) if size else None, "stretch": stretch}
    facts = {"method": loaded.config.method.name, "step": loaded.step, "sha256": checksum(loaded.variables)}
    return translate, facts | settings


def from_fda(target: sources.Source, beta: float) -> tuple[Translator, Provenance]:
    """FDA with, for every picture, one of the target's by the picture's name, and what it is."""

    def translate(name, image):
        record = target[zlib.crc32(name.encode()) % len(target)]
        return fourier.translate(image, transforms.decode(record, ("image",))["image"], beta)

    facts = {
        "method": "fda",
        "target": target.name,
        "target_split": target.split,
        "target_records": len(target),
        "beta": beta,
    }
    return translate, facts


def checksum(variables: Variables) -> str:
    """SHA-256 of names, types, shapes and values, whatever files they came from."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def default_name(workdir: str, data: str) -> str:
    """``unit_nightstreet_std`` for ``runs/unit`` and ``nightstreet/std``."""
    words = f"{pathlib.Path(workdir).name if workdir else 'fda'}_{data.partition(':')[0]}"
    return "".join(letter if letter.isalnum() else "_" for letter in words)


def _open(values: Any, name: str, split: str) -> sources.Source:
    source = sources.open_source(name, split, data_dir=values.data_dir, manual_dir=values.manual_dir)
    if not len(source):
        raise UserError(f"{name}, split {split!r}, has no records")
    return source


def _size(words: Sequence[str]) -> tuple[int, int] | None:
    if not words:
        return None
    if len(words) != 2 or not all(word.isdigit() and int(word) for word in words):
        raise UserError(f"--size={','.join(words)} must be height,width, such as 512,1024")
    return int(words[0]), int(words[1])


def _shard(text: str) -> tuple[int, int]:
    shard, _, shards = text.partition("/")
    if not (shard.isdigit() and shards.isdigit() and int(shard) < int(shards)):
        raise UserError(f"--shard={text} must be such as 0/4: this part, counted from 0, of how many")
    return int(shard), int(shards)


if __name__ == "__main__":
    cli.run(main)
