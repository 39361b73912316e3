"""docs/real_data.md has a section for every published data set, and what it says of files is what the builders read."""

import re

import pytest

from nightjax.data.datasets import builder_class
from tests.helpers.places import ROOT
from tfds_builders import BUILDERS

PAGE = (ROOT / "docs" / "real_data.md").read_text()
NAMED = re.findall(r"--data=(\w+)/(\w+)|open_source\('(\w+)/(\w+)', '(\w+)'", PAGE)
PUBLISHED = sorted(set(BUILDERS) - {"nightstreet"})


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_data_set_can_be_fetched_checked_and_prepared(name):
    layout, configs = builder_class(name).LAYOUT, {item.name for item in builder_class(name).BUILDER_CONFIGS}
    assert layout.page in PAGE
    checked = {config for dataset, config, *_ in NAMED if dataset == name}
    prepared = {config for _, _, dataset, config, _ in NAMED if dataset == name}
    assert checked and prepared and checked | prepared <= configs
    assert f"../tfds_builders/{name}/README.md" in PAGE
    shown = [archive for archive in layout.archives if f"`{archive}`" in PAGE]
    assert shown or name == "synthia"  # It comes as a rar.


def test_the_page_makes_the_upload_of_every_server():
    from nightjax.inference.submission import PACKAGES

    for benchmark in PACKAGES:
        assert f"nightjax submit --benchmark={benchmark} --workdir=" in PAGE
        assert f"nightjax submit --benchmark={benchmark} --check=" in PAGE
