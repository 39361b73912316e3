"""What trainers wrap around weights and put in front of their names, in any nesting."""

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.interop.official_names import from_official
from nightjax.interop.wrappers import open_wrappers, unwrap

STATE = {"conv1.weight": np.zeros((2, 3)), "bn1.num_batches_tracked": np.zeros((), np.int64), "bn1.bias": np.ones(2)}
OTHER = {"conv1.weight": np.full((2, 3), 7.0), "bn1.bias": np.zeros(2)}
OPTIMIZER = {"state": {0: {"exp_avg": np.zeros((2, 3))}, 1: {"exp_avg": np.zeros(2)}}, "param_groups": [{"lr": 1.0}]}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER, "step": np.zeros((), np.int64)},
        {"weights": STATE},
        {"something of their own": STATE, "optimizer": OPTIMIZER, "args": {"lr": 0.1}},
        {"checkpoint": {"trainer": {"model": STATE, "lr_scheduler": {"_last_lr": np.ones(3)}}}},
        {"state_dict": STATE, "state_dict_ema": OTHER},
        {"model": STATE, "ema": {"module": OTHER}},
        {"epoch": np.zeros(3), "net": STATE},
    ],
)
def test_the_mapping_of_the_network_is_opened(content):
    state, averaged = open_wrappers(content, "student", "x.pth")
    assert state is not STATE and not averaged
    assert state.keys() == STATE.keys() and all(state[name] is STATE[name] for name in STATE)


@pytest.mark.parametrize("content", [{"state_dict": STATE, "state_dict_ema": OTHER}, {"model": STATE, "ema": OTHER}])
def test_the_moving_average_is_the_teacher(content):
    state, averaged = open_wrappers(content, "teacher", "x.pth")
    assert averaged and state["conv1.weight"] is OTHER["conv1.weight"]


def test_an_average_alone_is_the_network():
    assert open_wrappers({"model_ema": OTHER, "optimizer": OPTIMIZER}, "student", "x")[0].keys() == OTHER.keys()


def test_several_networks_keep_their_names():
    state, _ = open_wrappers({"model": {"backbone": STATE, "head": {"w": np.ones(3)}}}, "student", "x")
    assert set(state) == {f"backbone.{name}" for name in STATE} | {"head.w"}


def test_a_file_without_arrays_names_its_keys():
    with pytest.raises(UserError, match="x.pth holds no arrays, but 'epoch', 'optimizer'"):
        open_wrappers({"epoch": 3, "optimizer": OPTIMIZER}, "student", "x.pth")


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model._orig_mod.", "ema_model."]
    + ["module.module.", "net.model.", "teacher.", "our_segmenter.", "_forward_module.model."],
)
def test_prefixes_are_dropped(prefix):
    whole = from_official({prefix + name: value for name, value in STATE.items()}, {})
    state, left_out = unwrap(whole, lambda names: "conv1.weight" in names)
    assert state.keys() == STATE.keys() and not left_out


def test_entries_of_other_networks_are_counted():
    whole = {f"model.{name}": value for name, value in STATE.items()} | {"criterion.weight": np.ones(19)}
    state, left_out = unwrap(whole, lambda names: "conv1.weight" in names)
    assert state.keys() == STATE.keys() and left_out == 1


def test_parts_that_compilation_puts_inside_of_names_are_dropped():
    assert set(from_official({"backbone._orig_mod.conv1.weight": 1}, {})) == {"backbone.conv1.weight"}


def test_names_that_no_prefix_helps_are_left():
    assert unwrap(STATE, lambda names: False) is None
    assert unwrap({"a.b.c": STATE["bn1.bias"]}, lambda names: "other" in names) is None
