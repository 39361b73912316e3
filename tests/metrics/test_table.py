import numpy as np

from nightjax.metrics.confusion import summarize
from nightjax.metrics.table import format_results, format_value, mean_and_spread


def summary(hit, names=("road", "car", "train")):
    counts = np.zeros((3, 3), np.int64)
    counts[0, 0], counts[1, 1], counts[1, 0] = 1500, hit, 100 - hit
    return summarize(counts, names, {"dynamic": (1, 2)})


def test_mean_and_spread():
    assert mean_and_spread([1.0, 3.0, None]) == (2.0, np.sqrt(2))
    assert mean_and_spread([5.0]) == (5.0, None)
    assert mean_and_spread([None]) == (None, None)
    assert format_value([1.0, 3.0]) == "2.0 ± 1.4" and format_value([None]) == "-"


def test_table_shows_sets_side_by_side():
    text = format_results({"night": summary(50), "day": summary(100)})
    lines = text.splitlines()
    assert lines[0].split()[-4:] == ["night", "pixels", "day", "pixels"]
    car = next(line for line in lines if line.startswith("car"))
    assert car.split() == ["car", "50.0", "100", "100.0", "100"]
    train = next(line for line in lines if line.startswith("train"))
    assert train.split() == ["train", "-", "0", "-", "0"]
    assert any(line.startswith("mean of dynamic") and line.split()[-2:] == ["50.0", "100.0"] for line in lines)
    assert any("skipped *" in line for line in lines)
    rules = [line for line in lines if set(line) == {"-"}]
    assert len(rules) == 3 and all(len(line) <= len(rules[0]) for line in lines)


def test_seeds_become_mean_and_spread():
    text = format_results({"night": [summary(40), summary(60)]})
    car = next(line for line in text.splitlines() if line.startswith("car"))
    assert "50.0 ± 14.1" in car
    assert any(line.split() == ["seeds", "2"] for line in text.splitlines())


def test_sets_with_other_classes_get_a_dash():
    text = format_results({"a": summary(50), "b": summary(50, ("Road", "Car", "Bus"))})
    line = next(line for line in text.splitlines() if line.startswith("Bus"))
    assert line.split() == ["Bus", "-", "0", "-", "0"]
