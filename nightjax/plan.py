# SPDX-License-Identifier: Apache-2.0
"""Says whether a run fits on an accelerator and how long it takes at best, without the accelerator.

    nightjax plan --config=dsr_fpa:data=cityscapes_to_dark_zurich,model=daformer_b5 --target=v5e:4x4
    nightjax plan --config=dacs --target=rtx4090,h200 --price=2
    nightjax plan --config=supervised --target=h200:8 --config.train.batch=64 --json
    nightjax plan --config=dacs --target=v5e:1x1,v5e:4x4,v5e:16x16 --scaling
    nightjax plan --all --target=h200,v5e:2x4

The run's own step is compiled for each target; nothing is run and no data set is read. Where it does not fit, the
smallest change that makes it fit is looked for (--noadvise leaves that out). --scaling gives every chip the config's
batch and prints a table of what more chips cost. --all makes the table of recipes in docs/speed.md, which takes some
minutes a row. TPU targets need pip install 'nightjax[tpu]', GPU targets 'nightjax[cuda13]'; neither needs the device.
Exit code 1 if a target does not fit.
"""

import sys
from collections.abc import Sequence

import jax
from absl import flags

from nightjax import planning
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.run import meanings, settings
from nightjax.zoo import planned


def main(argv: Sequence[str]) -> None:
    """Prints a plan for every target."""
    values = flags.FlagValues()
    every = "--all" in argv
    if not every:
        _, argv = cli.define_config(values, argv, settings.load, settings.override, meanings.of_config)
    flags.DEFINE_bool("all", False, "Print a table of the papers' recipes instead of one plan.", flag_values=values)
    flags.DEFINE_list(
        "target",
        None,
        "Accelerators: v4|v5e|v5p|v6e with a topology, such as v5e:4x4; h200, h100, a100-80, l4 or rtx4090, with a "
        "number if several (h200:8); cpu.",
        flag_values=values,
    )
    flags.DEFINE_float("price", 0.0, "Price of one chip for one hour, for the cost of the run.", flag_values=values)
    flags.DEFINE_bool("advise", True, "Look for a change that fits where a plan does not.", flag_values=values)
    flags.DEFINE_bool(
        "scaling",
        False,
        "Give every chip the batch of the config, and print a table of the targets.",
        flag_values=values,
    )
    flags.DEFINE_bool("json", False, "Print each plan as one line of JSON.", flag_values=values)
    cli.parse(values, argv, __doc__, required=() if every else ("config", "target"))
    planning.check_price(values.price)
    if values.scaling and (every or values.json or values.price):
        raise UserError("--scaling prints a table of its own: leave out --all, --json and --price")
    # The machine that plans needs no accelerator of its own.
    jax.config.update("jax_platforms", "cpu")
    cli.use_compilation_cache()
    if every:
        _plan_all(values.target or planned.TARGETS, values.advise)
        return
    show = _plan_scaling if values.scaling else _plan
    if values.scaling:
        print(planning.scaling_head(), flush=True)
    fit = [show(values, target) for target in values.target]
    if not all(fit):
        sys.exit(1)


def _plan_all(targets: Sequence[str], advise: bool) -> None:
    """Prints the table, a row as soon as it is known; after one that does not fit, the smallest change that does."""
    print(planning.table_head(), flush=True)
    for name, path in planned.RECIPES.items():
        for target in targets:
            config = planning.for_chips(settings.load(path), target)
            dtype, found = config.model.dtype, planning.plan(config, target)
            print(planning.table_row(name, found, dtype), flush=True)
            better = None if found.fits or not advise else planning.first_that_fits(config, found)
            if better is not None:
                print(planning.table_row(name, better[1], dtype, better[0]), flush=True)


def _plan_scaling(values: flags.FlagValues, target: str) -> bool:
    found = planning.plan(planning.times_chips(values.config, target), target)
    print(planning.scaling_row(found, values.config.model.get("dtype", "float32")), flush=True)
    return found.fits


def _plan(values: flags.FlagValues, target: str) -> bool:
    found = planning.plan(values.config, target)
    show = planning.to_json if values.json else lambda one: planning.format_plan(one, values.config, values.price)
    print(show(found), flush=True)
    if not found.fits and values.advise:
        better = planning.first_that_fits(values.config, found)
        if better is None:
            print(f"nothing smaller fits on {target}: take more or larger chips", flush=True)
        else:
            print(f"{better[0]} fits:\n{show(better[1])}", flush=True)
    return found.fits


if __name__ == "__main__":
    cli.run(main)
