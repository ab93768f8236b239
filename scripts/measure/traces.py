"""What traces cost a router and its rank: processor time for each edit, with and without.

    .venv/bin/python scripts/measure/traces.py [--baseline OTHER/pie]

In turns, `--repeat` times: a pool of one rank with a tiny model (so that the router's own work is most of it), a fixed load of made-up
people, 200 edits a second, and the processor time of router and rank together from start to end of the load. `--baseline` is a
program from before there were traces. The receiver is OpenTelemetry's Python messages on gRPC, in this process: not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/python"))
from pool import binary  # noqa: E402
from receiver import Receiver  # noqa: E402

PROGRAM = binary()


def processor_time(pid: int) -> float:
    """Seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(program: Path, flags: list[str], seconds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        ready, report = Path(folder) / "ready.json", Path(folder) / "report.json"
        command = [str(program), "pool", "--model", "seeded:tiny", "--world-size", "1", "--listen", "127.0.0.1:0"]
        pool = subprocess.Popen([*command, "--ready-file", str(ready), *flags], stderr=subprocess.DEVNULL)
        try:
            while not ready.exists():
                assert pool.poll() is None, "the pool did not start"
                time.sleep(0.05)
            facts = json.loads(ready.read_text())
            pids = [pool.pid, *(worker["pid"] for worker in facts["workers"])]
            before = [processor_time(pid) for pid in pids]
            load = ["load", "--pool", f"http://{facts['address']}", "--sessions", "16", "--rate", "200", "--json", str(report)]
            load += ["--duration", f"{seconds}s", "--document-size", "2KiB"]
            subprocess.run([str(PROGRAM), *load], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            used = [after - past for after, past in zip(map(processor_time, pids), before, strict=True)]
        finally:
            pool.terminate()
            pool.wait()
        edits = 200 * (seconds + 2)
        return {"router_us": 1e6 * used[0] / edits, "rank_us": 1e6 * used[1] / edits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    receiver = Receiver()
    traced = ["--otlp", receiver.url, "--trace-sample"]
    ways = {"off": (PROGRAM, []), **{ratio: (PROGRAM, [*traced, ratio]) for ratio in ("0", "0.01", "1")}}
    if arguments.baseline:
        ways = {"before there were traces": (arguments.baseline, [])} | ways
    found = {way: [] for way in ways}
    for _ in range(arguments.repeat):
        for way, (program, flags) in ways.items():
            found[way].append(measure(program, flags, arguments.seconds))
    receiver.close()
    print("| `--trace-sample` | router, µs an edit | rank, µs an edit | router, beside the first row |")
    print("| --- | --- | --- | --- |")
    first = next(iter(found.values()))
    for way, rows in found.items():
        router, rank = (statistics.median(row[key] for row in rows) for key in ("router_us", "rank_us"))
        ratios = sorted(row["router_us"] / other["router_us"] for row, other in zip(rows, first, strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {way} | {router:.0f} | {rank:.0f} | {spread} |")
    print(f"\n{len(receiver.spans)} spans received", file=sys.stderr)


if __name__ == "__main__":
    main()
