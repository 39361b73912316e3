# SPDX-License-Identifier: Apache-2.0
"""Trains a method, or resumes an interrupted run.

    nightjax train --config=configs/dsr_fpa.py
    nightjax train --config=configs/dsr_fpa.py:data=nightstreet_tiny,steps=60 --workdir=runs/first
    nightjax train --config=configs/supervised.py --config.train.batch=8 --config.seed=1 --workdir=runs/seed1
    nightjax train --config=configs/supervised.py --config.train.steps=2000 --workdir=runs/supervised --extend
    nightjax train --config=configs/dsr_fpa.py:data=nightstreet_tiny --print_config

Rerun the same command to resume an interrupted run; with more steps or other rates and --extend, a run goes on on
purpose. The run folder holds the resolved config, checkpoints, metrics, scores and report.html. With --config=FILE
--help, the config's own keys are listed; each is a flag.
"""

import os
import pathlib
import re
from collections.abc import Sequence

from absl import flags, logging

from nightjax.core import cli
from nightjax.core.help import format_config
from nightjax.run import meanings, settings
from nightjax.train import train


def main(argv: Sequence[str]) -> None:
    """Reads the flags, joins the other processes if there are any, and trains."""
    values = flags.FlagValues()
    name, argv = cli.define_config(values, argv, settings.load, settings.override, meanings.of_config)
    flags.DEFINE_string("workdir", "", "Folder of the run; by default runs/CONFIG.", flag_values=values)
    flags.DEFINE_bool(
        "extend",
        False,
        "Go on with other train.steps or rates (optim.*) than the run in --workdir began with.",
        flag_values=values,
    )
    flags.DEFINE_bool("print_config", False, "Print the resolved config and stop.", flag_values=values)
    flags.DEFINE_enum(
        "step",
        None,
        ["last_good"],
        "Go on from the newest checkpoint that is whole; by default the newest.",
        flag_values=values,
    )
    cli.define_processes(values)
    cli.parse(values, argv, __doc__, required=("config",))
    if values.print_config:
        print(format_config(values.config))
        return
    logging.set_verbosity(logging.WARNING)
    cli.use_compilation_cache()
    cli.join_from_flags(values)
    train(values.config, values.workdir or _default_workdir(name), extend=values.extend, last_good=bool(values.step))


def _default_workdir(name: str) -> str:
    """``runs/dsr_fpa`` for ``--config=configs/dsr_fpa.py``, with the config's argument behind it."""
    path, _, arg = name.partition(":")
    return os.path.join("runs", "-".join(filter(None, [pathlib.Path(path).stem, re.sub("[,/]+", "-", arg)])))


if __name__ == "__main__":
    cli.run(main)
