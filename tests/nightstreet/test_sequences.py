import numpy as np

from nightjax.nightstreet import render
from nightjax.nightstreet.pairs import warp_labels
from nightjax.nightstreet.sequences import render_drive

SEED = 4_000_003


def test_the_flow_leads_to_the_same_point_of_the_frame_before():
    frames = list(render_drive(SEED, 3, size=(64, 128)))
    assert not frames[0]["flow_valid"].any()
    for before, now in zip(frames, frames[1:], strict=False):
        valid = now["flow_valid"]
        assert valid.mean() > 0.5
        moved = warp_labels(before["label"], now["flow"])
        assert (moved == now["label"])[valid].mean() > 0.97
        assert (before["label"] == now["label"])[valid].mean() < (moved == now["label"])[valid].mean()
        assert np.abs(now["flow"][valid]).mean() > 0.2


def test_the_noise_is_new_in_every_frame_and_the_exposure_is_not():
    still = list(render_drive(SEED, 2, size=(64, 128), meters=0.0))
    np.testing.assert_array_equal(still[0]["label"], still[1]["label"])
    assert (still[0]["image"] != still[1]["image"]).any()
    assert still[0]["meta"]["exposure"] == still[1]["meta"]["exposure"]
    np.testing.assert_allclose(still[1]["flow"], 0, atol=1e-4)
    one = render(SEED, "night", dynamic_seed=SEED, sensor_seed=SEED, size=(64, 128), prior_shift=0.5)
    assert one["meta"]["exposure"] == still[0]["meta"]["exposure"]
    difference = one["image"].astype(int) - still[0]["image"]
    assert 0 < np.abs(difference).mean() < 20
