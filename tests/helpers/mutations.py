"""What happens to folders of images on their way through phones, cameras, editors, zips and disks, at random.

Every mutation keeps ``truth`` up to date: what each label means to the person who made it. What becomes of it in
training may differ only where a line says so.
"""

import dataclasses
import json
import os
import pathlib
import unicodedata
from collections.abc import Callable

import numpy as np

from nightjax.core.types import IGNORE
from tests.helpers import own_folders
from tests.helpers.odd_files import encoded, gray_png, gray_tiff, palette_png
from tests.helpers.own_folders import picture, write

MEANING = np.array([IGNORE, 0, 13, 10], np.uint8)
PALETTE = [0, 0, 0, 128, 64, 128, 0, 0, 142, 70, 130, 180]


@dataclasses.dataclass
class World:
    """A folder under mutation.

    Attributes:
        root: the folder.
        rng: what happens.
        truth: record name to the train ids that its label means, uint8 [H, W], and to the photo that it belongs to.
    """

    root: pathlib.Path
    rng: np.random.Generator
    truth: dict[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)

    def pick(self, part: str) -> pathlib.Path:
        """Some regular image file of ``images`` or ``labels``."""
        files = sorted(path for path in (self.root / part).rglob("*") if path.is_file() and not path.is_symlink())
        files = [path for path in files if path.suffix.lower() in (".png", ".bmp", ".tif", ".jpg", ".gif")]
        return files[self.rng.integers(len(files))]

    def name(self, path: pathlib.Path) -> str:
        """Of the record that a file belongs to."""
        stem = path.relative_to(self.root).with_suffix("").as_posix()
        return unicodedata.normalize("NFC", stem.partition("/")[2])

    def seed(self, path: pathlib.Path) -> int:
        return int(unicodedata.normalize("NFC", path.stem)[-1])


def build(root: pathlib.Path, seed: int, count: int = 4) -> World:
    """A folder after one to three mutations."""
    world = World(own_folders.make(root, count), np.random.default_rng(seed))
    for k in range(count):
        world.truth[f"train/f{k}"] = MEANING[own_folders.values(k)], picture(k)
    for _ in range(int(world.rng.integers(1, 4))):
        MUTATIONS[world.rng.integers(len(MUTATIONS))](world)
    return world


def litter(world: World) -> None:
    path = world.pick(("images", "labels")[world.rng.integers(2)])
    names = (f"._{path.name}", "Thumbs.db", f".ipynb_checkpoints/{path.name}", f"{path.name}~", f"@eaDir/{path.name}")
    write(path.parent, names[world.rng.integers(len(names))], path.read_bytes()[:50])


def strangers(world: World) -> None:
    path = world.pick(("images", "labels")[world.rng.integers(2)])
    write(path.parent, ("clip.mp4", "notes.txt", "a.json", "README")[world.rng.integers(4)], b"x")


def truncated(world: World) -> None:
    path = world.pick(("images", "labels")[world.rng.integers(2)])
    data = path.read_bytes()
    path.write_bytes(data[: int(world.rng.uniform(0, 1) * len(data))])


def one_wrong_byte(world: World) -> None:
    path = world.pick(("images", "labels")[world.rng.integers(2)])
    data = bytearray(path.read_bytes())
    if len(data) > 60:
        data[world.rng.integers(40, len(data) - 12)] ^= 1 << world.rng.integers(8)
        path.write_bytes(data)


def gone(world: World) -> None:
    world.pick(("images", "labels")[world.rng.integers(2)]).unlink()


def capitals(world: World) -> None:
    path = world.pick(("images", "labels")[world.rng.integers(2)])
    path.rename(path.with_suffix(path.suffix.upper()))


def other_unicode_form(world: World) -> None:
    image = world.pick("images")
    old = world.name(image)
    labels = [path for path in (world.root / "labels").rglob("*") if path.is_file() and world.name(path) == old]
    new = f"ä_{world.seed(image)}"
    forms = ("NFC", "NFD") if world.rng.random() < 0.5 else ("NFD", "NFC")
    for path, form in zip((image, *labels[:1]), forms, strict=False):
        path.rename(path.with_name(unicodedata.normalize(form, new) + path.suffix))
    if old in world.truth:
        world.truth[f"train/{new}"] = world.truth.pop(old)


