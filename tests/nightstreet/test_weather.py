"""Fog and rain: what they change, by how much, and what they leave alone."""

import math

import numpy as np
import pytest

from nightjax.core.types import IGNORE
from nightjax.nightstreet import CONDITIONS, WEATHERS, Knobs, light, weather
from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.examples import example
from nightjax.nightstreet.pairs import render_pair
from nightjax.nightstreet.sequences import render_drive
from nightjax.nightstreet.surfaces import BUILDING, ROAD, SKY, Surfaces
from nightjax.zoo.benchmarks import BENCHMARKS

SIZE = (64, 128)
AIR = light.Air(*np.ones((2, 3), np.float32), (0.0, 1.0, 0.0), 9.0, *np.full((2, 3), 3, np.float32), 0.0, 500.0, 0)


def drawn(name, index=0, split="test_night"):
    return example(split, index, size=SIZE, knobs=CONDITIONS[name])


def test_contrast_at_the_optical_range():
    """By the range's definition, one twentieth of a contrast is left there; by hand for a half and twice of it."""
    fog = weather.draw_weather(7, Knobs(fog=1.0))
    reach = math.log(20) / fog.extinction
    assert weather.FOG[0] <= reach <= weather.FOG[1]
    camera, surfaces = Camera(7, SIZE), Surfaces(SIZE)
    length = np.sqrt((camera.rays**2).sum(0))
    white, black = np.ones((3, *SIZE), np.float32), np.zeros((3, *SIZE), np.float32)
    for times, left in ((0.5, 20**-0.5), (1, 1 / 20), (2, 1 / 400)):
        surfaces.depth[:] = times * reach / length
        (bright, share), (dark, _) = (weather._through(fog, x, surfaces, camera, AIR, []) for x in (white, black))
        np.testing.assert_allclose(share, left, rtol=1e-4)
        np.testing.assert_allclose(bright - dark, left, atol=1e-5)
        np.testing.assert_allclose(dark, 3 * (1 - left), rtol=1e-4)


def test_halo_is_the_integral_along_the_ray():
    """Against a fine sum along the rays, for light that is scattered alike in all directions and for the droplets'."""
    camera, extinction = Camera(3, (8, 16)), 0.02
    lamp = light.PointLight((2.0, 6.0, 25.0), np.ones(3, np.float32), "all", 26.0)
    unit = camera.rays / np.sqrt((camera.rays**2).sum(0))
    distance = np.full((8, 16), 60.0, np.float32)
    t = np.linspace(0, 60, 200_001)[:-1] + 60 / 400_000
    found = weather._halo(extinction, lamp, camera, unit, distance)
    for row, column in ((1, 7), (3, 9), (6, 2)):
        u = unit[:, row, column].astype(float)
        to = np.subtract(lamp.position, camera.position)
        away = np.sqrt(((t[:, None] * u - to) ** 2).sum(1) + weather.LAMP_SIZE**2)
        turn = (to @ u - t) / away
        g = weather.FORWARD
        phase = (1 - g * g) / (1 + g * g - 2 * g * turn) ** 1.5
        light_ = phase * np.exp(-extinction * (t + away)) / away**2
        np.testing.assert_allclose(
            found[row, column], extinction / (4 * math.pi) * light_.sum() * 60 / 200_000, rtol=0.05
        )


