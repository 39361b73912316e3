# SPDX-License-Identifier: Apache-2.0
"""Times the input: records a second on one core, for each form in which records can be stored.

    python scripts/bench_input.py
    python scripts/bench_input.py --dataset=nightstreet/std --split=source_day --workers=2
    python scripts/bench_input.py --against_decoding

Without a data set, images as large and as hard to compress as the real ones are made up, and one thread turns them
into 512x512 training crops (or their own size, if smaller). With a data set, a whole training stream is timed.
``--against_decoding`` compares a stream of 2048x1024 PNGs with nothing but decoding them, both on two threads.
"""

import concurrent.futures
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from absl import flags

from nightjax.core import cli
from nightjax.data import sources, streams, transforms
from nightjax.data.sampling import SampledRecord
from nightjax.inference.predict import parse_size

FORMS = (
    ("Cityscapes as published: PNG 2048x1024", (1024, 2048), ".png", False),
    ("JPEG 2048x1024", (1024, 2048), ".jpg", False),
    ("half size: PNG 1024x512", (512, 1024), ".png", False),
    ("half size: JPEG 1024x512", (512, 1024), ".jpg", False),
    ("half size: raw 1024x512", (512, 1024), "", False),
    ("pair 1920x1080, JPEG", (1080, 1920), ".jpg", True),
    ("CamVid: PNG 480x360", (360, 480), ".png", False),
    ("NightStreet std: PNG 256x128", (128, 256), ".png", False),
)
"""Name, (height, width), image suffix ("" = decoded arrays), with a reference view instead of a label."""


def record(size: tuple[int, int], suffix: str, pair: bool) -> dict[str, object]:
    """Blobs for the label; shapes plus sensor noise for the image, so that PNG takes about 1.3 bytes a pixel."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (size[0] // 32, size[1] // 32, 3), np.uint8)
    smooth = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
    image = np.clip(smooth + rng.normal(0, 0.5, smooth.shape).round(), 0, 255).astype(np.uint8)
    label = cv2.resize(small[..., 0] % 19, size[::-1], interpolation=cv2.INTER_NEAREST)

    def encode(array: np.ndarray, kind: str) -> bytes | np.ndarray:
        options = [cv2.IMWRITE_JPEG_QUALITY, 95] if kind == ".jpg" else []
        return cv2.imencode(kind, array, options)[1].tobytes() if kind else array

    result = {"image_id": "made up", "image": encode(image, suffix)}
    if pair:
        return result | {"reference": encode(image, suffix)}
    return result | {"label": encode(label, ".png" if suffix else "")}


def rate(work: Callable[[], object], seconds: float) -> float:
    """Calls a second, after one call that does not count."""
    work()
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        work()
        calls += 1
    return calls / elapsed


def made_up_rows(values: flags.FlagValues, crop: tuple[int, int]) -> Iterator[tuple[str, ...]]:
    yield "record", "MB", "decode/s", "example/s", "ms"
    for name, size, suffix, pair in FORMS:
        fields = ("image", "reference") if pair else ("image", "label")
        source = sources.ListSource([record(size, suffix, pair)])
        window = min(crop[0], size[0]), min(crop[1], size[1])
        load = streams.LoadExample(source, streams.StreamSpec("source", "", "", window, fields))
        rng = np.random.default_rng(0)
        megabytes = sum(len(v) if isinstance(v, bytes) else getattr(v, "nbytes", 0) for v in source[0].values()) / 1e6
        decodes = rate(functools.partial(transforms.decode, source[0], fields), values.seconds)
        examples = rate(functools.partial(load.random_map, SampledRecord(0), rng), values.seconds)
        yield name, f"{megabytes:.2f}", f"{decodes:.0f}", f"{examples:.0f}", f"{1000 / examples:.1f}"


def dataset_rows(values: flags.FlagValues, crop: tuple[int, int]) -> Iterator[tuple[str, ...]]:
    yield "stream", "records", "workers", "records/s"
    source = sources.open_source(values.dataset, values.split, data_dir=values.data_dir, manual_dir=values.manual_dir)
    fields = ("image", *(field for field in ("label", "reference", "flow", "flow_valid") if field in source[0]))
    spec = streams.StreamSpec("source", values.dataset, values.split, crop, fields)
    stream = streams.make_stream(source, spec, batch_size=values.batch, seed=0, workers=values.workers)
    records = values.batch * rate(functools.partial(next, stream), values.seconds)
    stream.close()
    name = f"{values.dataset} {values.split}: {', '.join(fields)}"
    yield name, str(len(source)), str(values.workers), f"{records:.0f}"


def against_rows(values: flags.FlagValues, crop: tuple[int, int]) -> Iterator[tuple[str, ...]]:
    """Alternates, so that a busy machine is unfair to neither."""
    yield "2048x1024 PNG on two threads", "decode/s", "example/s", "share"
    item = record((1024, 2048), ".png", False)
    source = sources.ListSource([item] * 64)

    def decode(_: int) -> None:
        transforms.decode_image(item["image"])
        transforms.decode_label(item["label"])

    for _ in range(3):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            decodes = 8 * rate(lambda: list(pool.map(decode, range(8))), values.seconds)
        spec = streams.StreamSpec("source", "", "", crop)
        stream = streams.make_stream(source, spec, batch_size=values.batch, seed=0, threads=2)
        next(stream)
        examples = values.batch * rate(functools.partial(next, stream), values.seconds)
        stream.close()
        yield "", f"{decodes:.1f}", f"{examples:.1f}", f"{examples / decodes:.0%}"


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FlagValues()
    flags.DEFINE_string("dataset", "", "Data set to time; by default made-up records.", flag_values=values)
    flags.DEFINE_string("split", "train", "Its split.", flag_values=values)
    cli.define_folders(values)
    flags.DEFINE_integer("batch", 4, "Examples a batch, with --dataset.", lower_bound=1, flag_values=values)
    flags.DEFINE_list("crop", ["512", "512"], "height,width of the crop.", flag_values=values)
    flags.DEFINE_integer("workers", 0, "Worker processes, with --dataset.", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("against_decoding", False, "Compare the stream with decoding alone.", flag_values=values)
    flags.DEFINE_float("seconds", 2.0, "Time for each row.", flag_values=values)
    cli.parse(values, argv, __doc__)
    cv2.setNumThreads(1)
    crop = parse_size(values.crop, "crop")
    rows = against_rows if values.against_decoding else dataset_rows if values.dataset else made_up_rows
    for row in rows(values, crop):
        print(f"{row[0]:50}" + "".join(f"{cell:>11}" for cell in row[1:]), flush=True)


if __name__ == "__main__":
    cli.run(main)
