# SPDX-License-Identifier: Apache-2.0
"""BDD100K-night: the 87 labeled night photos of BDD100K that MGCDA's authors picked by hand."""

from etils import epath

from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from tfds_builders.bdd100k_seg import bdd100k_seg_dataset_builder as bdd100k

LIST = "mgcda_night_87.txt"
"""Rows ``split/id``: 74 of train, 13 of val. Another list goes by the same name in papers."""


class Builder(builder.SegmentationBuilder):
    """TFDS builder of BDD100K-night (MGCDA's list)."""

    LAYOUT = bdd100k.LAYOUT
    BUILDER_CONFIGS = [builder.Config(name="mgcda_list", description="Test set of 87 night photos, 1280x720.")]

    def scan(self, tree: layouts.Tree) -> Scan:
        names = (epath.Path(__file__).parent / LIST).read_text().split()
        scan = Scan(
            {"test": []},
            {"test": len(names)},
            "BDD100K masks, MGCDA's list of 87",
            exhaustive=False,
        )
        found = {split: bdd100k.files(tree, split) for split in ("train", "val")}
        for name in names:
            split, stem = name.split("/")
            photos, masks = found[split]
            if stem in photos and stem in masks:
                scan.splits["test"].append(bdd100k.record(stem, photos[stem], masks[stem], "night"))
            elif stem in photos or stem in masks:
                scan.unmatched.append(f"{name} has no {'label' if stem in photos else 'image'}")
            else:
                scan.notes.append(f"{name} of the list is not here")
        return scan
