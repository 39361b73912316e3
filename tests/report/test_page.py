import json
import re

import numpy as np
import pytest
from etils import epath

from nightjax.core import origin, writers
from nightjax.core.errors import UserError
from nightjax.inference.overlay import encode_image
from nightjax.methods.t2s_da import SIMILARITY
from nightjax.metrics.calibration import summarize_calibration
from nightjax.metrics.confusion import summarize
from nightjax.report.charts import change_chart, line_chart, short, sparkline, ticks
from nightjax.report.confusion import confusion_figure
from nightjax.report.page import read_baseline, write_report
from nightjax.report.run_folder import read_metrics


def make_run(root, hit=80, sets=("night", "day")):
    root.mkdir()
    counts = np.array([[hit, 100 - hit, 0], [0, 50, 0], [0, 0, 0]])
    for name in sets:
        (root / "eval" / name).mkdir(parents=True)
        for step, scale in ((100, 1), (20, 3)):  # the earlier one is written last
            summary = summarize(counts * scale, ("road", "car <&>", "train"), {"dynamic": (1, 2)})
            (root / "eval" / name / f"{step:07d}.json").write_text(json.dumps(summary))
    lines = [{"step": step, "loss/source": 1 / step, "images_per_second": 30.0} for step in range(1, 101)]
    lines += [{"step": 100, f"eval/{name}/miou": 50.0} for name in sets] + [{"step": 100, "loss/source": float("nan")}]
    (root / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 101, "lo')
    (root / "config.json").write_text(json.dumps({"method": {"name": "dsr_fpa"}, "note": "<script>alert(1)</script>"}))
    (root / "visualizations").mkdir()
    for step in (10, 20, 30, 100):
        picture = np.full((20, 30, 3), step, np.uint8)
        (root / "visualizations" / f"{step:07d}_train.png").write_bytes(encode_image(picture))
    return root


def test_report_is_one_file_without_network(tmp_path):
    page = write_report(make_run(tmp_path / "run")).read_text()
    assert (tmp_path / "run" / "report.html").exists()
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "dsr_fpa: run" in page and "&lt;script&gt;" in page and "car &lt;&amp;&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 4
    for title in (
        "Evaluation",
        "IoU per class",
        "Images",
        "Training",
        "Speed and memory",
        "Config",
    ):
        assert f"<h2>{title}</h2>" in page
    assert "step 100 · 2 classes averaged" in page  # the latest step, not the latest file
    assert 'class="better"' not in page


def test_differences_to_a_baseline_run_and_file(tmp_path):
    run = make_run(tmp_path / "run", hit=80)
    make_run(tmp_path / "base", hit=60, sets=("night",))
    page = write_report(run, baseline=tmp_path / "base", output=tmp_path / "out.html").read_text()
    assert '<small class="better">+20.0</small>' in page  # road: 80 against 60
    assert page.count(">change</th>") == 1  # only the night set has a baseline
    one = write_report(run, baseline=tmp_path / "base/eval/night/0000100.json", output=tmp_path / "two.html")
    assert one.read_text().count(">change</th>") == 1


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    page = write_report(tmp_path).read_text()
    assert "no finite values" in page and "<h2>Images</h2>" not in page


def test_charts_of_groups_have_a_unit_and_a_run_named_after_its_method_one_name(tmp_path):
    run = make_run(tmp_path / "dsr_fpa")
    with (run / "metrics.jsonl").open("w") as file:
        file.write(json.dumps({"step": 100, "eval/night/small": 20.0, "eval/night/pa": 60.0}) + "\n")
    page = write_report(run).read_text()
    assert "mIoU of the small classes, %" in page and "pixel accuracy, %" in page
    assert "<h1>dsr_fpa</h1>" in page


def test_metrics_survive_half_a_line(tmp_path):
    metrics = read_metrics(make_path(tmp_path, '{"step": 1, "a": 2.0, "note": "x"}\n{"step": 2, "a"'))
    assert metrics == {"a": ([1], [2.0])}


def make_path(folder, text):
    (folder / "metrics.jsonl").write_text(text)
    return epath.Path(folder)


def test_a_baseline_can_be_checked_before_there_is_a_run(tmp_path):
    base = make_run(tmp_path / "base", sets=("night",))
    assert read_baseline(base).keys() == read_baseline(str(base / "eval/night/0000100.json")).keys() == {"night"}
    for wrong, words in (
        (tmp_path / "nowhere", "nowhere holds no evaluation: give"),
        (base / "config.json", "not an evaluation"),
    ):
        with pytest.raises(UserError, match=words):
            read_baseline(wrong)


def test_mistakes_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="folder of a run"):
        write_report(tmp_path)
    run = make_run(tmp_path / "run")
    with pytest.raises(UserError, match="no evaluation"):
        write_report(run, baseline=tmp_path / "nowhere")
    with pytest.raises(UserError, match="not an evaluation"):
        write_report(run, baseline=run / "config.json")
    (run / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        write_report(run)


@pytest.mark.parametrize("low, high", [(0, 1), (0.013, 0.37), (-5, 1234), (3, 3), (0, 0), (1e-6, 6e-5)])
def test_ticks_are_round_and_cover(low, high):
    marks = ticks(low, high, 5)
    assert marks[0] <= low + 1e-9 and marks[-1] >= high - 1e-9 and 3 <= len(marks) <= 9
    np.testing.assert_allclose(np.diff(marks), marks[1] - marks[0], rtol=1e-6)


def test_short_numbers():
    assert [short(v) for v in (0, 0.25, 12345, 2e6, 6e-5, -40)] == [
        "0",
        "0.25",
        "12.3k",
        "2M",
        "6e-05",
        "-40",
    ]


def test_chart_draws_each_series_inside_its_frame():
    chart = line_chart("a & b", {"one": ([0, 1, 2], [0, 5, np.inf]), "two": (range(2000), np.sin(np.arange(2000)))})
    assert "a &amp; b" in chart and chart.count("<polyline") == 2
    points = re.findall(r'points="([^"]*)"', chart)
    assert len(points[0].split()) == 2 and len(points[1].split()) == 400
    values = np.array([[float(v) for v in pair.split(",")] for line in points for pair in line.split()])
    assert values.min() >= 0 and values[:, 0].max() <= 420 and values[:, 1].max() <= 220


def test_smoothing_is_for_noise_only():
    steps = np.arange(100)
    noisy = np.random.default_rng(0).normal(size=100)
    assert line_chart("x", {"": (steps, noisy)}, smooth=True).count("<polyline") == 2
    assert line_chart("x", {"": (steps, noisy)}).count("<polyline") == 1
    assert line_chart("x", {"": (steps, steps)}, smooth=True).count("<polyline") == 1


def test_change_chart_goes_from_before_to_after():
    chart = change_chart(
        "a & b", {"road": [(0.0, 1.0), (0.5, 0.25)], "<car>": [(1.0, 0.0), (0.0, 0.75)]}, ("own", "other")
    )
    assert "a &amp; b" in chart and "&lt;car&gt;" in chart and chart.count("<circle") == 2 * 2 * 2
    lines = [[float(x) for x in pair] for pair in re.findall(r'<line x1="([^"]*)" x2="([^"]*)"', chart)]
    zero, one = lines[0]
    assert 0 < zero < one <= 420 and lines[2] == [one, zero]
    np.testing.assert_allclose(lines[1], [zero + 0.5 * (one - zero), zero + 0.25 * (one - zero)], atol=0.1)
    assert "<b>0.5</b>" in chart  # The means of both series after: (1 + 0) / 2 and (0.25 + 0.75) / 2.


def test_sections_of_a_method_are_its_own(tmp_path):
    """Similarity is T2S-DA's: drawn for the classes that are known, and not charted again."""
    values = {
        "own/00": (0.9, 0.8),
        "other/00": (0.7, 0.1),
        "own/13": (0.0, 0.5),
        "other/13": (0.0, 0.2),
        "own/16": (0.0, 0.0),
    }
    lines = [{"step": i + 1} | {f"similarity/{name}": pair[i] for name, pair in values.items()} for i in range(2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "config.json").write_text(json.dumps({"method": {"name": "t2s_da"}}))
    page = write_report(tmp_path).read_text()
    assert f"<h2>{SIMILARITY.title}</h2>" in page and ">road</text>" in page and ">car</text>" in page
    assert ">train</text>" not in page and "similarity/own" not in page and "<h2>Training</h2>" not in page
    (tmp_path / "config.json").write_text(json.dumps({"method": {"name": "dacs"}}))
    other = write_report(tmp_path).read_text()
    assert SIMILARITY.title not in other and "similarity/own" in other


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\x00", b"garbage}", b'{"step": 1, "x"}', b"[1]", b'{"x": 1}', b"5}", b'{"step": "1"}', b"[" * 5000],
)
def test_a_damaged_line_of_metrics_is_left_out(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 2.0, "name": "x"}\n' + line + b"\n")
    assert read_metrics(epath.Path(tmp_path)) == {"loss": ([1], [2.0])}
    assert "<svg" in write_report(tmp_path).read_text()
    writers.MetricWriter(epath.Path(tmp_path), 1).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 2.0}\n'


