"""Archives: unpacked once, never outside, refused when unsafe or damaged."""

import contextlib
import io
import stat
import tarfile
import zipfile

import hypothesis
import pytest

from nightjax.core.errors import UserError
from nightjax.prepare import archives


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def make_tar(path, infos, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for info, content in infos:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_zip_is_unpacked_once(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"top/x.txt": "one", "top/deep/y.txt": "two"})
    target = archives.extract(archive, tmp_path / "out")
    assert files_below(target) == ["top/deep/y.txt", "top/x.txt"] and (target / "top/x.txt").read_text() == "one"
    (target / "top/x.txt").write_text("kept")
    assert archives.extract(archive, tmp_path / "out") == target and (target / "top/x.txt").read_text() == "kept"


def test_a_replaced_archive_is_unpacked_anew(tmp_path):
    first = archives.extract(make_zip(tmp_path / "a.zip", {"x": "1"}), tmp_path / "out")
    second = archives.extract(make_zip(tmp_path / "a.zip", {"x": "1", "y": "22"}), tmp_path / "out")
    assert first != second and files_below(second) == ["x", "y"]


@pytest.mark.parametrize("suffix,mode", [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")])
def test_tar(tmp_path, suffix, mode):
    archive = make_tar(tmp_path / f"data{suffix}", [(tarfile.TarInfo("a/b.png"), b"pixels")], mode)
    target = archives.extract(archive, tmp_path / "out")
    assert target.name.startswith("data-") and (target / "a/b.png").read_bytes() == b"pixels"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\..\\..\\evil", "C:/evil", "a/.."])
def test_path_traversal_is_refused_and_nothing_is_written(tmp_path, name):
    for archive in (
        make_zip(tmp_path / "a.zip", {"good.txt": "x", name: "boo"}),
        make_tar(
            tmp_path / "a.tar",
            [(tarfile.TarInfo("good.txt"), b"x"), (tarfile.TarInfo(name), b"boo")],
            "w",
        ),
    ):
        with pytest.raises(UserError, match="outside"):
            archives.extract(archive, tmp_path / "out/deep")
        assert files_below(tmp_path / "out") == [] and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("photos")
    info.type, info.linkname = kind, "/etc"
    with pytest.raises(UserError, match="link or a device"):
        archives.extract(make_tar(tmp_path / "a.tar", [(info, b"")]), tmp_path / "out")


def test_symlink_in_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("photos")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc")
    with pytest.raises(UserError, match="link or a device"):
        archives.extract(tmp_path / "a.zip", tmp_path / "out")


def test_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 16)
    archive = make_zip(tmp_path / "a.zip", {"zeros": bytes(1 << 22)})
    with pytest.raises(UserError, match="zip bomb"):
        archives.extract(archive, tmp_path / "out")
    bomb = make_tar(tmp_path / "a.tar.gz", [(tarfile.TarInfo("zeros"), bytes(1 << 22))])
    with pytest.raises(UserError, match="zip bomb"):
        archives.extract(bomb, tmp_path / "out")
    assert files_below(tmp_path / "out") == []


def test_lying_size_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"x": bytes(range(256)) * 40})
    data = bytearray(archive.read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    data[place : place + 4] = (100).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(UserError):
        archives.extract(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("keep", [0, 10, 60, 200])
def test_truncated_archives_are_refused(tmp_path, keep):
    archive = make_zip(tmp_path / "a.zip", {"x": bytes(range(256)) * 8})
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(UserError, match="a.zip"):
        archives.extract(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == []


def test_truncated_tar_is_refused(tmp_path):
    archive = make_tar(tmp_path / "a.tar", [(tarfile.TarInfo("x"), bytes(range(256)) * 40)], "w")
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(UserError):
        archives.extract(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == []


def test_random_damage_never_escapes(tmp_path):
    original = make_zip(tmp_path / "good.zip", {"a/x": bytes(range(200)), "a/y": "text"}).read_bytes()
    strategy = hypothesis.strategies.lists(
        hypothesis.strategies.tuples(
            hypothesis.strategies.integers(0, len(original) - 1),
            hypothesis.strategies.integers(0, 255),
        ),
        min_size=1,
        max_size=8,
    )

    @hypothesis.settings(max_examples=60, deadline=None)
    @hypothesis.given(strategy)
    def check(edits):
        data = bytearray(original)
        for place, value in edits:
            data[place] = value
        (tmp_path / "bad.zip").write_bytes(data)
        before = {path for path in tmp_path.iterdir() if path.name != "out"}
        with contextlib.suppress(UserError):
            archives.extract(tmp_path / "bad.zip", tmp_path / "out")
        assert {path for path in tmp_path.iterdir() if path.name != "out"} == before

    check()
