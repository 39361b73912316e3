"""Official names to ours and back."""

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.interop.official_names import DANNET, LayoutChange, from_official, renameable, to_official

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


def test_prefixes_end_between_parts_and_wildcards_stand_for_one():
    table = {"layer1": "a", "block.*.fc.*": "b*.c.*.d", "norm": "n"}
    official = {"layer1.x": 0, "layer10.x": 1, "block.3.fc.4.w.z": 2, "norm": 3}
    ours = from_official(official, table)
    assert list(ours) == ["a.x", "layer10.x", "b3.c.4.d.w.z", "n"]
    assert to_official(ours, table) == official
    assert renameable([*ours, "e.x"], table) == ["a.x", "b3.c.4.d.w.z", "n"]


def test_changes_need_all_their_names():
    def join(first, second):
        return (np.concatenate([first, second]),)

    def halves(both):
        return tuple(np.split(both, 2))

    changes = (LayoutChange(("*.k", "*.v"), ("*.kv",), join, halves),)
    official = {"0.k.w": np.arange(2), "0.v.w": np.arange(2, 4), "1.k.w": np.arange(2)}
    ours = from_official(official, {}, changes)
    assert ours.keys() == {"0.kv.w", "1.k.w"} and ours["0.kv.w"].tolist() == [0, 1, 2, 3]
    back = to_official(ours, {}, changes)
    assert {name: value.tolist() for name, value in back.items()} == {n: v.tolist() for n, v in official.items()}
    assert renameable(ours, {}, changes) == ["0.kv.w"]


def test_two_names_for_one_parameter():
    with pytest.raises(UserError, match="'a.x'"):
        from_official({"b.x": 1, "a.x": 2}, {"b": "a"})
