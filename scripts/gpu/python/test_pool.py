"""Whole pools whose ranks compute on GPUs: they say what a pool on the CPU says, and end as it ends."""

import signal
import time
from contextlib import contextmanager

import grpc
import pytest
from client import Client, at_bytes, connect, refusal
from pool import Pool, until

TEXT = "def greet(name):\n    return f'Hello, {name}!'\n\n\n" * 12
# All meet over NCCL, a GPU for each; over TCP, two and eight ranks on one; one rank over NCCL.
WAYS = {
    "two GPUs, NCCL": (2, "--device", "cuda"),
    "one GPU, TCP": (2, "--device", "cuda:0"),
    "eight ranks on one GPU": (8, "--device", "cuda:0"),
    "one rank, NCCL": (1, "--device", "cuda:0", "--collectives", "nccl"),
}


@contextmanager
def running(cache, world_size, *flags):
    # Repairs come when there is time for them, and answers that are compared must not depend on that.
    pool = Pool(cache, "--kv-memory", "16MiB", "--repair", "with-edits", *flags, world_size=world_size)
    try:
        with connect(pool.address) as channel:
            yield pool, Client(channel)
        if pool.process.poll() is None:
            pool.stop()
    finally:
        pool.end()


def said(client) -> list[list[int]]:
    """Tokens behind a document that is opened, edited at three places and in part deleted."""
    session = client.open(TEXT).session
    answers = [client.complete(session, max_tokens=6).ids]
    places = [at_bytes(at, at + 5, "welcome") for at in (4, 300, 500)]
    client.edit(session, None, *places)
    answers.append(client.complete(session, max_tokens=6).ids)
    client.edit(session, None, at_bytes(20, 120, ""))
    answers.append(client.complete(session, max_tokens=6).ids)
    answers.append(client.complete(session, at_byte=100, max_tokens=3, temperature=0.7, seed=5).ids)
    client.close(session)
    return answers


@pytest.fixture(scope="module")
def on_cpu(cache):
    with running(cache, 1) as (_, client):
        return said(client)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_pool_on_gpus_says_what_one_on_the_cpu_says(cache, on_cpu, way):
    world_size, *flags = way
    with running(cache, world_size, *flags, "--dtype", "f32") as (_, client):
        assert all(rank.device.startswith("cuda:") for group in client.describe().groups for rank in group.ranks)
        assert said(client) == on_cpu


def test_a_rank_that_is_killed_in_a_sum_over_nccl_is_named_and_ends_the_pool(cache):
    with running(cache, 2, "--device", "cuda", "--dtype", "bf16") as (pool, client):
        stream = client.stream(client.open(TEXT).session, max_tokens=4000)
        for _ in range(2):
            next(stream)
        pool.kill_worker(1, signal.SIGKILL)
        broken = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            list(stream)
        took = time.monotonic() - broken
        assert "rank 1" in refusal(error.value).message
        assert took < 5.0, f"the client heard of it after {took:.1f} s"
        assert pool.wait(10.0) != 0
        until("no worker is left", lambda: pool.workers_running() == [])


def test_what_a_gpu_cannot_do_is_said_at_the_start(cache):
    for flags, words in {
        ("--device", "cuda:99"): "there is no GPU 99",
        ("--device", "cuda:0", "--kv-memory", "100000GiB"): "lower --kv-memory",
        ("--dtype", "bf16"): "--dtype",
        ("--device", "cuda:0", "--kv-dtype", "bf16"): "--kv-dtype is for CPUs",
    }.items():
        with pytest.raises(AssertionError, match=words):
            Pool(cache, *flags, world_size=1)
