"""Packages: what we write passes, and every known mistake in a stranger's package is named."""

import contextlib
import io
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.data import labels
from nightjax.inference import package_check, submission
from nightjax.inference.package_check import WARNING, check_package
from nightjax.inference.submission import PACKAGES, Package, write_package

SIZE = (6, 8)
FRAMES = ("GOPR0364_frame_000001", "GP010364_frame_000002")
CITIES = ("berlin_000000_000019", "munich_000001_000019")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The real packages at 8x6 pixels and two frames."""
    small = {name: Package(p.folders, SIZE, p.frame, p.file_name, (2,)) for name, p in submission.PACKAGES.items()}
    for module in (submission, package_check):
        monkeypatch.setattr(module, "PACKAGES", small)


def predictions(frames=FRAMES, seed=0):
    rng = np.random.default_rng(seed)
    for frame in frames:
        label = rng.integers(0, 19, SIZE).astype(np.uint8)
        label[0, :4] = (8, 10, 11, 13)
        yield frame, label, np.linspace(0.1, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_official_sizes_and_folders():
    assert set(PACKAGES) == {"dark_zurich", "acdc", "cityscapes"}
    assert PACKAGES["dark_zurich"].size == PACKAGES["acdc"].size == (1080, 1920)
    assert PACKAGES["cityscapes"].size == (1024, 2048)
    assert list(PACKAGES["dark_zurich"].folders) == ["labelTrainIds", "labelTrainIds_invalid", "confidence"]


def test_dark_zurich_package(tmp_path):
    target = write_package(predictions(), tmp_path / "out", "dark_zurich", invalid_below=0.5)
    name, label, confidence = next(predictions())
    root = tmp_path / "out"
    assert target.name == "out.zip" and not list(tmp_path.glob(".*"))
    np.testing.assert_array_equal(read(root / "labelTrainIds" / f"{name}_rgb_anon.png"), label)
    declined = read(root / "labelTrainIds_invalid" / f"{name}_rgb_anon.png")
    np.testing.assert_array_equal(declined == 255, confidence < 0.5)
    np.testing.assert_array_equal(declined[confidence >= 0.5], label[confidence >= 0.5])
    stored = read(root / "confidence" / f"{name}_rgb_anon.png")
    assert stored.dtype == np.uint16 and stored.max() == 65535
    np.testing.assert_allclose(stored / 65535, confidence, atol=1e-5)
    with zipfile.ZipFile(target) as archive:
        assert len(archive.namelist()) == 6 and archive.testzip() is None
        assert {item.split("/")[0] for item in archive.namelist()} == set(PACKAGES["dark_zurich"].folders)
    for package in (root, target):
        assert check_package(package, "dark_zurich") == []
        assert check_package(package, "dark_zurich", [f"{frame}_rgb_anon.png" for frame in FRAMES]) == []


def test_acdc_holds_train_ids_and_cityscapes_label_ids(tmp_path):
    assert check_package(write_package(predictions(), tmp_path / "acdc", "acdc"), "acdc") == []
    assert sorted(p.name for p in (tmp_path / "acdc").iterdir()) == ["labelTrainIds"]
    assert check_package(write_package(predictions(CITIES), tmp_path / "city", "cityscapes"), "cityscapes") == []
    name, label, _ = next(predictions(CITIES))
    stored = read(tmp_path / "city" / f"{name}_labelIds.png")
    np.testing.assert_array_equal(CITYSCAPES.from_ids[stored], label)
    assert set(np.unique(stored)) <= set(labels.LABEL_IDS) - set(range(7))


def test_writer_refuses(tmp_path):
    with pytest.raises(UserError, match="not empty"):
        png(tmp_path / "full" / "a.png", np.zeros(SIZE, np.uint8))
        write_package(predictions(), tmp_path / "full", "acdc")
    with pytest.raises(UserError, match="predicted twice"):
        write_package(predictions((FRAMES[0], FRAMES[0])), tmp_path / "a", "acdc")
    with pytest.raises(UserError, match="is no frame of acdc"):
        write_package(predictions(("holiday",)), tmp_path / "b", "acdc")
    with pytest.raises(UserError, match=r"wants \[6, 8\]"):
        write_package([(FRAMES[0], np.zeros((3, 3), np.uint8), np.ones((3, 3)))], tmp_path / "c", "acdc")
    with pytest.raises(UserError, match="empty"):
        write_package([], tmp_path / "d", "acdc")


LABEL = f"labelTrainIds/{FRAMES[0]}_rgb_anon.png"
SURE = f"confidence/{FRAMES[0]}_rgb_anon.png"


def color(root):
    png(root / LABEL, CITYSCAPES.colorize(read(root / LABEL))[..., ::-1])


def label_ids(root):
    for path in (root / "labelTrainIds").iterdir():
        png(path, CITYSCAPES.to_ids[read(path)])


def size(root):
    png(root / LABEL, np.zeros((3, 4), np.uint8))


def missing_folder(root):
    for path in (root / "confidence").iterdir():
        path.unlink()
    (root / "confidence").rmdir()


def eight_bit(root):
    png(root / SURE, np.full(SIZE, 200, np.uint8))


def constant(root):
    for path in (root / "confidence").iterdir():
        png(path, np.full(SIZE, 65535, np.uint16))


def short_scale(root):
    for path in (root / "confidence").iterdir():
        png(path, (read(path) // 257).astype(np.uint16))


def nested(root):
    inner = root / "submission"
    inner.mkdir()
    for part in PACKAGES["dark_zurich"].folders:
        (root / part).rename(inner / part)


MISTAKES = {
    "color image": (color, "labelTrainIds"),
    "wrong ids: label ids": (label_ids, "labelTrainIds"),
    "wrong size: 4x3, expected 8x6": (size, FRAMES[0]),
    "missing folder: confidence/": (missing_folder, ""),
    "missing file": (lambda root: (root / LABEL).unlink(), FRAMES[0]),
    "extra file": (lambda root: (root / "labelTrainIds" / "notes.txt").write_text("x"), "notes.txt"),
    "extra file: .DS_Store": (lambda root: (root / ".DS_Store").write_text("x"), ""),
    "8-bit confidence": (eight_bit, SURE),
    WARNING + "confidence": (constant, "65535"),
    "wrong values: confidence ends at 255": (short_scale, "0..65535"),
    "wrong values: 255": (lambda root: png(root / LABEL, np.full(SIZE, 255, np.uint8)), "labelTrainIds"),
    "wrong values: 77": (lambda root: png(root / LABEL, np.full(SIZE, 77, np.uint8)), "labelTrainIds"),
    "nested folder": (nested, "submission/"),
    "damaged file": (lambda root: (root / LABEL).write_bytes((root / LABEL).read_bytes()[:40]), LABEL),
}


@pytest.mark.parametrize("kind", MISTAKES)
@pytest.mark.parametrize("zipped", [False, True])
def test_each_mistake_is_named(tmp_path, kind, zipped):
    root = tmp_path / "package"
    write_package(predictions(), root, "dark_zurich").unlink()
    plant, what = MISTAKES[kind]
    plant(root)
    package = root
    if zipped:
        package = tmp_path / "package.zip"
        with zipfile.ZipFile(package, "w") as archive:
            for path in sorted(root.rglob("*")):
                archive.write(path, path.relative_to(root))
    faults = check_package(package, "dark_zurich")
    assert any(fault.startswith(kind) and what in fault for fault in faults), faults
    assert len(faults) == 1, faults


def test_train_ids_for_cityscapes(tmp_path):
    write_package(predictions(CITIES), tmp_path / "city", "cityscapes")
    for path in (tmp_path / "city").iterdir():
        png(path, CITYSCAPES.from_ids[read(path)])
    (fault,) = check_package(tmp_path / "city", "cityscapes")
    assert fault.startswith("wrong ids: train ids")
    faults = check_package(tmp_path / "city", "dark_zurich")
    assert sum(fault.startswith("missing folder") for fault in faults) == 3


def test_frames_are_counted_or_named(tmp_path):
    write_package(predictions(FRAMES[:1]), tmp_path / "one", "acdc")
    assert check_package(tmp_path / "one", "acdc")[0].startswith("missing file: 1 frames, the official test set has 2")
    assert check_package(tmp_path / "one", "acdc", FRAMES[:1]) == []
    (fault,) = check_package(tmp_path / "one", "acdc", FRAMES)
    assert fault.startswith("missing file") and FRAMES[1] in fault
    faults = check_package(tmp_path / "one", "acdc", ())
    assert [fault.partition(":")[0] for fault in faults] == ["extra file"]


def test_no_package(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nonsense")
    for path in (tmp_path / "a.zip", tmp_path / "nothing"):
        with pytest.raises(UserError, match="no folder and no readable zip"):
            check_package(path, "acdc")
    with pytest.raises(UserError, match="copy its content into a file"):
        check_package("/dev/zero", "acdc")
    with pytest.raises(UserError, match="did you mean 'acdc'"):
        check_package(tmp_path, "acdcc")


def test_zip_bombs_and_broken_members_are_faults(tmp_path, monkeypatch):
    monkeypatch.setattr(package_check, "MAX_BYTES", 1 << 16)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(LABEL, bytes(1 << 20))
    (fault,) = check_package(tmp_path / "bomb.zip", "acdc", FRAMES[:1])
    assert fault.startswith("damaged file: unpacks to 1048576 bytes")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200),
    name=st.text(min_size=1, max_size=30),
    flips=st.lists(st.integers(0, 10**6), max_size=5),
)
def test_no_zip_can_make_the_check_fail(tmp_path, data, name, flips):
    """Random members and flipped bits: faults, or a UserError for what is no zip any more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
        archive.writestr(LABEL, b"\x89PNG\r\n\x1a\n" + data)
    content = bytearray(buffer.getvalue())
    for flip in flips:
        content[flip % len(content)] ^= 1 << flip % 8
    (tmp_path / "a.zip").write_bytes(bytes(content))
    with contextlib.suppress(UserError):
        assert check_package(tmp_path / "a.zip", "acdc")
