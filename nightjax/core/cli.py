# SPDX-License-Identifier: Apache-2.0
"""Command-line edge shared by every verb: flags in, one-line errors out."""

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import jax
import ml_collections
from absl import flags

from nightjax.core import config as configs
from nightjax.core import interrupts, noise, processes
from nightjax.core.errors import UserError, disk_trouble, first_line, memory_shortage
from nightjax.core.help import config_help, verb_help
from nightjax.core.ranges import check_flag

CONFIG_HELP = (
    "Config file, with its arguments after a colon: configs/dsr_fpa.py:data=nightstreet_tiny,steps=60. "
    "Give it with --help to see its keys; --config.KEY=VALUE replaces one."
)


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a verb; mistakes of the user's end in one line on standard error and exit code 2.

    Ctrl-C ends in one line and exit code 130. Who reads the output and stops reading ends the verb without a word and
    exit code 141, as a shell has it for other programs.
    """
    with noise.kept_back() as said:
        try:
            interrupts.raise_again()
            main(sys.argv)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            if processes.is_several():
                processes.leave(130, f"nightjax: {str(error) or 'interrupted'}")
            interrupted(error)
        except Exception as error:
            if isinstance(error, BrokenPipeError) and noise.nobody_listens():
                sys.exit(141)
            message = explain(error)
            if message is None:
                said.tell()
                if processes.is_several():
                    processes.leave(1, traceback.format_exc())
                raise
            if processes.is_several() and not isinstance(error, processes.Disagreement):
                processes.leave(2, line_of(message))
            fail(message)


def interrupted(error: KeyboardInterrupt) -> NoReturn:
    """Prints one line and exits with code 130; another Ctrl-C on the way out ends the process at once."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    print(f"nightjax: {str(error) or 'interrupted'}", file=sys.stderr, flush=True)
    sys.exit(130)


def explain(error: BaseException) -> str | None:
    """The line to show a user, or None if the error is a bug, so that its traceback is shown."""
    cause = error
    while cause is not None:  # Threads and processes that read data may wrap what went wrong in them.
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if processes.lost(error):
        return processes.LOST
    if found := re.search(r"Worker process was terminated unexpectedly with exit code (-?\d+)", str(error)):
        return (
            f"a process that reads data ended with code {found[1]}; memory may have run out: use fewer data.workers, "
            "or --config.data.workers=0 to see its own error"
        )
    if shortage := memory_shortage(error):
        return (
            f"{shortage}; training needs less with a smaller train.batch or crop or a larger train.accumulate, "
            "evaluation with a smaller eval.sets.NAME.batch, prediction with --size or fewer --scales"
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or "while writing or reading"
        return f"{error.strerror}: {where}; check the path, rights and free space"
    if trouble := disk_trouble(error):
        return f"{trouble}: {first_line(error)}; check the path, rights and free space"
    if isinstance(error, KeyError) and re.fullmatch(r"\w*://", str(error.args[0] if error.args else "")):
        return f"paths that begin with {error.args[0]} are not known: use a local path, gs:// or s3://"
    if isinstance(error, ImportError) and (package := re.search(r"\b(gcsfs|s3fs|adlfs)\b", str(error))):
        return f"a path of this store needs the package {package[1]}: pip install {package[1]}, or use a local path"
    if isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error):
        return f"{str(error).splitlines()[0]}; check JAX_PLATFORMS and that jax is installed for this accelerator"
    return None


def fail(message: object) -> NoReturn:
    """Prints one line and exits with code 2."""
    print(line_of(message), file=sys.stderr)
    sys.exit(2)


def line_of(message: object) -> str:
    """What a message looks like on standard error."""
    return "nightjax: error: " + " ".join(str(message).split())


