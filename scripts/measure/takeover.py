#!/usr/bin/env python3
"""What it costs that nothing is lost: acknowledgements with and without the ranks, and takeovers by what a group holds. Writes rows for
BENCHMARKS.md.

usage: .venv/bin/python scripts/measure/takeover.py [--edits 2000] [--documents 1,100,1000] [--rounds 3]

Two routers, a group of two ranks with the model that ships, one etcd. Acknowledgements: one person types letters into a document of 500
lines, in turns at a pool with `--ack replicated` and one with `--ack owner`, which run side by side. Takeovers: documents of about 4,000
tokens are opened and completed, the owner is killed with SIGKILL, and the other router is asked for a document and then for a
completion, without a pause, until it answers.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
import grpc  # noqa: E402
from client import Client, at_bytes, connect  # noqa: E402
from cluster import Cluster  # noqa: E402
from etcd import Etcd  # noqa: E402
from pool import until  # noqa: E402

LINE = "    let value_{number} = compute(value, {number}) + 1;\n"
BATCH = 100


def document(lines: int, first: int = 0) -> str:
    return "".join(LINE.format(number=first + number) for number in range(lines))


def owner_of(cluster: Cluster, etcd: Etcd) -> int:
    address = etcd.keys("/pie/groups/g0/owner")["/pie/groups/g0/owner"]["address"]
    return next(number for number in range(len(cluster.routers)) if address.endswith(cluster.peer(number)))


class World:
    def __init__(self, folder: Path, *flags: str):
        folder.mkdir()
        self.etcd = Etcd(folder)
        router = ("--repair", "with-edits", *flags)
        self.cluster = Cluster(folder.parent / "cache", folder, self.etcd.url, ["g0"], world_size=2, router_flags=router)
        self.owner = owner_of(self.cluster, self.etcd)

    def end(self) -> None:
        self.cluster.end()
        self.etcd.end()


def acknowledgements(folder: Path, edits: int) -> None:
    worlds = {ack: World(folder / ack, "--ack", ack) for ack in ("replicated", "owner")}
    clients = {ack: Client(connect(world.cluster.addresses[world.owner])) for ack, world in worlds.items()}
    times: dict[str, list[float]] = {ack: [] for ack in worlds}
    for client in clients.values():
        client.open(document(300), session="s")
    for first in range(0, edits, BATCH):
        for ack, client in clients.items():
            for number in range(first, min(first + BATCH, edits)):
                began = time.perf_counter()
                client.edit("s", None, at_bytes(40 + number % 1000, 41 + number % 1000, "xyz"[number % 3]))
                times[ack].append(time.perf_counter() - began)
    for world in worlds.values():
        world.end()
    p50 = {ack: median(of) * 1e3 for ack, of in times.items()}
    p99 = {ack: sorted(of)[int(len(of) * 0.99)] * 1e3 for ack, of in times.items()}
    ratio = p50["replicated"] / p50["owner"]
    print("| edits | p50 with `owner` | p50 with `replicated` | ratio | p99 with `owner` | p99 with `replicated` |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| {edits} | {p50['owner']:.2f} ms | {p50['replicated']:.2f} ms | {ratio:.2f} | {p99['owner']:.2f} ms | {p99['replicated']:.2f} ms |")


def takeover(folder: Path, documents: int) -> tuple[float, float, int]:
    """Seconds to the first document, to the first token, and tokens that were encoded for that."""
    world = World(folder, "--sessions", "2000")
    try:
        with connect(world.cluster.addresses[world.owner]) as channel:
            client = Client(channel)
            for number in range(documents):
                client.open(document(220, number * 1000), session=f"s{number}")
            last = f"s{documents - 1}"
            tokens = client.complete(last, max_tokens=4).ids
        other = connect(world.cluster.addresses[1 - world.owner])
        world.cluster.routers[world.owner].end()
        began = time.perf_counter()
        client = Client(other)

        def answered(call):
            try:
                return call()
            except grpc.RpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
                return None

        until("the document is there", lambda: answered(lambda: client.get(last)), 60.0)
        there = time.perf_counter() - began
        completion = until("it is completed", lambda: answered(lambda: client.complete(last, max_tokens=4)), 60.0)
        assert completion.ids == tokens
        return there, time.perf_counter() - began, completion.timings.tokens_encoded
    finally:
        world.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=2000)
    parser.add_argument("--documents", default="1,100,1000")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pie-takeover-") as folder:
        acknowledgements(Path(folder), options.edits)
        print("\n| documents | first document | first completion | tokens encoded for it |\n| --- | --- | --- | --- |", flush=True)
        for documents in map(int, options.documents.split(",")):
            rounds = [takeover(Path(folder) / f"{documents}-{number}", documents) for number in range(options.rounds)]
            there, first, encoded = (median(of) for of in zip(*rounds, strict=True))
            print(f"| {documents} | {there:.1f} s | {first:.1f} s | {encoded} |", flush=True)


if __name__ == "__main__":
    main()
