"""The client and the pools of scripts/python, for pools on GPUs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))

import stubs  # noqa: E402

stubs.generate()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where the seeded model is made: once, by the first pool."""
    return tmp_path_factory.mktemp("cache")
