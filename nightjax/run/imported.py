"""A run folder made of published weights instead of training."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from nightjax import methods
from nightjax.core import checkpoint, sharding
from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.state import TrainState
from nightjax.interop import convert
from nightjax.interop.torch_weights import brief, named_leaves
from nightjax.run import class_sets, start


def import_run(
    config: ml_collections.ConfigDict, inputs: Sequence[str], output: epath.PathLike, **options: Any
) -> list[str]:
    """Makes the folder of a run with imported weights in student and teacher, as the checkpoint of step 0.

    Args:
        config: of the network; the one written names the files as its ``train.init``.
        inputs: files of weights; see `convert.import_files`.
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
    config = class_sets.resolve(config, measured=False)
    method = methods.build(config)
    state = start.abstract_state(config, method, sharding.make_mesh(jax.devices()[:1]))
    variables, missing, notes = convert.import_files(inputs, method.variables(state), method.stacks, **options)
    if missing:
        fresh = jax.jit(lambda: method.variables(start.init_fn(config, method)()))()
        variables = jax.tree.map(
            lambda old, new: new if isinstance(old, jax.ShapeDtypeStruct) else old, variables, fresh
        )
        notes.append(f"  initialized from seed {config.seed}: {brief(missing, named_leaves(variables, method.stacks))}")
    network = method.networks[0]
    config = configs.override(config, {"train.init": ",".join(inputs)})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(configs.to_json(config))
    saver = checkpoint.Checkpointer(folder)
    saver.save(
        0,
        TrainState(
            step=jnp.zeros((), jnp.int32),
            params={network: variables["params"]},
            batch_stats={network: variables["batch_stats"]},
            opt_state={},
            teacher=variables if state.teacher else {},
        ),
        {},
        {},
    )
    saver.close()
    return [*notes, f"wrote {folder}: {start.count_parameters(variables['params']) / 1e6:.2f} M parameters"]