@pytest.mark.parametrize("content", ["null", '"text"', "[1]", "{", '{"miou": 3}', "[" * 5000])
def test_what_is_no_evaluation_does_not_stop_a_report(tmp_path, content):
    """It is named in the page, and so is an image that is none."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    for path in (tmp_path / "eval" / "odd" / "0000001.json", tmp_path / "visualizations" / "0000001_night.png"):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    text = write_report(tmp_path).read_text()
    left_out = text.partition("<h2>Left out</h2>")[2]
    assert "odd/0000001.json" in left_out and "0000001_night.png is no image" in left_out
    with pytest.raises(UserError, match=r"0000001\.json"):
        read_baseline(tmp_path)


def test_a_page_runs_and_loads_nothing(tmp_path):
    """Names from outside are text, whatever they are, and a browser is told so."""
    odd = "<script>alert(1)</script>"
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, odd: 1.0, f"eval/{odd}/miou": 2.0}) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"method": {"name": odd}, "x": odd}))
    text = write_report(tmp_path).read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "default-src 'none'" in text.partition("Content-Security-Policy")[2][:200]


def test_the_result_is_a_sentence_and_the_run_is_described(tmp_path):
    run = make_run(tmp_path / "run")
    origin.record(epath.Path(run))
    origin.record(epath.Path(run))
    page = write_report(run).read_text()
    assert "At step 100 the network has" in page and "The best class is" in page
    assert "<dt>command</dt>" in page and "2 starts" in page and "<dt>devices</dt><dd>" in page
    (run / origin.FILE).write_text("{")
    assert "<dt>command</dt>" not in write_report(run).read_text()


def test_a_page_can_be_read_aloud(tmp_path):
    page = write_report(make_run(tmp_path / "run")).read_text()
    assert page.count("<main>") == page.count("<header>") == page.count("<h1>") == 1
    assert page.count("<table>") == page.count("<caption>") == 2
    assert not re.search(r"<th(?! scope)", page.replace("<thead", "")) and "<img alt=" in page
    assert all('role="img" aria-label="' in one for one in re.findall(r"<svg[^>]*>", page))


def test_images_of_an_evaluation_say_their_scores(tmp_path):
    run = make_run(tmp_path / "run")
    path = run / "eval" / "night" / "0000100.json"
    images = {"count": 9, "miou": {"worst": 1.0, "median": 22.0, "best": 43.21}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": images}))
    (run / "visualizations" / "0000100_eval_night.png").write_bytes(encode_image(np.zeros((8, 8, 3), np.uint8)))
    page = write_report(run).read_text()
    assert "eval_night, step 100; from above: worst 1.0, median 22.0, best 43.2 % mIoU, of 9 images" in page


def test_a_confusion_matrix_in_picture_and_words():
    page = confusion_figure("night", [[60, 40], [0, 10]], ["pole <", "wall"])
    assert page.count("<rect") == 3 and "40% of pole &lt; is called wall" in page and page.count("<li>") == 1


def test_a_line_in_a_cell():
    assert sparkline([None, 3.0]) == "" and 'aria-label="from 0.0 to 8.0"' in sparkline([0.0, None, 8.0])


def test_equal_curves_are_drawn_once(tmp_path):
    lines = [{"step": step, "images_per_second": 1.5, "images_per_second_per_device": 1.5} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = write_report(tmp_path).read_text()
    assert "images_per_second" in page and "images_per_second_per_device" not in page


def test_confidence_has_its_charts_and_damage_has_none(tmp_path):
    run = make_run(tmp_path / "run")
    assert "<h2>Confidence</h2>" not in write_report(run).read_text()
    counts = np.zeros((256, 2), np.int64)
    counts[[100, 250]] = [[3, 1], [1, 9]]
    found = summarize_calibration(counts)
    for name, parts in (
        ("night", {"calibration": found, "calibrated": found}),
        ("day", {"calibration": found | {"reliability": {"confidence": ["x"]}}, "calibrated": 3}),
    ):
        path = run / "eval" / name / "0000100.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | parts))
    page = write_report(run).read_text()
    assert "night: right over confidence, % (calibration error: network" in page and "corrected" in page
    assert "day: right over confidence" not in page and "day: wrong over the share" in page


def test_pseudo_labels_have_a_section_where_a_run_logs_them(tmp_path):
    run = make_run(tmp_path / "run")
    assert "<h2>Pseudo-labels</h2>" not in write_report(run).read_text()
    (run / "metrics.jsonl").write_text(
        "".join(f'{{"step": {n}, "loss": {n}, "pseudo_label_weight": 0.{n}}}\n' for n in range(1, 9))
    )
    page = write_report(run).read_text()
    section = page.split("<h2>Pseudo-labels</h2>")[1].split("</section>")[0]
    assert "mean weight of pseudo-labels" in section and "reaches the threshold" not in section
    assert page.count("mean weight of pseudo-labels") == section.count("mean weight of pseudo-labels")
    assert ">pseudo_label_weight<" not in page  # It is no curve of its own.
