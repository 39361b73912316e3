"""A run whose plain folder has moved goes on, and one whose files are others does not."""

import shutil

import pytest

from nightjax import evaluate
from nightjax.core.errors import UserError
from nightjax.data import fingerprints
from nightjax.data.folders import FolderSource
from nightjax.data.sources import open_source
from nightjax.run import moved, settings
from nightjax.train import train
from nightjax.zoo.recipes import changed
from tests.helpers import toy
from tests.helpers.odd_files import encoded
from tests.helpers.own_folders import make, picture, write


def named(root, **overrides):
    """A toy config whose streams and sets name their folder."""
    config = toy.config(root, **overrides).to_dict()
    for section in (*config["data"]["streams"].values(), *config["eval"]["sets"].values()):
        section["dataset"] = f"{section['dataset']}:{root}"
    config["data"]["manual_dir"] = ""
    return settings.ml_collections.ConfigDict(config)


def test_fingerprints(tmp_path):
    of = lambda name, split="all": fingerprints.of_source(FolderSource(tmp_path / name, split))
    make(tmp_path / "a", 5)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert of("a") == of("b") != of("a", "train[:4]")
    write(tmp_path / "b", "images/train/f4.png", encoded(picture(9)))
    assert of("a") != of("b")
    joined = open_source(f"folder:{tmp_path / 'a'}+folder:{tmp_path / 'b'}", "all")
    assert fingerprints.of_source(joined) not in ("", of("a"), of("b"))
    write(tmp_path / "a", "labels.json", '{"1": "car"}')
    shutil.rmtree(tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "b", "labels.json", '{"1": "car", "2": "sky"}')
    assert of("a") != of("b")


def test_a_moved_run_goes_on_and_is_scored(tmp_path, capsys):
    toy.write_folder(tmp_path / "a/data")
    train(named(tmp_path / "a/data", steps=2), tmp_path / "run")
    (tmp_path / "a").rename(tmp_path / "b")
    place = tmp_path / "b/data"
    evaluate.main(["evaluate", f"--workdir={tmp_path}/run", f"--manual_dir={place}"])
    assert "kept apart" not in capsys.readouterr().out
    train(named(place, steps=2), tmp_path / "run")
    assert f"the same files as in {tmp_path}/a/data, now folder {place}" in capsys.readouterr().out
    assert settings.saved(tmp_path / "run").data.streams.source.dataset.endswith(f":{place}")
    evaluate.main(["evaluate", f"--workdir={tmp_path}/run"])
    toy.write_folder(tmp_path / "c", seed=1)
    with pytest.raises(UserError, match=f"a run on {place} .6 records.; .* other files"):
        train(named(tmp_path / "c", steps=2), tmp_path / "run")
    write(place, "images/train/frame_00.png", (place / "images/train/frame_01.png").read_bytes())
    train(named(place, steps=2), tmp_path / "run")
    assert "have changed since the run began" in capsys.readouterr().out


def test_manual_dir_wins_over_the_paths_of_a_run(tmp_path):
    config = settings.load("supervised:data=folder")
    for name in ("one", "many/day", "many/night"):
        make(tmp_path / name)

    def read(places, manual_dir):
        sets = {name: {"dataset": f"folder/own:{place}", "split": "all"} for name, place in places.items()}
        given = settings.complete(changed(config, [{"eval.sets": None, "eval.sets.val": None}, {"eval.sets": sets}]))
        found = moved.to_manual_dir(given, str(tmp_path / manual_dir)).eval.sets
        return [found[name].dataset for name in places]

    assert read({"a": "/gone/day", "b": "/gone/day"}, "one") == [f"folder/own:{tmp_path}/one"] * 2
    two = {"a": "/gone/day", "b": tmp_path / "one/night"}
    assert read(two, "many") == [f"folder/own:{tmp_path}/many/{name}" for name in ("day", "night")]
    assert read(two, "nowhere") == [f"folder/own:{place}" for place in two.values()]
