"""check and training never disagree about a folder, and no label changes without a line."""

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.data import preflight, transforms
from nightjax.data.folders import FolderSource
from nightjax.data.preflight import Wanted
from nightjax.prepare import folder_check
from tests.helpers import mutations

FEW, MANY = range(20), range(20, 200)


def checked(root):
    """(faults, warnings) of the check; a refusal is a fault."""
    try:
        report = folder_check.check_folder(str(root))
    except UserError as error:
        return [str(error)], []
    return report.faults, report.warnings


def trained(root, fields):
    """(what training refuses, what it says, the examples) at its start and over a whole epoch."""
    try:
        notes = preflight.look({"data.streams.source": Wanted(f"folder:{root}", "all", fields)})
        source = FolderSource(root)
        return "", notes, {record["image_id"]: transforms.decode(record, fields) for record in source}
    except UserError as error:
        return str(error), [], {}


def assert_agreed(root, seed):
    world = mutations.build(root, seed)
    faults, warnings = checked(root)
    refused, notes, examples = trained(root, ("image", "label"))
    assert bool(refused) <= bool(faults), (seed, refused)
    if any(fault.startswith("broken: ") or " has no label" in fault for fault in faults):
        assert refused, (seed, faults)
    said = "\n".join([*faults, *warnings])
    for name, example in examples.items():
        label, photo = world.truth[name]
        same = np.array_equal(example["label"], label)
        assert same or "nobody named" in said, (seed, name)
        if not np.array_equal(example["image"], photo):
            assert "EXIF" in said or example["image"].mean() < photo.mean(), (seed, name)  # Or laid on black.
    if "EXIF" in said and examples:
        assert any("EXIF" in note for note in notes), (seed, notes)
    if "nobody named" in said and examples:
        assert any("nobody named" in note for note in notes), (seed, notes)
    return bool(refused), bool(warnings)


def assert_all_agreed(root, seeds):
    seen = [assert_agreed(root / str(seed), seed) for seed in seeds]
    refused, warned = np.mean(seen, axis=0)
    assert 0.2 < refused < 0.9 and warned > 0.05  # The mutations are neither harmless nor all fatal.


def test_check_and_training_agree(tmp_path):
    assert_all_agreed(tmp_path, FEW)


@pytest.mark.slow
def test_check_and_training_agree_on_many(tmp_path):
    assert_all_agreed(tmp_path, MANY)
