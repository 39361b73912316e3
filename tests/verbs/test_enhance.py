"""``nightjax enhance``: a data set of brighter nights under their own labels."""

import json

import numpy as np

from nightjax import enhance
from nightjax.core import cli
from nightjax.data import sources, transforms
from tests.helpers import toy


def test_writes_a_data_set_of_brighter_nights(tmp_path, monkeypatch, capsys):
    nights = toy.write_folder(tmp_path / "nights", count=3)

    def twice_as_bright(name, image):
        return np.minimum(image.astype(np.int64) * 2, 255).astype(np.uint8)

    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(enhance, "singlehdr_translator", lambda weights: (twice_as_bright, {"method": weights}))
    flags = [f"--data=folder:{nights}", "--split=all", "--weights=w.npz", f"--data_dir={tmp_path}/tfds"]
    enhance.main(["enhance", *flags])
    assert "dataset=translated/singlehdr_folder" in capsys.readouterr().out
    before = sources.open_source("folder", "all", manual_dir=str(nights))
    after = sources.open_source("translated/singlehdr_folder", "train", data_dir=str(tmp_path / "tfds"))
    assert len(before) == len(after) == 3
    for i in range(3):
        old, new = (transforms.decode(source[i], ("image", "label")) for source in (before, after))
        np.testing.assert_array_equal(new["image"], twice_as_bright("", old["image"]))
        np.testing.assert_array_equal(new["label"], old["label"])
        assert after[i]["condition"] == 2
    facts = json.loads((tmp_path / "tfds/translated/singlehdr_folder/1.0.0/metadata.json").read_text())["provenance"]
    assert facts["made_by"] == {"method": "w.npz"} and facts["splits"]["train"]["records"] == 3
