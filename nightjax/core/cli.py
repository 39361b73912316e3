"""Command-line edge shared by every verb: flags in, one-line errors out."""

import os
import sys
from collections.abc import Callable, Sequence

import jax
import ml_collections
from absl import flags
from ml_collections import config_flags

from nightjax.core.errors import UserError


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a verb; mistakes of the user's end in one line on standard error and exit code 2."""
    try:
        main(sys.argv)
    except UserError as error:
        fail(error)
    except OSError as error:
        if error.errno is None:
            raise
        fail(f"{error.strerror}: {error.filename or 'while writing or reading'}; check the path, rights and free space")


def fail(message: object) -> None:
    """Prints one line and exits with code 2."""
    print("nightjax: error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


def parse(values: flags.FlagValues, argv: Sequence[str], required: Sequence[str] = ()) -> None:
    """Parses flags; ``--help`` prints them and exits.

    Raises:
        UserError: a flag is unknown, has a wrong value or is missing, or there are words that are no flags.
    """
    if "help" not in values:
        flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    try:
        rest = values(list(argv))[1:]
    except flags.Error as error:
        raise UserError(error) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"config has no key {error.args[0] if error.args else error}") from error
    if values["help"].value:
        print(values.get_help())
        sys.exit(0)
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag; flags start with --")
    for name in required:
        if values[name].value in (None, ""):
            raise UserError(f"--{name} is missing")


def use_compilation_cache() -> None:
    """Keeps compiled programs in ``$JAX_COMPILATION_CACHE_DIR``, by default ``~/.cache/nightjax/xla``."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/nightjax/xla"))


def define_config(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Adds ``--config=FILE.py[:key=value,...]`` and ``--config.a.b=value``."""
    config_flags.DEFINE_config_file(
        "config", None, "Config file, with its argument after a colon.", flag_values=values, sys_argv=list(argv)
    )


def read_config(values: flags.FlagValues) -> ml_collections.ConfigDict:
    """The config of ``define_config``, locked.

    Raises:
        UserError: no config was named, or the file is missing or broken.
    """
    config = values["config"].value
    if config is None:
        raise UserError("--config is missing; try --config=configs/dsr_fpa.py")
    if not isinstance(config, ml_collections.ConfigDict):
        try:
            config.keys()
        except Exception as error:  # ml_collections keeps the file's own error for the first use.
            raise UserError(f"--config: {error}") from error
    return config.lock()
