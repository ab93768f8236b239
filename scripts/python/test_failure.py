"""Ranks that die and ranks that hang: clients hear of it at once, by rank, and nothing is left behind."""

import os
import signal
import time

import grpc
import pytest
from client import Client, connect, refusal
from pool import until

# A dead rank and a hanging one, while a completion streams: (rank, signal).
BREAKS = {"killed": (3, signal.SIGKILL), "stopped": (5, signal.SIGSTOP)}
# A stream waits for the group to come back, as long as the pool does: that ends at once when a rank is dead, and three collective
# deadlines after one hangs.
TOLD_WITHIN = {"killed": 5.0, "stopped": 12.0}
ENDS_WITHIN = 10.0


def assert_it_ends(pool, rank: int) -> None:
    code = pool.wait(ENDS_WITHIN)
    assert code not in (0, None), f"exit code {code}"
    assert f"rank {rank}" in pool.output(), pool.output()
    until("no worker is left", lambda: pool.workers_running() == [])


@pytest.mark.parametrize("name", BREAKS)
def test_a_lost_rank_is_named_to_the_client_and_ends_the_pool(start_pool, name):
    rank, how = BREAKS[name]
    pool = start_pool("--collective-deadline", "2s")
    with connect(pool.address) as channel:
        client = Client(channel)
        session = client.open("fn main() {\n    ").session
        stream = client.stream(session, max_tokens=4000)
        for _ in range(3):
            next(stream)
        pool.kill_worker(rank, how)
        broken = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            list(stream)
        took = time.monotonic() - broken
    found = refusal(error.value)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "GROUP_LOST"), found
    assert f"rank {rank}" in found.message, found.message
    assert took < TOLD_WITHIN[name], f"the client heard of it after {took:.1f} s"
    assert_it_ends(pool, rank)


def test_a_rank_that_dies_in_an_idle_pool_ends_it(start_pool):
    pool = start_pool()
    pool.kill_worker(7, signal.SIGKILL)
    assert_it_ends(pool, 7)


def test_workers_do_not_outlive_a_pool_that_is_killed(start_pool):
    pool = start_pool()
    os.kill(pool.pid, signal.SIGKILL)
    pool.wait(5.0)
    until("no worker is left", lambda: pool.workers_running() == [])
