"""Compares two records of `record_configs`: what each resolved config has lost, gained or changed.

    python tests/safety/compare_configs.py OLD.json.gz NEW.json.gz [--renames RENAMES.json] [--summary]

RENAMES is an object of old to new dotted keys, or one with any of these sections:

    {"keys":      {"method.pull": "method.contrast", "data.streams.*.crop": "data.streams.*.size", "log.x": null},
     "files":     {"dacs.py": "daformer.py"},
     "arguments": {"mem": "memory_gb", "dsr_fpa.py:mem": "memory_gb"},
     "values":    {"method.name": {"uawarpc": "matching"}},
     "only":      {"dannet.py": {"method.form": "method.light_form"}}}

A key stands for all keys below it, the longest one that matches counts, ``*`` is any one name, and null drops the key
on purpose. ``arguments`` are renamed in the names of the configs (``FILE.py:argument=value``); ``only`` holds for one
file, by its old name, before ``keys``; ``values`` go by the old key. Exit code 1 when anything differs.
"""

import argparse
import collections
import gzip
import json
import pathlib
import sys

SECTIONS = ("keys", "files", "arguments", "values", "only")


def read(path: str) -> dict:
    """JSON, gzipped or not."""
    content = pathlib.Path(path).read_bytes()
    return json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def renamed_key(key: str, table: dict) -> str | None:
    """The new name of a dotted key; itself where the table says nothing."""
    names = key.split(".")
    for length in range(len(names), 0, -1):
        for old, new in table.items():
            pattern = old.split(".")
            if len(pattern) != length or any(p not in ("*", n) for p, n in zip(pattern, names, strict=False)):
                continue
            if new is None:
                return None
            stars = iter([n for p, n in zip(pattern, names, strict=False) if p == "*"])
            return ".".join([next(stars) if n == "*" else n for n in new.split(".")] + names[length:])
    return key


def renamed_config(config: str, renames: dict) -> str:
    """``FILE.py:arguments`` under its new names."""
    file, _, arguments = config.partition(":")
    table, items = renames.get("arguments", {}), []
    for item in filter(None, arguments.split(",")):
        name, equals, value = item.partition("=")
        items.append(f"{table.get(f'{file}:{name}', table.get(name, name))}{equals}{value}")
    return f"{renames.get('files', {}).get(file, file)}:{','.join(items)}"


def renamed(config: str, values: dict, renames: dict) -> dict:
    """The old values under their new keys."""
    own, found = renames.get("only", {}).get(config.partition(":")[0], {}), {}
    for key, value in values.items():
        new = renamed_key(key, own)
        new = renamed_key(key, renames.get("keys", {})) if new == key else new
        if new is not None:
            table = renames.get("values", {}).get(key, {})
            found[new] = table.get(value if isinstance(value, str) else json.dumps(value), value)
    return found


def differences(old: dict, new: dict, ignore_mistakes: bool) -> list[str]:
    """One line for each key that differs."""
    wrong = [("UserError" in values) for values in (old, new)]
    if ignore_mistakes and all(wrong):
        return []
    if wrong[0] != wrong[1]:
        return [f"{'was' if wrong[0] else 'is now'} refused: {(old if wrong[0] else new)['UserError']}"]
    lines = []
    for key in sorted(old.keys() | new.keys()):
        if key not in new:
            lines.append(f"missing {key}, was {json.dumps(old[key])}")
        elif key not in old:
            lines.append(f"added   {key} = {json.dumps(new[key])}")
        elif json.dumps(old[key]) != json.dumps(new[key]):  # 1, 1.0 and true are not the same.
            lines.append(f"changed {key}: {json.dumps(old[key])} -> {json.dumps(new[key])}")
    return lines


def main() -> int:
    """Prints all differences; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--renames", help="JSON file, see above")
    parser.add_argument("--summary", action="store_true", help="each difference once, with how many configs have it")
    parser.add_argument(
        "--ignore-mistakes", action="store_true", help="refused before and after is equal, whatever the words"
    )
    given = parser.parse_args()
    renames = read(given.renames) if given.renames else {}
    if not set(renames) <= set(SECTIONS):
        renames = {"keys": renames}
    old = {
        renamed_config(config, renames): renamed(config, values, renames) for config, values in read(given.old).items()
    }
    new = read(given.new)
    found = {}
    for config in sorted(old.keys() | new.keys()):
        if config not in new or config not in old:
            found[config] = [f"is only in {given.old if config in old else given.new}"]
        elif lines := differences(old[config], new[config], given.ignore_mistakes):
            found[config] = lines
    if given.summary:
        counts = collections.defaultdict(list)
        for config, lines in found.items():
            for line in lines:
                counts[line].append(config)
        for line, configs in sorted(counts.items(), key=lambda item: -len(item[1])):
            more = f" and {len(configs) - 3} more" if len(configs) > 3 else ""
            print(f"{len(configs):5d} x {line}\n        {'  '.join(configs[:3])}{more}")
    else:
        for config, lines in found.items():
            print(config, *(f"    {line}" for line in lines), sep="\n")
    print(f"{len(old.keys() & new.keys())} configs compared, {len(found)} differ")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
