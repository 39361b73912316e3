"""Every command of the README, of the pages, and of the docstrings of configs and verbs names what exists."""

import pytest

from nightjax.cli import find
from nightjax.core import cli
from nightjax.run import settings
from tests.helpers.pages import commands
from tests.helpers.places import ROOT

COMMANDS = [
    pytest.param(verb, words, id=f"{place}: {verb} {' '.join(words)[:60]}") for place, verb, words in commands()
]


class Parsed(Exception):
    """The flags were read."""


@pytest.mark.parametrize(("verb", "words"), COMMANDS)
def test_a_command_names_what_exists(verb, words, monkeypatch):
    def parse(*args, read=cli.parse, **kwargs):
        """Refuses unknown flags, and stops before anything is done."""
        read(*args, **kwargs)
        raise Parsed

    for word in words:
        if word.startswith("--config="):
            overrides = dict(other[9:].split("=", 1) for other in words if other.startswith("--config."))
            settings.override(settings.load(word.partition("=")[2]), overrides)
    monkeypatch.setattr(cli, "parse", parse)
    monkeypatch.chdir(ROOT)
    with pytest.raises(Parsed):
        find(verb).main([f"nightjax {verb}", *words])
