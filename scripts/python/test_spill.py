"""`--kv-spill`: rows of a document that nobody uses go to disk; a pool that is started again, after SIGKILL, reads them instead of encoding the document."""

import os
import shutil
import signal

import pytest
from client import Client, at_bytes, connect
from pool import Pool, is_running, until
from stubs import ROOT

BLOCK = 256
TEXT = "".join(f"fn number_{line}() -> u32 {{\n    {line} * {line}\n}}\n" for line in range(40))
# A document that was left alone for ten seconds is written, a block each 0.1 s.
WRITTEN = 40.0


@pytest.fixture
def start(cache, tmp_path):
    """Starts pools, one after the other, that have a folder in common; the one before is killed as by a power cut."""
    running: list[Pool] = []

    def kill() -> None:
        for pool in running:
            for pid in filter(is_running, [pool.pid, *pool.workers.values()]):
                os.kill(pid, signal.SIGKILL)
            pool.end()
        running.clear()

    def start(*flags: str, world_size: int = 2) -> tuple[Pool, Client]:
        kill()
        pool = Pool(cache, "--kv-spill", str(tmp_path / "rows"), *flags, world_size=world_size)
        running.append(pool)
        return pool, Client(connect(pool.address))

    yield start
    kill()


def files(tmp_path) -> list:
    return sorted((tmp_path / "rows").rglob("*.rows"))


def answer(client: Client) -> str:
    return client.complete("s", max_tokens=12).text


def reloaded(client: Client) -> int:
    return client.describe().groups[0].counters.tokens_reloaded


def test_a_pool_that_is_started_again_reads_what_it_had(start, tmp_path):
    pool, client = start()
    tokens = client.open(TEXT, session="s").tokens
    blocks = (tokens - 1) // BLOCK
    assert blocks >= 3
    before = answer(client)
    until("all of it is on disk", lambda: len(files(tmp_path)) == 2 * blocks, WRITTEN)
    assert {file.stat().st_mode & 0o77 for file in [tmp_path / "rows", *(tmp_path / "rows").rglob("*")]} == {0}, "for its owner alone"

    # Killed, and started again.
    pool, client = start()
    client.open(TEXT, session="s")
    assert answer(client) == before
    counters = client.describe().groups[0].counters
    assert (counters.tokens_reloaded, counters.tokens_encoded) == (blocks * BLOCK, tokens - blocks * BLOCK)
    # What is typed then is an edit like any other.
    client.edit("s", None, at_bytes(700, 700, "// typed\n"))
    typed = answer(client)

    # Nor is another tenant's text looked for there, nor another model's.
    other = Client(connect(pool.address), tenant="somebody-else")
    other.open(TEXT, session="s")
    assert answer(other) == before
    assert reloaded(other) == blocks * BLOCK, "no more than before"
    for flags, world_size in [(("--model", str(ROOT / "models/pie-coder")), 2), ((), 1)]:
        pool, client = start(*flags, world_size=world_size)
        client.open(TEXT, session="s")
        answer(client)
        assert reloaded(client) == 0, f"{flags} with {world_size} ranks"

    # A file of one rank is torn: both encode that block and what stands behind it.
    torn = files(tmp_path)[: blocks]
    for file in torn:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 16
        file.write_bytes(content)
    pool, client = start()
    client.open(TEXT, session="s")
    assert answer(client) == before
    assert reloaded(client) == 0
    client.edit("s", None, at_bytes(700, 700, "// typed\n"))
    assert answer(client) == typed
    assert "are not what they should be" in pool.output()


def test_what_is_on_disk_is_bounded_and_what_cannot_be_written_is_left(start, tmp_path, cache):
    pool, client = start("--kv-spill-size", "12MiB", world_size=1)
    client.open(TEXT, session="s")
    before = answer(client)
    until("something is written", lambda: files(tmp_path), WRITTEN)
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 12 << 20
    # The folder goes, and a file stands in its place.
    shutil.rmtree(tmp_path / "rows")
    (tmp_path / "rows").write_text("no folder")
    client.edit("s", None, at_bytes(0, 0, "// typed\n"))
    assert answer(client) != ""
    until("it is said", lambda: "cannot be written to --kv-spill" in pool.output(), WRITTEN)
    assert answer(client) != before, "and serves on"
    for folder, size, why in [("rows", "8GiB", "name a folder that this process may write to"), ("other", "1MiB", "are too few")]:
        with pytest.raises(AssertionError, match=why):
            Pool(cache, "--kv-spill", str(tmp_path / folder), "--kv-spill-size", size, world_size=1)
