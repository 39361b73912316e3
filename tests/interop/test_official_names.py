"""Official names to ours and back."""

import pytest

from nightjax.interop.official_names import DANNET, from_official, to_official

EXAMPLES = {
    "pspnet": {
        "conv1.weight": "backbone.stem.0.weight",
        "bn3.running_var": "backbone.stem.7.running_var",
        "layer1.0.downsample.1.bias": "backbone.layer1.0.downsample.1.bias",
        "head.0.stages.2.1.weight": "head.0.stages.2.1.weight",
        "dsn.3.bias": "auxiliary.3.bias",
    },
    "deeplab": {
        "conv1.weight": "backbone.conv1.weight",
        "layer5.conv2d_list.0.bias": "auxiliary.conv2d_list.0.bias",
        "layer6.conv2d_list.3.weight": "head.conv2d_list.3.weight",
    },
    "refinenet": {
        "bn1.weight": "backbone.bn1.weight",
        "clf_conv.bias": "head.clf_conv.bias",
        "adapt_stage1_b.0.1_conv.weight": "head.adapt_stage1_b.0.1_conv.weight",
    },
}


@pytest.mark.parametrize("network", EXAMPLES)
def test_both_directions(network):
    official = {name: i for i, name in enumerate(EXAMPLES[network])}
    ours = from_official(official, DANNET[network])
    assert list(ours) == list(EXAMPLES[network].values())
    assert list(ours.values()) == list(official.values())
    assert to_official(ours, DANNET[network]) == official


def test_prefix_of_the_initial_checkpoint_is_dropped():
    state = from_official({"Scale.layer2.0.bn1.bias": 1, "layer6.x": 2}, DANNET["deeplab"])
    assert state == {"backbone.layer2.0.bn1.bias": 1, "head.x": 2}


def test_unknown_names_stay():
    assert from_official({"fc.weight": 1}, DANNET["pspnet"]) == {"fc.weight": 1}
