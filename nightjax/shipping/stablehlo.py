# SPDX-License-Identifier: Apache-2.0
"""StableHLO of `jax.export`: one program for each platform, and the weights as its first argument, by name.

JAX runs a program for six months after the version that wrote it; what has to live longer is ONNX.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from nightjax.core import targets
from nightjax.core.errors import UserError
from nightjax.core.files import check_file
from nightjax.shipping.network import Network
from nightjax.shipping.parity import File

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

WEIGHTS = "weights.npz"

MONTHS = 6
"""How long JAX promises to run what this version exports."""


def program_name(platform: str) -> str:
    """The file of a platform's program."""
    return f"program_{platform}.bin"


def write(network: Network, folder: pathlib.Path, *, platforms: Sequence[str]) -> list[File]:
    """Writes ``program_PLATFORM.bin`` and ``weights.npz``.

    Args:
        network: to write.
        folder: gets the files.
        platforms: of `PLATFORMS`. Each program has the forms of its own target (`core.targets`), wherever it is
            exported.

    Returns:
        The program of this machine, if it is among them, to be checked; another machine's cannot be run here.

    Raises:
        UserError: a platform is unknown.
    """
    if not platforms:
        raise UserError(f"no platform is named; choose from {', '.join(PLATFORMS)}")
    if unknown := sorted(set(platforms) - set(PLATFORMS)):
        raise UserError(f"platform {unknown[0]!r} is unknown; choose from {', '.join(PLATFORMS)}")
    weights, unflatten = _flat(network.variables)
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}

    def exported(function: Callable[..., Any], platform: str) -> jax.export.Exported:
        flat = targets.written_for(
            targets.for_platform(platform), lambda weights, image: function(unflatten(weights), image)
        )
        return jax.export.export(jax.jit(flat), platforms=[platform])(shapes, network.image())

    np.savez(folder / WEIGHTS, **weights)
    for platform in platforms:
        program = exported(network, platform)
        (folder / program_name(platform)).write_bytes(bytes(program.serialize()))
    here = own_platform(platforms)
    if here is None:
        return []
    path, twin = folder / program_name(here), functools.cache(lambda: exported(network.logits, here))
    size = path.stat().st_size + (folder / WEIGHTS).stat().st_size
    logits = lambda image: np.asarray(twin().call(weights, image))
    return [File(path.name, size, open_folder(folder), logits)]


def open_folder(folder: pathlib.Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    """This machine's program as a function of its image.

    Raises:
        UserError: there is none for this machine, or it is damaged or of another jax.
    """
    platform = own_platform([name for name in PLATFORMS if (folder / program_name(name)).exists()])
    if platform is None:
        raise UserError(f"{folder} holds no program for {jax.default_backend()}; export with --platforms")
    for name in (program_name(platform), WEIGHTS):
        check_file(folder / name)
    try:
        program = jax.export.deserialize(bytearray((folder / program_name(platform)).read_bytes()))
        weights = dict(np.load(folder / WEIGHTS))
    except Exception as error:  # What the deserializer raises on damaged bytes is not documented.
        raise UserError(f"{folder} is damaged or of another jax ({type(error).__name__}); export again") from error
    _check_weights(folder, program, weights)
    weights = jax.device_put(weights)
    return lambda image: [np.asarray(part) for part in program.call(weights, image)]


def _check_weights(folder: pathlib.Path, program: jax.export.Exported, weights: dict[str, np.ndarray]) -> None:
    """Raises UserError unless the weights are those that the program takes."""
    try:
        (wanted, _), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
        shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in wanted.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} holds a program of another kind; export again") from error
    if shapes != {name: (leaf.shape, leaf.dtype) for name, leaf in weights.items()}:
        raise UserError(f"{folder} is damaged: its weights are not those of its program; export again")


def own_platform(platforms: Sequence[str]) -> str | None:
    """The platform, of these, that this machine's jax runs on."""
    names = {"gpu": ("cuda", "rocm")}.get(jax.default_backend(), (jax.default_backend(),))
    return next((name for name in platforms if name in names), None)


def _flat(tree: Any) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]:
    """Leaves by path, and the way back."""
    leaves, structure = jax.tree.flatten_with_path(tree)
    names = ["/".join(str(key.key) for key in path) for path, _ in leaves]
    flat = {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}
    return flat, lambda found: jax.tree.unflatten(structure, [found[name] for name in names])
