#!/usr/bin/env python3
"""What one tenant's first tokens wait for while another attacks, kind of attack by kind, one after the other on one pool: what a kind leaves
to be done is done while the next one goes on.

    .venv/bin/python scripts/measure/attack.py                                    # all kinds together
    .venv/bin/python scripts/measure/attack.py --kinds huge_opens,huge_edits --kinds floods_of_questions -- --prefill-time 4ms

Each --kinds is a turn, of kinds of scripts/python/attack.py; what stands behind `--` goes to `pie pool`. Percentiles are of the edits of a turn,
in milliseconds: from the edit to its first token and the call of the edit as the typist sees them, and the wait before the own first step and
the steps up to the first token as the pool tells them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import stubs  # noqa: E402

stubs.generate()

import attack  # noqa: E402  (the generated code comes first)
from client import Client, connect  # noqa: E402
from pool import Pool  # noqa: E402
from test_attack import LIMITS, PROCESSES, Typist  # noqa: E402

COLUMNS = ("edit to first token", "the edit's call", "wait", "steps")


def row(name: str, times: list[float], typist: Typist) -> str:
    def percentile(column: list[float], part: float) -> float:
        return 1e3 * sorted(column)[min(len(column) - 1, int(len(column) * part))]

    calls, timings = zip(*typist.told)
    columns = [times, list(calls), [told.queue_us / 1e6 for told in timings], [told.compute_us / 1e6 for told in timings]]
    cells = [f"{percentile(column, 0.5):.1f} / {percentile(column, 0.99):.1f}" for column in columns]
    return f"| {name} | {len(times)} | {' | '.join(cells)} |"


def attacked(typist: Typist, address: str, kinds: list[str], seconds: float) -> list[float]:
    """The times of who types meanwhile."""
    command = [sys.executable, attack.__file__, address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    running = [subprocess.Popen([*command, str(number), *kinds], **pipes) for number in range(PROCESSES)]
    try:
        for process in running:
            json.loads(process.stdout.readline())
        for process in running:
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        times = typist.type(seconds)
        for process in running:
            process.stdout.readline()
        return times
    finally:
        for process in running:
            process.kill()
            process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", action="append", default=[], help="of one turn, separated by commas; all if never given")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn")
    parser.add_argument("pool", nargs="*", help="flags of pie pool")
    options = parser.parse_args()
    known = [kind.__name__ for kind in attack.KINDS]
    turns = [kinds.split(",") for kinds in options.kinds]
    unknown = {kind for kinds in turns for kind in kinds} - set(known)
    if unknown:
        parser.error(f"no kind is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    pool = Pool(Path(tempfile.mkdtemp(prefix="pie-attack-")), *LIMITS, *options.pool, world_size=1)
    print(f"| attack | edits | {' | '.join(COLUMNS)} |\n| --- |{' --- |' * (len(COLUMNS) + 1)}")
    try:
        with connect(pool.address) as channel:
            typist = Typist(Client(channel, tenant="alice"))
            typist.type(1.0)
            print(row("none", typist.type(options.seconds / 2), typist), flush=True)
            for kinds in turns or [[]]:
                times = attacked(typist, pool.address, kinds, options.seconds)
                print(row(", ".join(kinds) or "all", times, typist), flush=True)
                time.sleep(0.5)
    finally:
        pool.end()


if __name__ == "__main__":
    main()
