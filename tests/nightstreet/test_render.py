"""NightStreet's renderer: determinism, independent streams, geometry, light and sensor."""

import dataclasses
import hashlib
import itertools

import cv2
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.nightstreet import (
    GAPS,
    NIGHTS,
    PRESETS,
    SPLITS,
    Knobs,
    PoseOffset,
    light,
    optics,
    pairs,
    render,
    sensor,
)
from nightjax.nightstreet.camera import Camera
from nightjax.nightstreet.examples import NightStreet, example
from nightjax.nightstreet.facades import FLOOR
from nightjax.nightstreet.presets import FACTORS, SEEDS_PER_SPLIT, last_to_go, whiten
from nightjax.nightstreet.render import draw_view
from nightjax.nightstreet.seeds import hash_unit, named_generator, value_noise
from nightjax.nightstreet.surfaces import BUILDING, BUS, CAR, POLE, ROAD, SKY, TRAIN, TRUCK

SMALL = (64, 128)
SEED = 11


@pytest.fixture(scope="module")
def night():
    return render(SEED, "night", dynamic_seed=1, sensor_seed=2, size=SMALL)


def test_streams_are_named_and_independent():
    a = named_generator(3, "layout").integers(1000, size=8)
    assert (a == named_generator(3, "layout").integers(1000, size=8)).all()
    assert (a != named_generator(3, "lights").integers(1000, size=8)).any()
    assert (a != named_generator(4, "layout").integers(1000, size=8)).any()


def test_noise_is_uniform_and_continuous():
    x, y = np.meshgrid(np.arange(-64, 64), np.arange(-64, 64))
    values = hash_unit(x, y, 5)
    assert values.dtype == np.float32 and values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.01 and abs(values.var() - 1 / 12) < 0.003
    line = value_noise(np.linspace(-3, 3, 2001, dtype=np.float32), np.zeros(2001, np.float32), 5)
    assert np.abs(np.diff(line)).max() < 0.01


def test_equal_seeds_give_equal_bytes(night):
    again = render(SEED, "night", dynamic_seed=1, sensor_seed=2, size=SMALL)
    for name in ("image", "label", "depth", "invalid"):
        assert again[name].tobytes() == night[name].tobytes()
    assert night["image"].shape == (*SMALL, 3) and night["image"].dtype == np.uint8
    assert night["label"].dtype == np.uint8 and night["depth"].dtype == np.float32


LABEL_HASHES = {
    "source_day": "926e591c177f5d3c",
    "val_night": "ce6d125b3cbd2495",
    "test_night": "e9ab0809f87b69ea",
    "val_day": "53198899b12b46a3",
    "oracle_night": "7fc85d59346a93fd",
}
IMAGE_MEANS = {
    "source_day": [
        91.484,
        167.913,
        195.738,
        55.437,
        64.128,
        86.618,
        96.189,
        56.766,
        67.999,
        77.247,
        76.889,
        68.377,
        73.408,
        75.700,
        76.505,
        71.607,
    ],
    "target_pairs": [
        31.290,
        27.325,
        32.142,
        13.245,
        17.049,
        43.146,
        24.408,
        34.949,
        28.801,
        38.646,
        26.042,
        39.530,
        31.150,
        43.900,
        44.751,
        41.692,
    ],
    "val_night": [
        9.629,
        23.737,
        26.761,
        8.152,
        11.229,
        20.245,
        14.451,
        5.973,
        19.012,
        21.466,
        22.584,
        14.758,
        25.238,
        33.481,
        29.906,
        20.329,
    ],
    "test_night": [
        46.589,
        53.854,
        58.978,
        34.963,
        34.070,
        74.370,
        62.503,
        56.470,
        59.973,
        59.932,
        51.909,
        57.614,
        59.807,
        67.475,
        62.014,
        47.244,
    ],
    "val_day": [
        107.973,
        210.060,
        145.419,
        58.210,
        79.072,
        150.653,
        109.029,
        76.475,
        83.981,
        98.801,
        85.359,
        76.794,
        83.107,
        83.307,
        87.367,
        87.361,
    ],
    "target_twilight": [
        90.839,
        143.590,
        179.512,
        123.870,
        110.980,
        125.428,
        131.759,
        105.432,
        113.971,
        113.816,
        135.018,
        140.271,
        93.859,
        118.225,
        112.875,
        103.654,
    ],
    "oracle_night": [
        18.057,
        34.596,
        28.391,
        20.210,
        18.339,
        30.327,
        17.165,
        20.286,
        18.393,
        22.437,
        24.413,
        17.339,
        25.301,
        35.314,
        30.338,
        39.399,
    ],
}


