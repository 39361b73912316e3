"""Every resolved config is what the golden file says: each file by benchmark and by argument.

Where a change is meant, record again: ``python tests/safety/record_configs.py tests/golden/configs.json.gz``.
"""

import json

import pytest

from tests.helpers.places import ROOT
from tests.safety import compare_configs, record_configs

GOLDEN = ROOT / "tests" / "golden" / "configs.json.gz"


@pytest.fixture(scope="module")
def golden():
    return compare_configs.read(str(GOLDEN))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs that other configs start from."""
    folder = str(tmp_path_factory.mktemp("runs"))
    record_configs.make_runs(folder)
    return folder


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_config_is_recorded(golden):
    names = {path.name for path in (ROOT / "configs").glob("[!_]*.py")}
    assert names == set(record_configs.CONFIGS) == {config.partition(":")[0] for config in golden}


def ordered(values):
    """As it is read from a file; dictionaries inside of tuples too have their keys in order there."""
    return json.loads(json.dumps(values, sort_keys=True))


@pytest.mark.parametrize("file", record_configs.CONFIGS)
def test_resolved_configs_are_as_recorded(file, golden, runs):
    """The words of a mistake may change; that it is one may not."""
    wanted = {config: values for config, values in golden.items() if config.startswith(f"{file}:")}
    found = {config: ordered(record_configs.recorded(config, runs)) for config in record_configs.combinations(file)}
    assert found.keys() == wanted.keys()
    lines = []
    for config, values in found.items():
        if differing := compare_configs.differences(wanted[config], values, ignore_mistakes=True):
            lines += [config, *(f"    {line}" for line in differing)]
    assert not lines, "\n" + "\n".join(lines[:40])
