# SPDX-License-Identifier: Apache-2.0
"""A folder that any web server serves: a page onto which one drops a photo, the ONNX network, and onnxruntime-web.

onnxruntime-web is copied in, so the page loads nothing from elsewhere and works offline.
"""

import json
import pathlib
import shutil
import subprocess
import tarfile

from nightjax.core.errors import UserError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"

FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page needs of the package's ``dist``."""

PAGE = pathlib.Path(__file__).with_name("page.html")


def write(folder: pathlib.Path, scratch: pathlib.Path, package: str) -> None:
    """Adds ``index.html`` and ``ort/`` to a folder with ``model.onnx``.

    Args:
        folder: gets them.
        scratch: a folder for files on the way.
        package: folder of the unpacked npm package; ``""`` fetches it with npm.

    Raises:
        UserError: the folder holds no such package or another version, or npm cannot fetch it.
    """
    root = pathlib.Path(package) if package else _fetched(scratch)
    _check_version(root)
    (folder / "ort").mkdir()
    for name in FILES:
        shutil.copyfile(root / "dist" / name, folder / "ort" / name)
    shutil.copyfile(PAGE, folder / "index.html")


def _fetched(scratch: pathlib.Path) -> pathlib.Path:
    """The package as npm gives it."""
    remedy = f"unpack the npm package {PACKAGE} {VERSION} yourself and name its folder with --web_runtime"
    command = ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=600, check=False)
    except FileNotFoundError as error:
        raise UserError(f"--to=web fetches {PACKAGE} with npm, which is not installed; {remedy}") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"npm did not answer within ten minutes; {remedy}") from error
    found = list(scratch.glob(f"{PACKAGE}-*.tgz"))
    if done.returncode or not found:
        said = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise UserError(f"npm could not fetch {PACKAGE} ({said}); {remedy}")
    root = scratch / "package"
    (root / "dist").mkdir(parents=True)
    with tarfile.open(found[0]) as archive:
        for name in ("package.json", *(f"dist/{name}" for name in FILES)):
            member = archive.extractfile(f"package/{name}")
            assert member is not None  # It is a file.
            (root / name).write_bytes(member.read())
    return root


def _check_version(root: pathlib.Path) -> None:
    try:
        facts = json.loads((root / "package.json").read_text())
        found = (facts.get("name"), facts.get("version"))
    except (OSError, ValueError) as error:
        raise UserError(f"{root} is no unpacked npm package: it has no package.json") from error
    if found != (PACKAGE, VERSION):
        raise UserError(f"{root} is {found[0]} {found[1]}, and {PACKAGE} {VERSION} is needed")
    if missing := [name for name in FILES if not (root / "dist" / name).exists()]:
        raise UserError(f"{root}/dist has no {missing[0]}; unpack the whole npm package {PACKAGE} {VERSION}")