@pytest.mark.parametrize("split", list(SPLITS))
def test_golden(split):
    """Labels are equal bit for bit everywhere, images up to rounding: means of 4 x 4 blocks to a hundredth of a gray
    level."""
    drawn = example(split, 0, size=SMALL)
    if "label" in drawn:
        assert hashlib.sha256(drawn["label"].tobytes()).hexdigest()[:16] == LABEL_HASHES[split]
    means = drawn["image"].reshape(4, 16, 4, 32, 3).mean((1, 3, 4)).ravel()
    np.testing.assert_allclose(means, IMAGE_MEANS[split], atol=0.01)


def test_time_of_day_leaves_the_labels_alone(night):
    for time in ("day", "twilight"):
        other = render(SEED, time, dynamic_seed=1, sensor_seed=2, size=SMALL)
        assert (other["label"] == night["label"]).all() and (other["depth"] == night["depth"]).all()
        assert (other["image"] != night["image"]).any()


def test_sensor_seed_changes_the_image_alone(night):
    other = render(SEED, "night", dynamic_seed=1, sensor_seed=3, size=SMALL)
    assert (other["label"] == night["label"]).all() and (other["image"] != night["image"]).any()


def test_dynamics_change_only_where_something_moves(night):
    other = render(SEED, "night", dynamic_seed=77, sensor_seed=2, size=SMALL)
    still = ~(other["moving"] | night["moving"])
    assert (other["label"] == night["label"])[still].all() and (other["depth"] == night["depth"])[still].all()
    assert (other["label"] != night["label"]).any()
    assert np.isin(night["label"][night["moving"]], (*CITYSCAPES.group("dynamic"), IGNORE)).all()


def test_sky_is_what_is_infinitely_far(night):
    known = night["label"] != IGNORE
    assert ((night["label"] == SKY) == np.isinf(night["depth"]))[known].all()
    assert (night["depth"] > 0.5).all()


def test_projection_inverts_the_rays():
    camera = Camera(5, SMALL, PoseOffset(0.3, 1.0, 0.02, 0.01))
    depth = np.float32(17.0)
    point = [camera.position[i] + depth * camera.rays[i] for i in range(3)]
    column, row, ahead = camera.project(*point)
    rows, columns = np.indices(SMALL)
    np.testing.assert_allclose(column, columns, atol=1e-2)
    np.testing.assert_allclose(row, rows, atol=1e-2)
    np.testing.assert_allclose(ahead, depth, rtol=1e-4)


@pytest.mark.parametrize("seed", range(20, 26))
def test_ground_runs_to_the_horizon_and_sky_down_to_it(seed):
    """The row where the road's depth would be infinite is the row where rays are level; ground is below it, sky
    above."""
    height, width = 128, 256
    view = draw_view(seed, seed, PoseOffset(), (height, width), Knobs(), 0.0)
    rise, label, depth = view.camera.rays[1], view.surfaces.label, view.surfaces.depth
    assert (rise[label == ROAD] < 0).all()
    assert (rise[label == SKY] > -2 / view.camera.focal).all()  # Between rows two pixels at most, ground ends at 400 m.
    column = np.argmax([np.sum(label[:, c] == ROAD) for c in range(width)])
    rows = np.flatnonzero(label[:, column] == ROAD)
    slope, offset = np.polyfit(rows, 1 / depth[rows, column], 1)
    level = np.interp(0, -rise[:, column], np.arange(height))
    assert abs(-offset / slope - level) < 0.05
    tilt = 4 * (0.004 + 0.008 * 0.5) * view.camera.focal  # Four standard deviations of pitch and of roll at the border.
    assert 0.42 * height - tilt < level < 0.52 * height + tilt


def test_same_point_has_the_same_label_in_two_poses():
    here = render(SEED, "day", dynamic_seed=1, sensor_seed=2, size=(128, 256))
    there = render(
        SEED, "day", dynamic_seed=9, sensor_seed=2, size=(128, 256), pose_jitter=PoseOffset(0.5, 2.0, 0.02, 0.005)
    )
    flow, valid = pairs.correspondence(here, there)
    assert valid.mean() > 0.4
    before = pairs.agreement(here["label"], there["label"])
    after = pairs.agreement(here["label"], pairs.warp_labels(there["label"], flow), valid)
    assert after > 0.97 > before


