# SPDX-License-Identifier: Apache-2.0
"""The command ``nightjax``: ``nightjax VERB ...`` is the same as ``python -m nightjax.VERB ...``.

A verb's module is imported when it is called, so that the list of verbs costs no import of jax.
"""

import importlib
import sys
from types import ModuleType

import nightjax
from nightjax.core import interrupts

VERBS = {
    "train": ("nightjax.main", "Train a method, or resume an interrupted run."),
    "evaluate": ("nightjax.evaluate", "Score trained runs on labeled sets."),
    "calibrate": ("nightjax.calibrate", "Fit what a run's confidences are worth, without labels of nights."),
    "predict": ("nightjax.predict", "Segment images with a trained network."),
    "demo": ("nightjax.demo", "Open a page on this computer that segments your photos."),
    "submit": ("nightjax.submit", "Write or check a package for a benchmark server."),
    "export": ("nightjax.export", "Export a trained network for other programs, checked against this one."),
    "bench": ("nightjax.bench", "Measure a network or an export: FLOPs, latency, throughput, memory."),
    "plan": ("nightjax.plan", "Say whether a run fits on an accelerator, without it."),
    "list": ("nightjax.list", "List methods, models, benchmarks, evaluation sets, configs or studies."),
    "check": ("nightjax.check", "Check a data set before a long run."),
    "convert": ("nightjax.convert", "Convert published weights into a run folder, and back."),
    "translate": ("nightjax.translate", "Translate a labeled day set into a labeled night set."),
    "enhance": ("nightjax.enhance", "Brighten a labeled night set with SingleHDR."),
    "pairs": ("nightjax.pairs", "Pair labeled nights with synthetic days made from their labels."),
    "pseudo-label": ("nightjax.pseudo_label", "Label unlabeled images with a trained network."),
    "select": ("nightjax.select", "Select images of an unlabeled pool."),
    "fid": ("nightjax.fid", "Measure the distance (FID, KID) between sets of images."),
    "match": ("nightjax.match", "Score a dense matcher on NightStreet."),
    "study": ("nightjax.study", "Run what is missing of a study and write its table."),
    "table": ("nightjax.table", "Summarize run folders in one Markdown table."),
}
"""Verb to its module and what it does."""


def main() -> None:
    """Runs the verb that the command line names."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in ("--help", "-h", "help"):
        print(overview())
    elif verb == "--version":
        print(nightjax.__version__)
    else:
        sys.argv = [f"nightjax {verb}", *arguments]
        interrupts.end_at_once()
        from nightjax.core import cli

        cli.run(lambda argv: _imported(verb).main(argv))


def _imported(verb: str) -> ModuleType:
    """`find`, in which Ctrl-C ends the process at once."""
    interrupts.end_at_once()
    try:
        return find(verb)
    finally:
        interrupts.raise_again()


def overview() -> str:
    """All verbs, a line each."""
    lines = [f"  {verb:14}{about}" for verb, (_, about) in VERBS.items()]
    tail = "Each verb explains itself: nightjax VERB --help"
    return "\n".join([nightjax.__doc__ or "", "", "usage: nightjax VERB [flags]", "", *lines, "", tail])


def find(verb: str) -> ModuleType:
    """The module of a verb; ``pseudo_label`` is the same as ``pseudo-label``.

    Raises:
        UserError: there is no such verb.
    """
    from nightjax.core.config import suggestion
    from nightjax.core.errors import UserError

    verb = verb.replace("_", "-")
    if verb not in VERBS:
        raise UserError(f"{verb!r} is no verb of nightjax{suggestion(verb, VERBS)}")
    return importlib.import_module(VERBS[verb][0])
