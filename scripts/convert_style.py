"""The style randomiser's three published checkpoints in one file that a config can name.

    python scripts/convert_style.py --input=styleaug/checkpoints --output=style.npz
    python -m nightjax.main --config=configs/t2s_da.py:mode=dg,translation=style,style=style.npz

The files are those of github.com/philipjackson/style-augmentation; reading them needs torch (the extra ``convert``).
"""

from absl import flags

from nightjax.core import cli
from nightjax.interop.style_names import read_published
from nightjax.interop.weight_files import save_state_dict


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_string("input", None, "Folder of the three files.", flag_values=values)
    flags.DEFINE_string("output", None, "File to write, .npz or .safetensors.", flag_values=values)
    cli.parse(values, argv, required=("input", "output"))
    save_state_dict(values.output, read_published(values.input))


if __name__ == "__main__":
    cli.run(main)
