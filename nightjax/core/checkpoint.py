# SPDX-License-Identifier: Apache-2.0
"""Saving and restoring a run: state and data position together, atomically, newest and best kept."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from nightjax.core import files, manifest
from nightjax.core.errors import NotFinite, UserError, disk_trouble, first_line
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
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, and checkpoints belong there: move it away")
        self._unsealed: int | None = None
        rules: list[policies.PreservationPolicy] = [policies.LatestN(keep)]

        def score(metrics: Mapping[str, float]) -> float:
            return metrics.get(best, -math.inf)

        if best:
            rules.append(policies.BestN(n=1, get_metric_fn=score, keep_checkpoints_without_metrics=False))
        self._best = best
        self._in_background = jax.default_backend() != "cpu"
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(rules),
            best_fn=score
            if best
            else None,  # With it metrics are stored, so that a continued run still knows its best.
            # On CPU a host copy may share memory with the donated state, so the save must end before the next step.
            enable_async_checkpointing=self._in_background,
            cleanup_tmp_directories=True,
            step_format_fixed_length=7,
        )
        self._manager = ocp.CheckpointManager(self.path.resolve(), options=options)

    def latest(self) -> int | None:
        """Newest whole checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, host: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Saves; on accelerators it returns once the arrays are copied and writes in the background.

        Raises:
            UserError: a parameter is not finite, or the disk has no room. The checkpoints before stay as they were.
        """
        self._seal()
        _check_finite(step, state)
        self._check_room(step, state)
        score = {name: value for name, value in metrics.items() if name == self._best and value is not None}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(dict(host)))
        with self._trouble_explained(step):
            self._manager.save(step, args=args, metrics=score, force=True)
        self._unsealed = step
        if not self._in_background:
            self._seal()

    def restore(self, step: int, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restores onto the shapes, types and shardings of ``state`` (abstract or real).

        Raises:
            UserError: the checkpoint is of another model or is damaged.
        """
        check_whole(self.path / f"{step:07d}", LAST_GOOD_TRAIN)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(state), host=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(step, args=args)
        except (ValueError, KeyError, TypeError, FileNotFoundError, json.JSONDecodeError) as error:
            raise UserError(
                f"checkpoint {self.path}/{step:07d} does not fit this model or is damaged ({first_line(error)}); use "
                "the run's own config, or delete that folder to continue from an earlier one"
            ) from error
        return found["state"], dict(found["host"] or {})

    def close(self) -> None:
        """Waits for background writes and frees the manager.

        Raises:
            UserError: what was being written could not be.
        """
        with self._trouble_explained(self._unsealed):
            self._manager.wait_until_finished()
        self._seal()
        self._manager.close()

    def _seal(self) -> None:
        """Writes the manifest of the checkpoint that was saved last, once all of it is on the disk."""
        step, self._unsealed = self._unsealed, None
        if step is None:
            return
        with self._trouble_explained(step):
            self._manager.wait_until_finished()
            folder = self.path / f"{step:07d}"
            if jax.process_index() == 0 and folder.exists():
                manifest.write(folder)

    def _check_room(self, step: int, state: TrainState) -> None:
        """Refuses to begin what the disk cannot hold."""
        if "://" in str(self.path):
            return
        wanted = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes"))
        disk = shutil.disk_usage(self.path)
        if disk.total and disk.free < wanted + ROOM:
            raise UserError(
                f"no room for the checkpoint of step {step} in {self.path}: it takes {(wanted + ROOM) / 1e6:.3g} MB, "
                f"and {disk.free / 1e6:.3g} MB are free; {self._way_on()}"
            )

    @contextlib.contextmanager
    def _trouble_explained(self, step: int | None) -> Iterator[None]:
        """Tells what the disk refused in one line, and leaves nothing of what was begun."""
        try:
            yield
        except Exception as error:
            trouble = disk_trouble(error)
            if trouble is None:
                raise
            self._unsealed = None
            with contextlib.suppress(Exception):
                for path in self.path.iterdir():
                    if "tmp" in path.name:
                        path.rmtree()
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {self.path} ({trouble}); {self._way_on()}"
            ) from error

    def _way_on(self) -> str:
        names = [int(path.name) for path in self.path.iterdir() if path.name.isdigit()]
        before = f"from step {max(names)}, whose checkpoint is unharmed" if names else "from the beginning"
        return f"make room, and the same command resumes {before}"


def _check_finite(step: int, state: TrainState) -> None:
    """Refuses parameters that are not finite, before they take the place of good ones."""
    trees = {"params": state.params, "batch_stats": state.batch_stats, "teacher": state.teacher}
    found = jax.device_get(_finite(trees))
    bad = [place for place, finite in jax.tree.leaves_with_path(found) if not finite]
    if bad:
        name = jax.tree_util.keystr(bad[0], simple=True, separator="/")
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise NotFinite(f"step {step}: {name}{more} not finite; nothing was saved")


