# SPDX-License-Identifier: Apache-2.0
"""SYNTHIA-RAND-CITYSCAPES: rendered scenes with 16-bit multi-channel label files."""

from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles

EXPECTED = 9400

LAYOUT = layouts.Layout(
    title="SYNTHIA-RAND-CITYSCAPES",
    page="https://synthia-dataset.net/downloads/",
    folders=("RAND_CITYSCAPES", "SYNTHIA", "SYNTHIA_RAND_CITYSCAPES"),
    markers=("GT/LABELS", "RGB/*.png"),
    archives={"SYNTHIA_RAND_CITYSCAPES.zip": "RGB/*.png", "RAND_CITYSCAPES.zip": "RGB/*.png"},
)
_FULL = builder.Config(name="full", description="All frames, 1280x760; 16 of the 19 classes occur.")


class Builder(builder.SegmentationBuilder):
    """TFDS builder of SYNTHIA-RAND-CITYSCAPES."""

    LAYOUT = LAYOUT
    BUILDER_CONFIGS = [_FULL, builder.prepared(_FULL, "prepared")]

    def scan(self, tree: layouts.Tree) -> Scan:
        photos, truth = (
            layouts.by_stem(tree.glob("RGB/*.png")),
            layouts.by_stem(tree.glob("GT/LABELS/*.png")),
        )
        both, lonely = layouts.match(photos, truth, "label")
        scan = Scan({}, {"train": EXPECTED}, "GT/LABELS, first channel", lonely)
        scan.splits["train"] = [
            ExampleFiles(stem, str(photos[stem]), stem, str(truth[stem]), "synthia_ids", frame=_number(stem))
            for stem in both
        ]
        return scan


def _number(stem: str) -> int:
    return int(stem) if stem.isdigit() else -1
