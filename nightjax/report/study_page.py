# SPDX-License-Identifier: Apache-2.0
"""`study.html`: a study on one page that opens anywhere, without network and without a second file."""

import html

from etils import epath

from nightjax.core.files import write_whole
from nightjax.core.studies import Study
from nightjax.metrics.table import mean_and_spread
from nightjax.report import study_table
from nightjax.report.study_table import Found
from nightjax.report.style import document

WIDTH, ROW, LEFT = 380, 24, 150
"""Of the chart of one score: its width, the height of a run's row, and where values begin, in units of the drawing."""


def write(root: str, study: Study, found: Found, remake: str = "") -> epath.Path:
    """Writes ``ROOT/STUDY/study.html``: a chart of each set's score, the table, the differences and the commands.

    Args:
        root: folder of all studies' runs.
        study: the study.
        found: its scores.
        remake: command that makes the study, for a reader.
    """
    charts = "".join(_chart(title, study, found) for title in study.sets)
    differences = "".join(f"<li>{html.escape(fact)}</li>" for fact in study_table.facts(study, found))
    commands = "".join(f"{html.escape(line)}\n" for line in _commands(root, study, found))
    body = (
        f"<header><h1>{html.escape(study.question)}</h1>"
        f'<p class="quiet">{html.escape(study_table.cost(study, found))}'
        f"{f' Made by <code>{html.escape(remake)}</code>.' if remake else ''}</p></header>\n<main>"
        f'<section><h2>Scores</h2><div class="charts">{charts}</div></section>'
        f'<section><h2>Table</h2><div class="card view" tabindex="0" role="region" aria-label="Table">'
        f"{_table(study, found)}</div></section>"
        + (f"<section><h2>Differences</h2><ul>{differences}</ul></section>" if differences else "")
        + f"<section><h2>Commands</h2><details><summary>of every run</summary><pre>{commands}</pre></details></section>"
        "</main>"
    )
    path = epath.Path(root) / study.name / "study.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, document(study.name, body))
    return path


def _commands(root: str, study: Study, found: Found) -> list[str]:
    runs = [(name, seed) for name in found for seed in found[name]]
    return [line for run in runs for line in study.commands(root, *run).lines]


def _table(study: Study, found: Found) -> str:
    head, *rows = study_table.cells(study, found)
    lines = ["".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)]
    for name, *values in rows:
        cells = "".join(f"<td>{html.escape(value)}</td>" for value in values)
        lines.append(f'<th scope="row">{html.escape(name)}</th>{cells}')
    body = "".join(f"<tr>{line}</tr>" for line in lines[1:])
    return (
        "<table><caption>IoU in percent, mean ± standard deviation over seeds</caption>"
        f"<thead><tr>{lines[0]}</tr></thead><tbody>{body}</tbody></table>"
    )


def _chart(title: str, study: Study, found: Found) -> str:
    """A row for each run: a dot for each seed, and a bar for their mean."""
    rows = []
    for name, run in study.runs.items():
        values = [one.values.get(title) for one in found[name].values()]
        if measured := [value for value in values if value is not None]:
            rows.append((run.title or name, measured))
    if not rows:
        return ""
    top = max(value for _, values in rows for value in values) or 1.0
    place = lambda value: LEFT + value / top * (WIDTH - LEFT - 40)
    marks = []
    for number, (name, values) in enumerate(rows):
        middle, (mean, _) = (number + 0.5) * ROW, mean_and_spread(values)
        assert mean is not None
        short = name if len(name) <= 26 else f"{name[:25]}…"
        marks.append(
            f'<text class="tick" x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{html.escape(short)}</text>'
            f'<rect fill="var(--bar)" x="{LEFT}" y="{middle - 6:.1f}" width="{place(mean) - LEFT:.1f}" height="12"/>'
            f'<text class="tick" x="{max(map(place, values)) + 8:.1f}" y="{middle + 4:.1f}">{mean:.1f}</text>'
        )
        marks += [f'<circle fill="var(--ink)" cx="{place(x):.1f}" cy="{middle:.1f}" r="2.5"/>' for x in values]
    said = "; ".join(f"{name}: {', '.join(f'{value:.1f}' for value in values)}" for name, values in rows)
    return (
        f'<figure class="chart"><figcaption>{html.escape(title)}: mIoU in percent, a dot for each seed</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {len(rows) * ROW}" role="img" aria-label="{html.escape(said, quote=True)}">'
        f"{''.join(marks)}</svg></figure>"
    )