def rewritten(make: Callable[[np.ndarray], bytes], suffix: str = ".png") -> Callable[[World], None]:
    """A label in another form that means the same, as far as the form can."""

    def mutate(world: World) -> None:
        path = world.pick("labels")
        values = own_folders.values(world.seed(path))
        path.unlink()
        path.with_suffix(suffix).write_bytes(make(values))

    return mutate


def in_color(values: np.ndarray) -> bytes:
    return encoded(np.array(PALETTE, np.uint8).reshape(4, 3)[values])


def colors_named(world: World) -> None:
    names = own_folders.CODES | {"#000000": "ignore", "#804080": "road", "#00008e": "car", "#4682b4": "sky"}
    write(world.root, "labels.json", json.dumps(names))


def json_of_another_editor(world: World) -> None:
    path = world.root / "labels.json"
    if path.is_file():
        text = json.dumps(own_folders.CODES, indent=1).replace("\n", "\r\n")
        path.write_bytes(text.encode(("utf-8-sig", "utf-16", "utf-16-le")[world.rng.integers(3)]))


def values_nobody_named(world: World) -> None:
    path = world.pick("labels")
    values = own_folders.values(world.seed(path))
    values[:3, :5] = world.rng.integers(4, 255)
    path.write_bytes(encoded(values))


def no_json(world: World) -> None:
    if not (world.root / "labels.json").is_file():
        return
    (world.root / "labels.json").unlink()
    for name, (label, photo) in world.truth.items():
        values = np.array([0, 1, 2, 3])[np.searchsorted([0, 10, 13, 255], label)]
        meant = np.array([0, 3, 2, 1], np.uint8)  # Read as train ids, the values mean other classes, but as written.
        world.truth[name] = np.choose(values, [meant[3], meant[1], meant[2], meant[0]]).astype(np.uint8), photo


def turned_by_exif(world: World) -> None:
    path = world.pick("images")
    path.write_bytes(encoded(picture(world.seed(path)), "PNG", int(world.rng.integers(2, 9))))


def movie_behind(world: World) -> None:
    path = world.pick("images")
    path.write_bytes(encoded(picture(world.seed(path)), "PNG") + os.urandom(3000))


def links(world: World) -> None:
    target = (".", "..", "train", "/dev/null", "nowhere")[world.rng.integers(5)]
    place = (
        world.root / ("images", "labels")[world.rng.integers(2)] / ("again", "train/again.png")[world.rng.integers(2)]
    )
    if not place.is_symlink():
        place.symlink_to(target)


def pipe(world: World) -> None:
    path = world.pick("images").with_name("pipe.png")
    if not path.exists():
        os.mkfifo(path)


def other_size(world: World) -> None:
    path = world.pick("labels")
    path.write_bytes(encoded(np.tile(own_folders.values(world.seed(path)), (2, 2))))


def twin(world: World) -> None:
    path = world.pick("images")
    path.with_suffix(".bmp").write_bytes(encoded(picture(world.seed(path)), "BMP"))


def transparent(world: World) -> None:
    path = world.pick(("images", "labels")[world.rng.integers(2)])
    pixels = (
        picture(world.seed(path))
        if "images" in path.parts
        else np.repeat(own_folders.values(world.seed(path))[..., None], 3, -1)
    )
    alpha = np.full(pixels.shape[:2], (255, 90)[world.rng.integers(2)], np.uint8)
    path.write_bytes(encoded(np.dstack([pixels, alpha])))


MUTATIONS = (
    litter,
    strangers,
    truncated,
    one_wrong_byte,
    gone,
    capitals,
    other_unicode_form,
    rewritten(lambda values: gray_png(values, 4)),
    rewritten(lambda values: gray_png(values, 2)),
    rewritten(lambda values: gray_png(values, 16)),
    rewritten(lambda values: gray_tiff(values, 4, True), ".tif"),
    rewritten(lambda values: palette_png(values, PALETTE, 2)),
    rewritten(lambda values: palette_png(values, PALETTE)),
    rewritten(lambda values: encoded(np.repeat(values[..., None], 3, -1))),
    rewritten(lambda values: encoded(values, "BMP"), ".bmp"),
    rewritten(lambda values: encoded(values, "JPEG", quality=90)),
    rewritten(lambda values: encoded(values, "JPEG"), ".jpg"),
    rewritten(lambda values: encoded(np.repeat(values[..., None], 3, -1), "WEBP"), ".webp"),
    rewritten(in_color),
    colors_named,
    json_of_another_editor,
    values_nobody_named,
    no_json,
    turned_by_exif,
    movie_behind,
    links,
    pipe,
    other_size,
    twin,
    transparent,
)
