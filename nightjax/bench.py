# SPDX-License-Identifier: Apache-2.0
"""Measures a network on this machine: parameters, FLOPs, latency, throughput and memory, by size and batch.

    nightjax bench --workdir=runs/dsr_fpa --size=128,256 --size=512,1024 --batch=1,4
    nightjax bench --config=dacs:data=cityscapes_to_dark_zurich,model=daformer_b5 --size=512,1024
    nightjax bench --export=shipped --file=model_int8.onnx

A run or a config is measured in JAX, from images on the device to labels and confidences at the images' size; an
exported folder in its own runtime, from main memory to main memory, at the size that it was exported for. A config has
fresh weights, which take as long. Adapters are merged first, as export does. Nothing else should run on the machine.
FLOPs are multiplications and additions of matrix products and convolutions for one image. Memory is what the compiler
plans for one call beside weights and images, and the peak of the whole process, or of the device where it counts.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import flags

from nightjax import api, methods
from nightjax.core import cli, sharding
from nightjax.core.errors import UserError
from nightjax.core.method import segments
from nightjax.inference.predict import parse_size
from nightjax.run import meanings, references, settings, start
from nightjax.shipping import benchmark, folder
from nightjax.shipping.network import Network


def main(argv: Sequence[str]) -> None:
    """Prints a table, or JSON lines."""
    values = flags.FlagValues()
    if any(word.lstrip("-").partition("=")[0] == "config" for word in argv):
        name, argv = cli.define_config(values, argv, settings.load, settings.override, meanings.of_config)
    else:
        name = ""
        flags.DEFINE_string("config", None, cli.CONFIG_HELP, flag_values=values)
    flags.DEFINE_string("workdir", "", "Folder of a run.", flag_values=values)
    flags.DEFINE_string("export", "", "Folder that nightjax export wrote.", flag_values=values)
    flags.DEFINE_string("file", "", "Of several programs in that folder, such as model_int8.onnx.", flag_values=values)
    flags.DEFINE_multi_string("size", [], "height,width of the images; may be repeated.", flag_values=values)
    flags.DEFINE_list("batch", ["1"], "Images in a call, or several numbers.", flag_values=values)
    flags.DEFINE_float("seconds", 2.0, "How long each row is timed.", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("json", False, "Print each row as one line of JSON.", flag_values=values)
    cli.define_checkpoint(values)
    cli.parse(values, argv, __doc__)
    if sum(map(bool, (name, values.workdir, values.export))) != 1:
        raise UserError("give one of --workdir, --config and --export; see --help")
    batches = [_number(word) for word in values.batch]
    cli.use_compilation_cache()
    if values.export:
        title, results = _export(values, batches)
    else:
        title, results = _network(values, batches)
    if not values.json:
        print(f"{title}\non {_machine()}\n\n{_HEAD}", flush=True)
    for result in results:
        print(json.dumps(result.facts()) if values.json else _row(result), flush=True)


def _export(values: flags.FlagValues, batches: Sequence[int]) -> tuple[str, Iterator[benchmark.Result]]:
    exported = folder.load(values.export, values.file)
    about, size = exported.about, benchmark.size_of(pathlib.Path(values.export))
    if values.size:
        raise UserError(f"--size is fixed by the export, {about['size']}; leave it out")
    if about["batch"] and batches not in ([1], [about["batch"]]):
        raise UserError(f"--batch is fixed by the export, {about['batch']}; leave it out")
    title = f"{values.export}: {about['target']} of {about['run']}, {size / 1e6:.2f} MB in all"
    return title, (benchmark.of_export(exported, batch, values.seconds) for batch in batches)


def _network(values: flags.FlagValues, batches: Sequence[int]) -> tuple[str, Iterator[benchmark.Result]]:
    sizes = [size for text in values.size if (size := parse_size(text.split(","), "size"))]
    if not sizes:
        raise UserError("--size=height,width is missing; it may be repeated")
    if values.workdir:
        run = api.load(values.workdir, network=values.network, step=values.step).run.merged()
        title, method, variables = values.workdir, run.method, run.variables
    else:
        config = references.planned(values.config)
        method = methods.build(config)
        state = start.first_state(config, method, sharding.make_mesh(jax.local_devices()[:1]))
        title, variables = f"{config.method.name} with fresh weights", method.variables(state, values.network)
    apply_fn, variables = segments(method).predict, sharding.to_host(variables)
    title += f": {benchmark.parameters(variables) / 1e6:.2f} M parameters"
    networks = (Network(apply_fn, variables, size, size, batch) for size in sizes for batch in batches)
    return title, (benchmark.of_network(network, values.seconds) for network in networks)


def _number(word: str) -> int:
    if not word.isdecimal() or not int(word):
        raise UserError(f"--batch={word} must be numbers of images from 1 on, such as 1,4")
    return int(word)


def _machine() -> str:
    device = jax.local_devices()[0]
    return f"{os.cpu_count()} CPU cores" if device.platform == "cpu" else device.device_kind


_HEAD = "       size batch    GFLOP        ms  ms, 90 %  images/s program MB  peak MB"


def _row(result: benchmark.Result) -> str:
    def shown(value: Any, scale: float, digits: int) -> str:
        return "-" if value is None else f"{value / scale:.{digits}f}"

    height, width = result.size
    return (
        f"{f'{height}x{width}':>11} {result.batch:>5} {shown(result.gflop, 1, 2):>8} {result.timing.median:>9.1f} "
        f"{result.timing.high:>9.1f} {result.images_per_second:>9.1f} {shown(result.program_memory, 1e6, 1):>10} "
        f"{shown(result.peak_memory, 1e6, 0):>8}"
    )


if __name__ == "__main__":
    cli.run(main)
