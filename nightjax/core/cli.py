"""Command-line edge shared by every verb: flags in, one-line errors out."""

import os
import re
import sys
from collections.abc import Callable, Sequence

import jax
import ml_collections
from absl import flags
from ml_collections import config_flags

from nightjax.core import config as configs
from nightjax.core.errors import UserError


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a verb; mistakes of the user's end in one line on standard error and exit code 2."""
    try:
        main(sys.argv)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        fail(message)


def explain(error: BaseException) -> str | None:
    """The line to tell a user, or None for a defect of ours, whose traceback is worth more than a line."""
    cause = error
    while cause is not None:  # Threads and processes that read data may wrap what went wrong in them.
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or "while writing or reading"
        return f"{error.strerror}: {where}; check the path, rights and free space"
    if isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error):
        return f"{str(error).splitlines()[0]}; check JAX_PLATFORMS and that jax is installed for this accelerator"
    return None


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
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(error) from error
    if values["help"].value:
        print(values.get_help())
        sys.exit(0)
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag; flags start with --")
    for name in required:
        if values[name].value in (None, "", []):
            raise UserError(f"--{name} is missing")


def use_compilation_cache() -> None:
    """Keeps compiled programs in ``$JAX_COMPILATION_CACHE_DIR``, by default ``~/.cache/nightjax/xla``."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/nightjax/xla"))


def join_processes(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a job; on TPU all three are found by themselves.

    Raises:
        UserError: they cannot be reached.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the other processes ({error}); outside of TPU give --coordinator=HOST:PORT, --processes "
            "and --process_id"
        ) from error


def define_config(
    values: flags.FlagValues, argv: Sequence[str], load: Callable[[str], ml_collections.ConfigDict] = configs.load
) -> tuple[str, list[str]]:
    """Loads the file of ``--config=FILE.py[:key=value,...]`` and adds a flag for every ``--config.a.b=value`` in argv.

    After `parse`, ``values.config`` is the config with these replacements.

    Args:
        values: gets the flags.
        argv: the words of the command.
        load: from ``FILE.py:key=value`` to a locked config.

    Returns:
        The file and argument as written, and the rest of argv, for `parse`.

    Raises:
        UserError: no config was named, the file is missing or broken, or it has no such key.
    """
    own = flags.FlagValues()
    flags.DEFINE_string("config", None, "Config file, with its argument after a colon.", flag_values=own)
    try:
        rest = own(list(argv), known_only=True)
    except flags.Error as error:
        raise UserError(error) from error
    if not own.config:
        if {"--help", "-h"} & set(argv):
            flags.DEFINE_string("config", None, own["config"].help, flag_values=values)
            return "", rest
        raise UserError("--config is missing; try --config=configs/dsr_fpa.py")
    config = load(own.config)
    for word in rest[1:]:
        if key := re.match(r"--?config\.([^=]*)", word):
            configs.check_key(config, key[1])
            configs.open_none(config, key[1])
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
    except (flags.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"--config: {error.args[0] if error.args else error}") from error
    return own.config, rest
