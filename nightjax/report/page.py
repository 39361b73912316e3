# SPDX-License-Identifier: Apache-2.0
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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from nightjax.core import origin
from nightjax.core.class_section import of_section
from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError, first_line
from nightjax.core.files import read_bytes, write_whole
from nightjax.methods import METHODS
from nightjax.report import sections
from nightjax.report.charts import line_chart, short, sparkline
from nightjax.report.confidence import confidence_charts
from nightjax.report.confusion import confusion_figure
from nightjax.report.run_folder import (
    Evaluations,
    read_evaluations,
    read_history,
    read_json,
    read_metrics,
    step_of,
)
from nightjax.report.style import document

SPEED = re.compile(r"per_second|input_wait|memory|seconds")
"""Names in `metrics.jsonl` that say how the run went rather than what it learnt."""

SCORE_TITLES = {
    "miou": "mIoU, %",
    "pa": "pixel accuracy, %",
    "ca": "mean class accuracy, %",
    "fwiou": "frequency-weighted IoU, %",
}
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
    history = read_history(workdir)
    parts = [
        _tiles(metrics, evaluations, before),
        _section("Evaluation", _evaluation_charts(metrics, classes), "charts"),
        _section(
            "IoU per class",
            "".join(_table(n, *e, before.get(n), classes, history.get(n, ())) for n, e in evaluations.items()),
            "tables",
        ),
        _section("Confusions", _confusions(evaluations), "tables"),
        *(_section(*drawn, "tables") for drawn in sections.draw(own, metrics, evaluations, config)),
        _section("Confidence", confidence_charts(evaluations), "charts"),
        _section("Images", _images(workdir, evaluations, passed_over), "visualizations"),
        _section("Pseudo-labels", sections.pseudo_labels(metrics), "charts"),
        _section("Training", _training_charts(metrics, sections.prefixes(own)), "charts"),
        _section("Speed and memory", _speed_charts(metrics), "charts"),
        _config(config),
        _section("Left out", "".join(f"<p>{html.escape(line)}</p>" for line in passed_over), "quiet"),
    ]
    body = f"{_header(workdir, config, metrics, evaluations, before, baseline)}\n<main>{''.join(parts)}</main>"
    path = epath.Path(output) if output is not None else workdir / "report.html"
    write_whole(path, document(_name(workdir, config), body))
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


def _header(
    workdir: epath.Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, tuple[list, list]],
    evaluations: Evaluations,
    before: Evaluations,
    baseline: Any,
) -> str:
    """Title, the result in a sentence, and what the run was."""
    starts = origin.read(workdir)
    first = starts[0] if starts else {}
    last = max((steps[-1] for steps, _ in metrics.values()), default=None)
    seconds = metrics["seconds"][1][-1] if "seconds" in metrics else None
    revision = f" ({first['revision']})" if first.get("revision") else ""
    facts = {
        "run": str(workdir),
        "step": last,
        "command": first.get("command"),
        "started": first.get("date") and first["date"] + (f", {len(starts)} starts" if len(starts) > 1 else ""),
        "version": first.get("nightjax") and f"nightjax {first['nightjax']}{revision}, jax {first.get('jax')}",
        "devices": first.get("devices"),
        "steps took": None if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min",
        "compared with": baseline,
    }
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    title, sentence = html.escape(_name(workdir, config)), html.escape(_sentence(evaluations, before))
    return f'<header><h1>{title}</h1><p>{sentence}</p><dl class="quiet">{rows}</dl></header>'


def _sentence(evaluations: Evaluations, before: Evaluations) -> str:
    """The result in words, of the first set."""
    for name, (step, summary) in evaluations.items():
        value = summary["miou"][summary["primary"]]
        known = {one: iou for one, iou in summary["iou"].items() if iou is not None}
        if value is None or not known:
            continue
        past = _score_of(before, name, summary["primary"])
        change = (
            ""
            if past is None
            else f", {abs(value - past):.1f} points {'more' if value >= past else 'less'} than before"
        )
        best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        extremes = f" The best class is {best} ({known[best]:.1f}), the worst {worst} ({known[worst]:.1f})."
        return f"At step {step} the network has {value:.1f} % mIoU on {name}{change}.{extremes}"
    return "The run has not been evaluated yet."


def _name(workdir: epath.Path, config: Mapping[str, Any]) -> str:
    method = _method_name(config)
    return f"{method}: {workdir.name}" if method and method != workdir.name else workdir.name


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


def _evaluation_charts(metrics: Mapping[str, tuple[list, list]], classes: ClassSet) -> str:
    titles = SCORE_TITLES | {group: f"mIoU of the {group} classes, %" for group in classes.scored_groups}
    by_score: dict[str, dict[str, tuple[list, list]]] = {}
    for name, series in metrics.items():
        if name.startswith("eval/") and name.count("/") == 2:
            _, one_set, score = name.split("/", 2)
            by_score.setdefault(score, {})[one_set] = series
    ordered = sorted(by_score, key=lambda score: (not score.startswith("miou"), score))
    return "".join(line_chart(titles.get(score, score), by_score[score]) for score in ordered)


def _training_charts(metrics: Mapping[str, tuple[list, list]], drawn: tuple[str, ...]) -> str:
    shown = ("eval/", *sections.PSEUDO_LABELS, *drawn)
    names = [name for name in metrics if not name.startswith(shown) and not SPEED.search(name)]
    return "".join(line_chart(name, {"": metrics[name]}, smooth=True) for name in _different(names, metrics))


