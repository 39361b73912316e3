# SPDX-License-Identifier: Apache-2.0
r"""Converts published weights into a run folder, and a run's weights back into a file with published names.

    nightjax convert --list
    nightjax convert --input=dannet_psp.pth,dannet_psp_light.pth \
        --config=configs/dannet.py:data=cityscapes_to_dark_zurich --output=runs/dannet_official
    nightjax convert --input=mit_b5.pth --allow_missing='head.*' \
        --config=configs/dsr_fpa.py:data=cityscapes_to_dark_zurich --output=pretrained/mit_b5
    nightjax convert --input=segformer-b0-finetuned-cityscapes --output=runs/segformer_b0
    nightjax convert --export=runs/dannet_official --naming=dannet_pspnet --allow_missing='relight.*' --output=psp.pth
    nightjax convert --style=styleaug/checkpoints --output=style.npz

The config says which network the weights are for. The folder written is a run's: predict and evaluate take it, and
training starts from it with --config.train.init=FOLDER. Names that only one side has are listed and end the conversion,
unless --allow_missing (names of the model) or --allow_surplus (names of the file) covers them. What is missing is
initialized from the config's seed; so is what --allow_missing names and the file has in another shape, such as a
classifier of other classes. What trainers wrap around weights or put in front of their names is dropped.
.npz and .safetensors need nothing else; torch's files need nightjax[convert].

A folder that save_pretrained of Hugging Face wrote (SegFormer) needs no config: network, normalization and input size
come from it. --height says at how many rows predict shows images to the network; by default what the folder says, or
the height to which the config resizes its images, or 1024 rows if that is a toy's. The run keeps it as eval.height.

--style joins the three checkpoints of the style randomizer (github.com/philipjackson/style-augmentation) in one file,
for configs/t2s_da.py:mode=dg,translation=style,style=style.npz. It needs nightjax[convert].
"""

from collections.abc import Sequence

from absl import flags

from nightjax.core import cli, sharding
from nightjax.core.errors import UserError
from nightjax.interop import convert
from nightjax.interop.namings import NAMINGS
from nightjax.interop.style_names import read_published
from nightjax.interop.weight_files import SAVED, TORCH, save_state_dict
from nightjax.run import imported, loaded, meanings, settings


def main(argv: Sequence[str]) -> None:
    """Lists what is known, imports or exports."""
    values = flags.FlagValues()
    flags.DEFINE_bool("list", False, "Show the known file formats and namings.", flag_values=values)
    flags.DEFINE_list(
        "input", [], "Checkpoints that together hold one network, or a folder of Hugging Face.", flag_values=values
    )
    flags.DEFINE_integer(
        "height", 0, "Rows at which predict shows images to the network.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_string("export", "", "Run folder whose weights are exported.", flag_values=values)
    flags.DEFINE_string("style", "", "Folder of the style randomizer's three checkpoints.", flag_values=values)
    flags.DEFINE_string("output", "", "Folder to write; with --export or --style, a file.", flag_values=values)
    flags.DEFINE_string("naming", "", "Family of names; found by itself when importing.", flag_values=values)
    flags.DEFINE_string("network", "", "student (the default) or teacher, where there are both.", flag_values=values)
    flags.DEFINE_string(
        "step", None, "With --export: checkpoint to load, a step or best; by default the newest.", flag_values=values
    )
    flags.DEFINE_list("allow_missing", [], "Patterns of the model's names that the file may lack.", flag_values=values)
    flags.DEFINE_list("allow_surplus", [], "Patterns of the file's names that the model may lack.", flag_values=values)
    if any(word.startswith(("--config", "-config")) for word in argv):
        _, argv = cli.define_config(values, argv, settings.load, settings.override, meanings.of_config)
    else:
        flags.DEFINE_string("config", None, cli.CONFIG_HELP, flag_values=values)
    cli.parse(values, argv, __doc__)
    if values.list:
        print(listing())
    elif values.style:
        _require(values, "output")
        save_state_dict(values.output, read_published(values.style))
    elif values.export:
        _require(values, "output", "naming")
        export(values)
    else:
        _require(values, "input", "output")
        notes = imported.import_run(
            values.config,
            values.input,
            values.output,
            values.height,
            naming=values.naming,
            network=values.network or "student",
            allow_missing=values.allow_missing,
            allow_surplus=values.allow_surplus,
        )
        print("\n".join(notes))


def listing() -> str:
    """What can be read and written."""
    rows = [f"  {name:22} {naming.about}" for name, naming in NAMINGS.items()]
    formats = f"reads .npz, .safetensors and, with torch, {', '.join(TORCH)}; writes {', '.join(SAVED)}"
    return "\n".join([formats, "namings:", *rows])


def export(values: flags.FlagValues) -> None:
    """Writes the weights of a run to a file and says what is in it."""
    run = loaded.load(values.export, values.network, values.step).merged()
    variables = sharding.to_host(run.variables)
    notes = convert.export_file(
        values.output, variables, values.naming, run.method.stacks, allow_missing=values.allow_missing
    )
    print("\n".join(notes))


def _require(values: flags.FlagValues, *names: str) -> None:
    for name in names:
        if not values[name].value:
            raise UserError(f"--{name} is missing; see --help")


if __name__ == "__main__":
    cli.run(main)
