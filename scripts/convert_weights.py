"""Published checkpoints to run folders, and ours back to their names.

    python scripts/convert_weights.py --list
    python scripts/convert_weights.py --input=dannet_psp.pth,dannet_psp_light.pth \
        --config=configs/dannet.py:data=cityscapes_to_dark_zurich --output=runs/dannet_official
    python scripts/convert_weights.py --input=mit_b5.pth --allow_missing='head.*' \
        --config=configs/dsr_fpa.py:data=cityscapes_to_dark_zurich --output=pretrained/mit_b5
    python scripts/convert_weights.py --export=runs/dannet_official --naming=dannet_pspnet --allow_missing='light.*' \
        --output=psp.pth

The config says which network the weights are for. The folder is a run's: ``predict`` and ``evaluate`` take it, and
training starts from it by ``--config.train.init=FOLDER``. Names that only one side has are listed and end the
conversion, unless ``--allow_missing`` (of the model's names) or ``--allow_surplus`` (of the file's) names them; what is
missing is initialised from the config's seed. ``.npz`` and ``.safetensors`` need nothing else, torch's files need
``nightjax[convert]``.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
from absl import flags
from etils import epath

from nightjax import methods, run
from nightjax.core import checkpoint, cli, sharding
from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.state import TrainState
from nightjax.interop import convert
from nightjax.interop.namings import NAMINGS
from nightjax.interop.torch_weights import brief, named_leaves
from nightjax.interop.weight_files import SAVED, TORCH


def main(argv: Sequence[str]) -> None:
    """Lists, imports or exports."""
    values = flags.FlagValues()
    flags.DEFINE_bool("list", False, "Show the known formats and namings.", flag_values=values)
    flags.DEFINE_list("input", [], "Checkpoints of the parts of one network.", flag_values=values)
    flags.DEFINE_string("export", "", "Folder of a run whose weights are written.", flag_values=values)
    flags.DEFINE_string("output", "", "Folder to write, or with --export a file.", flag_values=values)
    flags.DEFINE_string("naming", "", "Family of the names; found by itself when importing.", flag_values=values)
    flags.DEFINE_string("which", "", "student (default) or teacher, where there are both.", flag_values=values)
    flags.DEFINE_string(
        "step", None, "With --export: step of the checkpoint, or best; the newest by default.", flag_values=values
    )
    flags.DEFINE_list("allow_missing", [], "Patterns of the model's names that the file may lack.", flag_values=values)
    flags.DEFINE_list("allow_surplus", [], "Patterns of the file's names that the model may lack.", flag_values=values)
    if any(word.startswith(("--config", "-config")) for word in argv):
        _, argv = cli.define_config(values, argv, run.load_config)
    cli.parse(values, argv)
    if values.list:
        print(listing())
    elif values.export:
        _require(values, "output", "naming")
        export(values)
    else:
        _require(values, "input", "config", "output")
        notes = import_run(
            values.config,
            values.input,
            values.output,
            naming=values.naming,
            which=values.which or "student",
            allow_missing=values.allow_missing,
            allow_surplus=values.allow_surplus,
        )
        print("\n".join(notes))


def listing() -> str:
    """What can be read and written."""
    rows = [f"  {name:22} {naming.about}" for name, naming in NAMINGS.items()]
    formats = f"reads .npz, .safetensors and, with torch, {', '.join(TORCH)}; writes {', '.join(SAVED)}"
    return "\n".join([formats, "namings:", *rows])


def import_run(
    config: ml_collections.ConfigDict, inputs: Sequence[str], output: epath.PathLike, **options
) -> list[str]:
    """Makes the folder of a run with imported weights in student and teacher, as the checkpoint of step 0.

    Args:
        config: of the network; the one written names the files as its ``train.init``.
        inputs: see `convert.import_files`.
        output: new folder.
        **options: of `convert.import_files`.

    Returns:
        Lines to print.

    Raises:
        UserError: see `convert.import_files`; or the folder holds a run.
    """
    folder = epath.Path(output)
    if (folder / "config.json").exists() or (folder / "checkpoints").exists():
        raise UserError(f"--output={output} holds a run; choose another folder")
    method = methods.build(config)
    state = run.abstract_state(config, method, sharding.make_mesh(jax.devices()[:1]))
    variables, missing, notes = convert.import_files(inputs, method.variables(state), **options)
    if missing:
        fresh = jax.jit(lambda: method.variables(run.init_fn(config, method)()))()
        variables = jax.tree.map(
            lambda old, new: new if isinstance(old, jax.ShapeDtypeStruct) else old, variables, fresh
        )
        notes.append(f"  initialised from seed {config.seed}: {brief(missing, named_leaves(variables))}")
    config.train.init = ",".join(inputs)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(configs.to_json(config))
    saver = checkpoint.Checkpointer(folder)
    saver.save(
        0,
        TrainState(
            step=jnp.zeros((), jnp.int32),
            params={"student": variables["params"]},
            batch_stats={"student": variables["batch_stats"]},
            opt_state={},
            teacher=variables if state.teacher else {},
        ),
        {},
        {},
    )
    saver.close()
    return [*notes, f"wrote {folder}: {run.count_parameters(variables['params']) / 1e6:.2f} M parameters"]


def export(values: flags.FlagValues) -> None:
    """Writes the weights of a run to a file and says what is in it."""
    loaded = run.load(values.export, values.which, values.step)
    variables = sharding.to_host(loaded.variables)
    notes = convert.export_file(values.output, variables, values.naming, allow_missing=values.allow_missing)
    print("\n".join(notes))


def _require(values: flags.FlagValues, *names: str) -> None:
    for name in names:
        if name not in values or not values[name].value:
            raise UserError(f"--{name} is missing; see --help")


if __name__ == "__main__":
    cli.run(main)
