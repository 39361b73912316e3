"""T2S-DA through the loop."""

import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from nightjax.methods.t2s_da import SIMILARITY
from nightjax.run import settings
from nightjax.train import train
from tests.helpers import toy

PULL = {
    "channels": 8,
    "queries": 8,
    "negatives": {"count": 6},
    "queue": {"batches": 2, "cells": 8},
    "prototype_decay": 0.9,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


def config(folder, **overrides):
    """With everything that is remembered from step to step."""
    plain = toy.config(folder, "t2s_da", **overrides).to_dict()
    plain["method"] |= {"pull": PULL, "feature_distance": None}
    return settings.complete(ConfigDict(plain))


@pytest.mark.slow
def test_a_continued_run_ends_with_the_same_bits(folder, tmp_path):
    made = config(folder, steps=4, checkpoint__every=2)
    train(made, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "continued")
    shutil.rmtree(tmp_path / "continued" / "checkpoints" / "0000004")
    train(made, tmp_path / "continued")
    one, two = (toy.saved_state(tmp_path / name, 4) for name in ("straight", "continued"))
    assert one.keys() == two.keys()
    for part in ("projection", "confidence", "prototypes", "prototypes_seen", "key_queue"):
        assert any(part in name for name in one), part
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    files = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("straight", "continued")]
    lines = [[json.loads(line) for line in text.splitlines()] for text in files]
    losses = [[line["loss_pull"] for line in run if "loss_pull" in line] for run in lines]
    assert losses[0] == losses[1] and len(losses[0]) == 4 and all(loss > 0 for loss in losses[0])
    page = (tmp_path / "straight" / "report.html").read_text()
    assert f"<h2>{SIMILARITY.title}</h2>" in page and "similarity/own" not in page
