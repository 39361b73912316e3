"""Data in object stores: what can be done there, and what the rest is told."""

import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from nightjax.core import cli
from nightjax.core.errors import UserError
from nightjax.data import preflight, sources
from nightjax.prepare import translated

NAME = "nightstreet/tiny"


class Bucket(MemoryFileSystem):
    """A store in memory that answers to gs://."""

    protocol = ("gs", "gcs")


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(type(backend.fsspec_backend), "fs", lambda self, path: Bucket())


def test_what_is_not_prepared_in_a_bucket_is_refused_before_a_run(bucket):
    sets = {"data.streams.source": "day", "eval.sets.night": "test_night"}
    wanted = {where: preflight.Wanted(NAME, split, ("image",)) for where, split in sets.items()}
    with pytest.raises(UserError, match="^data sets are made on a disk.* rsync --recursive FOLDER gs://bucket/data$"):
        preflight.look(wanted, data_dir="gs://bucket/data")
    with pytest.raises(UserError, match="this one is not in gs://bucket/data yet"):
        sources.open_source(NAME, "day", data_dir="gs://bucket/data")


def test_a_missing_package_is_no_damage(monkeypatch):
    def fail(self, path):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(type(backend.fsspec_backend), "fs", fail)
    with pytest.raises(ImportError) as caught:
        sources.open_source(NAME, "day", data_dir="gs://bucket/data")
    assert "pip install gcsfs" in (cli.explain(caught.value) or "")


@pytest.mark.parametrize("store", ["s3://bucket/data", "az://bucket/data"])
def test_records_of_other_stores_cannot_be_read(store, monkeypatch):
    with pytest.raises(UserError, match=f"{store}: records are read from a disk or from gs://"):
        sources.open_source(NAME, "day", data_dir=store)
    monkeypatch.setenv("TFDS_DATA_DIR", store)
    with pytest.raises(UserError, match=store):
        sources.class_set("translated/none")


def test_nothing_is_translated_into_a_bucket(tmp_path, monkeypatch):
    """A folder named "gs:" on this disk would be no better."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data sets are made on a disk"):
        translated.plan("dim", NAME, {}, {}, "night", "gs://bucket/data")
    assert not list(tmp_path.iterdir())
