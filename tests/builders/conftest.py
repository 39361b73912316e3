"""Fixtures of these tests."""

from tests.helpers.prepared import prepare, read  # noqa: F401
