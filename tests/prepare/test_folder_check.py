"""What check says of a plain folder besides its faults."""

import cv2
import numpy as np

from nightjax import check
from nightjax.prepare.folder_check import check_folder
from tests.helpers.odd_files import encoded
from tests.helpers.own_folders import make, picture, values, write


def said(report, words):
    return [line for line in (*report.lines, *report.warnings) if words in line]


def test_what_a_folder_holds(tmp_path):
    make(tmp_path, 3)
    make(tmp_path, 2, "val")
    for k in range(2):
        write(tmp_path, f"images/val/f{k}.png", encoded(picture(9 + k, (48, 32)), "PNG", 6 * k))
        write(tmp_path, f"labels/val/f{k}.png", encoded(values(9 + k, (32, 48) if k else (48, 32))))
    write(tmp_path, "images/val/clip.mp4", b"x")
    report = check_folder(str(tmp_path))
    assert report.faults == []
    assert report.lines[0] == "5 images (train 3, val 2), 5 labels, 0 references"
    assert said(report, "sizes as shown: 3 of 32x24, 1 of 32x48, 1 of 48x32")
    assert said(report, "EXIF orientation: 1 photos 6") and said(
        report, "1 labeled photos have an EXIF orientation (val/f1)"
    )
    assert said(report, "1 passed over: images/val/clip.mp4 (.mp4)")
    read = np.concatenate([values(k).ravel() for k in range(3)] + [values(9 + k, (48, 32)).ravel() for k in range(2)])
    assert said(report, f"0 road          {100 * (read == 1).sum() / (read > 0).sum():8.3f} %      5")
    assert said(report, f"ignored: {100 * (read == 0).mean():.3f} % of all pixels")
    assert said(report, "absent: sidewalk, building")


def test_values_that_nobody_named_are_listed(tmp_path):
    make(tmp_path, 3)
    for k, value in ((1, 40), (2, 50)):
        label = values(k)
        label[:6, :16] = value
        write(tmp_path, f"labels/train/f{k}.png", encoded(label))
    report = check_folder(str(tmp_path))
    share = 100 * 6 * 16 / (3 * 24 * 32)
    for k, value in ((1, 40), (2, 50)):
        assert said(report, f"nobody named {value}: {share:.3g} % of the pixels, first in train/f{k}; they are ignored")
    assert report.faults == []


def test_labels_of_one_class_or_none_and_twins(tmp_path):
    make(tmp_path, 4)
    write(tmp_path, "labels/train/f1.png", encoded(np.full((24, 32), 2, np.uint8)))
    write(tmp_path, "labels/train/f2.png", encoded(np.zeros((24, 32), np.uint8)))
    write(tmp_path, "images/train/f3.png", (tmp_path / "images/train/f0.png").read_bytes())
    report = check_folder(str(tmp_path))
    assert said(report, "1 of 4 labels mark one class only: train/f1")
    assert said(report, "1 of 4 labels mark no class at all: train/f2")
    assert said(report, "1 images are the same file as another: train/f3 is train/f0")
    for k in range(4):
        write(tmp_path, f"labels/train/f{k}.png", encoded(np.zeros((24, 32), np.uint8)))
    assert check_folder(str(tmp_path)).faults == ["labels: no label marks any class"]


def test_a_contact_sheet(tmp_path, capsys):
    make(tmp_path / "data", 5)
    write(tmp_path / "data", "images/train/f2.png", b"broken")
    sheet = tmp_path / "sheet.png"
    try:
        check.main(["check", "--data=folder", f"--manual_dir={tmp_path / 'data'}", f"--sheet={sheet}"])
    except SystemExit as stop:
        assert stop.code == 2
    assert "record 'train/f2', image" in capsys.readouterr().out
    pixels = cv2.imread(str(sheet))[..., ::-1]
    assert pixels.shape[1] == 6 * (2 * 160 + 4)
    shown = cv2.resize(picture(0), (160, 120), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(pixels[2:122, 2:162], shown)
    assert (pixels[2:122, 162:322] == [128, 64, 128]).all(-1).mean() > 0.1  # Road.


def test_many_records_are_checked_in_processes(tmp_path):
    make(tmp_path, 3)
    for k in range(130):
        write(tmp_path, f"images/more/{k:03d}.png", encoded(picture(k + 20)))
        write(tmp_path, f"labels/more/{k:03d}.png", encoded(values(k)))
    write(tmp_path, "labels/more/077.png", b"")
    report = check_folder(str(tmp_path))
    assert report.lines[0].startswith("133 images (more 130, train 3)")
    assert len(report.faults) == 1 and "record 'more/077'" in report.faults[0] and "is empty" in report.faults[0]
