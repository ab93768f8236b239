"""A pool with an HTTP API for the tests of a file: what they leave open there is nobody else's matter."""

import client as client_module
import pool as pool_module
import pytest
from conftest import CALM, LIMITS


@pytest.fixture(scope="module")
def pool(cache):
    with pool_module.serving(cache, *LIMITS, *CALM, "--http", "127.0.0.1:0") as running:
        yield running


@pytest.fixture(scope="module")
def channel(pool):
    with client_module.connect(pool.address) as channel:
        yield channel
