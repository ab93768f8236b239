"""Completions survive: a worker, or the router that owns the group, goes away in the middle of streams and comes back, and whoever reads
them sees a pause. What they say is what streams say that nobody broke."""

import signal
import threading
import time
import urllib.request

import grpc
import pytest
from client import Client, Completion, connect
from cluster import Cluster
from etcd import Etcd, free_port
from pie.v1 import pie_pb2 as pb
from pool import until

TEXT = "fn main() {\n    let answer = 42;\n    println!(\"größe 🙂 {answer}\");\n}\n\n" * 3
# So many that each stream runs for seconds: it is broken early in them.
TOKENS = 250
BROKEN_AFTER = 40
# Answers are compared: nothing may be encoded again at one time and not at another.
CALM = ("--repair", "with-edits")

# The seeded model is nearly sure of nothing: where it is as warm as people have it, thousands of tokens are as likely as each other, and which of
# two a draw falls on is soon a matter of the last digits, which what else is in a pass changes. So it is nearly cold.
COLD = 0.05
CASES = {
    "greedy": dict(top_logprobs=2),
    "seeded": dict(temperature=COLD, seed=7),
    "at a cursor": dict(at_byte=30, temperature=COLD, seed=3),
    # Its markers are put into rows that are there in one case, and encoded with them in the other.
    "filling": dict(at_byte=40, mode=pb.COMPLETION_MODE_FILL_IN_THE_MIDDLE, temperature=COLD, seed=11, exact=True),
}


@pytest.fixture
def etcd(tmp_path):
    server = Etcd(tmp_path)
    yield server
    server.end()


class Reader(threading.Thread):
    """Reads a stream beside others, as they come."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream, self.messages, self.pauses, self.error = stream, [], [], None
        self.start()

    def run(self) -> None:
        latest = time.monotonic()
        try:
            for message in self.stream:
                now = time.monotonic()
                self.messages.append(message)
                self.pauses.append(now - latest)
                latest = now
        except grpc.RpcError as error:
            self.error = error

    def tokens(self) -> int:
        return sum(len(message.tokens) for message in self.messages)

    def whole(self, deadline: float = 90.0) -> Completion:
        self.join(deadline)
        assert not self.is_alive(), "the stream does not end"
        assert self.error is None, self.error
        return Completion.read(self.messages)


def ask(client: Client, case: str):
    """Each in a session of its own, of the same text: all run at a time."""
    return client.stream(case, timeout=120.0, max_tokens=TOKENS, **CASES[case])


def broken_by(client: Client, breaks) -> list[Reader]:
    readers = [Reader(ask(client, case)) for case in CASES]
    until("all streams run", lambda: all(reader.tokens() >= BROKEN_AFTER for reader in readers), 60.0)
    assert all(reader.tokens() < TOKENS - BROKEN_AFTER for reader in readers), "too late to break them"
    breaks()
    return readers


def assert_said(whole: list[Completion], readers: list[Reader]) -> None:
    for case, unbroken, reader in zip(CASES, whole, readers):
        again = reader.whole()
        assert again.ids == unbroken.ids, f"{case}: other tokens"
        assert (again.text, again.finish) == (unbroken.text, unbroken.finish), case
        # What else is in a pass shows in the last digits.
        for one, other in zip(again.tokens, unbroken.tokens):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3), case
            assert [top.logprob for top in one.top] == pytest.approx([top.logprob for top in other.top], abs=1e-3), case


def resumed(metrics: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    lines = opener.open(f"http://{metrics}/metrics", timeout=5).read().decode().splitlines()
    return int(next(line for line in lines if line.startswith("pie_completions_resumed_total")).split()[-1])


def test_streams_go_on_when_a_worker_is_killed_and_started_again(cache, etcd, tmp_path):
    metrics = f"127.0.0.1:{free_port()}"
    flags = (*CALM, "--metrics-listen", metrics)
    cluster = Cluster(cache, tmp_path, etcd.url, ["g0"], routers=1, world_size=2, router_flags=flags)
    try:
        with connect(cluster.addresses[0]) as channel:
            client = Client(channel)
            for case in CASES:
                client.open(TEXT, session=case)
            whole = [reader.whole() for reader in [Reader(ask(client, case)) for case in CASES]]
            assert [unbroken.finish for unbroken in whole].count(pb.FINISH_REASON_LENGTH) >= 2, "long enough to be broken"

            def kill() -> None:
                worker = cluster.workers["g0"][1]
                worker.end()
                worker.start()

            readers = broken_by(client, kill)
            assert_said(whole, readers)
            print("longest pauses:", [round(max(reader.pauses), 2) for reader in readers])
            assert resumed(metrics) >= len(CASES)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cluster.output()}") from error
    finally:
        cluster.end()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_streams_go_on_when_another_router_takes_the_group_over(cache, etcd, tmp_path, how):
    """The owner is stopped as a platform does it, or as a machine fails; the client has called the other router."""
    flags = (*CALM, "--drain-grace", "1s")
    cluster = Cluster(cache, tmp_path, etcd.url, ["g0"], routers=2, router_flags=flags)
    try:
        owner = etcd.keys("/pie/groups/g0/owner")["/pie/groups/g0/owner"]
        number = next(number for number in range(2) if cluster.peer(number) in str(owner))
        with connect(cluster.addresses[1 - number]) as channel:
            client = Client(channel)
            for case in CASES:
                client.open(TEXT, session=case)
            whole = [reader.whole() for reader in [Reader(ask(client, case)) for case in CASES]]
            readers = broken_by(client, lambda: cluster.routers[number].process.send_signal(how))
            assert_said(whole, readers)
            print("longest pauses:", [round(max(reader.pauses), 2) for reader in readers])
            assert cluster.routers[number].process.wait(30) == (0 if how == signal.SIGTERM else -how)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cluster.output()}") from error
    finally:
        cluster.end()
