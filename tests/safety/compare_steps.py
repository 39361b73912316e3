"""Compares two records of `record_steps`, bit by bit.

    python tests/safety/compare_steps.py OLD.json.gz NEW.json.gz [--rename-scalars RENAMES.json] [--only VARIANT ...]

Scalars are compared by name, after RENAMES, an object of old to new names; ``{"variant": {...}}`` inside it holds for
one variant alone, and null drops a scalar on purpose. Arrays are compared without their paths, as a multiset of shape,
type and hash, for the first state and for the last: a refactoring may move them. Arrays that only one record has are
printed; with ``--tolerate-small`` those with fewer entries than ``--small`` (counters, keys of random numbers) do not
count as a difference. Scalars that are new are printed and do not count. Exit code 1 when anything differs. A variant
that only one record has is named, and differs unless ``--partial`` is given.

``tests/golden/first_steps.json.gz`` was recorded before methods were made of parts; ``renamed_scalars.json`` beside it
has what was renamed since. Five variants differed on purpose and were recorded again, those of DSR+FPA that start with
FPA at step 2 (see DSR-18 in ``docs/fidelity.md``): dsr_fpa, dsr_fpa_bank_exposure_photometric, dsr_fpa_true_flow,
dsr_fpa_true_flow_unsure and dsr_fpa_uawarpc.
"""

import argparse
import collections
import gzip
import json
import math
import pathlib
import sys

STATES = ("first", "final")


def read(path: str) -> dict:
    """JSON, gzipped or not."""
    content = pathlib.Path(path).read_bytes()
    return json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def renamed_scalars(scalars: dict, variant: str, renames: dict) -> dict:
    """Scalars of one step under their new names."""
    table = {old: new for old, new in renames.items() if not isinstance(new, dict)} | renames.get(variant, {})
    named = {table.get(name, name): value for name, value in scalars.items()}
    return {name: value for name, value in named.items() if name is not None}


def relative(old: list[str], new: list[str]) -> float:
    """The largest relative difference of two lists of exact numbers."""
    if len(old) != len(new):
        return math.inf
    worst = 0.0
    for a, b in zip(map(float.fromhex, old), map(float.fromhex, new), strict=True):
        if a == b or (math.isnan(a) and math.isnan(b)):
            continue
        scale = max(abs(a), abs(b))
        difference = abs(a - b) / scale if math.isfinite(scale) else math.inf
        worst = max(worst, difference)
    return worst


def scalar_differences(old: list[dict], new: list[dict], variant: str, renames: dict) -> tuple[list[str], list[str]]:
    """One line for each scalar that differs in any step, and one for each that only the new record has."""
    lines, added = [], []
    old = [renamed_scalars(step, variant, renames) for step in old]
    if len(old) != len(new):
        return [f"{len(old)} steps, now {len(new)}"], []
    for name in sorted({name for step in (*old, *new) for name in step}):
        held = [all(name in step for step in steps) for steps in (old, new)]
        if not all(held):
            (lines if held[0] else added).append(f"scalar {name} is only in the {'old' if held[0] else 'new'} record")
            continue
        differ = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a[name] != b[name]]
        if differ:
            each = [relative(a[name], b[name]) for a, b in zip(old, new, strict=True)]
            lines.append(f"scalar {name} differs from step {differ[0]} on, by {max(each):.2g} relative at most")
    return lines, added


def array_differences(old: list, new: list, small: int) -> tuple[list[str], bool]:
    """A line for each array that only one state has, and whether any of them counts."""
    have = [
        collections.Counter((tuple(shape), dtype, digest) for _, shape, dtype, digest in state) for state in (old, new)
    ]
    gone, come = have[0] - have[1], have[1] - have[0]
    lines, counts = [], False
    for what, which, state in (("gone", gone, old), ("new ", come, new)):
        left = dict(which)
        for path, shape, dtype, digest in state:
            key = (tuple(shape), dtype, digest)
            if left.get(key, 0):
                left[key] -= 1
                lines.append(f"{what} {dtype}{shape} {path}")
                counts |= math.prod(shape) >= small
    return lines, counts


def same_paths(old: list, new: list) -> str:
    """Where the arrays lie now, in words."""
    before, after = ({path for path, *_ in state} for state in (old, new))
    return "same paths" if before == after else f"{len(before - after)} paths gone, {len(after - before)} new"


def main() -> int:
    """Prints what differs; 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rename-scalars", metavar="FILE", help="JSON, see above")
    parser.add_argument("--only", nargs="+", metavar="VARIANT")
    parser.add_argument("--partial", action="store_true", help="compare the variants that both records have")
    parser.add_argument("--tolerate-small", action="store_true", help="extra or missing small arrays are printed alone")
    parser.add_argument("--small", type=int, default=64, help="fewer entries than this is small")
    parser.add_argument("--lines", type=int, default=20, help="arrays to print for each state")
    given = parser.parse_args()
    renames = read(given.rename_scalars) if given.rename_scalars else {}
    old, new = read(given.old), read(given.new)
    for name in sorted(old["fingerprint"].keys() | new["fingerprint"].keys()):
        before, after = old["fingerprint"].get(name), new["fingerprint"].get(name)
        if before != after:
            print(f"fingerprint: {name} was {before}, now {after}: bits may differ without any change of code")
    variants = given.only or list(old["variants"] | new["variants"])
    different, compared = [], 0
    for variant in variants:
        a, b = old["variants"].get(variant), new["variants"].get(variant)
        if a is None or b is None:
            print(f"{variant}: only in {given.new if a is None else given.old}")
            different += [] if given.partial else [variant]
            continue
        compared += 1
        problems, added = scalar_differences(a["scalars"], b["scalars"], variant, renames)
        words, wrong = [f"{len(a['scalars'][0])} scalars {'DIFFER' if problems else 'equal'}"], bool(problems)
        for state in STATES:
            lines, counts = array_differences(a[state], b[state], given.small if given.tolerate_small else 0)
            verdict = "DIFFER" if counts else "equal but for small ones" if lines else "equal"
            words.append(f"{len(a[state])} arrays of the {state} state {verdict} ({same_paths(a[state], b[state])})")
            more = [f"and {len(lines) - given.lines} more"] if len(lines) > given.lines else []
            problems += [f"{state} state: {line}" for line in lines[: given.lines] + more]
            wrong |= counts
        print(f"{variant}: {', '.join(words)}", *(f"    {line}" for line in problems + added), sep="\n", flush=True)
        different += [variant] if wrong else []
    names = f"; different: {', '.join(different)}" if different else ""
    print(f"{compared} variants compared, {len(different)} different{names}")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