@jax.jit
def _finite(trees: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), trees)


LAST_GOOD = "last_good"
"""As a step: the newest checkpoint whose files are what they were when it was saved."""

LAST_GOOD_TRAIN = f"--step={LAST_GOOD} resumes from the newest one that is whole"

ROOM = 1 << 16
"""Bytes that a checkpoint takes besides its arrays."""


def check_whole(folder: epath.Path, remedy: str) -> None:
    """Raises UserError if the files of a checkpoint are not those that were saved.

    Checkpoints of earlier versions have no manifest, and are taken as they are.
    """
    if not (folder / "state").exists():
        raise UserError(f"checkpoint {folder} is empty or damaged: {remedy}")
    if manifest.is_there(folder) and (fault := manifest.fault(folder)):
        raise UserError(f"checkpoint {folder} is damaged: {fault}; {remedy}")


def faults(workdir: epath.PathLike) -> dict[str, str]:
    """Folder of every checkpoint of a run, oldest first, to what is wrong with it; "" for nothing.

    Raises:
        UserError: there is none.
    """
    found = {}
    for _, folder in sorted(_folders(workdir).items()):
        try:
            check_whole(folder, "")
            found[str(folder)] = "" if manifest.is_there(folder) else f"has no {manifest.FILE}, so nobody can tell"
        except UserError as error:
            found[str(folder)] = str(error).removesuffix("; ").removesuffix(": ")
    return found


def put_aside(workdir: epath.PathLike) -> None:
    """Moves the checkpoints that are newer than the newest whole one, and damaged, out of a run's way, and says so."""
    good = latest_folder(workdir, LAST_GOOD)
    for step, folder in _folders(workdir).items():
        if step > int(good.name):
            aside = epath.Path(workdir) / "damaged" / folder.name
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                aside.rmtree()
            folder.rename(aside)
            print(f"the damaged checkpoint {folder} is now {aside}", flush=True)


def _folders(workdir: epath.PathLike) -> dict[int, epath.Path]:
    """Step to folder of every checkpoint of a run; raises UserError if there is none."""
    root = epath.Path(workdir) / "checkpoints"
    names = [path for path in root.iterdir() if path.name.isascii() and path.name.isdigit()] if root.is_dir() else []
    if not names:
        raise UserError(f"{workdir} holds no checkpoint; train first, or check the path")
    return {int(path.name): path for path in names}


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
    check_whole(epath.Path(path), f"--step={LAST_GOOD} takes the newest one that is whole")
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
    check_whole(epath.Path(path), f"--step={LAST_GOOD} takes the newest one that is whole")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return dict(checkpointer.metadata(folder.resolve()).item_metadata.tree["params"])
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise UserError(f"{path} is damaged or holds no network ({first_line(error)})") from error


BEST = "best"
"""As a step: the checkpoint with the highest value of ``checkpoint.best``, the later one of two."""


def latest_folder(workdir: epath.PathLike, step: int | str | None = None) -> epath.Path:
    """Folder of the newest checkpoint of a run, or of the one at ``step``, a number, `BEST` or `LAST_GOOD`.

    ``WORKDIR@best`` is the same as ``step=BEST``.

    Raises:
        UserError: the workdir holds none.
    """
    if step is None and os.fspath(workdir).endswith(f"@{BEST}"):
        workdir, step = os.fspath(workdir).removesuffix(f"@{BEST}"), BEST
    if isinstance(step, str) and step.isascii() and step.isdigit():
        step = int(step)
    folders = _folders(workdir)
    if step == LAST_GOOD:
        step = _last_good(folders)
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


def _last_good(folders: Mapping[int, epath.Path]) -> int:
    """The newest step whose checkpoint is whole; says which newer ones are not."""
    for step, folder in sorted(folders.items(), reverse=True):
        try:
            check_whole(folder, "an earlier one is taken")
        except UserError as error:
            print(error, flush=True)
            continue
        return step
    raise UserError(f"none of the checkpoints of steps {sorted(folders)} is whole: restore one, or train again")


def _score(folder: epath.Path) -> float | None:
    """What ``checkpoint.best`` was at a checkpoint, where it was evaluated."""
    path = folder / "metrics" / "metrics"
    if not path.exists():
        return None
    remedy = f"name a step instead of {BEST!r}"
    score = next(iter(files.read_json(path, dict, remedy).values()), None)
    if score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
        raise UserError(f"{path} is damaged ({score!r} is no score); {remedy}")
    return score
