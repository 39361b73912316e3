"""The commands of docs/dark_zurich.md name flags, configs and data sets that exist."""

import shlex

import pytest

from nightjax.cli import VERBS, find
from nightjax.core import cli
from nightjax.data.datasets import builder_class
from nightjax.run import settings
from tests.helpers.places import ROOT

LINES = (ROOT / "docs" / "dark_zurich.md").read_text().splitlines()
COMMANDS = [line.strip() for line in LINES if line.startswith("    nightjax ")]


def test_it_goes_from_check_to_submit():
    verbs = [command.split()[1] for command in COMMANDS]
    assert list(dict.fromkeys(verbs)) == ["check", "convert", "train", "evaluate", "submit"] and set(verbs) <= set(
        VERBS
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_what_exists(command, monkeypatch):
    _, verb, *flags = shlex.split(command)

    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name == "config":
            overrides = dict(word[9:].split("=", 1) for word in flags if word.startswith("--config."))
            settings.override(settings.load(value), overrides)
        elif name == "data":
            dataset, _, part = value.partition("/")
            assert part in [item.name for item in builder_class(dataset).BUILDER_CONFIGS]
    monkeypatch.setattr(cli, "parse", parsed := Recorder(cli.parse))
    with pytest.raises(Recorder.Done):
        find(verb).main([f"nightjax {verb}", *flags])
    assert parsed.done


class Recorder:
    """Parses the flags, which refuses unknown ones, and stops before anything is done."""

    class Done(Exception):
        pass

    def __init__(self, parse):
        self.parse, self.done = parse, False

    def __call__(self, *args, **kwargs):
        self.parse(*args, **kwargs)
        self.done = True
        raise self.Done


def test_data_dir_is_named_in_every_command_that_reads_data():
    reading = [command for command in COMMANDS if command.split()[1] in ("check", "train", "evaluate")]
    assert all("manual_dir=DATA" in command for command in reading)
