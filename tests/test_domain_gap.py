"""NightStreet has the gap that it is made for, already at its smallest size."""

import pytest

from nightjax import api

STEPS = 400


@pytest.mark.slow
def test_a_network_of_the_day_is_lost_at_night(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    night = {}
    for train_on in ("source", "oracle"):
        path = f"configs/supervised.py:data=nightstreet_tiny,train_on={train_on},steps={STEPS}"
        config = api.get_config(path, eval__every=STEPS, checkpoint__every=STEPS, train__devices=1)
        scores = api.train(config, tmp_path / train_on).evaluate()
        night[train_on] = scores["test_night"]["miou"]["skip"]
    assert night["source"] + 10 <= night["oracle"]