def _method_name(config: Mapping[str, Any]) -> str:
    method = config.get("method")
    return str(method.get("name", "")) if isinstance(method, Mapping) else ""


def _speed_charts(metrics: Mapping[str, tuple[list, list]]) -> str:
    names = [name for name in metrics if not name.startswith("eval/") and SPEED.search(name)]
    return "".join(line_chart(name, {"": metrics[name]}) for name in _different(names, metrics))


def _different(names: list[str], metrics: Mapping[str, tuple[list, list]]) -> list[str]:
    """The names whose values no earlier name has, such as a rate by device on one device."""
    return [name for i, name in enumerate(names) if metrics[name] not in [metrics[other] for other in names[:i]]]


def _confusions(evaluations: Evaluations) -> str:
    """A matrix for each set whose evaluation has one."""
    return "".join(
        confusion_figure(name, summary["confusion"], list(summary["iou"]))
        for name, (_, summary) in evaluations.items()
        if isinstance(summary.get("confusion"), list)
    )


def _table(
    name: str,
    step: int,
    summary: Mapping[str, Any],
    before: tuple[int, Mapping[str, Any]] | None,
    classes: ClassSet,
    history: Sequence[Mapping[str, Any]],
) -> str:
    """Per-class IoU of one set, with bar, way over the run, share of pixels and difference to the baseline."""
    old = before[1] if before else None
    over_time = len(history) > 1
    pixels = max(summary.get("pixels", 0), 1)

    def row(
        label: str,
        value: float | None,
        past: float | None,
        share: str = "",
        kind: str = "",
        mark: str = "",
        line: str = "",
    ) -> str:
        meter = f'<div style="width:{max(value or 0, 0):.1f}%"></div>'
        cells = [_number(value)]
        cells += [_difference(value, past)] if old else []
        cells += [share]
        cells += [line] if over_time else []
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        head = f'<th scope="row">{mark}{html.escape(label)}</th>'
        return f'<tr class="{kind}">{head}{body}<td class="meter" aria-hidden="true">{meter}</td></tr>'

    rows = []
    for class_name, value in summary["iou"].items():
        share = f"{100 * summary['support'].get(class_name, 0) / pixels:.2f}%"
        past = old["iou"].get(class_name) if old else None
        line = sparkline([earlier["iou"].get(class_name) for earlier in history])
        rows.append(row(class_name, value, past, share, mark=_swatch(class_name, classes), line=line))
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
    head = ["class", "IoU %", *(["change"] if old else []), "of truth", *(["over time"] if over_time else [])]
    head = "".join(f'<th scope="col">{cell}</th>' for cell in head) + '<td aria-hidden="true"></td>'
    averaged = summary.get("classes_averaged", "?")
    note = f"step {step} · {averaged} classes averaged · {short(pixels)} pixels · * primary score"
    return (
        f'<div class="card"><table><caption>{html.escape(name)}</caption><thead><tr>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table><p class="quiet">{note}</p></div>'
    )


def _images(workdir: epath.Path, evaluations: Evaluations, passed_over: list[str]) -> str:
    """Images of the training and of the evaluated sets: the newest of each, and some earlier ones."""
    folder = workdir / "visualizations"
    by_name: dict[str, list[epath.Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(r"\d+_(.+)\.png", path.name)
        if match:
            by_name.setdefault(match[1], []).append(path)
    parts = []
    for name in sorted(by_name):
        paths = sorted(by_name[name], key=step_of)
        summary = evaluations.get(name.removeprefix("eval_"), (0, {}))[1]
        parts.append(_panel(paths[-1], name, passed_over, _of_images(summary.get("images"))))
        earlier = paths[:-1]
        if earlier:
            chosen = np.unique(np.linspace(0, len(earlier) - 1, EARLIER_PANELS).round().astype(int))
            panels = "".join(_panel(earlier[i], name, passed_over) for i in chosen)
            parts.append(f"<details><summary>earlier: {html.escape(name)}</summary>{panels}</details>")
    return "".join(parts)


def _of_images(images: Any) -> str:
    """Which images of a set are shown, and their scores."""
    if not isinstance(images, Mapping) or not isinstance(images.get("miou"), Mapping):
        return ""
    scores = ", ".join(f"{which} {value:.1f}" for which, value in images["miou"].items())
    return f"; from above: {scores} % mIoU, of {images.get('count')} images. Wrong pixels are red"


def _panel(path: epath.Path, name: str, passed_over: list[str], more: str = "") -> str:
    try:
        with Image.open(io.BytesIO(read_bytes(path))) as image:
            image = image.convert("RGB")
    except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        passed_over.append(f"{path} is no image ({first_line(error)}); delete it")
        return ""
    image.thumbnail((PANEL_WIDTH, PANEL_WIDTH * 4))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    label = html.escape(f"{name}, step {step_of(path)}{more}")
    return (
        f'<figure class="card panel"><figcaption>{label}</figcaption>'
        f'<label class="quiet"><input type="checkbox"> full size</label>'
        f'<div class="view" tabindex="0" role="region" aria-label="{label}">'
        f'<img alt="{label}" width="{image.width}" height="{image.height}" '
        f'src="data:image/jpeg;base64,{data}"></div></figure>'
    )


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = html.escape(json.dumps(config, indent=2, ensure_ascii=False))
    body = f'<summary>config.json</summary><pre tabindex="0">{text}</pre>'
    return _section("Config", f'<details class="card">{body}</details>', "")


def _section(title: str, body: str, kind: str) -> str:
    return f'<section aria-label="{title}"><h2>{title}</h2><div class="{kind}">{body}</div></section>' if body else ""


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
