"""`report.html`: a run on one page that opens anywhere, without network and without a second file.

It is made from the run folder alone: `metrics.jsonl`, `eval/<set>/<step>.json`,
`visualizations/<step>_<name>.png` and `config.json`, whichever of them exist, and can be made again at any
time, also while the run goes on.
"""

import base64
import html
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from nightjax.core.class_section import of_section
from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError, first_line
from nightjax.core.files import write_whole
from nightjax.methods import METHODS
from nightjax.report import sections
from nightjax.report.charts import line_chart, short
from nightjax.report.run_folder import (
    Evaluations,
    read_evaluations,
    read_json,
    read_metrics,
    step_of,
)
from nightjax.report.style import STYLE

SPEED = re.compile(r"per_second|input_wait|memory|seconds")
"""Names in `metrics.jsonl` that say how the run went rather than what it learnt."""

SCORE_TITLES = {
    "miou": "mIoU, %",
    "pa": "pixel accuracy, %",
    "ca": "mean class accuracy, %",
    "fwiou": "frequency-weighted IoU, %",
}
ALLOWED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
"""What a browser lets the page do: show its own images and styles, and neither run nor load anything."""

EARLIER_PANELS = 3
PANEL_WIDTH = 1600


def write_report(
    workdir: str | epath.PathLike,
    *,
    baseline: str | epath.PathLike | None = None,
    output: str | epath.PathLike | None = None,
) -> epath.Path:
    """Writes the report of a run.

    Args:
        workdir: run folder, local or remote.
        baseline: another run folder, or one of its evaluation JSON files `eval/<set>/<step>.json`;
            the tables then show the difference for each set that both have.
        output: where to write; `report.html` in the run folder if None.

    Returns:
        Path of the file.

    Raises:
        UserError: if the folder holds no run, or the baseline no evaluation.
    """
    before = read_baseline(baseline) if baseline is not None else {}
    workdir = epath.Path(workdir)
    metrics = read_metrics(workdir)
    passed_over: list[str] = []
    evaluations = read_evaluations(workdir, passed_over)
    if not metrics and not evaluations:
        raise UserError(f"{workdir} holds neither metrics.jsonl nor eval/: give the folder of a run")
    config = read_json(workdir / "config.json") if (workdir / "config.json").exists() else {}
    classes = of_section(config.get("classes"))
    own = METHODS[name].report_sections if (name := _method_name(config)) in METHODS else ()
    parts = [
        _header(workdir, config, metrics, baseline),
        _tiles(metrics, evaluations, before),
        _section("Evaluation", _evaluation_charts(metrics), "charts"),
        _section(
            "IoU per class",
            "".join(_table(n, *e, before.get(n), classes) for n, e in evaluations.items()),
            "tables",
        ),
        *(_section(*drawn, "tables") for drawn in sections.draw(own, metrics, evaluations, config)),
        _section("Images", _images(workdir, passed_over), "visualizations"),
        _section("Training", _training_charts(metrics, sections.prefixes(own)), "charts"),
        _section("Speed and memory", _speed_charts(metrics), "charts"),
        _config(config),
        _section("Left out", "".join(f"<p>{html.escape(line)}</p>" for line in passed_over), "quiet"),
    ]
    title = html.escape(_name(workdir, config))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{ALLOWED}">'
        f"<style>{STYLE}</style></head><body>\n{''.join(parts)}\n</body></html>\n"
    )
    path = epath.Path(output) if output is not None else workdir / "report.html"
    write_whole(path, page)
    return path


def read_baseline(baseline: str | epath.PathLike) -> Evaluations:
    """The evaluations of `write_report`'s baseline.

    Raises:
        UserError: if it is missing, holds no evaluation, or one that cannot be read.
    """
    evaluations = read_evaluations(epath.Path(baseline))
    if not evaluations:
        raise UserError(f"baseline {baseline} holds no evaluation: give a run folder or an evaluation JSON")
    return evaluations


