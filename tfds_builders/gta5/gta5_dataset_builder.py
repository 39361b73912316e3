# SPDX-License-Identifier: Apache-2.0
"""GTA5: rendered street scenes whose label files are palette PNGs, index = Cityscapes label id."""

from nightjax.prepare import builder, layouts
from nightjax.prepare.integrity import Scan
from nightjax.prepare.records import ExampleFiles, Recipe

EXPECTED = 24_966
PARTS, IMAGES_PER_PART = 10, 2500


def _archives() -> dict[str, str]:
    """The ten zips of images and of labels; each is known by its first frame."""
    return {
        f"{part + 1:02d}_{kind}.zip": f"{kind}/{part * IMAGES_PER_PART + 1:05d}.png"
        for kind in ("images", "labels")
        for part in range(PARTS)
    }


LAYOUT = layouts.Layout(
    title="GTA5",
    page="https://download.visinf.tu-darmstadt.de/data/from_games/",
    folders=("GTA5", "gta", "GTAV"),
    markers=("images/[0-9][0-9][0-9][0-9][0-9].png",),
    archives=_archives(),
)
_FULL = builder.Config(
    name="full",
    recipe=Recipe(mismatch="crop", drop_uniform=True),
    description="Labeled frames, about 1914x1052; unequal pairs are cropped to the overlap.",
)


class Builder(builder.SegmentationBuilder):
    """TFDS builder of GTA5."""

    LAYOUT = LAYOUT
    BUILDER_CONFIGS = [_FULL, builder.prepared(_FULL, "prepared")]

    def scan(self, tree: layouts.Tree) -> Scan:
        photos, truth = (
            layouts.by_stem(tree.glob("images/*.png")),
            layouts.by_stem(tree.glob("labels/*.png")),
        )
        both, lonely = layouts.match(photos, truth, "label")
        scan = Scan({}, {"train": EXPECTED}, "GTA5 palette index", lonely)
        scan.splits["train"] = [
            ExampleFiles(stem, str(photos[stem]), stem, str(truth[stem]), "label_ids", frame=int(stem))
            for stem in both
            if stem.isdigit()
        ]
        return scan
