"""Folders in the form of Hugging Face, written here as transformers writes them."""

import json

import pytest

from nightjax.core.errors import UserError
from nightjax.interop import huggingface
from nightjax.models import build_segmenter
from nightjax.zoo.models import MODELS

B = {
    0: ((32, 64, 160, 256), (2, 2, 2, 2), 256),
    1: ((64, 128, 320, 512), (2, 2, 2, 2), 256),
    2: ((64, 128, 320, 512), (3, 4, 6, 3), 768),
    3: ((64, 128, 320, 512), (3, 4, 18, 3), 768),
    4: ((64, 128, 320, 512), (3, 8, 27, 3), 768),
    5: ((64, 128, 320, 512), (3, 6, 40, 3), 768),
}
"""Widths, depths and decoder of SegFormer's table 6."""


def write(folder, processor=None, **changes):
    folder.mkdir(exist_ok=True)
    config = {
        "model_type": "segformer",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [32, 64, 160, 256],
        "num_attention_heads": [1, 2, 5, 8],
        "decoder_hidden_size": 256,
        "id2label": {"1": "car", "10": "sky", "0": "road"},
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


@pytest.mark.parametrize("number", B)
def test_published_sizes_are_the_networks_of_that_name(tmp_path, number):
    dims, depths, channels = B[number]
    path = write(tmp_path / "x", hidden_sizes=dims, depths=depths, decoder_hidden_size=channels)
    assert huggingface.read_folder(path).model == MODELS[f"segformer_b{number}"]


def test_other_sizes_are_built_too(tmp_path):
    path = write(tmp_path / "x", hidden_sizes=(8, 16, 40, 64), depths=(1, 1, 2, 1), sr_ratios=(4, 2, 1, 1))
    model = build_segmenter(**huggingface.read_folder(path).model)
    assert model.backbone.dims == (8, 16, 40, 64) and model.backbone.sr_ratios == (4, 2, 1, 1)


def test_classes_are_in_the_order_of_their_numbers(tmp_path):
    assert huggingface.read_folder(write(tmp_path / "x")).classes == ("road", "car", "sky")
    assert huggingface.read_folder(write(tmp_path / "x", id2label=None, num_labels=3)).classes[2] == "LABEL_2"


@pytest.mark.parametrize(
    ("processor", "pixels", "height"),
    [
        (None, {}, 0),
        ({"size": 512, "image_mean": [0.5, 0.4, 0.3]}, {"mean": (0.5, 0.4, 0.3)}, 512),
        ({"size": {"height": 640, "width": 1024}}, {}, 640),
        ({"size": {"shortest_edge": 480}, "do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}, 480),
        ({"size": [300, 400], "do_resize": False}, {}, 0),
    ],
)
def test_how_it_sees_images(tmp_path, processor, pixels, height):
    found = huggingface.read_folder(write(tmp_path / "x", processor))
    assert found.input == pixels and found.height == height


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"model_type": "vit"}, "'vit'.*'segformer'"), ({"patch_sizes": [3, 3, 3, 3]}, "patch_sizes.*SegFormers")],
)
def test_networks_that_nightjax_has_not(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        huggingface.read_folder(write(tmp_path / "x", **changes))


def test_damaged_folders(tmp_path):
    path = write(tmp_path / "x")
    (tmp_path / "x" / "config.json").write_text('{"model_type": "segf')
    with pytest.raises(UserError, match="damaged"):
        huggingface.read_folder(path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    assert huggingface.is_folder(path) and not huggingface.is_folder(str(tmp_path / "run"))
