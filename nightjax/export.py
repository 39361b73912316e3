"""Exports a trained network as a program that needs jax alone.

    nightjax export --workdir=runs/dsr_fpa --output=shipped --size=540,960
    nightjax export --workdir=runs/dsr_fpa --output=shipped --size=540,960 --batch=8 --platforms=cuda
    nightjax export --workdir=runs/dsr_fpa --output=saved --size=540,960 --format=saved_model

The folder holds the program, its weights, and a note of what they are; see nightjax.interop.export. Images go in as
uint8 RGB of one size; train ids and confidences come out at that size. In between, the network sees them at the size at
which nightjax predict shows them.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from nightjax import api
from nightjax.core import cli, sharding
from nightjax.core.class_section import described
from nightjax.core.method import segments
from nightjax.inference.predict import parse_size
from nightjax.interop import export


def main(argv: Sequence[str]) -> None:
    """Exports."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    flags.DEFINE_list("size", [], "height,width of the images.", flag_values=values)
    flags.DEFINE_list(
        "input_size",
        [],
        "height,width that the network sees, or own for --size; by default the height it was trained at.",
        flag_values=values,
    )
    flags.DEFINE_integer("batch", 0, "Images in a call; 0 allows any number.", lower_bound=0, flag_values=values)
    flags.DEFINE_list(
        "platforms", ["cpu", "cuda", "tpu"], f"Targets; some of {', '.join(export.PLATFORMS)}.", flag_values=values
    )
    flags.DEFINE_enum(
        "format",
        "stablehlo",
        ["stablehlo", "saved_model"],
        "Format of the program; saved_model needs TensorFlow.",
        flag_values=values,
    )
    cli.define_checkpoint(values)
    cli.parse(values, argv, __doc__, required=("workdir", "output", "size"))
    size = parse_size(values.size, "size")
    assert size is not None  # Only --input_size may be "own".
    chosen = {"input_size": parse_size(values.input_size, "input_size", own=True)} if values.input_size else {}
    model = api.load(values.workdir, network=values.network, step=values.step)
    loaded = model.run.merged()
    network = (values.output, segments(loaded.method).predict, sharding.to_host(loaded.variables))
    options: dict[str, Any] = {
        "size": size,
        "batch": values.batch or None,
        "input_size": model.input_size(size),
    } | chosen
    if values.format == "saved_model":
        export.save_tensorflow(*network, **options)
    else:
        about = {
            "run": loaded.workdir.name,
            "method": loaded.config.method.name,
            "step": loaded.step,
            "classes": described(model.classes),
        }
        export.export(*network, **options, platforms=values.platforms, about=about)
    print(f"wrote {values.output}")


if __name__ == "__main__":
    cli.run(main)
