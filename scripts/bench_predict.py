# SPDX-License-Identifier: Apache-2.0
"""Times `nightjax predict`: CPU milliseconds of each stage of an image, images a second of a folder, frames of a video.

    python scripts/bench_predict.py --workdir=runs/dsr_fpa
    python scripts/bench_predict.py --workdir=runs/dsr_fpa --input_size=512,1024 --repeats=20

The images are NightStreet's nights, enlarged to --size and with noise. Stages run in turn and their medians count. CPU
time is that of all threads of the process, so it hardly depends on what else the machine does; images and frames a
second do.
"""

import functools
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence

import cv2
import jax
import numpy as np
from absl import flags

from nightjax import api, nightstreet
from nightjax.core import cli
from nightjax.inference import overlay
from nightjax.inference.images import decode_image
from nightjax.inference.inputs import find_inputs
from nightjax.inference.many import Predictions
from nightjax.inference.predict import parse_size

SCENES = 8
FIRST_SCENE = nightstreet.SPLITS["test_night"].first_seed


def main(argv: Sequence[str]) -> None:
    """Prints one table and two lines."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_list("size", ["1080", "1920"], "height,width of the images.", flag_values=values)
    flags.DEFINE_list("input_size", [], "height,width that the network sees; by default the run's.", flag_values=values)
    flags.DEFINE_integer("repeats", 15, "Rounds of the stages.", flag_values=values)
    flags.DEFINE_integer("images", 200, "Images of the folder; 0 leaves it out.", flag_values=values)
    flags.DEFINE_integer("frames", 200, "Frames of the video; 0 leaves it out.", flag_values=values)
    cli.parse(values, argv, __doc__, required=("workdir",))
    size = parse_size(values.size, "size")
    options = {"bucket": False}
    if values.input_size:
        options["input_size"] = parse_size(values.input_size, "input_size")
    model = api.load(values.workdir)
    seen = options.get("input_size") or model.input_size(size) or size
    print(f"{values.workdir}: images of {size[0]}x{size[1]}, shown to the network as {seen[0]}x{seen[1]}")
    photos = [_photo(scene, size) for scene in range(SCENES)]
    files = [overlay.encode_photo(photo) for photo in photos]
    _print_stages(model, files, options, values.repeats)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        if values.images:
            (folder / "images").mkdir()
            for i in range(values.images):
                (folder / "images" / f"{i:04d}.jpg").write_bytes(files[i % SCENES])
            _time_folder(model, folder / "images", folder / "masks", values.images, options, "images")
        if values.frames:
            (folder / "video").mkdir()
            _write_video(folder / "video" / "drive.mp4", photos, values.frames)
            _time_folder(model, folder / "video", folder / "video_masks", values.frames, options, "frames")


def _photo(scene: int, size: tuple[int, ...]) -> np.ndarray:
    """A night with the details and the noise of a photo, uint8 [*size, 3]."""
    seed = FIRST_SCENE + scene
    drawn = nightstreet.render(seed, "night", dynamic_seed=seed, sensor_seed=seed, size=(256, 512))["image"]
    photo = cv2.resize(drawn, size[::-1], interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(scene).normal(0, 3, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8)


def _print_stages(model: api.Model, files: list[bytes], options: dict, repeats: int) -> None:
    """Runs every stage on what the stage before made, round after round."""
    classes, times = model.classes, {}

    def timed(name: str, stage: Callable, *arguments):
        began = time.process_time()
        result = jax.block_until_ready(stage(*arguments))
        times.setdefault(name, []).append(1000 * (time.process_time() - began))
        return result

    for _, file in zip(range(repeats + 1), itertools.cycle(files), strict=False):
        image = timed("read the JPEG file", decode_image, file)
        maps = timed("network, with its resize", lambda i: model.scores(i, **options).maps, image)
        scores = model.scores(image, **options)
        assert len(maps) == 1
        label = timed("labels at full size", scores.label)
        timed("train ids as PNG", overlay.encode_label, label)
        timed("colors as PNG", overlay.encode_palette, label, classes.colors)
        blended = timed("overlay", functools.partial(overlay.blend, palette=classes.colors), image, label)
        timed("overlay as JPEG", overlay.encode_photo, blended)
    medians = {name: np.median(every[1:]) for name, every in times.items()}
    print(f"{'stage':<28}{'CPU ms':>8}")
    for name, median in medians.items():
        print(f"{name:<28}{median:>8.1f}")
    beside = sum(medians.values()) - medians["network, with its resize"]
    print(f"{'all but the network':<28}{beside:>8.1f}", flush=True)


def _write_video(path: pathlib.Path, photos: list[np.ndarray], frames: int) -> None:
    """A drive along the first image, which moves by four pixels a frame."""
    size = photos[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
    for frame in range(frames):
        writer.write(cv2.cvtColor(np.roll(photos[0], 4 * frame, axis=1), cv2.COLOR_RGB2BGR))
    writer.release()


def _time_folder(
    model: api.Model, source: pathlib.Path, output: pathlib.Path, number: int, options: dict, what: str
) -> None:
    """Predicts a folder as the verb does; the programs are compiled already."""
    predictions = Predictions(output, {}, model.classes)
    inputs = find_inputs([source], output)
    wall, cpu = time.perf_counter(), time.process_time()
    predictions(functools.partial(model.label, **options), inputs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{number} {what}: {number / wall:.1f} a second, {1000 * cpu / number:.0f} ms of CPU each", flush=True)


if __name__ == "__main__":
    cli.run(main)
