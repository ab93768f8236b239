#!/usr/bin/env python3
"""Rolls a pool under load, and measures what passing a call on to another router costs. Writes rows for BENCHMARKS.md.

usage: .venv/bin/python scripts/measure/rolling.py [SECONDS]

Two groups of two ranks, two routers, etcd, all on this machine, with a small model of random weights. SECONDS (60) of load, once
undisturbed, once while both groups' workers and both routers are replaced, again and again.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import stubs

stubs.generate()

from client import Client, at_bytes, connect
from cluster import Cluster, Load
from etcd import Etcd
from pool import until

GROUPS = ["g0", "g1"]
CALLS = 300


def roll(cluster: Cluster) -> list[str]:
    """Replaces everything, and says how long each part took."""
    took = []
    for group in GROUPS:
        begun = time.monotonic()
        cluster.ctl("drain", group, "--for-restart", "--timeout", "5s")
        for worker in cluster.workers[group]:
            worker.stop()
        for worker in cluster.workers[group]:
            worker.start()
        until("the group serves", lambda: cluster.states() == dict.fromkeys(GROUPS, "serving"), 60.0)
        until("the group is open", lambda: " no " not in cluster.ctl("pool"), 10.0)
        took.append(f"{group} {time.monotonic() - begun:.1f} s")
    for number, (router, address) in enumerate(zip(cluster.routers, cluster.addresses, strict=True)):
        begun = time.monotonic()
        router.restart()
        cluster.ctl("health", "--wait", "30s", at=address)
        until("all groups serve", lambda: cluster.states(address) == dict.fromkeys(GROUPS, "serving"), 30.0)
        took.append(f"router {number} {time.monotonic() - begun:.1f} s")
    return took


def row(name: str, report: dict, what: str) -> None:
    def of(metric: str, quantile: str) -> str:
        return f"{report['latencies'][metric][quantile]:.1f}"

    edits, completions = report["edits"], report["completions"]
    print(
        f"| {name} | {edits['acknowledged']} of {edits['sent']} | {of('edit_acknowledged', 'p50')} / {of('edit_acknowledged', 'p99')} | "
        f"{of('edit_to_first_token', 'p50')} / {of('edit_to_first_token', 'p99')} | {completions['failed']} | "
        f"{sum(error['count'] for error in report['errors'].values())} | {report['repeats']} | "
        f"{report['compared']['equal']} equal, {len(report['compared']['different'])} not | {what} |"
    )


def forwarding(cluster: Cluster) -> None:
    """Edits of one document through its owner, and through the other router, in turns."""
    with connect(cluster.addresses[0]) as first, connect(cluster.addresses[1]) as second:
        clients, times = [Client(first), Client(second)], ([], [])
        opened = clients[0].open("fn main() {}\n" * 100, session="forwarding")
        revision = opened.revision
        for number in range(2 * CALLS):
            client = clients[number % 2]
            begun = time.perf_counter()
            revision = client.edit("forwarding", revision, at_bytes(0, 0, "x")).revision
            times[number % 2].append(time.perf_counter() - begun)
        group = clients[0].get("forwarding").session.group
        owner = next(about.owner for about in clients[0].describe().groups if about.group == group)
        own = next(number for number in (0, 1) if owner.endswith(cluster.peer(number)))
        direct, passed_on = (statistics.median(times[number]) * 1e3 for number in (own, 1 - own))
        print(f"An edit's acknowledgement, median of {CALLS}: {direct:.2f} ms at the owner, {passed_on:.2f} ms through another router.")
        clients[0].close("forwarding")


def main() -> None:
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    with tempfile.TemporaryDirectory(prefix="pie-rolling-") as folder:
        folder = Path(folder)
        etcd = Etcd(folder)
        cluster = Cluster(folder / "cache", folder, etcd.url, GROUPS, world_size=2)
        try:
            flags = ["--sessions", "8", "--duration", f"{seconds}s", "--warmup", "2s", "--document-size", "4KiB"]
            print("| pool | edits acknowledged | ack p50 / p99, ms | edit to first token p50 / p99, ms | completions failed | errors | calls repeated | documents | |")
            print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
            row("undisturbed", Load(cluster, folder / "a.json", *flags).finish(600.0), "")
            load = Load(cluster, folder / "b.json", *flags)
            time.sleep(5.0)
            rounds, begun = 0, time.monotonic()
            while time.monotonic() - begun < 0.7 * float(seconds):
                took = roll(cluster)
                rounds += 1
            load.expect_running("before all was replaced: give more SECONDS")
            row("rolled", load.finish(600.0), f"{rounds} times; the last time: {', '.join(took)}")
            print()
            forwarding(cluster)
        finally:
            cluster.end()
            etcd.end()


if __name__ == "__main__":
    main()