def test_a_wet_road_mirrors_the_wall_behind_it():
    """A red wall 20 m ahead, under a film of water everywhere: Schlick's share of it, and none on the wall itself."""
    camera, surfaces = Camera(5, SIZE), Surfaces(SIZE)
    ground = camera.rays[1] < -0.02
    surfaces.depth[:] = 20.0
    surfaces.label[:] = BUILDING
    surfaces.depth[ground] = np.minimum(-camera.position[1] / camera.rays[1][ground], 20)
    road = ground & (surfaces.depth < 19.9)
    surfaces.label[road] = ROAD
    seen = np.zeros((3, *SIZE), np.float32)
    seen[0, ~road] = 1.0
    wet = weather.Weather(0.0, 100.0, 4.0, 1)
    sky = light.Air(*np.zeros((2, 3), np.float32), (0.0, 1.0, 0.0), 0.0, *np.zeros((2, 3), np.float32), 0.0, 500.0, 0)
    result = weather._mirror(wet, seen, surfaces, camera, sky, road)
    np.testing.assert_array_equal(result[:, ~road], seen[:, ~road])
    ray = camera.rays[:, road]
    cosine = -ray[1] / np.sqrt((ray**2).sum(0))
    far = surfaces.depth[road] > 8
    wanted = 0.02 + 0.98 * (1 - cosine[far]) ** 5
    np.testing.assert_allclose(result[0, road][far], wanted, rtol=1e-4)
    assert far.sum() > 500 and not result[1:].any()


@pytest.mark.parametrize("name", WEATHERS)
def test_labels_stay_and_images_change(name):
    clear, changed = drawn("std"), drawn(name)
    np.testing.assert_array_equal(clear["label"], changed["label"])
    assert (clear["image"] != changed["image"]).any()
    again = drawn(name)
    np.testing.assert_array_equal(again["image"], changed["image"])
    assert changed["condition"] == {"day": "day"}.get(name, name.removeprefix("night_"))


@pytest.mark.parametrize("name", ["fog", "night_rain"])
def test_source_and_references_are_under_a_clear_sky(name):
    for split in ("source_day", "val_day"):
        np.testing.assert_array_equal(drawn("std", 1, split)["image"], drawn(name, 1, split)["image"])
    pairs = [render_pair(2_000_001, size=SIZE, knobs=CONDITIONS[key]) for key in ("std", name)]
    np.testing.assert_array_equal(*(pair["day"]["image"] for pair in pairs))
    np.testing.assert_array_equal(*(pair["flow_valid"] for pair in pairs))
    assert (pairs[0]["night"]["image"] != pairs[1]["night"]["image"]).any()


def test_what_fog_hides_is_invalid():
    """Thicker fog hides more, and nothing that is near."""
    hidden = []
    for fog in (0.0, 1.0, 4.0):
        view = example("test_night", 3, size=SIZE, knobs=Knobs(time_of_day="day", fog=fog))
        hidden.append(int(view["invalid"].sum()))
        assert not (view["invalid"] & (view["label"] == IGNORE)).any()
        assert not view["invalid"][view["label"] == SKY].any()
    assert hidden[0] == 0 and hidden[1] < hidden[2]


def test_rain_takes_sun_and_light():
    air = light.draw_air(11, "day", Knobs())
    rain = weather.draw_weather(11, Knobs(rain=1.0))
    covered = weather._overcast(rain, air)
    assert not covered.sun.any() and covered.dome.sum() < (air.dome + 0.3 * air.sun).sum()


def test_streaks_change_from_frame_to_frame_and_drops_stay():
    rain = weather.draw_weather(11, Knobs(rain=1.0))
    flat = np.full((3, *SIZE), 0.5, np.float32)
    flat[:, 20:40, 30:90] = 2.0
    first, same, other = (weather.fall(rain, flat, moment, 4) for moment in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    frames = list(render_drive(4_000_002, 2, size=SIZE, knobs=CONDITIONS["night_rain"]))
    assert frames[1]["flow_valid"].mean() > 0.3


def test_benchmarks():
    for name in ("fog", "rain", "night_fog", "night_rain"):
        section = BENCHMARKS[f"nightstreet_{name}"]
        assert section["streams"]["source"]["dataset"] == "nightstreet/std"
        assert section["streams"]["target"]["dataset"] == f"nightstreet/std_{name}_pairs"
        scored = {key: one["dataset"] for key, one in section["eval"].items()}
        target = f"nightstreet/std_{name}"
        assert scored == {"val_night": target, "test_night": target, "val_day": "nightstreet/std"}
