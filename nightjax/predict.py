"""Segments images with a trained network.

    nightjax predict --workdir=runs/dsr_fpa --input=my_photos --output=masks
    nightjax predict --workdir=runs/dsr_fpa --input=a.jpg,b.png --output=masks --scales=0.75,1,1.25 --flip

For every image it writes NAME_trainids.png (gray, the values are class ids), NAME_color.png and NAME_overlay.png, at
the image's own size. classes.json and legend.png say once what the ids and colors mean. Sub-folders of an input folder
are kept. It needs the run folder, and no data set.
"""

import functools
from collections.abc import Sequence

from absl import flags
from etils import epath
from tqdm import tqdm

from nightjax import api
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.inference.files import image_sizes, output_names, write_classes, write_prediction
from nightjax.inference.predict import parse_size, should_bucket


def main(argv: Sequence[str]) -> None:
    """Predicts."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_list("input", None, "Images or folders of images.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    cli.define_checkpoint(values)
    flags.DEFINE_list(
        "size",
        [],
        "height,width that the network sees, or own for the image's; by default the height it was trained at.",
        flag_values=values,
    )
    flags.DEFINE_list("scales", ["1"], "Scales to average over.", flag_values=values)
    flags.DEFINE_bool("flip", False, "Average over the mirror image too.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("workdir", "input", "output"))
    cli.use_compilation_cache()
    options = {"scales": _scales(values.scales), "flip": values.flip}
    if values.size:
        options["input_size"] = parse_size(values.size, "size", own=True)
    images = output_names(values.input)
    model = api.load(values.workdir, network=values.network, step=values.step)
    predict = functools.partial(model.predict, bucket=should_bucket(image_sizes(images.values())), **options)
    folder = epath.Path(values.output)
    for name, path in tqdm(images.items(), unit="image", disable=None):
        write_prediction(predict, path, folder, name, model.classes)
    write_classes(folder, model.classes)
    print(f"{len(images)} images segmented into {folder}")


def _scales(words: Sequence[str]) -> tuple[float, ...]:
    try:
        scales = tuple(map(float, words))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 16 for scale in scales):
        raise UserError(f"--scales={','.join(words)} must be numbers above 0, such as 0.75,1,1.25")
    return scales


if __name__ == "__main__":
    cli.run(main)
