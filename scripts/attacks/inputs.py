# SPDX-License-Identifier: Apache-2.0
"""Wrong and odd inputs, drawn at random: settings, config files, damaged files, flags."""

import dataclasses
import functools
import json
import os
import pathlib
import random
import shutil
from collections.abc import Callable, Sequence

from attacks import world

Prepare = Callable[[pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Attack:
    """One input.

    Attributes:
        name: what is wrong.
        verb: of nightjax.
        words: its flags; ``{w}`` stands for the folder of the world.
        prepare: what happens to the world before.
        wrong: whether nothing may run on it.
    """

    name: str
    verb: str
    words: Sequence[str]
    prepare: Prepare = lambda root: None
    wrong: bool = False


TRAIN = ("--config={w}/cfg.py", "--workdir={w}/new")
CONTINUE = ("--config={w}/cfg.py", "--workdir={w}/run")
VERBS = {
    "train": CONTINUE,
    "evaluate": ("--workdir={w}/run", "--manual_dir={w}/data"),
    "predict": ("--workdir={w}/run", "--input={w}/data/images/train/frame_00.png", "--output={w}/out"),
    "export": ("--workdir={w}/run", "--output={w}/x", "--size=32,48", "--to=stablehlo", "--platforms=cpu"),
    "table": ("--runs={w}/run",),
    "pseudo-label": ("--workdir={w}/run", "--images={w}/data/images", "--output={w}/out", "--list={w}/list.csv"),
    "select": ("--rule=random", "--pool={w}/data/images", "--count=2", "--output={w}/out"),
    "check": ("--data=folder", "--manual_dir={w}/data"),
    "submit": ("--benchmark=acdc", "--check={w}/shipped"),
    "convert": ("--input={w}/weights.npz", "--config={w}/cfg.py", "--output={w}/out"),
    "fid": ("--features=random", "{w}/data/images", "{w}/data/references"),
    "plan": ("--config={w}/cfg.py", "--on=cpu"),
}
"""Verb to the flags of a call on the world that is right."""

CONFIGS = ("supervised", "dacs", "dsr_fpa", "t2s_da", "adaptsegnet", "mic")
"""Configs whose settings are tried; each has other ones."""

NUMBERS = ("nan", "inf", "-inf", "-1", "1e400", "99999999999999999999", "x", "²", "٣", "[]", "()", "1,2,3,4,5", "{}x")
"""Texts that make no sense for any number; -1 for none that counts or scales something."""

TUPLES = ("5", "x", "(-1,-1)", "(nan,nan)", "(1,2,3,4,5,6,7)", "((),)", "(0,0)", "(None,)", "('x',2)")
SWITCHES = ("maybe", "2", "-1", "x", "[]")
TEXTS = ("\x00", "x" * 5000, "../../x", "run:", "hard_classes:x", "5", "nope/nope", "folder:", "²", "/dev/zero")
OBJECTS = (None, 5, -1, 0, 1e30, float("nan"), float("inf"), "x", "", [], [[]], {}, {"x": 1}, True, [1, "x"], 10**30)
"""Values of a config file or JSON file."""


def setting(rng: random.Random) -> Attack:
    """A setting of a config on the command line."""
    name = rng.choice(CONFIGS)
    base = [f"--config={name}:data=folder", "--config.data.manual_dir={w}/data"]
    found = {key: value for key, value in settings_of(name).items() if not isinstance(value, dict)}
    key, value = rng.choice(sorted(found.items()))
    wrong = True
    if isinstance(value, bool):
        text = rng.choice(SWITCHES)
    elif isinstance(value, int | float):
        text = rng.choice(NUMBERS)
        wrong = not (text == "-1" and key in SIGNED) and text not in UNSURE
    elif isinstance(value, list | tuple):
        text, wrong = rng.choice(TUPLES), False
    else:
        text, wrong = rng.choice(TEXTS), False
    return Attack(
        f"--config.{key}={text[:40]}", "train", [*base, f"--config.{key}={text}", "--workdir={w}/new"], wrong=wrong
    )


SIGNED = ("method.alignment.weight",)
UNSURE = ("()", "[]", "1,2,3,4,5")


@functools.cache
def settings_of(name: str) -> dict[str, object]:
    """Every key of a config of nightjax's own."""
    from nightjax.run import settings

    return world.keys(settings.load(f"{name}:data=folder").to_dict())


def own_config(rng: random.Random) -> Attack:
    """A user's own config file whose values are of any kind, or missing."""
    how, change = _changed(rng)

    def prepare(root: pathlib.Path) -> None:
        world.write_config(root, change(json.loads((root / "cfg.json").read_text())))

    return Attack(f"cfg.py {how}", "train", TRAIN, prepare)


def saved_config(rng: random.Random) -> Attack:
    """A run whose config.json somebody has edited."""
    verb = rng.choice(("train", "evaluate", "predict", "export", "table", "pseudo-label"))
    how, change = _changed(rng)

    def prepare(root: pathlib.Path) -> None:
        path = root / "run" / "config.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return Attack(f"config.json {how}", verb, VERBS[verb], prepare)


def _changed(rng: random.Random) -> tuple[str, Callable[[dict], dict]]:
    """A key of a config to remove or replace."""
    key, value = rng.choice(sorted(KEYS))[:], rng.choice((*OBJECTS, "delete"))
    if key == "":
        return f"= {value!r}", lambda config: value if value != "delete" else {}

    def change(config: dict) -> dict:
        *path, name = key.split(".")
        node = config
        for part in path:
            node = node[part]
        if value == "delete":
            del node[name]
        else:
            node[name] = value
        return config

    return f"{key} = {value!r}"[:80], change


KEYS: list[str] = []
"""Keys of the world's config; filled by `learn`."""

FILES: list[str] = []
"""Files of the world; filled by `learn`."""


def learn(root: pathlib.Path) -> None:
    """Looks at a world before inputs for it are drawn."""
    KEYS[:] = sorted(world.keys(world.resolved(root)))
    FILES[:] = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def file(rng: random.Random) -> Attack:
    """A file of the world that is damaged, of another kind, or no file at all."""
    group = rng.choice(
        sorted(
            {name.partition("/")[0] for name in FILES if "/" in name} | {"weights.npz", "list.csv", "published.json"}
        )
    )
    name = rng.choice([name for name in FILES if name.startswith(group)])
    what = rng.choice(sorted(DAMAGE))
    verb, words = rng.choice(READERS[group])
    seed = rng.random()

    def prepare(root: pathlib.Path) -> None:
        DAMAGE[what](root / name, random.Random(seed))

    return Attack(f"{what}: {name}", verb, words, prepare)


RUN = [(verb, VERBS[verb]) for verb in ("train", "evaluate", "predict", "export", "table", "pseudo-label")]
RUN += [("train", (*TRAIN, "--config.train.init={w}/run")), ("train", (*TRAIN, "--config.log.baseline={w}/run"))]
READERS = {
    "run": RUN,
    "data": [(verb, VERBS[verb]) for verb in ("check", "evaluate", "select", "fid", "pseudo-label")]
    + [("train", TRAIN)],
    "tf": [
        ("check", ("--prepared={w}/tf/nightstreet/tiny/1.1.0",)),
        (
            "train",
            ("--config=supervised:data=nightstreet_tiny,steps=2", "--config.data.dir={w}/tf", "--workdir={w}/new"),
        ),
    ],
    "shipped": [("submit", VERBS["submit"])],
    "weights.npz": [("convert", VERBS["convert"])],
    "list.csv": [("pseudo-label", VERBS["pseudo-label"])],
    "published.json": [("table", (*VERBS["table"], "--published={w}/published.json"))],
}
"""What reads the files of a part of the world."""


def _write(content: bytes) -> Callable[[pathlib.Path, random.Random], None]:
    return lambda path, rng: path.write_bytes(content) and None


def _json(value: object) -> Callable[[pathlib.Path, random.Random], None]:
    return lambda path, rng: path.write_text(json.dumps(value)) and None


def _flipped(path: pathlib.Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"x")
    for _ in range(rng.choice((1, 1, 20))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _cut(path: pathlib.Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def _replaced(make: Callable[[pathlib.Path], object]) -> Callable[[pathlib.Path, random.Random], None]:
    def replace(path: pathlib.Path, rng: random.Random) -> None:
        path.unlink()
        make(path)

    return replace


def _value(path: pathlib.Path, rng: random.Random) -> None:
    """One value of a JSON file becomes another one; a file of another kind is cut."""
    try:
        tree = json.loads(path.read_text())
        places = list(_places(tree))
        node, key = rng.choice(places)
        node[key] = rng.choice(OBJECTS)
    except (ValueError, IndexError):
        return _cut(path, rng)
    path.write_text(json.dumps(tree))


def _places(node: object):
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from _places(value)


DAMAGE = {
    "empty": _write(b""),
    "zeros": lambda path, rng: path.write_bytes(bytes(len(path.read_bytes()))) and None,
    "noise": lambda path, rng: path.write_bytes(rng.randbytes(300)) and None,
    "not UTF-8": _write(b"\xff\xfe\x00{}"),
    "cut": _cut,
    "flipped": _flipped,
    "a value": _value,
    "another value": _value,
    "list": _write(b"[]"),
    "null": _write(b"null"),
    "texts": _json(["a", "b"]),
    "deep": _write(b"[" * 100_000),
    "number": _write(b"1e999"),
    "object": _json({"x": {"y": []}}),
    "gone": _replaced(lambda path: None),
    "folder": _replaced(lambda path: path.mkdir()),
    "pipe": _replaced(os.mkfifo),
    "link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "link to nothing": _replaced(lambda path: path.symlink_to("nowhere")),
    "device": _replaced(lambda path: path.symlink_to("/dev/zero")),
}
"""What happens to a file."""

ODD = (
    "",
    "x",
    "-1",
    "0",
    "nan",
    "1e30",
    "²",
    "99999999999999999999",
    "../..",
    "/dev/zero",
    "{w}/pipe",
    "{w}/nowhere",
    "{w}/data",
    "{w}/run",
    "{w}/cfg.py",
    "{w}",
    "a,b",
    ",",
    "\x00",
    "nope:nope",
    "s3://nope/x",
    "gs://nope/x",
    "ftp://x",
    "best",
    "None",
)
"""Values of flags."""

FLAGS: dict[str, list[str]] = {}
"""Verb to the names of its flags; filled by `learn_flags`."""


def learn_flags(help_of: Callable[[str], str]) -> None:
    """Reads the flags of all verbs from their help."""
    for verb in VERBS:
        FLAGS[verb] = [
            line.split()[0].partition("=")[0] for line in help_of(verb).splitlines() if line.startswith("  --")
        ]


def flag(rng: random.Random) -> Attack:
    """A flag of a verb with any value."""
    verb = rng.choice(sorted(VERBS))
    name, value = rng.choice(FLAGS[verb]), rng.choice(ODD)
    if name in ("--help", "--h"):
        name = "--nope"

    def prepare(root: pathlib.Path) -> None:
        os.mkfifo(root / "pipe")

    return Attack(f"{verb} {name}={value}", verb, [*VERBS[verb], f"{name}={value}"], prepare)


KINDS = {"setting": setting, "own config": own_config, "config.json": saved_config, "file": file, "flag": flag}
"""Kind of input to what draws one."""


def fresh(template: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """A new copy of the world."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root)
    text = (root / "cfg.json").read_text()
    (root / "cfg.json").write_text(text.replace(f"{template}/", f"{root}/"))
    path = root / "run" / "config.json"
    path.write_text(path.read_text().replace(f"{template}/", f"{root}/"))
    return root
