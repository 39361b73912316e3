# SPDX-License-Identifier: Apache-2.0
"""Splits, sizes, seed ranges and the knobs of NightStreet."""

import dataclasses

import numpy as np

RENDERER_VERSION = "1.1.0"
"""Changes whenever a pixel of the published benchmark does. It is the version of the TFDS builder, so that older
renderings are not read."""
KNOBS_VERSION = "1.1.1"
"""The same for everything that is drawn with other knobs. It changes alone where only the effect of a knob does, and
together with the former otherwise."""


@dataclasses.dataclass(frozen=True)
class Knobs:
    """One number for each nuisance factor, so that ablations can switch them. The default is the published benchmark; 0
    switches a factor off.

    Attributes:
        ambient: sky light of the night.
        lamps: everything that lights the street: street lamps, shops, headlights and tail lights. What only shines
            stays: lit windows, also of buses and trams, traffic lights, cycle lamps.
        glare: scattered light, star streaks and ghosts.
        noise: of the sensor; the invalid masks follow it.
        blur: motion and defocus.
        tint: saturation of the colors of street lamps, night sky, shops, headlights and lit windows; 0 makes them
            white. Red tail lights and traffic lights are signals and stay.
        exposure_diversity: spread of exposure, white balance, contrast and vignetting, by day and by night; what
            metering finds in the scene remains.
        prior_shift: how far the streets of the night splits differ from those of the day splits, 0 to 1.
        pose_jitter: scale of the pose difference within pairs.
        dynamics: False shows the same road users in both images of a pair.
        time_of_day: of the target's images; labeled days and day references are always by day.
        fog: of the target's images; 1 is fog in which one sees 100 to 400 m far.
        rain: of the target's images; 1 is heavy rain.

    Of the lights of one knob the lesser go last (`last_to_go`): under ``lamps`` the look of shops and vehicles, as
    against the light they cast; under ``tint`` all colors but those of street lamps and sky.
    """

    ambient: float = 1.0
    lamps: float = 1.0
    glare: float = 1.0
    noise: float = 1.0
    blur: float = 1.0
    tint: float = 1.0
    exposure_diversity: float = 1.0
    prior_shift: float = 0.5
    pose_jitter: float = 1.0
    dynamics: bool = True
    time_of_day: str = "night"
    fog: float = 0.0
    rain: float = 0.0

    def source(self) -> "Knobs":
        """These knobs for labeled days and day references: under a clear sky."""
        return dataclasses.replace(self, fog=0.0, rain=0.0)


GAPS = {
    "easy": Knobs(ambient=2.0, glare=0.5, noise=0.5, blur=0.5, tint=0.5, prior_shift=0.0),
    "std": Knobs(),
    "hard": Knobs(ambient=0.3, lamps=0.6, glare=1.5, noise=1.5, blur=1.3, prior_shift=1.0),
}


FACTORS = tuple(f.name for f in dataclasses.fields(Knobs) if f.name != "time_of_day" and f.default)
"""The knobs that the published night has, by name."""
NIGHTS = GAPS | {
    f"no_{name}": dataclasses.replace(GAPS["std"], **{name: type(getattr(Knobs, name))(0)}) for name in FACTORS
}
"""The gaps, and the standard one less each factor by itself: ``no_glare`` and so on."""
WEATHERS = {
    "day": Knobs(time_of_day="day"),
    "fog": Knobs(time_of_day="day", fog=1.0),
    "rain": Knobs(time_of_day="day", rain=1.0),
    "night_fog": Knobs(fog=1.0),
    "night_rain": Knobs(rain=1.0),
}
"""Fog and rain by day and by night, and the target's streets on a clear day."""
CONDITIONS = NIGHTS | WEATHERS
"""Everything that the target of NightStreet may look like."""


def last_to_go(value: float) -> float:
    """Strength of a knob's weaker lights: full while the knob is at least one half, so that the published gaps stay as
    they are, and 0 at 0."""
    return min(2 * value, 1.0)


def whiten(color: np.ndarray, saturation: float) -> np.ndarray:
    """Scales the saturation of a color float32 [3], keeping its mean; 1 keeps the color, 0 makes it gray."""
    return color + np.float32(1 - saturation) * (color.mean() - color)


@dataclasses.dataclass(frozen=True)
class Split:
    """What a split holds, and the first of its scene seeds.

    Attributes:
        role: ``"labeled"``, ``"pairs"`` or ``"unlabeled"``.
        time_of_day: ``"day"``, ``"twilight"`` or ``"night"``.
        first_seed: scene seeds are first_seed, first_seed + 1, ...; splits are a million apart.
        shifted: whether scenes follow the night sets' layout (``Knobs.prior_shift``).
    """

    role: str
    time_of_day: str
    first_seed: int
    shifted: bool


SEEDS_PER_SPLIT = 1_000_000
SPLITS = {
    "source_day": Split("labeled", "day", 1_000_000, False),
    "target_pairs": Split("pairs", "night", 2_000_000, True),
    "val_night": Split("labeled", "night", 3_000_000, True),
    "test_night": Split("labeled", "night", 4_000_000, True),
    "val_day": Split("labeled", "day", 5_000_000, False),
    "target_twilight": Split("unlabeled", "twilight", 6_000_000, True),
    "oracle_night": Split("labeled", "night", 7_000_000, True),
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """Image size (height, width) and number of examples in each split."""

    size: tuple[int, int]
    counts: dict[str, int]


def _counts(source, pairs, val, test, val_day, twilight, oracle) -> dict[str, int]:
    return dict(zip(SPLITS, (source, pairs, val, test, val_day, twilight, oracle), strict=True))


PRESETS = {
    "tiny": Preset((64, 128), _counts(16, 16, 4, 8, 4, 8, 16)),
    "std": Preset((128, 256), _counts(400, 400, 50, 100, 50, 200, 400)),
    "large": Preset((256, 512), _counts(1000, 1000, 100, 200, 100, 400, 1000)),
}