def test_flow_of_equal_poses_is_zero(night):
    flow, valid = pairs.correspondence(night, night)
    assert np.abs(flow).max() < 1e-2
    assert (valid == (~night["moving"] & (night["label"] != IGNORE))).all()


def test_pairs_without_jitter_agree():
    knobs = Knobs(pose_jitter=0.0)
    for seed in range(2_000_000, 2_000_004):
        pair = pairs.render_pair(seed, size=SMALL, knobs=knobs)
        assert pair["kind"] == "near"
        assert pairs.agreement(pair["night"]["label"], pair["day"]["label"]) >= 0.97


def test_misalignments_follow_their_shares():
    kinds = [pairs.draw_misalignment(seed, 1.0).kind for seed in range(2000)]
    assert abs(kinds.count("stale") / 2000 - pairs.STALE) < 0.03
    assert abs(kinds.count("wrong") / 2000 - pairs.WRONG) < 0.012


def test_irradiance_under_a_lamp():
    position = np.stack([np.linspace(-4, 4, 9), np.zeros(9), np.full(9, 6.0)]).astype(np.float32)
    normal = np.stack([np.zeros(9), np.ones(9), np.zeros(9)]).astype(np.float32)
    lamp = light.PointLight((0.0, 6.0, 6.0), np.ones(3, np.float32), "down", 26.0)
    once = light.irradiance(position, normal, lamp)
    assert once.argmax() == 4
    np.testing.assert_allclose(once[4], (1 + light.SPILL) / 36.5, rtol=1e-5)


def test_radiance_is_linear_in_the_lamps():
    """Ground irradiance of a scene doubles with all lamps, ambient off."""

    def ground(lamps):
        knobs = Knobs(ambient=0.0, lamps=lamps)
        view = draw_view(SEED, 1, PoseOffset(), SMALL, knobs, 0.0)
        air = light.draw_air(SEED, "night", knobs)
        lights = light.draw_lights(SEED, view.street, view.lamps, [], view.camera, knobs)
        return light.radiance(view.surfaces, view.camera, view.street, air, lights)[:, view.surfaces.label == 0]

    one, two = ground(1.0), ground(2.0)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("gain", [1.0, 6.0])
def test_noise_variance_follows_the_law(gain):
    flat = np.full((3, 200, 200), 0.2, np.float32)
    camera = sensor.Sensor(1.0, gain, np.ones(3, np.float32), 1.0, 0.0, 1.0)
    seen, snr = sensor.expose(np.random.default_rng(0), flat, camera)
    rows = (0.4 * sensor.READ * gain) ** 2 if gain > 3 else 0.0
    law = sensor.SHOT * gain * 0.2 + (sensor.READ * gain) ** 2 + rows
    assert abs(seen.var() / law - 1) < 0.05
    np.testing.assert_allclose(snr, 0.2 / np.sqrt(law - rows), rtol=1e-4)


@pytest.mark.parametrize("rays", [0, 3])
def test_glare_keeps_the_energy(rays):
    image = np.zeros((3, 64, 128), np.float32)
    image[:, 30, 60] = 30.0
    lens = optics.Lens(glare=0.08, rays=rays, angle=0.4, ghosts=0, motion=0.0, defocus=0.0)
    seen, scattered = optics.veil(image, 1.0, lens)
    assert abs(seen.sum() / image.sum() - 1) < 0.02
    assert scattered[0, 24, 60] > 0


def test_invalid_needs_darkness_or_glare():
    signal = np.full((3, 16, 16), 0.5, np.float32)
    snr = np.full((16, 16), 50.0, np.float32)
    nothing = np.zeros_like(signal)
    assert not sensor.invalid_mask(snr, signal, nothing).any()
    assert sensor.invalid_mask(snr, signal, signal * 5).all()
    snr[:8] = 0.1
    assert (sensor.invalid_mask(snr, signal, nothing)[:7]).all()


def test_night_is_darker_and_partly_invalid():
    drawn = {name: example(name, 0, size=SMALL) for name in ("val_day", "val_night")}
    assert drawn["val_night"]["image"].mean() < drawn["val_day"]["image"].mean()
    assert drawn["val_night"]["invalid"].any() and not drawn["val_day"]["invalid"].any()


CLEAN = {"glare": 0.0, "noise": 0.0, "blur": 0.0}
"""Knobs that leave the lens and the sensor nothing to add."""


def shot(seed=SEED, sensor_seed=2, **knobs):
    return render(seed, "night", dynamic_seed=1, sensor_seed=sensor_seed, size=SMALL, knobs=Knobs(**knobs))


