# SPDX-License-Identifier: Apache-2.0
"""NightStreet: procedural streets by day, at dusk and by night, drawn on first use; nothing is downloaded."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from nightjax.nightstreet import CONDITIONS, KNOBS_VERSION, PRESETS, RENDERER_VERSION, SPLITS
from nightjax.nightstreet.examples import example
from nightjax.prepare import builder
from nightjax.prepare.records import encode_png

ROLES = {
    "labeled": ("", "source_day, val_day, val_night, test_night and oracle_night, with labels and invalid masks"),
    "pairs": ("_pairs", "target_pairs: night images, coarsely aligned day references and exact flow, no labels"),
    "unlabeled": ("_unlabeled", "target_twilight: images alone"),
}
"""Role of a split to the suffix of the configs that hold it, and what they hold."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(tfds.core.BuilderConfig):
    """Splits of one role at one preset's size, the target's under one condition (names in ``PRESETS``, ``SPLITS`` and
    ``CONDITIONS``)."""

    preset: str
    role: str
    target: str = "std"


def _configs() -> list[Config]:
    """``<preset>[_<condition>][_<role>]``; the published night ``std`` and the role ``labeled`` are not written.

    Other conditions than the published night have a version of their own: their pixels may change while its do not.
    """
    configs = []
    for preset, (height, width) in ((name, preset.size) for name, preset in PRESETS.items()):
        for target in CONDITIONS if preset == "std" else ("std",):
            version = None if target == "std" else KNOBS_VERSION
            for role, (suffix, content) in ROLES.items():
                name = preset + ("" if target == "std" else f"_{target}") + suffix
                text = f"{width}x{height}, target {target}: {content}."
                configs.append(
                    Config(name=name, version=version, description=text, preset=preset, role=role, target=target)
                )
    return sorted(configs, key=lambda config: config.name != "std")


class Builder(builder.ArrayRecordBuilder):
    """TFDS builder of NightStreet; its version is the renderer's, so that a changed renderer draws anew."""

    VERSION = tfds.core.Version(RENDERER_VERSION)
    BUILDER_CONFIGS = _configs()

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        labeled, pairs = config.role == "labeled", config.role == "pairs"
        schema = dict(builder.features(labeled=labeled, paired=pairs, invalid=labeled))
        if pairs:
            size = PRESETS[config.preset].size
            zlib = functools.partial(tfds.features.Tensor, encoding="zlib")
            schema["flow"] = zlib(
                shape=(*size, 2), dtype=np.float16, doc="(dx, dy): pixel p of image is p + flow in reference"
            )
            schema["flow_valid"] = zlib(shape=size, dtype=np.uint8, doc="1 where both views see the same static point")
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"NightStreet: {config.description}",
            features=tfds.features.FeaturesDict(schema),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        del dl_manager  # nothing to download
        role = self.builder_config.role
        return {name: self._generate_examples(name) for name, split in SPLITS.items() if split.role == role}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        draw = functools.partial(encoded_example, split, preset=config.preset, target=config.target)
        indices = range(PRESETS[config.preset].counts[split])
        yield from enumerate(builder.parallel_map(draw, indices, desc=f"nightstreet/{config.name} {split}"))


def encoded_example(split: str, index: int, *, preset: str, target: str) -> dict[str, Any]:
    """One example with images as PNG bytes, as the feature schema of all builders wants it."""
    drawn = example(split, index, size=PRESETS[preset].size, knobs=CONDITIONS[target])
    for name in ("image", "reference", "label", "invalid"):
        if name in drawn:
            drawn[name] = encode_png(drawn[name])
    if "flow" in drawn:
        drawn["flow"] = drawn["flow"].astype(np.float16)
        drawn["flow_valid"] = drawn["flow_valid"].astype(np.uint8)
    return drawn | {"sequence": split, "frame": index, "gps": np.full(2, math.nan)}