def parse(
    values: flags.FlagValues,
    argv: Sequence[str],
    about: str | None = None,
    required: Sequence[str] = (),
    words: str = "",
) -> list[str]:
    """Parses the flags of a verb; ``--help`` prints its help and exits.

    Args:
        values: the flags, whose values are set.
        argv: the words of the command, the program first.
        about: the docstring of the verb's module, for its help.
        required: names of the flags that must be given.
        words: what may be given besides flags, such as ``"SET SET ..."``; by default nothing.

    Returns:
        The words that are no flags.

    Raises:
        UserError: a flag is unknown, has a wrong value or is missing, or a word is given that should be a flag.
    """
    if "help" not in values:
        flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    values.set_gnu_getopt(True)  # Flags may follow words.
    try:
        rest = values(list(argv))[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(error) from error
    if values["help"].value:
        print(verb_help(values, argv[0], about or "", required, words))
        sys.exit(0)
    for name in values:
        check_flag(name, values[name].value)
    if rest and not words:
        raise UserError(f"{rest[0]!r} is not a flag; flags start with --")
    for name in required:
        if values[name].value in (None, "", []):
            raise UserError(f"--{name} is missing; see --help")
    return rest


def define_checkpoint(values: flags.FlagValues) -> None:
    """Adds ``--network`` and ``--step``, which choose the network of a run."""
    flags.DEFINE_string("network", "", "student or teacher; by default the one the run evaluates.", flag_values=values)
    flags.DEFINE_string(
        "step",
        None,
        "Checkpoint to load: a step, best, or last_good, the newest that is whole; by default the newest.",
        flag_values=values,
    )


def define_abstain(values: flags.FlagValues) -> None:
    """Adds ``--abstain``, for networks with a calibration."""
    flags.DEFINE_float(
        "abstain",
        0.0,
        "Share of right pixels, such as 0.9, among those that keep a class; the less confident ones get 255. The run "
        "needs nightjax calibrate. 0 keeps all.",
        lower_bound=0,
        upper_bound=1,
        flag_values=values,
    )


def define_shard(values: flags.FlagValues) -> None:
    """Adds ``--shard``, for work that several processes share without knowing of each other; see `parse_shard`."""
    flags.DEFINE_string("shard", "0/1", "Share of this process: its number, from 0, of how many.", flag_values=values)


def parse_shard(text: str) -> tuple[int, int]:
    """The number and the count of ``"0/4"``.

    Raises:
        UserError: it is not of that form.
    """
    shard, _, shards = text.partition("/")
    if not (re.fullmatch(r"\d{1,6}", shard) and re.fullmatch(r"\d{1,6}", shards) and int(shard) < int(shards)):
        raise UserError(f"--shard={text} must look like 0/4: this part, counted from 0, of how many")
    return int(shard), int(shards)


def define_folders(values: flags.FlagValues) -> None:
    """Adds ``--data_dir`` and ``--manual_dir``."""
    flags.DEFINE_string("data_dir", "", "Folder of the prepared data sets.", flag_values=values)
    flags.DEFINE_string("manual_dir", "", "Folder of the downloaded files.", flag_values=values)


def define_processes(values: flags.FlagValues) -> None:
    """Adds the flags of a job of several processes; see `join_from_flags`."""
    flags.DEFINE_bool(
        "distributed", False, "Join a job of several processes. A TPU pod finds them by itself.", flag_values=values
    )
    flags.DEFINE_string("coordinator", None, "host:port of process 0, outside of TPU pods.", flag_values=values)
    flags.DEFINE_integer("processes", None, "Number of processes, with --coordinator.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, with --coordinator.", flag_values=values)
    flags.DEFINE_integer(
        "join_seconds",
        processes.JOIN_SECONDS,
        "How long processes wait for each other at the start.",
        lower_bound=1,
        upper_bound=86400,
        flag_values=values,
    )


def join_from_flags(values: flags.FlagValues) -> None:
    """Joins the other processes if the flags of `define_processes` say that there are any.

    Raises:
        UserError: they cannot be reached, or the flags do not fit together.
    """
    if processes.check_flags(values.distributed, values.coordinator, values.processes, values.process_id):
        processes.join(values.coordinator, values.processes, values.process_id, values.join_seconds)


def use_compilation_cache() -> None:
    """Keeps compiled programs in ``$JAX_COMPILATION_CACHE_DIR``, by default ``~/.cache/nightjax/xla``."""
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/nightjax/xla"))


def define_config(
    values: flags.FlagValues,
    argv: Sequence[str],
    load: Callable[[str], ml_collections.ConfigDict] = configs.load,
    override: Callable[[ml_collections.ConfigDict, Mapping[str, str]], ml_collections.ConfigDict] = configs.override,
    meanings: Callable[[ml_collections.ConfigDict], Mapping[str, str]] = lambda config: {},
) -> tuple[str, list[str]]:
    """Loads the file of ``--config=FILE.py[:key=value,...]`` and replaces what ``--config.a.b=value`` in argv says.

    ``values.config`` is the config with these replacements.

    Args:
        values: gets the flag ``config``.
        argv: the words of the command.
        load: from ``FILE.py:key=value`` to a locked config.
        override: replaces values by dotted key.
        meanings: of a config's keys, for ``--help``.

    Returns:
        The file and argument as written, and the rest of argv, for `parse`.

    Raises:
        UserError: no config was named, the file is missing or broken, or it has no such key.
    """
    own = flags.FlagValues()
    flags.DEFINE_string("config", None, CONFIG_HELP, flag_values=own)
    try:
        rest = own(list(argv), known_only=True)
    except flags.Error as error:
        raise UserError(error) from error
    if not own.config:
        if {"--help", "-h"} & set(argv):
            flags.DEFINE_string("config", None, CONFIG_HELP, flag_values=values)
            return "", rest
        raise UserError("--config is missing; try --config=configs/dsr_fpa.py")
    overrides, words = {}, []
    for word in rest:
        if key := re.match(r"--?config\.([^=]*)(=(.*))?$", word, re.DOTALL):
            overrides[key[1]] = "true" if key[2] is None else key[3]
        else:
            words.append(word)
    config = load(own.config)
    if overrides:
        config = override(config, overrides)
    about = own.config
    if {"--help", "-h"} & set(argv):
        function = configs.get_config_of(own.config.partition(":")[0])
        about = config_help(own.config, function, config, meanings(config))
    flags.DEFINE_string("config", None, about, flag_values=values)
    values["config"].value = config
    return own.config, words
