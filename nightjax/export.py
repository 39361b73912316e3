# SPDX-License-Identifier: Apache-2.0
"""Exports a trained network for other programs, and checks that it answers as nightjax does.

    nightjax export --workdir=runs/dsr_fpa --output=shipped --size=540,960 --to=onnx
    nightjax export --workdir=runs/dsr_fpa --output=shipped --size=540,960 --to=onnx --int8=my_nights --check=my_labeled
    nightjax export --workdir=runs/dsr_fpa --output=shipped --size=540,960 --to=stablehlo --batch=8 --platforms=cuda
    nightjax export --workdir=runs/dsr_fpa --output=shipped --size=540,960 --to=web,tflite,saved_model

The folder explains itself: run.py segments a photo and needs the runtime alone, README.md is the model card, about.json
has classes, colors, sizes and origin, and parity.json says how far the answers are from nightjax's. Several formats
are written to a folder each below --output. Images go in at one size; classes come out at that size. In between, the
network sees them at the size at which nightjax predict shows them. If a program answers too differently, the exit code
is 1 and its folder is not written. docs/ship.md compares the formats.
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath

from nightjax import api
from nightjax.core import cli, sharding
from nightjax.core.errors import UserError, choose
from nightjax.core.method import segments
from nightjax.inference.predict import parse_size
from nightjax.shipping import examples, folder, onnx_file, parity, saved_model, stablehlo, web
from nightjax.shipping.network import Network


def main(argv: Sequence[str]) -> None:
    """Exports; exit code 1 if a check fails."""
    values = flags.FlagValues()
    _define(values)
    cli.define_checkpoint(values)
    cli.define_abstain(values)
    cli.parse(values, argv, __doc__, required=("workdir", "output", "size"))
    _check(values)
    size = parse_size(values.size, "size")
    assert size is not None  # Only --input_size may be "own".
    seen = parse_size(values.input_size, "input_size", own=True) if values.input_size else None
    model = api.load(values.workdir, network=values.network, step=values.step)
    run = model.run.merged()
    network = Network(
        segments(run.method).predict,
        sharding.to_host(run.variables),
        size,
        seen or (size if values.input_size else model.input_size(size) or size),
        values.batch or None,
        values.layout,
        values.outputs,
        model.temperature,
        model.confident_from(values.abstain),
    )
    options = folder.Options(
        values.platforms,
        values.opset,
        examples.calibration(values.int8, network.size) if values.int8 else (),
        values.web_runtime,
        parity.Limits(values.agreement, values.miou_loss),
    )
    asked = (
        examples.examples(values.check, network.size, model.classes)
        if values.check
        else parity.drawn_examples(network.size, len(model.classes))
    )
    for target in values.to:
        output = epath.Path(values.output) / target if len(values.to) > 1 else epath.Path(values.output)
        try:
            found = folder.export(output, target, network, model.classes, _origin(run, values.abstain), asked, options)
        except parity.ParityFailed as error:
            print(f"nightjax: {output} is not written: {error}", file=sys.stderr)
            sys.exit(1)
        _report(output, found)


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder to write.", flag_values=values)
    flags.DEFINE_list("to", ["stablehlo"], f"Format, or several: {', '.join(folder.TARGETS)}.", flag_values=values)
    flags.DEFINE_list("size", [], "height,width of the images.", flag_values=values)
    flags.DEFINE_list(
        "input_size",
        [],
        "height,width that the network sees, or own for --size; by default the height it was trained at.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch", 0, "Images in a call; 0 allows any number, and is 1 for tflite.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_list(
        "platforms",
        ["cpu", "cuda", "tpu"],
        f"Of stablehlo, a program each: some of {', '.join(stablehlo.PLATFORMS)}.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "layout",
        "nhwc",
        ["nhwc", "nchw"],
        "Of onnx: nhwc takes uint8 [B,H,W,3], nchw float32 [B,3,H,W] in 0..255.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "outputs",
        "label",
        ["label", "logits"],
        "Of onnx: label and confidence at the images' size, or logits at the network's.",
        flag_values=values,
    )
    flags.DEFINE_integer("opset", 20, "Of onnx.", lower_bound=13, flag_values=values)
    flags.DEFINE_string(
        "int8", "", "Of onnx and web: a folder of unlabeled nights; writes model_int8.onnx too.", flag_values=values
    )
    flags.DEFINE_string(
        "web_runtime",
        "",
        f"Of web: folder of the unpacked npm package {web.PACKAGE} {web.VERSION}; by default npm fetches it.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "check", "", "Folder of images to check on, with labels or without; drawn ones by default.", flag_values=values
    )
    flags.DEFINE_float(
        "agreement",
        None,
        f"Smallest share of pixels with nightjax's label; by default {parity.AGREEMENT:g}, for 8 bits "
        f"{parity.INT8_AGREEMENT:g}.",
        lower_bound=0,
        upper_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "miou_loss", parity.MIOU_LOSS, "Points of mIoU that may be lost on the labels of --check.", flag_values=values
    )


def _check(values: flags.FlagValues) -> None:
    """Refuses what makes no sense before anything is loaded."""
    for target in values.to:
        choose(dict.fromkeys(folder.TARGETS), target, "--to")
    for name, targets in _OF.items():
        if values[name].value != values[name].default and not set(targets) & set(values.to):
            raise UserError(f"--{name} is of {' and '.join(targets)}; add --to={targets[0]}")
    if (values.layout, values.outputs) != ("nhwc", "label") and values.to != ["onnx"]:
        raise UserError("--layout and --outputs are of onnx alone; export the other formats by themselves")
    if values.abstain and values.outputs == "logits":
        raise UserError("--abstain leaves labels out, and --outputs=logits has none; give one of them")
    for target in values.to:
        folder.check_free(epath.Path(values.output) / target if len(values.to) > 1 else values.output)
    if {"onnx", "web"} & set(values.to):
        onnx_file.check_packages()
    if {"tflite", "saved_model"} & set(values.to):
        saved_model.tensorflow()


_OF = {
    "layout": ("onnx",),
    "outputs": ("onnx",),
    "opset": ("onnx", "web"),
    "int8": ("onnx", "web"),
    "web_runtime": ("web",),
    "platforms": ("stablehlo",),
}
"""Flag to the formats that it is for."""


def _origin(run: Any, abstain: float) -> dict[str, Any]:
    """Where a network comes from and how often kept labels are to be right, for ``about.json``."""
    facts, streams = run.facts(), run.config.data.streams
    return {
        "run": run.workdir.name,
        "method": run.config.method.name,
        "network": facts["network"],
        "step": facts["step"],
        "weights": facts["weights"],
        "trained_on": sorted({stream.dataset for stream in streams.values()}),
        "abstain": abstain,
        "normalization": run.config.model.input.to_dict() | {"where": "inside the program"},
    }


def _report(output: epath.Path, found: dict[str, Any]) -> None:
    print(f"wrote {output}")
    for name, file in found["files"].items():
        miou = f", mIoU {file['miou']:.2f} of {found['nightjax']['miou']:.2f}" if "miou" in file else ""
        print(
            f"  {name}: {file['label_agreement']:.3%} of the labels as in nightjax{miou}, {file['bytes']:,} bytes, "
            f"{file['ms']:.1f} ms (nightjax {found['nightjax']['ms']:.1f} ms)"
        )
    if not found["files"]:
        print("  not checked: none of the programs is for this machine; add its platform to --platforms to check")


if __name__ == "__main__":
    cli.run(main)
