"""One pool for most tests, a client of its own for each."""

import pytest
import stubs

stubs.generate()

import client as client_module  # noqa: E402  (it needs the generated code)
import pool as pool_module  # noqa: E402

# Small enough that limits can be reached in a test: documents of 64 KiB, and KV rows for some thousand tokens.
LIMITS = ["--document-limit", "64KiB", "--kv-memory", "8MiB"]
# Otherwise what a call costs depends on how long nobody wanted anything before it.
CALM = ["--repair", "with-edits"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where the seeded model is made: once, by the first pool."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def pool(cache):
    with pool_module.serving(cache, *LIMITS, *CALM) as running:
        yield running


@pytest.fixture(scope="session")
def channel(pool):
    with client_module.connect(pool.address) as channel:
        yield channel


@pytest.fixture
def client(channel):
    """Leaves no session behind."""
    client = client_module.Client(channel)
    yield client
    client.close_all()


@pytest.fixture
def start_pool(cache):
    """Starts pools that a test may break."""
    started = []

    def start(*flags, world_size=pool_module.WORLD_SIZE, **options):
        started.append(pool_module.Pool(cache, *flags, world_size=world_size, **options))
        return started[-1]

    yield start
    for running in started:
        running.end()
