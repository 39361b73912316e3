"""Segments pictures: ``python -m nightjax.predict --workdir=RUN --input=FILES_OR_FOLDERS --output=DIR``.

Needs the run's folder alone. For every picture it writes ``<name>_trainids.png`` (grey, the values are the class ids),
``<name>_color.png`` and ``<name>_overlay.png``, at the picture's own size. Sub-folders of an input folder are kept.
"""

import pathlib
from collections.abc import Iterable, Sequence

import PIL.Image
from absl import flags
from etils import epath
from tqdm import tqdm

from nightjax import api
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.inference import overlay
from nightjax.inference.images import find_images, read_image
from nightjax.inference.predict import parse_size, should_bucket


def main(argv: Sequence[str]) -> None:
    """Predicts."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_list("input", None, "Pictures or folders of pictures, separated by commas.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder to write to; made if missing.", flag_values=values)
    flags.DEFINE_string("which", "", "student or teacher; by default what the run evaluates.", flag_values=values)
    flags.DEFINE_string("step", None, "Step of the checkpoint, or best; the newest by default.", flag_values=values)
    flags.DEFINE_list(
        "size",
        [],
        "height,width the network sees, or own; by default the height it was trained at.",
        flag_values=values,
    )
    flags.DEFINE_list("scales", ["1"], "Scales to average over.", flag_values=values)
    flags.DEFINE_bool("flip", False, "Average over the mirror image too.", flag_values=values)
    cli.parse(values, argv, required=("workdir", "input", "output"))
    cli.use_compilation_cache()
    options = {"scales": _scales(values.scales), "flip": values.flip}
    if values.size:
        options["input_size"] = parse_size(values.size, "size", own=True)
    pictures = output_names(values.input)
    model = api.load(values.workdir, which=values.which, step=values.step)
    options["bucket"] = should_bucket(_sizes(pictures.values()))
    folder = epath.Path(values.output)
    for name, path in tqdm(pictures.items(), unit="image", disable=None):
        image = read_image(path)
        label = model.predict(image, **options).label
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}_trainids.png").write_bytes(overlay.encode_label(label))
        (folder / f"{name}_color.png").write_bytes(overlay.encode_palette(label))
        (folder / f"{name}_overlay.png").write_bytes(overlay.encode_image(overlay.blend(image, label)))
    print(f"{len(pictures)} pictures segmented into {folder}")


def output_names(inputs: Sequence[str]) -> dict[str, epath.Path]:
    """Name to write to, without suffix, to picture: relative to the input folder that holds it.

    Raises:
        UserError: an input does not exist or holds no picture, or two pictures would be written to one name.
    """
    named = {}
    for given in map(epath.Path, inputs):
        for path in find_images(given):
            inside = path.relative_to(given) if given.is_dir() else path.name
            name = str(pathlib.PurePosixPath(inside).with_suffix(""))
            if named.setdefault(name, path) != path:
                raise UserError(
                    f"{named[name]} and {path} would both be written as {name}_*.png: rename one of them, or predict "
                    "them into different --output folders"
                )
    return named


def _scales(words: Sequence[str]) -> tuple[float, ...]:
    try:
        scales = tuple(map(float, words))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 16 for scale in scales):
        raise UserError(f"--scales={','.join(words)} must be numbers above 0, such as 0.75,1,1.25")
    return scales


def _sizes(paths: Iterable[epath.Path]) -> list[tuple[int, int]]:
    """Sizes from the files' headers; what is no picture is passed over here and reported when its turn comes."""
    sizes = []
    for path in paths:
        try:
            with path.open("rb") as file, PIL.Image.open(file) as image:
                sizes.append(image.size)
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
            continue
    return sizes


if __name__ == "__main__":
    cli.run(main)
