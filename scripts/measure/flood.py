#!/usr/bin/env python3
"""What one tenant's flood costs another: a flood of edits, and edits of 8 MiB that no context can hold. Writes rows for BENCHMARKS.md.

usage: .venv/bin/python scripts/measure/flood.py [--rate 5000] [--seconds 10] [--rounds 3]

A pool of one rank with the model that ships. One person types into a document: the time is taken from each edit to the first token
behind it. In turns nobody else is there, another tenant sends edits without end (`pie load`, keys in 64 documents and no questions),
and another tenant sends 8 MiB in one edit, again and again. What the attacker's own process needs, it takes from what nobody wants
(`nice`): the pool is measured, not how two processes share two processors.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from client import Client, at_bytes, connect, refused  # noqa: E402
from pie.v1 import pie_pb2 as pb  # noqa: E402
from pool import Pool, binary, environment  # noqa: E402

TEXT = "fn main() {\n    let answer = 42;\n}\n" * 20
LARGE = "let answer = compute(x, y) + 1;\n" * ((8 << 20) // 32)
# Documents that are flooded, and characters that are typed into each: more than a run has time for.
DOCUMENTS, KEYS = 64, 20_000
LIMITS = ["--tenant-requests", "8", "--kv-memory", "256MiB", "--step-tokens", "16", "--threads", "1"]


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(int(len(times) * share), len(times) - 1)]


class Typist:
    """Types into one document, and takes the time from each edit to the first token behind it."""

    def __init__(self, client: Client):
        self.client, self.choose, self.length = client, random.Random(13), len(TEXT)
        self.revision = client.open(TEXT, session="typed into").revision

    def type(self, seconds: float) -> list[float]:
        times, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            at = self.choose.randrange(self.length)
            began = time.monotonic()
            # A letter comes, a letter goes: the document stays as long as it is.
            edit = at_bytes(at, at + 1, self.choose.choice("xyz"))
            self.revision = self.client.edit("typed into", self.revision, edit).revision
            stream = self.client.stream("typed into", max_tokens=2)
            next(stream)
            times.append(time.monotonic() - began)
            list(stream)
            time.sleep(0.02)
        return times


def flood_script(path: Path) -> None:
    """Keys without end, in one document: each session plays it."""
    typed = ("let x = y + 1;\n" * (KEYS // 15 + 1))[:KEYS]
    lines = [{"pie_load_script": 1}]
    for number in range(DOCUMENTS):
        document = f"flooded {number}"
        lines += [{"doc": document, "open": {"text": "fn f() {\n}\n"}}, {"doc": document, "type": {"text": typed, "key_ms": 50}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def flood(pool: Pool, cache: Path, script: Path, rate: float, seconds: float) -> subprocess.Popen:
    command = [str(binary()), "load", "--pool", f"http://{pool.address}", "--script", str(script), "--sessions", str(DOCUMENTS)]
    command += ["--rate", str(rate), "--tenants", "1", "--duration", f"{seconds:.0f}s", "--warmup", "0s", "--drain", "1s"]
    command += ["--json", str(cache / "flood.json")]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(cache), preexec_fn=lambda: os.nice(19)
    )


class LargeEdits(threading.Thread):
    """Sends 8 MiB in one edit, again and again."""

    def __init__(self, address: str, seconds: float):
        super().__init__()
        self.address, self.end, self.times = address, time.monotonic() + seconds, []

    def run(self) -> None:
        with connect(self.address) as channel:
            client = Client(channel, tenant="mallory")
            revision = client.open("x", session="large").revision
            request = pb.ApplyEditsRequest(session="large", base_revision=revision)
            request.text.edits.append(at_bytes(0, 0, LARGE))
            while time.monotonic() < self.end:
                began = time.monotonic()
                refusal = refused(client.stub.ApplyEdits, request, timeout=10, metadata=[("pie-tenant", "mallory")])
                self.times.append(time.monotonic() - began)
                assert refusal.reason == "DOCUMENT_TOO_LONG", refusal
                time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds, turns = arguments.seconds, {"alone": [], "flooded": [], "8 MiB edits": []}
    edits, large = [], []
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        flood_script(cache / "flood.jsonl")
        pool = Pool(cache, *LIMITS, world_size=1)
        try:
            with connect(pool.address) as channel:
                typist = Typist(Client(channel, tenant="alice"))
                typist.type(1.0)
                for _ in range(arguments.rounds):
                    turns["alone"].append(typist.type(seconds))
                    flooding = flood(pool, cache, cache / "flood.jsonl", arguments.rate, seconds + 2)
                    time.sleep(1.0)
                    turns["flooded"].append(typist.type(seconds))
                    flooding.wait()
                    edits.append(json.loads((cache / "flood.json").read_text())["edits"]["acknowledged"] / (seconds + 2))
                    attacker = LargeEdits(pool.address, seconds)
                    attacker.start()
                    turns["8 MiB edits"].append(typist.type(seconds))
                    attacker.join()
                    large += attacker.times
        finally:
            pool.end()
    alone = median(percentile(times, 0.99) for times in turns["alone"])
    print("| another tenant | edit to first token, p50 / p99, ms | p99 beside alone |\n| --- | --- | --- |")
    for name, rounds in turns.items():
        p50, p99 = (median(percentile(times, share) for times in rounds) * 1e3 for share in (0.5, 0.99))
        print(f"| {name} | {p50:.1f} / {p99:.1f} | {p99 / alone / 1e3:.1f} |")
    print(f"\nedits of the flood that were applied: {median(edits):.0f} a second, of {arguments.rate:.0f} that were offered")
    print(f"8 MiB in one edit: refused after {median(large) * 1e3:.1f} ms, at most {max(large) * 1e3:.1f} ms, of {len(large)}")


if __name__ == "__main__":
    main()
