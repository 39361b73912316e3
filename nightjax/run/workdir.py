# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: who holds it, which config it belongs to, and whether all processes of a job agree on both."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
from etils import epath

from nightjax.core import claims, files, origin, processes, same_run, sharding
from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.data import fingerprints, sources
from nightjax.run import loaded, moved, settings

OWN = ("dir", "manual_dir", "workers", "threads")
"""Keys of the section ``data`` in which the processes of a job may differ."""


def check_folders(workdir: epath.Path) -> None:
    """Refuses files in the place of folders that a run writes."""
    for name in ("checkpoints", "eval", "visualizations", "tensorboard", "profile"):
        if (workdir / name).exists() and not (workdir / name).is_dir():
            raise UserError(f"{workdir / name} is a file, and a folder belongs there: move it away")


def take(workdir: epath.Path, held: contextlib.ExitStack) -> None:
    """Makes the workdir if it is not there, and keeps other runs out of it until the stack closes."""
    if jax.process_index() == 0:
        with _writing_to(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(claims.held(workdir))


def check(workdir: epath.Path, config: ml_collections.ConfigDict, extend: bool) -> list[str]:
    """Refuses a workdir that holds another config's run or cannot be one; returns the streams whose folder moved."""
    if (workdir / settings.CONFIG).exists():
        saved, moved_streams = moved.renamed(loaded.read_config(workdir), config)
        if changes := same_run.check_same_run(saved, config, workdir, extend):
            print(f"extending {workdir}: {'; '.join(changes)}", flush=True)
        return moved_streams
    return []


def agree(config: ml_collections.ConfigDict, readers: Mapping[str, sources.Source], order: Any) -> None:
    """Compares the processes of a job: they may read their data elsewhere, but must read the same, for the same run.

    Args:
        config: resolved.
        readers: the data, by stream.
        order: the position in the data, with what its order is recognized by.

    Raises:
        Disagreement: something differs; on all processes.
    """
    if jax.process_count() == 1:
        return
    plain = json.loads(configs.to_json(config))
    plain["data"] = {key: value for key, value in plain["data"].items() if key not in OWN}
    data = {name: fingerprints.facts(source) for name, source in readers.items()}
    processes.agree({"config": plain, "data": data, "order": order})


def claim(
    workdir: epath.Path, config: ml_collections.ConfigDict, readers: dict[str, sources.Source], again: bool
) -> None:
    """Makes the workdir this config's, ``again`` where its data have moved or it is extended; all processes wait.

    Comes after all checks, so that a refused config leaves the folder free. It is also where processes that started
    apart meet, before the first program that needs them all.
    """
    path = workdir / settings.CONFIG
    if jax.process_index() == 0:
        with _writing_to(workdir):
            if again or not path.exists():
                moved.remember(workdir, readers)
                files.write_whole(path, configs.to_json(config))
            origin.record(workdir)
    sharding.wait_for_all("claim")


@contextlib.contextmanager
def _writing_to(workdir: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir} ({error.strerror}); choose another folder") from error
