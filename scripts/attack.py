# SPDX-License-Identifier: Apache-2.0
"""Attacks nightjax with wrong and odd inputs, and counts how they end.

    python scripts/attack.py --minutes=10
    python scripts/attack.py --minutes=2 --seed=7 --kinds=file,flag --list

Every input is drawn from a seed: settings on the command line, config files, damaged files of runs and data, flags of
all verbs. Each has to end in one line and exit code 2, or in a result that is right: no traceback, no hang, and no
word of acceptance for what makes no sense. Most run in this process, up to where a step would be compiled; one of
--real runs to its end in a process of its own. The exit code is 1 if one ended otherwise; a line names it.
"""

import collections
import contextlib
import io
import os
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags
from attacks import inputs, outcomes, world

from nightjax import cli as command
from nightjax.core import cli

SECONDS = 60.0
"""What takes longer hangs; the tiny network compiles in less."""


def help_of(verb: str) -> str:
    """The help of a verb."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        command.find(verb).main([f"nightjax {verb}", "--help"])
    return out.getvalue()


def main(argv: Sequence[str]) -> None:
    """Attacks."""
    values = flags.FlagValues()
    flags.DEFINE_float("minutes", 10.0, "How long.", lower_bound=0.0, flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of the inputs.", flag_values=values)
    flags.DEFINE_integer("skip", 0, "Leave out the first so many.", flag_values=values)
    flags.DEFINE_integer(
        "real", 25, "One of so many in a process of its own; 0 for none.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_list("kinds", sorted(inputs.KINDS), "Kinds of input.", flag_values=values)
    flags.DEFINE_bool("list", False, "Print every input and its end.", flag_values=values)
    flags.DEFINE_string("world", "", "Folder of a world made before.", flag_values=values)
    cli.parse(values, argv, __doc__)
    cli.use_compilation_cache()
    counts, bad = collections.Counter(), 0
    with tempfile.TemporaryDirectory() as scratch:
        template = pathlib.Path(values.world or pathlib.Path(scratch) / "template").resolve()
        if not values.world:
            world.build(template)
        os.chdir(scratch)  # Flags may name files that are written.
        inputs.learn(template)
        inputs.learn_flags(help_of)
        end = time.monotonic() + 60 * values.minutes
        number = values.skip
        while time.monotonic() < end:
            rng = random.Random(f"{values.seed} {number}")
            number += 1
            attack = inputs.KINDS[rng.choice(sorted(values.kinds))](rng)
            root = inputs.fresh(template, pathlib.Path(scratch) / "w")
            attack.prepare(root)
            words = [word.replace("{w}", str(root)) for word in attack.words]
            began = time.monotonic()
            real = values.real and rng.randrange(values.real) == 0
            outcome = (outcomes.run_process if real else outcomes.run)(attack.verb, words, SECONDS)
            counts[outcome.kind] += 1
            took = time.monotonic() - began
            if values.list or outcome.is_bad(attack.wrong):
                mark = "BAD " if outcome.is_bad(attack.wrong) else ""
                text = outcome.text.replace(str(root), "{w}")
                text = text if outcome.kind in ("traceback", "noise") else text[:240]
                print(
                    f"{mark}{number - 1} {attack.verb} [{attack.name}] -> {outcome.kind} ({took:.1f} s): {text}",
                    flush=True,
                )
            bad += outcome.is_bad(attack.wrong)
    print(f"{sum(counts.values())} inputs: " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common()))
    os.chdir("/")
    if bad:
        print(f"{bad} ended as they should not")
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
