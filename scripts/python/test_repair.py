"""What an edit leaves stale, and how it becomes exact: the model that ships, a document of about 1,500 tokens, an edit near its start."""

import json
import subprocess
import time

import pytest
from client import Client, at_bytes, connect
from pie.v1 import pie_pb2 as pb
from pool import Pool, binary, environment, until
from stubs import ROOT

# Lines that make about 1,500 tokens.
CODE = "".join((ROOT / "crates/pie/demo/engine.rs").read_text().splitlines(keepends=True)[:150])
INSERTED = "use std::collections::BTreeMap;\n"
AT = len(CODE.splitlines(keepends=True)[0].encode())
WINDOW = 16
# For machines that have much else to do.
PATIENCE = 120.0


def running(cache, *flags):
    pool = Pool(cache, "--model", str(ROOT / "models/pie-coder"), *flags, world_size=2)
    try:
        yield pool
        pool.stop()
    finally:
        pool.end()


@pytest.fixture(scope="module")
def asked(cache):
    """Repairs what it is asked to repair."""
    yield from running(cache, "--repair", "with-edits", "--repair-window", str(WINDOW))


@pytest.fixture(scope="module")
def healing(cache):
    """Repairs whatever it can, as pools do if nobody says otherwise."""
    yield from running(cache)


@pytest.fixture
def clients():
    """A client of a pool, and one who shares nothing with it; they leave nothing behind."""
    channels, made = [], []

    def of(pool: Pool) -> tuple[Client, Client]:
        channels.append(connect(pool.address))
        pair = (Client(channels[-1]), Client(channels[-1], tenant="another"))
        made.extend(pair)
        return pair

    yield of
    for client in made:
        client.close_all()
    for channel in channels:
        channel.close()


def opened(client: Client) -> str:
    """A document whose cache is there whole."""
    session = client.open(CODE).session
    client.complete(session, timeout=PATIENCE, max_tokens=1)
    state = client.get(session, content=False).session
    assert 1300 < state.tokens < 1800 and (state.tokens_stale, state.tokens_repaired) == (0, 0), state
    return session


def edit(client: Client, session: str, strategy: int = pb.STRATEGY_PIE) -> int:
    return client.edit(session, None, at_bytes(AT, AT, INSERTED), strategy=strategy).tokens


def greedy(client: Client, session: str) -> list[int]:
    return client.complete(session, timeout=PATIENCE, max_tokens=24).ids


def fresh(client: Client, text: str) -> list[int]:
    return greedy(client, client.open(text).session)


# Strategy, whether the answer shall be exact; at least and at most so many tokens are stale, and repaired.
ALL = (1000, 1800)
NONE = (0, 0)
EDITS = {
    "pie": (pb.STRATEGY_PIE, False, ALL, NONE),
    "repair": (pb.STRATEGY_REPAIR, False, ALL, (1, WINDOW)),
    "conflict": (pb.STRATEGY_CONFLICT, False, ALL, NONE),
    "full": (pb.STRATEGY_FULL, False, NONE, NONE),
    "exact": (pb.STRATEGY_PIE, True, NONE, ALL),
    "exact after conflict": (pb.STRATEGY_CONFLICT, True, NONE, ALL),
}


@pytest.mark.parametrize("strategy, exact, stale, repaired", EDITS.values(), ids=EDITS)
def test_a_completion_says_what_was_stale_and_what_was_repaired(asked, clients, strategy, exact, stale, repaired):
    client, another = clients(asked)
    session = opened(client)
    tokens = edit(client, session, strategy)
    first = client.complete(session, timeout=PATIENCE, max_tokens=24, exact=exact)
    assert stale[0] <= first.timings.tokens_stale <= stale[1], first.timings
    assert repaired[0] <= first.timings.tokens_repaired <= repaired[1], first.timings
    state = client.get(session)
    assert state.session.tokens_stale == first.timings.tokens_stale and state.session.tokens_repaired == first.timings.tokens_repaired
    assert (state.session.tokens_exact >= tokens - 1) == (stale == NONE), state.session
    if exact or strategy == pb.STRATEGY_FULL:
        assert first.ids == fresh(another, state.text), "at once, as if the document had been opened anew"


@pytest.mark.parametrize("strategy", [pb.STRATEGY_PIE, pb.STRATEGY_REPAIR])
def test_a_pool_that_nobody_asks_makes_its_documents_exact(healing, clients, strategy):
    client, another = clients(healing)
    session = opened(client)
    edit(client, session, strategy)
    assert client.complete(session, max_tokens=1).timings.tokens_stale > 0, "nobody waits for all of it"

    def state():
        return client.get(session, content=False).session

    def exact() -> bool:
        return state().tokens_stale == 0 and state().tokens_exact == state().tokens

    # What a plan in flight repairs counts already, and may yet be given up: who comes next would do that.
    until("nothing is stale, and stays so", lambda: exact() and time.sleep(0.5) is None and exact(), deadline=PATIENCE)
    assert state().tokens_repaired > 1000
    assert greedy(client, session) == fresh(another, client.get(session).text)
    group = client.describe().groups[0]
    assert group.tokens_stale == 0 and group.counters.tokens_repaired >= state().tokens_repaired


def test_a_shell_sees_it(asked, cache, tmp_path):
    def ctl(*arguments: str) -> dict:
        command = [str(binary()), "ctl", "--pool", asked.address, *arguments, "--json"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment(cache), check=False)
        assert run.returncode == 0, run.stderr
        return [json.loads(line) for line in run.stdout.splitlines()][-1]

    file = tmp_path / "engine.rs"
    file.write_text(CODE)
    session = ctl("open", str(file), "--strategy", "repair")["session"]
    ctl("complete", session, "--tokens", "1")
    ctl("edit", session, f"{AT}..{AT}", INSERTED)
    timings = ctl("complete", session, "--tokens", "1")["timings"]
    assert 0 < timings["tokens_repaired"] <= WINDOW and timings["tokens_stale"] > 1000
    shown = ctl("show", session)
    assert shown["tokens_stale"] == timings["tokens_stale"] and shown["tokens_exact"] < shown["tokens"]
    timings = ctl("complete", session, "--tokens", "1", "--exact")["timings"]
    assert timings["tokens_stale"] == 0 and ctl("show", session)["tokens_stale"] == 0
    ctl("close", session)
