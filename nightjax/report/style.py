# SPDX-License-Identifier: Apache-2.0
"""What all pages have around their body: the style sheet, for light and dark screens and for paper, and the head."""

import html

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1d2330; --quiet: #667085; --rule: #e4e7ec; --bar: #9bb8f0;
  --better: #12805c; --worse: #c0362c;
  --series-0: #3566d6; --series-1: #e07b18; --series-2: #1a9a6c; --series-3: #c33d69;
  --series-4: #7a52cc; --series-5: #8a6d3b; --series-6: #1597b8; --series-7: #6b7280;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11141b; --card: #191e28; --ink: #e6e9ef; --quiet: #98a2b3; --rule: #2b3240; --bar: #34549c;
    --better: #4cc79a; --worse: #f0776c;
    --series-0: #7aa2ff; --series-1: #ffab5c; --series-2: #55d3a4; --series-3: #ff86ab;
    --series-4: #b497ff; --series-5: #d0b07a; --series-6: #5fd0ec; --series-7: #a3acba;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 28px 24px 60px; max-width: 1360px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
h1 { font-size: 26px; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 15px; margin: 0 0 10px; }
dl { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 10px 0 0; }
dl div { display: flex; gap: 6px; min-width: 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
p { margin: 4px 0; }
a { color: var(--series-0); }
.quiet { color: var(--quiet); font-size: 13px; }
.better { color: var(--better); } .worse { color: var(--worse); }
.card, .chart { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.tiles { display: grid; gap: 12px; margin-top: 20px; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(min(160px, 100%), 1fr)); }
.tile b { display: block; font-size: 26px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--quiet); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 14px; }
.tables { display: grid; gap: 14px; align-items: start; }
.tables { grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); }
figure { margin: 0; }
.chart figcaption { font-weight: 600; font-size: 14px; margin-bottom: 4px; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
.grid { stroke: var(--rule); stroke-width: 1; }
.tick { fill: var(--quiet); font-size: 10.5px; font-variant-numeric: tabular-nums; }
.line, .faint { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.faint { stroke-width: 1; opacity: 0.3; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; color: var(--quiet); }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
.legend b { color: var(--ink); font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; font-size: 15px; padding-bottom: 8px; }
th { text-align: right; font-weight: 600; color: var(--quiet); font-size: 12px; padding: 3px 8px; white-space: nowrap; }
td { text-align: right; padding: 3px 8px; border-top: 1px solid var(--rule); white-space: nowrap; }
thead td { border: 0; }
th:first-child { text-align: left; padding-left: 0; }
th[scope=row] { color: var(--ink); font-weight: 400; font-size: 13.5px; white-space: normal; }
th[scope=row] { border-top: 1px solid var(--rule); }
td.meter { width: 26%; padding-right: 0; }
td.meter div { height: 9px; border-radius: 3px; background: var(--bar); }
td i, th i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px; }
tr.total td, tr.total th { font-weight: 600; }
tr.first td, tr.first th { border-top: 2px solid var(--quiet); }
.panel { margin-bottom: 14px; }
.panel img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
.view { overflow-x: auto; clear: both; } .panel label { float: right; font-size: 12.5px; }
.panel label:has(:checked) ~ .view img { max-width: none; }
.matrix { max-width: 560px; } .spark { width: 62px; height: 16px; display: inline-block; vertical-align: middle; }
ul { margin: 8px 0 0; padding-left: 18px; }
.panel figcaption { font-size: 13px; color: var(--quiet); margin: 0 0 6px; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--quiet); }
pre { overflow-x: auto; font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; margin: 0; }
@media (max-width: 520px) {
  body { padding: 18px 12px 40px; } .meter, thead td { display: none; } td, th { padding: 3px 5px; }
  .card, .chart { padding: 12px 10px; }
}
@media print { body { background: none; } .card, .chart, .panel { break-inside: avoid; } }
"""

ALLOWED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
"""What a browser lets a page do: show its own images and styles, and neither run nor load anything."""


def document(title: str, body: str) -> str:
    """A whole page with this body, which is HTML; the title is plain text."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{ALLOWED}">'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
