"""Trains: ``python -m nightjax.main --config=configs/dsr_fpa.py [--workdir=DIR] [--config.a.b=value]``."""

import os
import pathlib
import re
from collections.abc import Sequence

from absl import flags, logging

from nightjax import run
from nightjax.core import cli
from nightjax.train import train


def main(argv: Sequence[str]) -> None:
    """Reads the flags, joins the other processes if there are any, and trains."""
    values = flags.FlagValues()
    name, argv = cli.define_config(values, argv, run.load_config)
    flags.DEFINE_string("workdir", "", "Folder of the run; default runs/<config>.", flag_values=values)
    flags.DEFINE_bool(
        "distributed", False, "Join a job of several processes, found by itself on TPU.", flag_values=values
    )
    flags.DEFINE_string("coordinator", None, "host:port of process 0, where it is not found.", flag_values=values)
    flags.DEFINE_integer("processes", None, "Number of processes, with --coordinator.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, with --coordinator.", flag_values=values)
    cli.parse(values, argv)
    logging.set_verbosity(logging.WARNING)
    cli.use_compilation_cache()
    if values.distributed or values.coordinator:
        cli.join_processes(values.coordinator, values.processes, values.process_id)
    train(values.config, values.workdir or _default_workdir(name))


def _default_workdir(name: str) -> str:
    """``runs/dsr_fpa`` for ``--config=configs/dsr_fpa.py``, with the config's argument behind it."""
    path, _, arg = name.partition(":")
    return os.path.join("runs", "-".join(filter(None, [pathlib.Path(path).stem, re.sub("[,/]+", "-", arg)])))


if __name__ == "__main__":
    cli.run(main)
