"""The command ``nightjax``: its verbs, their help, what can be listed, and a config as text."""

import ast
import functools
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from nightjax import api
from nightjax import main as training
from nightjax.cli import VERBS, find, overview
from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.core.help import format_config
from nightjax.zoo import benchmarks, listing
from tests.helpers.places import ROOT

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


def call(*words):
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)


def help_of(verb, capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        find(verb).main([f"nightjax {verb}", *words, "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def examples(text, program):
    """The commands of a text that call the program, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith(program)]


def test_alone_it_lists_its_verbs_without_importing_jax():
    code = "import sys; sys.argv = ['nightjax']; from nightjax.cli import main; main(); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == overview().strip()
    for verb, (_, about) in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(about)}$", done.stdout, re.M)


def test_an_unknown_verb_is_one_line_with_a_suggestion():
    done = call("nightjax", "trian", "--config=x")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "'trian'" in done.stderr and "did you mean 'train'" in done.stderr


@pytest.mark.parametrize(("verb", "module"), [("table", "nightjax.table"), ("train", "nightjax.main")])
def test_a_verb_is_its_module(verb, module):
    flags = {"table": ["--runs=nowhere/*"], "train": ["--config=nowhere.py"]}[verb]
    one, other = call("nightjax", verb, *flags), call(module, *flags)
    assert one.returncode == other.returncode == 2 and "nowhere" in one.stderr
    assert one.stderr == other.stderr


def test_a_verb_may_be_written_as_its_module():
    assert find("pseudo_label") is find("pseudo-label")


def test_every_verb_module_is_in_the_table():
    verbs = {path.stem for path in (ROOT / "nightjax").glob("*.py") if "cli.run(main)" in path.read_text()}
    assert {f"nightjax.{name}" for name in verbs} == {module for module, _ in VERBS.values()}
    assert all(callable(importlib.import_module(module).main) for module, _ in VERBS.values())


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_a_verb_does_how_to_call_it_and_with_what(verb, capsys):
    text = help_of(verb, capsys)
    lines = text.splitlines()
    assert lines[0].endswith(".") and lines[0] == find(verb).__doc__.splitlines()[0]
    assert lines[2].startswith(f"usage: nightjax {verb}")
    for flag in re.findall(r"--(\w+)=", lines[2]):
        assert re.search(rf"^  --{flag}\b", text.partition("required flags:")[2].partition("\n\n")[0], re.M)
    shown = examples(text, f"nightjax {verb}")
    assert len(shown) >= 3
    known = set(re.findall(r"^  --(\w+)", text.partition("flags:\n")[2], re.M))
    for word in re.findall(r" --([a-z_0-9]+)", " ".join(shown)):
        assert word in known, f"{word} in the examples is no flag"
    for row in re.findall(r"^  --\w+\S* +(.*)$", text, re.M):
        assert len(row.split()) > 1


def test_usage_names_the_program_that_was_called():
    assert "\nusage: python -m nightjax.predict --input=" in call("nightjax.predict", "--help").stdout


@pytest.fixture(scope="module")
def script_helps():
    """Script to what it prints with --help; one process calls them all."""
    code = (
        "import contextlib, io, json, os, runpy, sys\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[1]))\n"  # As Python does for a script.
        "def text(path):\n"
        "    sys.argv = [path, '--help']\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
        "        runpy.run_path(path, run_name='__main__')\n"
        "    return out.getvalue()\n"
        "print(json.dumps({path: text(path) for path in sys.argv[1:]}))"
    )
    command = [sys.executable, "-c", code, *map(str, SCRIPTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_have_the_help_of_a_verb(path, script_helps):
    text = script_helps[str(path)]
    assert text.startswith(ast.get_docstring(ast.parse(path.read_text())).partition("\n\n")[0])
    assert f"\nusage: python scripts/{path.name}" in text and "  --help" in text
    assert len(examples(text, f"python scripts/{path.name}")) >= 2


def test_help_of_a_config_shows_its_docstring_and_keys(capsys):
    text = help_of("train", capsys, "--config=configs/dacs.py:data=nightstreet_tiny,steps=7")
    assert "DACS self-training" in text and "!!python" not in text
    assert re.search(r"^train\.steps += 7 +# length of the run$", text, re.M)
    assert re.search(r"^data\.dir += '' +# where prepared", text, re.M)


def test_print_config_prints_every_key_and_trains_nothing(tmp_path, capsys):
    name = "configs/dacs.py:data=nightstreet_tiny"
    training.main(
        ["train", f"--config={name}", "--config.train.steps=3", f"--workdir={tmp_path}/run", "--print_config"]
    )
    text = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    config = api.get_config(name, {"train.steps": 3})
    assert text.strip() == format_config(config)
    read = {}
    for line in filter(None, text.splitlines()):
        key, value = line.split(" = ", 1)
        read[key.strip()] = ast.literal_eval(value)
    assert read["train.steps"] == 3 and read["seed"] == 0
    assert read["data.streams.source.crop"] == config.data.streams.source.crop
    keys = list(read)
    sections = [key.partition(".")[0] for key in keys if "." in key]
    assert sections == sorted(sections)


def test_columns_of_a_section_are_aligned():
    for block in format_config(api.get_config("configs/supervised.py")).split("\n\n"):
        assert len({line.index(" = ") for line in block.splitlines()}) == 1


@pytest.mark.parametrize("kind", listing.KINDS)
def test_lists(kind, capsys):
    find("list").main(["nightjax list", kind])
    rows = capsys.readouterr().out.splitlines()
    found = getattr(api, f"list_{kind}")()
    assert [row.split()[0] for row in rows] == list(found) and len(rows) > 5
    assert all(len(row.split()) > 1 for row in rows)


def test_lists_are_the_tables(capsys):
    assert list(api.list_benchmarks()) == list(benchmarks.BENCHMARKS)
    assert list(api.list_sets()) == list(benchmarks.EVAL_SETS)
    assert "arXiv 2310.04747" in api.list_configs()["dsr_fpa"]
    find("list").main(["nightjax list"])
    text = capsys.readouterr().out
    assert all(f"{kind}:\n" in text for kind in listing.KINDS)
    with pytest.raises(UserError, match="did you mean 'methods'"):
        find("list").main(["nightjax list", "method"])


def test_words_that_are_no_flags_are_refused_where_none_are_expected():
    with pytest.raises(UserError, match="'runs/a' is not a flag"):
        find("predict").main(["predict", "runs/a", "--workdir=b"])
    assert cli.explain(UserError("a line")) == "a line"


@pytest.mark.parametrize("seconds", [0.3, 1.5])
@pytest.mark.parametrize("words", [["nightjax", "train"], ["nightjax.main"]], ids=["command", "module"])
def test_ctrl_c_is_one_line(words, seconds, tmp_path):
    """Whatever the process is at: its imports, or the run."""
    name = "--config=configs/supervised.py:data=nightstreet_tiny"
    command = [*words, name, f"--workdir={tmp_path}/run", f"--config.data.dir={tmp_path}/tfds"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # A background job ignores it.
    )
    try:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode in (130, -signal.SIGINT)  # The latter before Python itself is ready.
    if process.returncode == 130:
        lines = [line for line in error.splitlines() if "record/s" not in line]
        assert len(lines) == 1 and lines[0].startswith("nightjax: ")


@pytest.mark.parametrize("options", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_a_reader_that_stops_ends_a_verb_without_a_word(options):
    """The pipe is closed before the verb writes, so nothing depends on who is faster."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *options, "-m", "nightjax", "list"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(writer)
    assert done.returncode == 141 and done.stderr == b""
