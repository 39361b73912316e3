# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints in, ours out: files, names, and what differs, said loudly."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from nightjax.core.errors import UserError
from nightjax.core.stacks import Stack
from nightjax.interop import namings
from nightjax.interop.official_names import from_official
from nightjax.interop.torch_weights import Variables, brief, from_torch, matches, named_leaves, to_torch
from nightjax.interop.weight_files import load_network, save_state_dict, sha256


class Imported(NamedTuple):
    """Weights from files.

    Attributes:
        variables: a tree like the template; parameters that were allowed to be missing keep its leaves.
        missing: our names of those.
        notes: one line a file: its naming, number of entries and checksum, and what of it was not used.
    """

    variables: dict[str, Any]
    missing: list[str]
    notes: list[str]


def import_files(
    paths: Sequence[str],
    template: Variables,
    stacks: Sequence[Stack] = (),
    *,
    naming: str = "",
    network: str = "student",
    allow_missing: Sequence[str] = (),
    allow_surplus: Sequence[str] = (),
) -> Imported:
    """Reads the parameters of one model from one or more checkpoints.

    What wraps a whole network (see `wrappers`) is dropped first. The counters of batch norms,
    ``num_batches_tracked``, are not kept: nothing here reads them, and `export_file` writes zeros.

    Args:
        paths: of the files, such as DANNet's segmentation and relighting network.
        template: structure and shapes of the model's variables, as ``jax.eval_shape`` gives them.
        stacks: of the model, see `core.stacks`.
        naming: key of `namings.NAMINGS` for all files; by default each file's own is found.
        network: ``"student"`` or ``"teacher"``, a moving average, of checkpoints that hold both.
        allow_missing: globs of our names that need not be in the files.
        allow_surplus: globs of names of the files, without prefixes, that need not be in the model.

    Raises:
        UserError: a file cannot be read, names differ beyond what is allowed, or a shape does.
    """
    ours = named_leaves(template, stacks)
    state, notes = {}, []
    for path in paths:
        content, averaged = load_network(path, network)
        whole = from_official(content, {})
        part, others = namings.one_network(whole, "student" if averaged else network, path)
        name, part, left_out = namings.recognize(part, ours, path, naming)
        others += left_out
        family = namings.lookup(name)
        unused = [entry for entry in part if matches(entry, (*family.unused, *allow_surplus))]
        renamed = family.to_ours({entry: part[entry] for entry in part.keys() - set(unused)})
        if family.check is not None:
            family.check(path, part.keys(), ours.keys())
        if twice := sorted(state.keys() & renamed.keys()):
            raise UserError(f"{path} and a file before it both hold {brief(twice, renamed)}; convert one of them")
        state |= renamed
        notes.append(f"{path}: {name}, {len(whole)} entries, sha256 {sha256(path)}")
        notes += [f"  not used: {brief(unused, part)}"] * bool(unused)
        notes += [f"  not used: {others} entries of other networks"] * bool(others)
    variables = from_torch(state, template, stacks, allow_missing=allow_missing, allow_surplus=allow_surplus)
    missing = [entry for entry, value in named_leaves(variables, stacks).items() if value is ours[entry]]
    return Imported(variables, missing, notes)


def export_file(
    path: str,
    variables: Variables,
    naming: str,
    stacks: Sequence[Stack] = (),
    *,
    allow_missing: Sequence[str] = (),
) -> list[str]:
    """Writes a model's variables under official names.

    Weights that were imported come back bit for bit; the counters of batch norms are zeros.

    Args:
        path: to write to; its suffix is the format, see `weight_files.SAVED`.
        variables: of the model, as numpy or jax arrays.
        naming: key of `namings.NAMINGS`.
        stacks: of the model, see `core.stacks`.
        allow_missing: globs of our names that the naming need not have.

    Returns:
        Notes, one line each: the file's checksum and what was left out.

    Raises:
        UserError: parameters without an official name that are not allowed to be missing.
    """
    family = namings.lookup(naming)
    state = to_torch(variables, stacks, counters=True)
    known = set(family.renameable(state))
    missing = sorted(state.keys() - known)
    if lost := [entry for entry in missing if not matches(entry, allow_missing)]:
        raise UserError(
            f"naming {naming!r} has no names for {brief(lost, state)}; choose another, or export without them by "
            "naming "
            "them in allow_missing"
        )
    save_state_dict(path, family.to_official({entry: state[entry] for entry in state if entry in known}))
    notes = [f"{path}: {naming}, {len(known)} entries, sha256 {sha256(path)}"]
    return notes + [f"  left out: {brief(missing, state)}"] * bool(missing)
