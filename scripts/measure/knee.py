"""Where 64 people begin to wait, with and without what is looked up ahead and what is repaired: `pie load knee` on four pools of the
model that ships, one after the other.

    .venv/bin/python scripts/measure/knee.py --rates 50,100,200,400,800
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from pool import Pool, binary  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DRAFTS = {"nothing": "0", "16 tokens": "16"}
REPAIRS = {"with edits alone": "with-edits", "when there is time": "always"}


@dataclass
class Point:
    """One rate, on one pool."""

    offered: float
    answered: int
    acknowledged_p99: float
    first_token_p50: float
    first_token_p99: float


def knee(flags: list[str], arguments: argparse.Namespace) -> list[Point]:
    with tempfile.TemporaryDirectory() as folder:
        model = ["--model", str(ROOT / "models/pie-coder"), "--kv-memory", "2GiB"]
        pool, report = Pool(Path(folder), *model, *flags, world_size=1), Path(folder) / "knee.json"
        load = ["load", "knee", "--pool", f"http://{pool.address}", "--sessions", str(arguments.people)]
        load += ["--rates", arguments.rates, "--duration", f"{arguments.seconds}s", "--json", report]
        subprocess.run([binary(), *load], check=True, stdout=subprocess.DEVNULL)
        told = json.loads(report.read_text())
        pool.end()
    points = []
    for run in told["runs"]:
        latencies = run["latencies"]
        first, acknowledged = latencies["edit_to_first_token"], latencies["edit_acknowledged"]
        offered, answered = run["facts"]["edits_offered_per_second"], run["completions"]["answered"]
        points.append(Point(offered, answered, acknowledged["p99"], first["p50"], first["p99"]))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="50,100,200,400,800")
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=8)
    arguments = parser.parse_args()
    print("| looked up | repaired | edits/s | completions | acknowledged p99, ms | edit to first token p50, ms | p99, ms |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for ahead, drafts in DRAFTS.items():
        for repairs, policy in REPAIRS.items():
            for point in knee(["--draft-tokens", drafts, "--repair", policy], arguments):
                waits = [point.acknowledged_p99, point.first_token_p50, point.first_token_p99]
                shown = " | ".join(f"{wait:.1f}" for wait in waits)
                print(f"| {ahead} | {repairs} | {point.offered:.0f} | {point.answered} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