def gray(view):
    return view["image"].mean(-1)


def lit_view(seed, **knobs):
    """Surfaces and lights of a night."""
    knobs = Knobs(**knobs)
    view = draw_view(seed, seed, PoseOffset(), SMALL, knobs, 0.0)
    return view, light.draw_lights(seed, view.street, view.lamps, view.movers, view.camera, knobs)


def test_every_knob_has_a_test_of_its_effect():
    """Those of fog and rain are in test_weather.py."""
    assert {f"test_no_{name}" for name in FACTORS} <= set(globals())


def test_no_ambient():
    sky = cv2.erode((shot()["label"] == SKY).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert shot(**CLEAN)["image"][sky].max() > 0
    assert shot(ambient=0.0, **CLEAN)["image"][sky].max() == 0


def test_no_lamps():
    """No light is cast, and no lamp head, shop or vehicle light is seen."""
    seen = 0
    for seed in range(8):
        for strength in (1.0, 0.0):
            view, lights = lit_view(seed, lamps=strength)
            surfaces, camera = view.surfaces, view.camera
            height = camera.position[1] + np.where(np.isinf(surfaces.depth), 0, surfaces.depth) * camera.rays[1]
            shops = (surfaces.label == BUILDING) & (height < FLOOR)
            glow = surfaces.glow[:, shops | np.isin(surfaces.label, (POLE, CAR, TRUCK))]
            cast = sum(lamp.intensity.sum() for lamp in lights)
            if strength:
                seen += (glow > 0).sum()
                assert cast > 0
            else:
                assert cast == 0 and not glow.any()
    assert seen > 50
    dark = shot(lamps=0.0, ambient=0.0, **CLEAN)
    assert (dark["image"][dark["label"] == ROAD] == 0).all()


def test_no_glare():
    """Lamps have no halo, and what else is drawn for the lens stays."""
    plain, off = shot(noise=0.0), shot(glare=0.0, noise=0.0)
    halo = gray(plain) - gray(off)
    assert halo[gray(off) < 128].min() > -1 and halo.max() > 1
    for seed in range(20):
        with_, without = (optics.draw_lens(named_generator(seed, "sensor"), True, Knobs(glare=g)) for g in (1.0, 0.0))
        assert dataclasses.replace(with_, glare=0.0) == without


def test_no_noise():
    """The sky, which is smooth, is smooth in the image, and nothing is invalid for noise."""
    plain, off = shot(glare=0.0, blur=0.0), shot(glare=0.0, blur=0.0, noise=0.0)
    sky = (plain["label"][:, 1:] == SKY) & (plain["label"][:, :-1] == SKY)
    rough = [np.diff(gray(view), axis=1)[sky].var() for view in (plain, off)]
    assert rough[0] > 1 and rough[1] < 0.1
    none, half, one, three = (shot(glare=0.0, noise=strength)["invalid"].sum() for strength in (0.0, 0.5, 1.0, 3.0))
    assert none == 0 < half < one < three


def test_no_blur():
    plain, off = (np.abs(np.diff(gray(shot(noise=0.0, blur=blur)), axis=1)).mean() for blur in (1.0, 0.0))
    assert off > 1.05 * plain


def test_no_tint():
    """All lights but red ones are white, as cast and as seen; the image is grayer."""
    colored = 0
    for seed in range(8):
        for tint in (1.0, 0.0):
            view, lights = lit_view(seed, tint=tint)
            shining = np.isin(view.surfaces.label, (POLE, BUILDING, CAR, TRUCK, BUS, TRAIN))
            colors = np.concatenate([[lamp.intensity for lamp in lights], view.surfaces.glow[:, shining].T])
            red, green, blue = colors.T
            colors = colors[(green > 0) & (red < 8 * blue)]
            spread = np.ptp(colors, 1) / colors.mean(1)
            if tint:
                colored += (spread > 0.1).sum()
            else:
                assert spread.max() < 1e-5
    assert colored > 50
    plain, off = (
        [shot(seed, tint=tint, exposure_diversity=0.0, ambient=0.0, **CLEAN)["image"].mean((0, 1)) for seed in range(8)]
        for tint in (1.0, 0.0)
    )
    casts = [np.mean([abs(np.log(r / b)) for r, _, b in means]) for means in (plain, off)]
    assert casts[1] < 0.5 * casts[0]


@pytest.mark.parametrize("time", ["day", "twilight", "night"])
def test_no_exposure_diversity(time):
    """All sensors take the same image of a scene."""
    for diversity in (0.0, 1.0):
        knobs = Knobs(exposure_diversity=diversity, **CLEAN)
        one, other = (
            render(SEED, time, dynamic_seed=1, sensor_seed=seed, size=SMALL, knobs=knobs)["image"] for seed in (2, 3)
        )
        assert (one == other).all() == (diversity == 0)


def test_no_prior_shift():
    """The streets of the night splits are those that a day split would have; with it they are opener."""
    first, indices = SPLITS["test_night"].first_seed, range(6)
    shifted = {
        shift: [example("test_night", i, size=SMALL, knobs=Knobs(prior_shift=shift))["label"] for i in indices]
        for shift in (0.0, 0.5, 1.0)
    }
    of_day = [render(first + i, "day", dynamic_seed=first + i, sensor_seed=0, size=SMALL)["label"] for i in indices]
    np.testing.assert_array_equal(shifted[0.0], of_day)
    none, half, whole = (np.mean(np.equal(labels, SKY)) for labels in shifted.values())
    assert none < half < whole


def test_no_pose_jitter():
    for seed in range(20):
        none, one = (pairs.draw_misalignment(seed, scale) for scale in (0.0, 1.0))
        assert none.kind == "near" and none.day == none.night != one.day


def test_no_dynamics():
    """Without a change of pose either, both images of a pair have one label map."""
    for dynamics in (False, True):
        pair = pairs.render_pair(2_000_001, size=SMALL, knobs=Knobs(pose_jitter=0.0, dynamics=dynamics))
        assert (pair["night"]["label"] == pair["day"]["label"]).all() == (not dynamics)


@pytest.mark.parametrize("knob", ["ambient", "lamps", "glare", "noise", "blur", "tint", "exposure_diversity"])
def test_knobs_of_light_and_sensor_leave_the_labels_alone(knob, night):
    other = shot(**{knob: 0.0})
    assert (other["label"] == night["label"]).all() and (other["image"] != night["image"]).any()


def test_lesser_lights_are_whole_in_the_published_gaps():
    assert last_to_go(0.0) == 0 and last_to_go(0.25) == 0.5
    assert all(last_to_go(knobs.lamps) == last_to_go(knobs.tint) == 1 for knobs in GAPS.values())
    color = np.array([1.0, 0.62, 0.25], np.float32)
    assert (whiten(color, 1.0) == color).all()
    np.testing.assert_allclose(whiten(color, 0.0), color.mean(), rtol=1e-6)


def test_seeds_of_splits_are_disjoint():
    starts = sorted(split.first_seed for split in SPLITS.values())
    assert all(b - a >= SEEDS_PER_SPLIT for a, b in itertools.pairwise(starts))
    for preset in PRESETS.values():
        assert max(preset.counts.values()) < pairs.WRONG_SCENE < SEEDS_PER_SPLIT - max(preset.counts.values())
        assert set(preset.counts) == set(SPLITS)


def test_night_street_is_a_lazy_sequence():
    source = NightStreet("val_night", "tiny")
    assert len(source) == 4
    assert source[-1]["image_id"] == "val_night_000003"
    assert source[1]["class_pixels"].sum() == (source[1]["label"] != IGNORE).sum()
    with pytest.raises(IndexError):
        source[4]


@pytest.mark.parametrize(
    "call",
    [
        lambda: NightStreet("test"),
        lambda: NightStreet("val_day", "huge"),
        lambda: render(0, "noon", dynamic_seed=0, sensor_seed=0),
        lambda: render(0, "day", dynamic_seed=0, sensor_seed=0, size=(63, 128)),
    ],
)
def test_mistakes_are_user_errors(call):
    with pytest.raises(UserError):
        call()


def test_gaps_are_ordered():
    assert list(GAPS) == ["easy", "std", "hard"] and GAPS["std"] == Knobs()
    assert GAPS["easy"].ambient > 1 > GAPS["hard"].ambient


def test_nights_switch_one_factor_each():
    factors = {name: knobs for name, knobs in NIGHTS.items() if name not in GAPS}
    assert list(factors) == [f"no_{name}" for name in FACTORS]
    assert {field.name for field in dataclasses.fields(Knobs)} == {*FACTORS, "time_of_day", "fog", "rain"}
    for name, knobs in factors.items():
        changed = [f.name for f in dataclasses.fields(Knobs) if getattr(knobs, f.name) != getattr(GAPS["std"], f.name)]
        assert changed == [name.removeprefix("no_")] and not getattr(knobs, changed[0])
