"""Official-looking miniature trees of every data set, with the traps of the real ones.

Each ``make_*`` writes a tree below ``root`` and returns image id -> train-id label, uint8 [H, W],
for reading back.
"""

import json
import pathlib

import cv2
import numpy as np
from PIL import Image

from nightjax.core.classes import CITYSCAPES
from nightjax.data import labels

SIZE = (32, 64)


def scene(seed, size=SIZE, night=False):
    """A street-like image, uint8 [H, W, 3]; by night the same, dark and noisy."""
    rng = np.random.default_rng(seed)
    height, width = size
    image = np.full((height, width, 3), 90, np.float64)
    image[: height // 2] = 200
    for _ in range(8):
        top, left = rng.integers(0, height - 6), rng.integers(0, width - 8)
        tall, wide = rng.integers(4, height // 2), rng.integers(4, width // 3)
        image[top : top + tall, left : left + wide] = rng.integers(0, 255, 3)
    if night:
        image = image * 0.25 + np.random.default_rng(seed + 1000).normal(0, 2, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def train_ids(seed, size=SIZE):
    """A label with every class of a street and some void. uint8 [H, W]."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice([0, 1, 2, 5, 8, 10, 11, 13, 18, 255], (4, 8)).astype(np.uint8)
    blocks[0, :4], blocks[3, :4] = (10, 8, 13, 2), (0, 11, 18, 255)
    return np.kron(blocks, np.ones((size[0] // 4, size[1] // 8), np.uint8))


def save(path, array, palette=False):
    """Writes an image; ``palette=True`` makes a mode-P file whose indices are the array."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette(CITYSCAPES.colors.tobytes())
    image.save(path)


def label_ids(label):
    return CITYSCAPES.to_ids[label]


def save_annotation(folder, stem, label, seed):
    """The five files of Dark Zurich and ACDC; a quarter of the pixels is invalid but labeled."""
    invalid = np.zeros_like(label)
    invalid[:, : label.shape[1] // 4] = 1
    save(folder / f"{stem}_gt_labelIds.png", label_ids(label))
    save(folder / f"{stem}_gt_labelTrainIds.png", label)
    save(folder / f"{stem}_gt_labelColor.png", CITYSCAPES.colorize(label))
    save(folder / f"{stem}_gt_invIds.png", invalid)
    save(folder / f"{stem}_gt_invGray.png", invalid * 255)


def make_cityscapes(root):
    expected = {}
    names = {
        "train": ["aachen_000000_000019", "hamburg_000000_042505"],
        "val": ["frankfurt_000001_005898"],
        "test": ["berlin_000000_000019"],
    }
    for split, stems in names.items():
        for stem in stems:
            seed, city = len(expected), stem.split("_")[0]
            label = train_ids(seed)
            save(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", scene(seed))
            folder = root / f"gtFine/{split}/{city}"
            stub = np.full(SIZE, 3, np.uint8)  # test marks the border only
            save(
                folder / f"{stem}_gtFine_labelIds.png",
                stub if split == "test" else label_ids(label),
            )
            save(folder / f"{stem}_gtFine_instanceIds.png", label.astype(np.uint16) * 1000)
            save(
                folder / f"{stem}_gtFine_color.png",
                np.dstack([CITYSCAPES.colorize(label), np.full(SIZE, 255, np.uint8)]),
            )
            (folder / f"{stem}_gtFine_polygons.json").write_text("{}")
            expected[stem] = label
    return expected


def make_dark_zurich(root):
    """Two nights share a day frame; a drive goes on as GP01; test references carry extra tokens."""
    days = ["GOPR0345/GOPR0345_frame_000081", "GP010374/GP010374_frame_000001"]
    nights = {
        "GOPR0351/GOPR0351_frame_000001": days[0],
        "GOPR0351/GOPR0351_frame_000002": days[0],
        "GP010376/GP010376_frame_000001": days[1],
    }
    rgb = root / "rgb_anon"
    for seed, day in enumerate(days):
        save(rgb / f"train/day/{day}_rgb_anon.png", scene(seed))
    for night, day in nights.items():
        save(rgb / f"train/night/{night}_rgb_anon.png", scene(days.index(day), night=True))
        save(rgb / "train/twilight/GOPR0348/GOPR0348_frame_000001_rgb_anon.png", scene(0) // 2)
        sequence = night.split("/")[0]
        for folder, row in (
            (root / f"corresp/train/night/{sequence}", f"train/night/{night},train/day/{day}\n"),
            (root / f"gps/train/night/{sequence}", f"train/night/{night},47.123456789,8.5\n"),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{sequence}_ref_day.csv" if "corresp" in folder.parts else f"{sequence}.csv"
            with (folder / name).open("a") as file:
                file.write(row)
    stem = "GOPR0356_frame_000321"
    label = train_ids(7)
    save(rgb / f"val/night/GOPR0356/{stem}_rgb_anon.png", scene(7, night=True))
    save(rgb / f"val_ref/day/GOPR0356_ref/{stem}_ref_rgb_anon.png", scene(7))
    save_annotation(root / "gt/val/night/GOPR0356", stem, label, 7)
    for seed, sequence in enumerate(("GOPR0364", "GP010364"), 8):
        save(
            rgb / f"test/night/{sequence}/{sequence}_frame_000005_rgb_anon.png",
            scene(seed, night=True),
        )
        name = f"{sequence}_frame_000005_ref_GOPR0360_frame_000071_rgb_anon.png"
        save(rgb / f"test_ref/day/{sequence}_ref/{name}", scene(seed))
    return {stem: label}


def make_acdc(root, gt="gt"):
    expected = {}
    for condition, sequence in (("night", "GOPR0351"), ("night", "GP010376"), ("fog", "GOPR0475")):
        for split in ("train", "val", "test"):
            seed = len(expected) + 20
            stem = f"{sequence}_frame_{seed:06d}"
            label = train_ids(seed)
            rgb = root / "rgb_anon" / condition
            save(
                rgb / split / sequence / f"{stem}_rgb_anon.png",
                scene(seed, night=condition == "night"),
            )
            save(rgb / f"{split}_ref" / sequence / f"{stem}_rgb_ref_anon.png", scene(seed))
            if split != "test":
                save_annotation(root / gt / condition / split / sequence, stem, label, seed)
            expected[stem] = label
    return expected


def make_nighttime_driving(root):
    """As corrected: labelIds are fixed, one labelTrainIds file still holds the old label."""
    expected = {}
    folder = root / "gtCoarse_daytime_trainvaltest/test/night"
    for seed, stem in enumerate(("0_frame_0304", "01_frame_1088")):
        save(root / f"leftImg8bit/test/night/{stem}_leftImg8bit.png", scene(seed, night=True))
        old = train_ids(seed)
        new = old.copy()
        new[8:16, 8:16] = 18 if seed else old[8:16, 8:16]
        save(folder / f"{stem}_gtCoarse_labelIds.png", label_ids(new))
        save(folder / f"{stem}_gtCoarse_labelTrainIds.png", old)
        save(folder / f"{stem}_gtCoarse_color.png", CITYSCAPES.colorize(new))
        expected[stem] = {"original": old, "corrected": new}
    return expected


def make_bdd100k(root, old=False, colormaps=False):
    """The 2021 layout, the older one, or color maps only. One name is on MGCDA's night list."""
    expected = {}
    names = {
        "train": ["00aad4a0-ee8135fe", "00a395fe-d60c0b47"],
        "val": ["7d83ed8d-00000000", "7d83ed8d-00000001"],
        "test": ["cabc30fc-e7726578"],
    }
    for split, stems in names.items():
        for stem in stems:
            seed = len(expected)
            label = train_ids(seed)
            image = root / (f"seg/images/{split}" if old else f"images/10k/{split}") / f"{stem}.jpg"
            save(image, scene(seed, night=True))
            expected[stem] = label
            if split == "test":
                continue
            if old:
                save(root / f"seg/labels/{split}/{stem}_train_id.png", label)
            elif colormaps:
                save(root / f"labels/sem_seg/colormaps/{split}/{stem}.png", label, palette=True)
            else:
                save(root / f"labels/sem_seg/masks/{split}/{stem}.png", label)
    for split, times in {"train": ("night", "daytime"), "val": ("night", "daytime")}.items():
        pairs = zip(names[split], times, strict=True)
        frames = [{"name": f"{stem}.jpg", "attributes": {"timeofday": time}, "labels": []} for stem, time in pairs]
        path = root / f"labels/bdd100k_labels_images_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(frames))
    return expected


def make_nightcity(root):
    """Plus labels are twice the image's size and hold 255; Dubai_0016 is in train."""
    expected = {}
    for split, stems in {"train": ["Chicago_0049", "Dubai_0016"], "val": ["Tokyo_0003"]}.items():
        for stem in stems:
            seed = len(expected) + 40
            label, again = train_ids(seed), train_ids(seed + 100)
            save(root / f"NightCity-images/images/{split}/{stem}.png", scene(seed, night=True))
            save(root / f"NightCity-label/label/{split}/{stem}_labelIds.png", label_ids(label))
            save(root / f"NightCity-fine/{split}/{stem}_trainIds.png", again)
            plus = label
            if split == "val":
                plus = again
                twice = label_ids(again).repeat(2, 0).repeat(2, 1)
                twice[again.repeat(2, 0).repeat(2, 1) == 255] = 255
                save(root / f"NightCity+/{split}/{stem}_labelIds.png", twice)
            expected[stem] = {"original": label, "plus": plus, "fine": again}
    return expected


def make_nexet(root):
    """Blanks after commas, a truncated JPEG, a photo of another size, a missing photo."""
    rows = ["image_filename, lighting, city"]
    for seed, (tag, city) in enumerate([("Day", "NYC"), ("Night", "SF"), ("Night", "Tel Aviv"), ("Twilight", "NYC")]):
        rows.append(f"frame_{seed}.jpg, {tag}, {city}")
        save(
            root / f"nexet_2017_1/frame_{seed}.jpg",
            scene(seed, SIZE if seed else (48, 64), night=tag == "Night"),
        )
    rows.append("frame_9.jpg, Night, SF")
    broken = root / "nexet_2017_1/frame_2.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    (root / "train.csv").write_text("\n".join(rows) + "\n")


def make_gta5(root):
    """Palette labels, a pair of unequal sizes, a black frame, an image without label."""
    expected = {}
    for number in (1, 2, 3, 4):
        label = train_ids(number)
        save(
            root / f"images/{number:05d}.png",
            np.zeros((*SIZE, 3), np.uint8) if number == 3 else scene(number),
        )
        larger = np.pad(label_ids(label), ((0, 2), (0, 0))) if number == 2 else label_ids(label)
        if number != 4:
            save(root / f"labels/{number:05d}.png", larger, palette=True)
            expected[f"{number:05d}"] = label
    return expected


def make_synthia(root):
    """16-bit, three channels, the id in red; the other channels hold instance numbers."""
    expected = {}
    back = {int(labels.SYNTHIA_ID_TO_TRAIN_ID[i]): i for i in range(256) if labels.SYNTHIA_ID_TO_TRAIN_ID[i] != 255}
    for number in (0, 1):
        label = train_ids(number)
        ids = np.vectorize(lambda value: back.get(value, 0), otypes=[np.uint16])(label)
        blue = np.full(SIZE, 4711, np.uint16)
        save(root / f"RGB/{number:07d}.png", scene(number))
        path = root / f"GT/LABELS/{number:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.dstack([blue, blue // 3, ids]))
        expected[f"{number:07d}"] = label
    return expected
