"""Day and night by brightness, and selection by histogram."""

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.data.imagefiles import encode_png
from nightjax.selection import brightness


def plain(value):
    return np.full((4, 6, 3), value, np.uint8)


def test_brightness_of_a_constant_picture():
    for value in (0, 7, 255):
        assert brightness.brightness(plain(value)) == value


@pytest.mark.parametrize(
    ("gamma", "time"), [(60.0, "night"), (60.01, "twilight"), (68.0, "twilight"), (68.01, "day"), (0.0, "night")]
)
def test_time_of_day(gamma, time):
    assert brightness.time_of_day(gamma) == time


def test_otsu_lies_between_two_spikes():
    assert 30 <= brightness.otsu_threshold([30.4] * 5 + [110.2] * 20) < 110


def test_split_policies():
    gammas = {"b": 20.0, "a": 100.0, "c": 64.0, "d": 120.0, "e": 30.0}
    official = {"a": "day", "b": "night", "c": "night", "d": "night", "e": "night"}
    assert brightness.split_day_night(gammas) == {"day": ["a", "d"], "twilight": ["c"], "night": ["b", "e"]}
    assert brightness.split_day_night(gammas, official) == {"day": ["a"], "twilight": [], "night": ["b", "e"]}
    assert brightness.split_day_night(gammas, official, "brightness")["day"] == ["a", "d"]
    with pytest.raises(UserError, match="there are none"):
        brightness.split_day_night(gammas, policy="agree")
    with pytest.raises(UserError, match="did you mean 'otsu'"):
        brightness.split_day_night(gammas, policy="otsuu")


def test_otsu_policy_leaves_a_band_of_twilight():
    gammas = {f"{gamma}/{i}": gamma for gamma in (30.0, 110.0) for i in range(20)} | {"a": 68.0, "b": 72.0}
    threshold = brightness.otsu_threshold(list(gammas.values()))
    parts = brightness.split_day_night(gammas, policy="otsu")
    assert len(parts["night"]) >= 20 <= len(parts["day"]) and parts["twilight"] == ["a", "b"]
    for time, names in parts.items():
        for name in names:
            assert (time == "twilight") == (abs(gammas[name] - threshold) <= 4)
            assert time == "twilight" or (time == "night") == (gammas[name] < threshold)


def test_training_part_depends_on_the_name_alone():
    names = [f"frame_{i}.jpg" for i in range(4000)]
    chosen = [name for name in names if brightness.is_training(name)]
    assert abs(len(chosen) / len(names) - 0.75) < 0.03
    assert chosen == [name for name in names if brightness.is_training(name)]


def test_earth_movers_distance_of_single_bins():
    one_hot = np.eye(64)
    for i, j in ((0, 0), (3, 10), (63, 0)):
        assert brightness.earth_movers_distance(one_hot[i], one_hot[j]) == abs(i - j)


def test_luminance_histogram():
    histogram = brightness.luminance_histogram(np.concatenate([plain(0), plain(255)]))
    assert histogram[0] == histogram[63] == 0.5 and histogram.sum() == 1
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255  # 76 of luminance
    assert brightness.luminance_histogram(red)[76 // 4] == 1
    red[..., 0] = 12  # 3.588 of luminance, not 4
    assert brightness.luminance_histogram(red)[0] == 1
    for value in range(256):  # Shares of a plain gray sum to 1 exactly.
        assert brightness.luminance_histogram(plain(value))[value // 4] == 1


def test_brightness_of_files(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(plain(7)))
    (tmp_path / "b.png").write_bytes(b"no image")
    assert brightness.file_brightness(str(tmp_path / "a.png")) == 7
    assert brightness.file_brightness(str(tmp_path / "b.png")) is None


def test_darkest_first_without_covered_lenses_and_days():
    gammas = {"b": 20.0, "a": 20.0, "covered": 4.9, "edge": 5.0, "bright": 60.01, "tagged": 10.0}
    chosen = brightness.select_darkest(gammas, 3, {"tagged": "day"})
    assert chosen == [("edge", 5.0), ("a", 20.0), ("b", 20.0)]
    assert brightness.select_darkest(dict(reversed(gammas.items())), 3, {"tagged": "day"}) == chosen


def test_selection_by_histogram():
    histograms = {name: np.eye(64)[i] for name, i in {"far": 40, "near": 11, "same": 10, "also_near": 9}.items()}
    chosen = brightness.select_by_histogram(histograms, np.eye(64)[10], 3)
    assert chosen == [("same", 0.0), ("also_near", 1.0), ("near", 1.0)]