def _header(workdir: epath.Path, config: Mapping[str, Any], metrics: Mapping[str, Any], baseline: Any) -> str:
    last = max((steps[-1] for steps, _ in metrics.values()), default=None)
    facts = [str(workdir)] + ([f"step {last}"] if last is not None else [])
    facts += [f"differences to {baseline}"] if baseline is not None else []
    title, facts = html.escape(_name(workdir, config)), html.escape(" · ".join(facts))
    return f'<h1>{title}</h1><p class="quiet">{facts}</p>'


def _name(workdir: epath.Path, config: Mapping[str, Any]) -> str:
    method = _method_name(config)
    return f"{method}: {workdir.name}" if method else workdir.name


def _tiles(metrics: Mapping[str, tuple[list, list]], evaluations: Evaluations, before: Evaluations) -> str:
    tiles = []
    for name, (_, summary) in evaluations.items():
        value = summary["miou"][summary["primary"]]
        change = _difference(value, _score_of(before, name, summary["primary"]))
        tiles.append((f"{_number(value)} {change}", f"mIoU % · {html.escape(name)}"))
    for key, label, pick in (
        ("images_per_second", "images/s (median)", np.median),
        ("input_wait_share", "of the time waiting for input", np.mean),
        ("memory_gb", "GB memory at most", np.max),
    ):
        if key in metrics:
            value = float(pick(metrics[key][1]))
            tiles.append((f"{100 * value:.1f}%" if key.endswith("share") else short(value), label))
    cells = "".join(f'<div class="card tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles)
    return f'<div class="tiles">{cells}</div>'


def _evaluation_charts(metrics: Mapping[str, tuple[list, list]]) -> str:
    by_score: dict[str, dict[str, tuple[list, list]]] = {}
    for name, series in metrics.items():
        if name.startswith("eval/") and name.count("/") >= 2:
            _, one_set, score = name.split("/", 2)
            by_score.setdefault(score, {})[one_set] = series
    ordered = sorted(by_score, key=lambda score: (not score.startswith("miou"), score))
    return "".join(line_chart(SCORE_TITLES.get(score, score), by_score[score]) for score in ordered)


def _training_charts(metrics: Mapping[str, tuple[list, list]], drawn: tuple[str, ...]) -> str:
    names = [name for name in metrics if not name.startswith(("eval/", *drawn)) and not SPEED.search(name)]
    return "".join(line_chart(name, {"": metrics[name]}, smooth=True) for name in names)


def _method_name(config: Mapping[str, Any]) -> str:
    method = config.get("method")
    return str(method.get("name", "")) if isinstance(method, Mapping) else ""


def _speed_charts(metrics: Mapping[str, tuple[list, list]]) -> str:
    names = [name for name in metrics if not name.startswith("eval/") and SPEED.search(name)]
    return "".join(line_chart(name, {"": metrics[name]}) for name in names)


def _table(
    name: str,
    step: int,
    summary: Mapping[str, Any],
    before: tuple[int, Mapping[str, Any]] | None,
    classes: ClassSet,
) -> str:
    """Per-class IoU of one set, with bar, share of pixels and difference to the baseline."""
    old = before[1] if before else None
    pixels = max(summary.get("pixels", 0), 1)

    def row(
        label: str,
        value: float | None,
        past: float | None,
        share: str = "",
        kind: str = "",
        mark: str = "",
    ) -> str:
        meter = f'<div style="width:{max(value or 0, 0):.1f}%"></div>'
        cells = [f"{mark}{html.escape(label)}", _number(value)]
        cells += [_difference(value, past)] if old else []
        cells += [share]
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        return f'<tr class="{kind}">{body}<td class="meter">{meter}</td></tr>'

    rows = []
    for class_name, value in summary["iou"].items():
        share = f"{100 * summary['support'].get(class_name, 0) / pixels:.2f}%"
        past = old["iou"].get(class_name) if old else None
        rows.append(row(class_name, value, past, share, mark=_swatch(class_name, classes)))
    totals = [(f"mean of {group}", value, _get(old, "groups", group)) for group, value in summary["groups"].items()]
    labels = {
        "skip": "absent classes skipped",
        "zero": "absent classes as 0",
        "gt_only": "classes of the truth",
    }
    for policy, value in summary["miou"].items():
        star = " *" if policy == summary["primary"] else ""
        totals.append((f"mIoU, {labels.get(policy, policy)}{star}", value, _get(old, "miou", policy)))
    for key, label in (
        ("pa", "pixel accuracy"),
        ("ca", "mean class accuracy"),
        ("fwiou", "frequency-weighted IoU"),
    ):
        totals.append((label, summary.get(key), _get(old, key)))
    rows += [row(*total, kind="total first" if i == 0 else "total") for i, total in enumerate(totals)]
    head = ["", "IoU %", *(["change"] if old else []), "of truth", ""]
    head = "".join(f"<th>{cell}</th>" for cell in head)
    averaged = summary.get("classes_averaged", "?")
    note = f"step {step} · {averaged} classes averaged · {short(pixels)} pixels · * primary score"
    return (
        f'<div class="card"><h3>{html.escape(name)}</h3><table><thead><tr>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table><p class="quiet">{note}</p></div>'
    )


def _images(workdir: epath.Path, passed_over: list[str]) -> str:
    folder = workdir / "visualizations"
    by_name: dict[str, list[epath.Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(r"\d+_(.+)\.png", path.name)
        if match:
            by_name.setdefault(match[1], []).append(path)
    parts = []
    for name in sorted(by_name):
        paths = sorted(by_name[name], key=step_of)
        parts.append(_panel(paths[-1], name, passed_over))
        earlier = paths[:-1]
        if earlier:
            chosen = np.unique(np.linspace(0, len(earlier) - 1, EARLIER_PANELS).round().astype(int))
            panels = "".join(_panel(earlier[i], name, passed_over) for i in chosen)
            summary = f"<summary>earlier: {html.escape(name)}</summary>"
            parts.append(f"<details>{summary}{panels}</details>")
    return "".join(parts)


def _panel(path: epath.Path, name: str, passed_over: list[str]) -> str:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        passed_over.append(f"{path} is no image ({first_line(error)}); delete it")
        return ""
    image.thumbnail((PANEL_WIDTH, PANEL_WIDTH * 4))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    label = html.escape(f"{name}, step {step_of(path)}")
    return (
        f'<figure class="card panel"><figcaption>{label}</figcaption>'
        f'<img alt="{label}" width="{image.width}" height="{image.height}" '
        f'src="data:image/jpeg;base64,{data}"></figure>'
    )


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = html.escape(json.dumps(config, indent=2, ensure_ascii=False))
    body = f"<summary>config.json</summary><pre>{text}</pre>"
    return f'<h2>Config</h2><details class="card">{body}</details>'


def _section(title: str, body: str, kind: str) -> str:
    return f'<h2>{title}</h2><div class="{kind}">{body}</div>' if body else ""


def _swatch(class_name: str, classes: ClassSet) -> str:
    if class_name not in classes.names:
        return ""
    red, green, blue = classes.palette[classes.names.index(class_name)]
    return f'<i style="background:rgb({red},{green},{blue})"></i>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _difference(value: float | None, past: float | None) -> str:
    if value is None or past is None:
        return ""
    change = round(value - past, 1)
    kind = "better" if change > 0 else "worse" if change < 0 else "quiet"
    return f'<small class="{kind}">{change:+.1f}</small>'


def _score_of(evaluations: Evaluations, name: str, policy: str) -> float | None:
    return _get(evaluations[name][1], "miou", policy) if name in evaluations else None


def _get(summary: Mapping[str, Any] | None, *path: str) -> Any:
    for key in path:
        summary = summary.get(key) if summary is not None else None
    return summary
