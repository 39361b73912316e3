"""What a config of a plain folder leaves open is chosen by what is in the folder, printed, and kept."""

from collections import Counter

import pytest

from nightjax.core.errors import UserError
from nightjax.run import own_data, settings
from tests.helpers.odd_files import encoded
from tests.helpers.own_folders import make, picture, values, write


def resolved(root, saved=None, config="supervised:data=folder", **keys):
    values = {"data.manual_dir": str(root)} | {key.replace("__", "."): value for key, value in keys.items()}
    return own_data.resolve(settings.override(settings.load(config), values), saved)


def splits(config):
    streams = {name: stream.split for name, stream in config.data.streams.items()}
    return streams | {name: section.split for name, section in config.eval.sets.items()}


def test_a_tenth_is_held_out_where_no_split_is_for_scoring(tmp_path, capsys):
    make(tmp_path, 20, split=".")
    assert splits(resolved(tmp_path)) == {"source": "all[:-2]", "val": "all[-2:]"}
    assert "the last 2 of its 20 images are held out (eval.sets.*.split=all[-2:]" in capsys.readouterr().out
    make(tmp_path / "split", 4)
    assert splits(resolved(tmp_path / "split")) == {"source": "train[:-1]", "val": "train[-1:]"}


@pytest.mark.parametrize("name", own_data.VALIDATION)
def test_a_split_for_scoring_is_scored(tmp_path, name):
    make(tmp_path, 3)
    make(tmp_path, 2, split=name)
    assert splits(resolved(tmp_path)) == {"source": "train", "val": name}


def test_other_splits_are_trained_on(tmp_path):
    for split in ("day", "dusk", "val", "test"):
        make(tmp_path, 2, split)
    assert splits(resolved(tmp_path)) == {"source": "day+dusk", "val": "val"}


def test_folders_of_their_own_are_read_whole(tmp_path):
    for name in ("day", "night", "scored"):
        make(tmp_path / name, 5, split=".")
    keys = {
        f"data.streams.{key}.dataset": f"folder:{tmp_path / name}"
        for key, name in (("source", "day"), ("target", "night"))
    }
    keys["eval.sets.val.dataset"] = f"folder:{tmp_path / 'scored'}"
    config = own_data.resolve(settings.override(settings.load("dacs:data=folder"), keys))
    assert splits(config) == {"source": "all", "target": "all", "val": "all"}
    keys["eval.sets.val.dataset"] = f"folder:{tmp_path / 'night'}"
    config = own_data.resolve(settings.override(settings.load("dacs:data=folder"), keys))
    assert splits(config) == {"source": "all", "target": "all[:-1]", "val": "all[-1:]"}


@pytest.mark.slow
def test_a_size_is_chosen_for_large_photos(tmp_path, capsys):
    for k in range(4):
        write(tmp_path, f"images/f{k}.jpg", encoded(picture(k, (2160, 3840) if k else (1440, 1080)), "JPEG"))
        write(tmp_path, f"labels/f{k}.png", encoded(values(k, (2160, 3840) if k else (1440, 1080))))
    config = resolved(tmp_path)
    assert config.data.streams.source.resize == config.eval.sets.val.input_size == (512, 910)
    out = capsys.readouterr().out
    assert "data.streams.source.resize=512,910 for images of 2160x3840; 1 of 3 images looked at have another" in out
    given = resolved(tmp_path, data__streams__source__resize="720,1280")
    assert given.data.streams.source.resize == (720, 1280) == given.eval.sets.val.input_size
    assert resolved(tmp_path, data__streams__source__resize="None").eval.sets.val.input_size is None


def test_small_images_keep_their_size(tmp_path):
    make(tmp_path)
    config = resolved(tmp_path)
    assert config.data.streams.source.resize is None and config.eval.sets.val.input_size is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2160, 3840), (512, 910)),
        ((1080, 1920), (512, 910)),
        ((4000, 3000), (683, 512)),
        ((720, 1280), None),
        ((768, 1024), None),
    ],
)
def test_fitting_sizes(size, expected):
    assert own_data.fitting_size(Counter({size: 3, (9, 9): 2}), (512, 512)) == expected


def test_a_continued_run_keeps_what_it_chose(tmp_path):
    make(tmp_path, 20, split=".")
    first = resolved(tmp_path)
    make(tmp_path, 30, split=".")
    assert splits(resolved(tmp_path, first)) == splits(first)


def test_other_data_sets_leave_nothing_open(tmp_path):
    make(tmp_path)
    with pytest.raises(UserError, match="source leaves split or resize open.*'nightstreet/tiny'.*source.split"):
        resolved(tmp_path, data__streams__source__dataset="nightstreet/tiny")
    make(tmp_path / "other")
    joined = resolved(tmp_path, data__streams__source__dataset=f"folder+folder:{tmp_path / 'other'}")
    assert joined.data.streams.source.split == "all"
