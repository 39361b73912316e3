"""Saving and restoring a run: state and data position together, atomically, newest and best kept."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from nightjax.core.errors import UserError, first_line
from nightjax.core.partition import paths
from nightjax.core.state import TrainState
from nightjax.core.types import PyTree


class Checkpointer:
    """Checkpoints of one workdir, one folder a step, each with the state and what the host must remember.

    Args:
        workdir: any path ``epath`` knows.
        keep: how many of the newest to keep.
        best: name of the metric whose best checkpoint is kept beside them, or ``""``.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int = 2, best: str = ""):
        self.path = epath.Path(workdir) / "checkpoints"
        rules: list[policies.PreservationPolicy] = [policies.LatestN(keep)]

        def score(metrics: Mapping[str, float]) -> float:
            return metrics.get(best, -math.inf)

        if best:
            rules.append(policies.BestN(n=1, get_metric_fn=score, keep_checkpoints_without_metrics=False))
        self._best = best
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(rules),
            best_fn=score
            if best
            else None,  # With it metrics are stored, so that a continued run still knows its best.
            # On CPU a host copy may share memory with the donated state, so the save must end before the next step.
            enable_async_checkpointing=jax.default_backend() != "cpu",
            cleanup_tmp_directories=True,
            step_format_fixed_length=7,
        )
        self._manager = ocp.CheckpointManager(self.path.resolve(), options=options)

    def latest(self) -> int | None:
        """Newest whole checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, host: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Saves; on accelerators it returns once the arrays are copied and writes in the background."""
        score = {name: value for name, value in metrics.items() if name == self._best and value is not None}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(dict(host)))
        self._manager.save(step, args=args, metrics=score, force=True)

    def restore(self, step: int, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restores onto the shapes, types and shardings of ``state`` (abstract or real).

        Raises:
            UserError: the checkpoint is of another model or is damaged.
        """
        args = ocp.args.Composite(state=ocp.args.StandardRestore(state), host=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(step, args=args)
        except (ValueError, KeyError, TypeError, FileNotFoundError, json.JSONDecodeError) as error:
            raise UserError(
                f"checkpoint {self.path}/{step:07d} does not fit this model or is damaged ({first_line(error)}); use "
                "the run's own config, or delete that folder to continue from an earlier one"
            ) from error
        return found["state"], dict(found["host"])

    def close(self) -> None:
        """Waits for background writes and frees the manager."""
        self._manager.wait_until_finished()
        self._manager.close()


def restore_part(path: epath.PathLike, part: PyTree) -> PyTree:
    """Restores some fields of a saved state, such as ``{"params": {"student": ...}}``, leaving the rest on disk.

    Args:
        path: the folder of one step.
        part: tree of ``jax.ShapeDtypeStruct`` with shardings.

    Raises:
        UserError: there is no such checkpoint, or it holds another model.
    """
    folder = epath.Path(path) / "state"
    if not folder.exists():
        raise UserError(f"{path} is no checkpoint; give a workdir or one of its checkpoints/STEP folders")
    restore_args = ocp.checkpoint_utils.construct_restore_args(part)
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            found = checkpointer.restore(
                folder.resolve(), ocp.args.PyTreeRestore(part, restore_args=restore_args, partial_restore=True)
            )
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise UserError(f"{path} holds another model than the config's or is damaged ({first_line(error)})") from error
    # What is not there stays the shape that was asked for.
    lost = [place for place, leaf in jax.tree.leaves_with_path(found) if isinstance(leaf, jax.ShapeDtypeStruct)]
    if lost:
        name = jax.tree_util.keystr(lost[0], simple=True, separator="/")
        raise UserError(
            f"{path} holds another model than the config's, or one of an earlier version: {len(lost)} parameters are "
            f"not in it, such as {name}"
        )
    return found


def parameters(path: epath.PathLike, network: str) -> set[str]:
    """Paths of a network's parameters in the checkpoint of one step, such as ``backbone/norm/scale``.

    Raises:
        UserError: the checkpoint is damaged or holds no such network.
    """
    networks = _networks(path)
    if network not in networks:
        raise UserError(f"{path} holds no {network!r} network, only {', '.join(networks)}; it is another kind of run")
    return paths(networks[network])


def first_network(path: epath.PathLike) -> str:
    """Name of the network that the checkpoint of one step is about: the first that is no discriminator."""
    networks = _networks(path)
    found = next((name for name in MAIN_NETWORKS if name in networks), None)
    if found is None:
        raise UserError(f"{path} holds none of the networks {', '.join(MAIN_NETWORKS)}, only {', '.join(networks)}")
    return found


MAIN_NETWORKS = ("student", "matcher", "generators", "image")
"""Names of the networks that runs are about."""


def _networks(path: epath.PathLike) -> dict[str, Any]:
    folder = epath.Path(path) / "state"
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return dict(checkpointer.metadata(folder.resolve()).item_metadata.tree["params"])
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise UserError(f"{path} is damaged or holds no network ({first_line(error)})") from error


BEST = "best"
"""As a step: the checkpoint with the highest value of ``checkpoint.best``, the later one of two."""


def latest_folder(workdir: epath.PathLike, step: int | str | None = None) -> epath.Path:
    """Folder of the newest checkpoint of a run, or of the one at ``step``, a number or `BEST`.

    ``WORKDIR@best`` is the same as ``step=BEST``.

    Raises:
        UserError: the workdir holds none.
    """
    if step is None and os.fspath(workdir).endswith(f"@{BEST}"):
        workdir, step = os.fspath(workdir).removesuffix(f"@{BEST}"), BEST
    if isinstance(step, str) and step.isdigit():
        step = int(step)
    root = epath.Path(workdir) / "checkpoints"
    folders = {int(p.name): p for p in root.iterdir() if p.name.isdigit()} if root.exists() else {}
    if not folders:
        raise UserError(f"{workdir} holds no checkpoint; train first, or check the path")
    if step == BEST:
        scores = {number: score for number, folder in folders.items() if (score := _score(folder)) is not None}
        if not scores:
            raise UserError(
                f"{workdir} holds no checkpoint with a score: name a step, or train with --config.checkpoint.best=SET, "
                "one of eval.sets"
            )
        step = max(scores, key=lambda number: (scores[number], number))
    if step is not None and step not in folders:
        raise UserError(f"{workdir} holds no checkpoint of step {step}; it has {sorted(folders)}")
    return folders[step if step is not None else max(folders)]


def _score(folder: epath.Path) -> float | None:
    """What ``checkpoint.best`` was at a checkpoint, where it was evaluated."""
    path = folder / "metrics" / "metrics"
    try:
        return next(iter(json.loads(path.read_text()).values()), None) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); name a step instead of {BEST!r}") from error
