"""People on a pool that repairs stale tokens, and on one that does not, in turns: their waits, and the share of tokens that is stale.

    .venv/bin/python scripts/measure/healing.py --out docs/load/healing.svg

Each turn starts a pool of the model that ships, lets `pie load` play people on it, and asks the pool once a second what is stale.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from client import Client, connect  # noqa: E402
from pool import Pool, binary  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
WAYS = {"without": ["--repair", "with-edits"], "with": ["--repair", "always"]}
COLORS = {"without": "#b04a2f", "with": "#2f6db0"}


class Watch(threading.Thread):
    """Asks once a second, until it is told to end."""

    def __init__(self, address: str):
        super().__init__(daemon=True)
        self.client, self.over, self.shares = Client(connect(address)), threading.Event(), []

    def run(self) -> None:
        while not self.over.wait(1.0):
            group = self.client.describe().groups[0]
            self.shares.append(group.tokens_stale / max(1, group.tokens))
            self.counters = group.counters


def turn(flags: list[str], people: int, seconds: int, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        model = ["--model", str(ROOT / "models/pie-coder"), "--kv-memory", "2GiB"]
        pool, report = Pool(Path(folder), *model, *flags, world_size=1), Path(folder) / "load.json"
        watch = Watch(pool.address)
        watch.start()
        load = ["load", "--pool", f"http://{pool.address}", "--sessions", str(people), "--duration", f"{seconds}s"]
        subprocess.run([binary(), *load, "--seed", str(seed), "--json", report], check=True, stdout=subprocess.DEVNULL)
        watch.over.set()
        watch.join()
        told, counters = json.loads(report.read_text()), watch.counters
        pool.end()
        return {"load": told, "stale": watch.shares, "repaired": counters.tokens_repaired, "given_up": counters.repairs_given_up}


def plot(shares: dict[str, list[list[float]]], path: Path) -> None:
    """The share over time, a line for each turn."""
    width, height, left, top = 640, 300, 50, 20
    longest = max(len(line) for lines in shares.values() for line in lines)
    x = lambda second: left + second * (width - left - 20) / max(1, longest - 1)  # noqa: E731
    y = lambda share: top + (1 - share) * (height - top - 40)  # noqa: E731
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{left} {y(share)}H{width - 20}" stroke="#ddd"/><text x="8" y="{y(share) + 4}">{share:.0%}</text>')
    for second in range(0, longest, 10):
        parts.append(f'<text x="{x(second)}" y="{height - 18}" text-anchor="middle">{second} s</text>')
    for number, (name, lines) in enumerate(shares.items()):
        for line in lines:
            points = " ".join(f"{x(second):.1f},{y(share):.1f}" for second, share in enumerate(line))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{COLORS[name]}" stroke-width="1.5"/>')
        parts.append(f'<text x="{left + 10 + number * 150}" y="{height - 3}" fill="{COLORS[name]}">{name} repairs</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="the plot")
    arguments = parser.parse_args()
    turns = {name: [] for name in WAYS}
    for number in range(arguments.turns):
        for name, flags in WAYS.items():
            turns[name].append(turn(flags, arguments.people, arguments.seconds, number + 1))
            time.sleep(1)
    plot({name: [one["stale"] for one in all_turns] for name, all_turns in turns.items()}, arguments.out)
    for name, all_turns in turns.items():
        stale = statistics.mean(share for one in all_turns for share in one["stale"][len(one["stale"]) // 3 :])
        print(f"{name} repairs: stale {stale:.0%}, repaired {[one['repaired'] for one in all_turns]}, given up {[one['given_up'] for one in all_turns]}")
        for one in all_turns:
            print("   ", summary(one["load"]))


def summary(told: dict) -> str:
    """Of a report of `pie load`: what people waited for, in milliseconds."""
    latencies = told["latencies"]
    waits = {name: latencies[name] for name in ("edit_acknowledged", "edit_to_first_token", "end_to_end")}
    shown = ", ".join(f"{name} p50 {one['p50']:.1f} p99 {one['p99']:.1f}" for name, one in waits.items())
    return f"{latencies['edit_acknowledged']['count']} edits, {told['completions']['finished']} completions; {shown}"


if __name__ == "__main__":
    main()
