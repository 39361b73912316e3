"""Selection of images against the spec's formulas, evaluated elsewhere in float64."""

import re

import numpy as np

from nightjax.metrics import fid
from nightjax.selection import brightness
from nightjax.selection import coverage as selection


def test_scores_and_orders(golden):
    file = golden("unit_fid", "selection")
    candidates, reference = (file[name].astype(np.float64) for name in ("cand", "ref"))
    names = [f"{i:06d}" for i in range(len(candidates))]
    for rule, scores, name in (
        ("fid_point", selection.point_scores, "point"),
        ("fid_maha", selection.mahalanobis_scores, "maha"),
    ):
        np.testing.assert_allclose(scores(candidates, reference), file[f"{name}_score"], rtol=1e-4, atol=2e-5)
        chosen = selection.select(rule, names, candidates, reference, len(names))
        assert [int(found) for found, _ in chosen] == file[f"{name}_order"].tolist()


def test_groups(golden):
    file = golden("unit_fid", "selection")
    candidates, reference = (file[name].astype(np.float64) for name in ("cand", "ref"))
    scores = selection.group_scores(candidates, file["group"], reference, shrinkage=0.0)
    labels = sorted(scores)
    np.testing.assert_allclose([scores[label] for label in labels], file["group_fid"], rtol=1e-4, atol=2e-5)
    assert sorted(labels, key=scores.get) == file["group_order"].tolist()
    names = [str(i) for i in range(len(candidates))]
    chosen = selection.take_groups(names, file["group"], scores, int(file["K"]))
    assert sorted(int(name) for name, _ in chosen) == sorted(file["group_selected"].tolist())


def test_distances_of_selections(golden):
    file = golden("unit_fid", "selection")
    candidates, reference = file["cand"], fid.Statistics.of(file["ref"])
    subsets = {"fid_all": candidates, "fid_group_sel": candidates[file["group_selected"]]}
    for name in file:
        if match := re.fullmatch(r"fid_point_top(\d+)", name):
            subsets[name] = candidates[file["point_order"][: int(match[1])]]
    assert len(subsets) > 2
    for name, rows in subsets.items():
        np.testing.assert_allclose(
            fid.frechet_distance(fid.Statistics.of(rows), reference), file[name], rtol=1e-6, err_msg=name
        )


def test_brightness(golden):
    file = golden("unit_fid", "selection")
    gammas = [brightness.brightness(image) for image in file["bright_img"]]
    np.testing.assert_allclose(gammas, file["bright_gamma"], rtol=1e-12)
    names = ("night", "twilight", "day")
    assert [names.index(brightness.time_of_day(gamma)) for gamma in gammas] == file["bright_label"].tolist()
