# SPDX-License-Identifier: Apache-2.0
"""A run folder made of published weights instead of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from nightjax import methods
from nightjax.core import checkpoint, class_section, sharding
from nightjax.core import config as configs
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.files import write_whole
from nightjax.core.state import TrainState
from nightjax.interop import convert, huggingface
from nightjax.interop.torch_weights import brief, named_leaves
from nightjax.run import class_sets, settings, start

USUAL_HEIGHT = 1024
"""Rows at which images are shown to a published network of which nothing says how it was trained: Cityscapes'."""

TOY_HEIGHT = 256
"""No published network was trained on images with fewer rows; a config for such data says nothing about it."""


def import_run(
    config: ml_collections.ConfigDict | None,
    inputs: Sequence[str],
    output: epath.PathLike,
    height: int = 0,
    **options: Any,
) -> list[str]:
    """Makes the folder of a run with imported weights in student and teacher, as the checkpoint of step 0.

    Args:
        config: of the network; the one written names the files as its ``train.init``. A folder in the form of Hugging
            Face may do without, and decides about normalization and classes.
        inputs: files of weights, or such a folder; see `convert.import_files`.
        output: new folder.
        height: rows at which prediction shows images to the network; 0 for what folder or config say.
        **options: of `convert.import_files`.

    Returns:
        Lines to print.

    Raises:
        UserError: see `convert.import_files`; or the folder holds a run.
    """
    folder = epath.Path(output)
    if (folder / "config.json").exists() or (folder / "checkpoints").exists():
        raise UserError(f"--output={output} holds a run; choose another folder")
    published = next((huggingface.read_folder(path) for path in inputs if huggingface.is_folder(path)), None)
    if config is None and published is None:
        raise UserError("--config is missing: it says which network the weights are of; see --help")
    given = settings.load("supervised") if config is None else _without_adapters(config)
    config = class_sets.resolve(_with_facts(given, published), measured=False)
    said = published.height if published else 0
    why = "as its folder says" if said and not height else "as given"
    config, shown = with_height(config, height or said, why)
    method = methods.build(config)
    state = start.abstract_state(config, method, sharding.make_mesh(jax.devices()[:1]))
    variables, missing, notes = convert.import_files(inputs, method.variables(state), method.stacks, **options)
    if missing:
        init = start.init_fn(config, method)
        fresh = jax.jit(lambda: method.variables(init()))()
        variables = jax.tree.map(
            lambda old, new: new if isinstance(old, jax.ShapeDtypeStruct) else old, variables, fresh
        )
        notes.append(f"  initialized from seed {config.seed}: {brief(missing, named_leaves(variables, method.stacks))}")
    network = method.networks[0]
    config = configs.override(config, {"train.init": ",".join(inputs)})
    imported = TrainState(
        step=jnp.zeros((), jnp.int32),
        params={network: variables["params"]},
        batch_stats={network: variables["batch_stats"]},
        opt_state={},
        teacher=variables if state.teacher else {},
    )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_whole(folder / "config.json", configs.to_json(config))
        saver = checkpoint.Checkpointer(folder)
        saver.save(0, imported, {}, {})
        saver.close()
    except BaseException:  # Half a run would be in the way of the next attempt.
        (folder / "config.json").unlink(missing_ok=True)
        (folder / "checkpoints").rmtree(missing_ok=True)
        raise
    return [*notes, shown, f"wrote {folder}: {start.count_parameters(variables['params']) / 1e6:.2f} M parameters"]


def _with_facts(
    config: ml_collections.ConfigDict, published: huggingface.Published | None
) -> ml_collections.ConfigDict:
    """The config of a folder's network: its model, how pixels enter it, and its classes."""
    if published is None:
        return config
    given: dict[str, Any] = config.to_dict()
    pixels = given["model"].get("input", {}) | published.input
    given["model"] = {"dtype": given["model"]["dtype"], **published.model, "input": pixels}
    if published.classes != CITYSCAPES.names:
        given["classes"] = class_section.section_of(class_section.of_section({"names": published.classes}))
        if "class_weights" in given["method"].get("loss", {}):
            given["method"]["loss"]["class_weights"] = None  # They were for the classes of the config's data.
    return settings.complete(ml_collections.ConfigDict(given))


def with_height(
    config: ml_collections.ConfigDict, height: int, why: str = "as given"
) -> tuple[ml_collections.ConfigDict, str]:
    """The config with the height at which images are shown to the network, and a line that says so.

    Args:
        config: of the network.
        height: that is known; 0 for what the config says, or `USUAL_HEIGHT` where that is a toy's.
        why: it is known.
    """
    streams: Mapping[str, Any] = config.data.streams.to_dict()
    stream = streams.get("target") or next(iter(streams.values()))
    trained = (stream["resize"] or stream["crop"])[0]
    if not height and trained < TOY_HEIGHT:
        height, why = USUAL_HEIGHT, f"because nothing says more than the {trained} rows of the config's data"
    config = settings.override(config, {"eval.height": height or config.eval.height})
    rows = config.eval.height or (stream["resize"] or (0,))[0]
    if not rows:
        return config, "predict shows it images at their own size, as the config's data"
    return config, f"predict shows it images at {rows} rows, {why if config.eval.height else 'as the config trains it'}"


def _without_adapters(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Published weights have no adapters, and what is trained of them is another run's business."""
    config = ml_collections.ConfigDict(config.to_dict())
    if config.model.get("backbone_lora_rank"):
        config.model.backbone_lora_rank, config.optim.groups = 0, ()
    config.optim.groups = tuple(group for group in config.optim.groups if group.get("trained", True))
    return config
