#!/usr/bin/env python3
"""What one tenant's first tokens wait for while another attacks, kind of attack by kind, one after the other on one pool: what a kind leaves
to be done is done while the next one goes on.

    .venv/bin/python scripts/measure/attack.py --turns 3 -- --model FILE.gguf     # all kinds together, three turns
    .venv/bin/python scripts/measure/attack.py --kinds huge_opens,huge_edits --kinds floods_of_questions -- --prefill-time 4ms

Each --kinds is as many turns as --turns says, of kinds of scripts/python/attack.py, behind as many quiet ones; what stands behind `--` goes to
`pie pool`. The last lines say how many times the p99 of quiet turns that of attacked ones is, median by median. Percentiles are of the edits of a turn,
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
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import stubs  # noqa: E402

stubs.generate()

import attack  # noqa: E402  (the generated code comes first)
from client import Client, connect  # noqa: E402
from pool import Pool  # noqa: E402
from test_attack import LIMITS, PROCESSES, Typist, p99  # noqa: E402

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


def measured(name: str, typist: Typist, turn) -> float:
    """The p99 of a turn, which is told."""
    times = turn()
    print(row(name, times, typist), flush=True)
    return p99(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", action="append", default=[], help="of one turn, separated by commas; all if never given")
    parser.add_argument("--turns", type=int, default=1, help="of each")
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
            quiet = [measured("none", typist, lambda: typist.type(options.seconds / 2)) for _ in range(options.turns)]
            for kinds in turns or [[]]:
                name = ", ".join(kinds) or "all"
                while_attacked = lambda kinds=kinds: attacked(typist, pool.address, kinds, options.seconds)  # noqa: E731
                waited = [measured(name, typist, while_attacked) for _ in range(options.turns)]
                print(f"{name}: p99 {median(waited) / median(quiet):.1f} times as long as in quiet turns", flush=True)
                time.sleep(0.5)
    finally:
        pool.end()


if __name__ == "__main__":
    main()
