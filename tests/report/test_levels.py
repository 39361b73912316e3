from nightjax.core.classes import CITYSCAPES
from nightjax.report.levels import levels_tables


def summary(pole, road, **more):
    return {
        "iou": {"road": road, "pole": pole, "train": None},
        "miou": {"skip": (pole + road) / 2},
        "primary": "skip",
    } | more


CAPTIONS = {"image_level": "image level", "": "merged", "oracle_boxes": "true regions"}


def test_levels_side_by_side():
    found = {
        "night": (4, summary(30.0, 80.0, protocol={"batch": 4})),
        "night_image_level": (4, summary(20.0, 81.0, protocol={"prediction": "image_level"}, differing=1.25)),
        "day": (4, summary(50.0, 90.0)),
    }
    page = levels_tables(found, CAPTIONS, [CITYSCAPES.names[5]])
    assert page.count("<table>") == 1 and "<caption>night</caption>" in page
    assert "pole (hard)" in page and "road (hard)" not in page
    row = page[page.index("pole (hard)") : page.index("</tr>", page.index("pole (hard)"))]
    assert row.index("20.0") < row.index("30.0") < row.index("+10.0")
    assert "mean of the hard classes" in page and "1.25% of the pixels" in page
    assert page.index("image level") < page.index("merged")


def test_other_runs_have_no_such_table():
    assert levels_tables({"night": (4, summary(30.0, 80.0))}, CAPTIONS, []) == ""
