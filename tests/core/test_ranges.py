"""Numbers that make no sense are refused with the name of their setting, whichever it is."""

import dataclasses
import math
from typing import Annotated

import pytest

from nightjax.core import config as configs
from nightjax.core import ranges
from nightjax.core.errors import UserError
from nightjax.core.ranges import Count, Decay, Positive, Range, Share


@dataclasses.dataclass(frozen=True)
class Part:
    share: Share = 0.5
    decay: Decay = 0.9
    rate: Positive = 1.0
    count: Count = 1
    pair: tuple[Share, Share] = (0.0, 1.0)
    maybe: Annotated[int, Range(2, 4)] | None = None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("share", 1.5, "part.share=1.5 must be at most 1"),
        ("share", math.nan, "part.share=nan must be a finite number"),
        ("decay", 1.0, "part.decay=1.0 must be below 1"),
        ("rate", 0.0, "part.rate=0.0 must be above 0"),
        ("count", 0, "part.count=0 must be 1 or more"),
        ("count", 10**30, "part.count=1000.*000 must be at most"),
        ("pair", (0.5, -0.1), r"part.pair\[1\]=-0.1 must not be below 0"),
        ("maybe", 5, "part.maybe=5 must be at most 4"),
        ("share", 10**400, r"part.share=1000.*\.\. must be a finite number"),
        ("share", "x", "part.share='x' must be of type float"),
    ],
)
def test_a_field_says_which_numbers_it_takes(key, value, words):
    with pytest.raises(UserError, match=words):
        configs.build(Part, {key: value}, "part")


def test_what_is_in_the_range_is_taken():
    assert configs.build(Part, {"share": 1, "maybe": 4, "pair": (0, 1)}, "part") == Part(1.0, pair=(0.0, 1.0), maybe=4)


@pytest.mark.parametrize("value", [-1, -0.0, math.inf, math.nan, 1e13, 2**31, (1, (2, -3))])
def test_all_numbers_of_nested_values_are_looked_at(value):
    with pytest.raises(UserError, match="^a.b="):
        ranges.check_values({"a": {"b": value, "switch": True, "text": "-1"}})
    ranges.check_values({"a": {"b": (1, 2.5), "none": None}})


def test_texts_with_a_zero_byte():
    with pytest.raises(UserError, match=r"^data\.dir=a\\0 must not contain a zero byte$"):
        ranges.check_values({"data": {"dir": "a\0", "other": "b"}})


@pytest.mark.parametrize("value", [float("nan"), -float("inf"), 10**20, "a\0", ["b", "\0"]])
def test_flags_that_no_verb_takes(value):
    with pytest.raises(UserError, match=r"^--x=.* must "):
        ranges.check_flag("x", value)
    for fine in (-1, 0.5, "", ["a", "b"], None, True):
        ranges.check_flag("x", fine)
