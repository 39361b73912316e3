# SPDX-License-Identifier: Apache-2.0
"""The table of the GPU check, in Markdown, from its lines of results."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def write(out: pathlib.Path) -> None:
    """Writes ``table.md`` anew from ``results.jsonl``."""
    (out / "table.md").write_text(table(read(out)))


def read(out: pathlib.Path) -> list[Row]:
    """The lines of results."""
    file = out / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: Sequence[Row]) -> str:
    """All parts that have results."""
    kinds = {kind: [row for row in rows if row["table"] == kind] for kind in (*PARTS, "failed")}
    ours = {row["batch"]: row["ms"] for row in kinds["peer"] if row["framework"].startswith("nightjax")}
    kinds["peer"] = [row | {"ratio": row["ms"] / ours[row["batch"]]} for row in kinds["peer"] if row["batch"] in ours]
    text = []
    for kind, (title, columns) in PARTS.items():
        if kinds[kind]:
            text += [f"## {title}", "", *markdown(kinds[kind], columns), ""]
    if kinds["failed"]:
        text += ["## What did not work", ""]
        text += [f"- {row['part']}: {row['what'] or 'all'}: {row['why']}" for row in kinds["failed"]]
        text.append("")
    return "\n".join(text)


def markdown(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """One table."""
    cells = [[title for title, _ in columns], ["---"] * len(columns)]
    cells += [[show(row) for _, show in columns] for row in rows]
    return [f"| {' | '.join(line)} |" for line in cells]


def plain(name: str, form: str = "") -> Callable[[Row], str]:
    """A value of a row; empty if there is none."""
    return lambda row: "" if row.get(name) is None else format(row[name], form)


def _time(row: Row) -> str:
    return f"{row['ms']:.1f} ({row['ms_low']:.1f} to {row['ms_high']:.1f})"


PARTS: dict[str, tuple[str, list[Column]]] = {
    "machine": (
        "Machine",
        [
            ("device", plain("device")),
            ("driver", plain("driver")),
            ("cores", plain("cores")),
            ("Python", plain("python")),
            ("jax", plain("jax")),
            ("memory, GB", plain("memory_gb")),
            ("matrix product, TFLOP/s", plain("matmul_tflops")),
            ("of", plain("matmul")),
        ],
    ),
    "agreement": (
        "One step on the GPU against the CPU's in float32: relative differences",
        [
            ("variant", plain("variant")),
            ("precision", plain("precision")),
            ("scalars", plain("scalars", ".1e")),
            ("worst", plain("scalar")),
            ("gradients", plain("gradients", ".1e")),
            ("parameters", plain("params", ".1e")),
            ("CPU in bfloat16: scalars", plain("cpu_scalars", ".1e")),
            ("gradients", plain("cpu_gradients", ".1e")),
            ("agrees", lambda row: "yes" if row["agrees"] else "**no**"),
            ("compile, s", plain("compile_s")),
        ],
    ),
    "recipe": (
        "Recipes",
        [
            ("recipe", plain("recipe")),
            ("batch of each domain", plain("batch")),
            ("crop", plain("crop")),
            ("type", plain("dtype")),
            ("step, ms (quartiles)", _time),
            ("images/s", plain("images_per_s")),
            ("TFLOP a step", plain("tflop")),
            ("TFLOP/s", plain("tflops")),
            ("MFU", plain("mfu", ".1%")),
            ("bound by `plan`, ms", plain("bound_ms")),
            ("state + temporary, GB", lambda row: f"{row['arguments_gb']} + {row['temporary_gb']}"),
            ("peak of the process, GB", plain("peak_gb")),
            ("compile, s", plain("compile_s")),
            ("first state, s", plain("first_state_s")),
            ("compiled meanwhile", plain("compiling_beside")),
        ],
    ),
    "compiled": (
        "Compiled programs",
        [
            ("recipe", plain("recipe")),
            ("batch of each domain", plain("batch")),
            ("compile, s", plain("compile_s")),
            ("TFLOP a step", plain("tflop")),
            ("by XLA, loops once", plain("tflop_xla")),
            ("state + temporary, GB", lambda row: f"{row['arguments_gb']} + {row['temporary_gb']}"),
        ],
    ),
    "equal": (
        "The same network in PyTorch",
        [
            ("batch", plain("batch")),
            ("parameters", lambda row: f"{row['parameters']:,} / {row['parameters_torch']:,}"),
            ("logits differ by", plain("logits", ".1e")),
            ("loss", lambda row: f"{row['loss']:.5f} / {row['loss_torch']:.5f}"),
            ("gradient norm", lambda row: f"{row['gradient_norm']:.4g} / {row['gradient_norm_torch']:.4g}"),
        ],
    ),
    "peer": (
        "Supervised step against PyTorch's",
        [
            ("program", plain("framework")),
            ("batch", plain("batch")),
            ("step, ms (quartiles)", _time),
            ("time of nightjax = 1", plain("ratio", ".2f")),
            ("images/s", plain("images_per_s")),
            ("TFLOP/s", plain("tflops")),
            ("MFU", plain("mfu", ".1%")),
            ("memory, GB", plain("memory_gb")),
            ("compile or first step, s", plain("compile_s")),
        ],
    ),
    "input": (
        "Waiting for input: PNG records of 2048x1024",
        [
            ("network", plain("network")),
            ("batch", plain("batch")),
            ("workers", plain("workers")),
            ("cores", plain("cores")),
            ("MB a record", plain("records_mb")),
            ("images/s", plain("images_per_s")),
            ("share of time waited", plain("wait", ".1%")),
        ],
    ),
}
"""Kind of line to its title and columns."""
