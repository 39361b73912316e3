# SPDX-License-Identifier: Apache-2.0
"""What an export folder says of itself: ``about.json`` for programs, ``README.md`` for people."""

import calendar
import datetime
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

import nightjax
from nightjax.core.class_section import described
from nightjax.core.classes import ClassSet
from nightjax.shipping.network import Network
from nightjax.shipping.runners import usage


def about(target: str, network: Network, classes: ClassSet, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What ``about.json`` says of every format.

    Args:
        target: the format.
        network: that was written.
        classes: that it tells apart.
        origin: where it comes from; ``trained_on`` is needed.
    """
    trained = ", ".join(origin["trained_on"])
    return {
        "target": target,
        "written": datetime.date.today().isoformat(),
        "versions": {"nightjax": nightjax.__version__, "jax": jax.__version__, "python": platform.python_version()},
        "size": list(network.size),
        "input_size": list(network.input_size),
        "batch": network.batch,
        "layout": network.layout,
        "image": "RGB, uint8" if network.layout == "nhwc" else "RGB, float32 in 0..255",
        "outputs": list(network.names),
        "temperature": network.temperature,
        "confident": network.confident,
        "classes": described(classes),
        "license": {
            "program": "Apache-2.0",
            "weights": f"set by whoever trained them, and by the terms of what they were trained on: {trained}",
        },
        **origin,
    }


def months_later(day: datetime.date, months: int) -> datetime.date:
    """The same day so many months later, or the last of that month."""
    years, month = divmod(day.month - 1 + months, 12)
    year, month = day.year + years, month + 1
    return datetime.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def readme(about: Mapping[str, Any], parity: Mapping[str, Any], files: Sequence[tuple[str, str]]) -> str:
    """The model card.

    Args:
        about: of the folder.
        parity: of its files.
        files: name of each file and what it is.
    """
    height, width = about["size"]
    batch = about["batch"] or "any"
    shape = [batch, 3, height, width] if about["layout"] == "nchw" else [batch, height, width, 3]
    lines = [
        f"# A night-time segmentation network as {about['target']}",
        "",
        f"Written by nightjax {about['versions']['nightjax']} on {about['written']} from step {about['step']} of "
        f"the run `{about['run']}` (method {about['method']}, network {about['network']}).",
        "",
        *_usage(about),
        "## Input and output",
        "",
        f"`image`: {about['image']}, {shape}. Normalization is part of the program"
        + (
            "."
            if about["size"] == about["input_size"]
            else f", and so is a resize to {about['input_size']}, the size that the network sees."
        ),
        "",
        *(f"`{name}`: {_OUTPUTS[name]}" for name in about["outputs"]),
        "",
        *_abstention(about),
        f"A photo of another size must be resized to {height}x{width} first, bilinearly and without a filter for the "
        "labels that nightjax would give. Where a program smooths, as browsers do, labels near edges can differ.",
        "",
        "## Files",
        "",
        "| file | what |",
        "|---|---|",
        *(f"| `{name}` | {what} |" for name, what in files),
        "",
        "## Agreement with nightjax",
        "",
        *_parity_table(parity),
        "",
        "## Classes",
        "",
        "| value | class | color |",
        "|--:|---|---|",
        *(f"| {index} | {entry['name']} | `{entry['color']}` |" for index, entry in enumerate(about["classes"])),
        "",
        "## What it is good for",
        "",
        f"It was trained on {', '.join(about['trained_on'])}. On images that look different, expect worse masks; "
        "measure on labeled images of your own before anything depends on it. "
        + (
            "A confidence is the network's own probability, which by night is often too high."
            if about["temperature"] == 1
            else f"Confidences are corrected by a temperature of {about['temperature']:.3f}."
        ),
        "",
        "## License",
        "",
        f"Program: {about['license']['program']}. Weights: {about['license']['weights']}.",
        "",
    ]
    return "\n".join(lines)


_OUTPUTS = {
    "label": "uint8 [B, H, W], the likeliest class of every pixel.  ",
    "confidence": "float32 [B, H, W], its probability.",
    "logits": "float32 at the network's own size, in the layout of the image; the largest is the likeliest class.",
}


def _abstention(about: Mapping[str, Any]) -> list[str]:
    """What the label 255 means, where there is one."""
    if not about["confident"]:
        return []
    return [
        f"A label of 255 is no class: the confidence is below {about['confident']:.4f}. Of the pixels with a class "
        f"{about['abstain']:.0%} are to be right, on nights like those that the run was calibrated on. 8-bit programs "
        "have other confidences, and leave out other pixels.",
        "",
    ]


def _usage(about: Mapping[str, Any]) -> list[str]:
    lines = [*(f"    {line}" for line in usage(about["target"])), ""]
    if about["target"] == "web":
        lines += [
            "Or put the folder on any web server. Photos stay in the browser. With the headers "
            "`Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`, which "
            "`run.py` sends, it uses several cores. `index.html?int8` takes the 8-bit network, if there is one.",
            "",
        ]
    if "good_until" in about:
        lines += [
            f"JAX promises to run this until **{about['good_until']}**, six months after it was written; a jax of "
            f"after that date may refuse it. Older versions than {about['versions']['jax']} may refuse it too. For "
            "longer, export again, or export ONNX.",
            "",
        ]
    return lines


def _parity_table(parity: Mapping[str, Any]) -> list[str]:
    """The figures of ``parity.json`` in one table."""
    if not parity["files"]:
        return ["Not checked: none of the programs runs on the machine that wrote them."]
    labeled = "miou" in parity["nightjax"]
    rows = [
        f"On {parity['of']}, and for the time of one call on the {parity['cores']} cores of the machine that wrote it:",
        "",
        "| program | same label | logits differ by at most | bytes | ms |" + (" mIoU |" if labeled else ""),
        "|---|--:|--:|--:|--:|" + ("--:|" if labeled else ""),
        f"| nightjax | | | | {parity['nightjax']['ms']:.1f} |"
        + (f" {parity['nightjax']['miou']:.2f} |" if labeled else ""),
    ]
    for name, found in parity["files"].items():
        row = (
            f"| `{name}` | {100 * found['label_agreement']:.3f} % | {found['largest_logit_difference']:.2g} | "
            f"{found['bytes']:,} | {found['ms']:.1f} |"
        )
        rows.append(row + (f" {found['miou']:.2f} |" if labeled else ""))
    return rows
