"""Every source file names the license, as CONTRIBUTING.md says."""

from tests.helpers.places import ROOT

SPDX = "SPDX-License-Identifier: Apache-2.0"
KINDS = {".py", ".pyi", ".sh", ".js", ".css"}
FOLDERS = ("nightjax", "configs", "tfds_builders", "scripts", "docs/site", "typings")


def test_every_source_file_has_its_spdx_line():
    files = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.suffix in KINDS]
    files += [ROOT / "setup.py", ROOT / ".ci" / "run"]
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in files}
    assert len(texts) > 300
    lacking = [str(path) for path, text in texts.items() if text and SPDX not in "\n".join(text.splitlines()[:2])]
    assert not lacking, f"begin with the line '# {SPDX}': {', '.join(sorted(lacking))}"
