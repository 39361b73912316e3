import subprocess
import sys

import numpy as np
import pytest

from nightjax.data import sources, transforms
from nightjax.inference.similarity import prototype_similarity
from nightjax.run import loaded as runs
from tests.helpers import toy
from tests.helpers.places import ROOT


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    root = toy.write_folder(tmp_path_factory.mktemp("data"), count=4)
    return runs.load(toy.untrained_run(tmp_path_factory.mktemp("run"), toy.config(root)))


def test_cosines_of_a_set_with_itself(loaded):
    records = sources.open_source("folder", "train", manual_dir=loaded.config.data.manual_dir)
    own, other = prototype_similarity(
        loaded.method.penultimate, loaded.variables, (records, None), (records, None), 100
    )
    pairs = [transforms.decode(records[i], ("image", "label")) for i in range(4)]
    features = np.asarray(loaded.method.penultimate(loaded.variables, np.stack([pair["image"] for pair in pairs])))
    step = toy.SIZE[0] // features.shape[1]
    label = np.stack([pair["label"] for pair in pairs])[:, ::step, ::step]
    present = [c for c in range(19) if (label == c).any()]
    assert np.isnan(own).sum() == np.isnan(other).sum() == 19 - len(present) < 19
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    prototypes = {c: unit(features[label == c].mean(axis=0)) for c in present}
    for c in present:
        cosine = {k: float((unit(features[label == c]) @ prototypes[k]).mean()) for k in present}
        np.testing.assert_allclose(own[c], cosine.pop(c), atol=1e-5)
        np.testing.assert_allclose(other[c], np.mean(list(cosine.values())), atol=1e-5)


def call(*flags):
    command = [sys.executable, "-m", "scripts.feature_similarity", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_table_and_errors(loaded):
    done = call(f"--workdir={loaded.workdir}", "--set=val", "--classes")
    assert done.returncode == 0 and "own" in done.stdout and "traffic light" in done.stdout, done.stderr
    done = call(f"--workdir={loaded.workdir}", "--set=val_nite")
    assert done.returncode == 2 and "--set='val_nite' is unknown" in done.stderr
