"""Segments a folder of pictures: ``python -m nightjax.predict --workdir=RUN --input=FILES_OR_DIR --output=DIR``.

Needs the run's folder alone. For every picture it writes ``<name>_trainids.png`` (grey, the values are the class ids),
``<name>_color.png`` and ``<name>_overlay.png``, at the picture's own size.
"""

from collections.abc import Sequence

from absl import flags
from etils import epath
from tqdm import tqdm

from nightjax import api
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.inference import overlay
from nightjax.inference.images import read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def find_images(inputs: Sequence[str]) -> list[epath.Path]:
    """The pictures among files and folders, sorted within a folder.

    Raises:
        UserError: a path does not exist, or there is no picture at all.
    """
    found = []
    for path in map(epath.Path, inputs):
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"--input={path} does not exist")
    if not found:
        raise UserError(f"--input={','.join(map(str, inputs))} holds no picture ({', '.join(SUFFIXES)})")
    return found


def main(argv: Sequence[str]) -> None:
    """Predicts."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_list("input", None, "Pictures or folders of pictures, separated by commas.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder to write to; made if missing.", flag_values=values)
    flags.DEFINE_string("which", "", "student or teacher; by default what the run evaluates.", flag_values=values)
    flags.DEFINE_integer("step", None, "Step of the checkpoint; the newest by default.", flag_values=values)
    flags.DEFINE_list("size", [], "height,width the network sees; by default the picture's own.", flag_values=values)
    flags.DEFINE_list("scales", ["1"], "Scales to average over.", flag_values=values)
    flags.DEFINE_bool("flip", False, "Average over the mirror image too.", flag_values=values)
    cli.parse(values, argv, required=("workdir", "input", "output"))
    cli.use_compilation_cache()
    if len(values.size) not in (0, 2) or not all(s.isdigit() and int(s) for s in values.size):
        raise UserError(f"--size={','.join(values.size)} must be height,width in pixels, such as 540,960")
    try:
        scales = tuple(float(s) for s in values.scales)
    except ValueError as error:
        raise UserError(f"--scales={','.join(values.scales)} must be numbers, such as 0.75,1,1.25") from error
    model = api.load(values.workdir, which=values.which, step=values.step)
    paths = find_images(values.input)
    folder = epath.Path(values.output)
    folder.mkdir(parents=True, exist_ok=True)
    for path in tqdm(paths, unit="image"):
        image = read_image(path)
        size = tuple(map(int, values.size)) or None
        label = model.predict(image, input_size=size, scales=scales, flip=values.flip).label
        (folder / f"{path.stem}_trainids.png").write_bytes(overlay.encode_label(label))
        (folder / f"{path.stem}_color.png").write_bytes(overlay.encode_palette(label))
        (folder / f"{path.stem}_overlay.png").write_bytes(overlay.encode_image(overlay.blend(image, label)))
    print(f"{len(paths)} pictures segmented into {folder}")


if __name__ == "__main__":
    cli.run(main)
