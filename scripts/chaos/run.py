#!/usr/bin/env python3
"""Breaks a pool of two groups of two ranks and two routers in every way that has a name, while people type into it.

Each fault: it is done, it ends, and the time is taken until every document can be edited and completed again, and stays so. Whoever types
knows what must stand in the document: an acknowledged edit that is missing, another text, a refusal that no client can do anything about, a
call that outlives its deadline, a document that is gone, or a pool that is not well 10 s after a fault's end make the run fail. The order comes
from the seed; what happens in between is the machine's.

With --kill-every, a process is killed as often as that, whatever it is, and started again as a platform does it; the table has a row for each
kind of process then, with how long people could not work.
"""

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import network  # noqa: E402  (beside what the tests have)

HEALED_WITHIN = 10.0
# So long all must go well before it is believed.
SETTLED = 3.0
# A pool that is not well by then is replaced, so that the next fault meets a whole one.
GIVEN_UP = 30.0
TYPISTS = 6


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="no fault begins that would end later; each is done once unless --again")
    parser.add_argument("--again", action="store_true", help="when all faults are done, begin again until the time is over")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--etcd", type=int, choices=(1, 3), default=1, help="members of etcd")
    parser.add_argument("--faults", default="", help="names, separated by commas, in this order; all in the seed's order if not given")
    parser.add_argument("--kill-every", type=float, metavar="SECONDS", help="instead of faults by name: kill -9 of some process, so often")
    parser.add_argument("--list", action="store_true", help="print the names, and end")
    parser.add_argument("--folder", type=Path, help="logs of all processes; a temporary folder if not given")
    parser.add_argument("--json", type=Path, help="also write the table as JSON")
    return parser.parse_args()


class Run:
    def __init__(self, options: argparse.Namespace):
        from faults import all_faults

        self.options, self.choose = options, random.Random(options.seed)
        self.known = all_faults(options.etcd)
        self.folder = options.folder or Path(tempfile.mkdtemp(prefix="pie-chaos-"))
        self.rows, self.violations, self.worlds = [], [], 0
        errors = Path(__file__).resolve().parents[2] / "docs/errors.md"
        self.documented = set(re.findall(r"^### (\w+)$", errors.read_text(), re.MULTILINE))

    def names(self) -> list[str]:
        named = [name for name in self.options.faults.split(",") if name]
        unknown = [name for name in named if name not in self.known]
        assert not unknown, f"no such fault: {', '.join(unknown)}; there are: {', '.join(self.known)}"
        if named:
            return named
        return self.choose.sample(list(self.known), len(self.known))

    def build(self) -> None:
        from typist import Typist
        from world import World

        self.worlds += 1
        self.world = World(self.folder / f"world{self.worlds}", self.folder / "cache", self.options.etcd)
        seed = f"{self.options.seed}/{self.worlds}"
        self.typists = [Typist(number, self.world.addresses, seed, self.documented) for number in range(TYPISTS)]
        for typist in self.typists:
            typist.start()
        healed, _ = self.wait(time.monotonic())
        assert healed is not None, f"the pool never was well: {[typist.said for typist in self.typists]}"
        # What clients met while it came up is nobody's fault.
        for typist in self.typists:
            typist.take()

    def unbuild(self) -> None:
        for typist in self.typists:
            typist.end()
        self.world.end()

    def wait(self, since: float) -> tuple[float | None, list[str]]:
        """How long after a moment all was well again, and stayed so; or who is not well, and why."""
        for typist in self.typists:
            typist.ask()
        while True:
            times = [typist.well() for typist in self.typists]
            now = time.monotonic()
            if all(times) and now - max(times) >= SETTLED:
                return max(times) - since, []
            if now - since > GIVEN_UP:
                unwell = [typist for typist, well in zip(self.typists, times, strict=True) if not well or now - well < SETTLED]
                return None, [f"{typist.session}: {typist.said}" for typist in unwell]
            time.sleep(0.05)

    def one(self, name: str) -> None:
        from faults import do

        fault, began = self.known[name], time.monotonic()
        damage, ended = do(fault, self.world, self.choose)
        healed, unwell = self.wait(ended)
        seen = [typist.take() for typist in self.typists]
        found = {kind: [what for verdicts in seen for what in getattr(verdicts, kind)] for kind in ("lost", "wrong", "late")}
        gone = sum(verdicts.gone for verdicts in seen)
        refusals = sum((verdicts.refusals for verdicts in seen), Counter())
        row = {"fault": name, "what": damage.what, "lasted": ended - began, "healed": healed, "gone": gone}
        row |= {"calls": sum(verdicts.calls for verdicts in seen), "refusals": dict(refusals), **found}
        row |= {"ended_by_themselves": self.world.ended_by_themselves()}
        violations = [f"{name}: {kind}: {what}" for kind in found for what in found[kind]]
        if gone:
            violations.append(f"{name}: {gone} documents were gone")
        if healed is None:
            violations.append(f"{name}: not well {GIVEN_UP:.0f} s after its end ({self.world.states()}): {'; '.join(unwell)}")
        elif healed > HEALED_WITHIN:
            violations.append(f"{name}: healed only after {healed:.1f} s")
        self.rows.append(row)
        self.violations += violations
        show(row)
        if healed is None:
            self.unbuild()
            self.build()

    def kill_on(self) -> int:
        """Kills some process again and again. What people met meanwhile is counted to the kind that was killed last."""
        self.build()
        print(f"logs: {self.folder}", flush=True)
        began, seen = time.monotonic(), {}
        while time.monotonic() - began < self.options.seconds:
            process = self.choose.choice(self.world.all())
            kind = re.sub(r"[0-9]+$", "", process.name) if process.name[:1] != "g" else "rank"
            process.stop(signal.SIGKILL)
            time.sleep(min(1.0, self.options.kill_every))
            process.start()
            time.sleep(max(0.0, self.options.kill_every - 1.0))
            seen.setdefault(kind, []).append([typist.take() for typist in self.typists])
        healed, unwell = self.wait(time.monotonic())
        if healed is None:
            self.violations.append(f"not well {GIVEN_UP:.0f} s after the last kill ({self.world.states()}): {'; '.join(unwell)}")
        # What ended after the last look is nobody's in particular.
        seen.setdefault("(the end)", []).append([typist.take() for typist in self.typists])
        self.unbuild()
        print(f"{'killed':<10}{'times':>6}{'calls':>8}{'gone':>5}{'lost':>5}{'wrong':>6}{'late':>5}  away: times, median, p99, longest")
        for kind, kills in sorted(seen.items()):
            of = [verdicts for kill in kills for verdicts in kill]
            away = sorted(time for verdicts in of for time in verdicts.away)
            row = {"killed": kind, "times": len(kills), "calls": sum(verdicts.calls for verdicts in of), "away": away}
            row |= {"gone": sum(verdicts.gone for verdicts in of)}
            row |= {what: [text for verdicts in of for text in getattr(verdicts, what)] for what in ("lost", "wrong", "late")}
            row |= {"refusals": dict(sum((verdicts.refusals for verdicts in of), Counter()))}
            self.rows.append(row)
            self.violations += [f"{kind} killed: {what}: {text}" for what in ("lost", "wrong", "late") for text in row[what]]
            self.violations += [f"{kind} killed: {row['gone']} documents were gone"] if row["gone"] else []
            numbers = f"{row['calls']:>8}{row['gone']:>5}{len(row['lost']):>5}{len(row['wrong']):>6}{len(row['late']):>5}"
            at = lambda share, away=away: f"{away[min(len(away) - 1, int(share * len(away)))]:.1f} s" if away else "-"  # noqa: E731
            print(f"{kind:<10}{row['times']:>6}{numbers}  {len(away)}, {at(0.5)}, {at(0.99)}, {at(1)}", flush=True)
        return self.verdict(f"{sum(row['times'] for row in self.rows) - 1} kills")

    def verdict(self, what: str) -> int:
        for violation in self.violations:
            print(f"    {violation}")
        if self.options.json:
            self.options.json.write_text(json.dumps({"rows": self.rows, "violations": self.violations}, indent=1) + "\n")
        print(f"{what}, {len(self.violations)} violations", flush=True)
        return 1 if self.violations else 0

    def go(self) -> int:
        if self.options.kill_every:
            return self.kill_on()
        names = self.names()
        self.build()
        print(f"logs: {self.folder}\n{HEADING}", flush=True)
        began, done = time.monotonic(), 0
        while names:
            for name in names:
                if time.monotonic() - began + self.known[name].seconds + SETTLED <= self.options.seconds:
                    self.one(name)
                    done += 1
            if not self.options.again or time.monotonic() - began + SETTLED > self.options.seconds:
                break
        self.unbuild()
        left = max(0, len(names) - done)
        failed = self.verdict(f"{done} faults" + (f" (the time was over before {left} others)" if left else ""))
        return failed or int(not done)


HEADING = f"{'fault':<22}{'lasted':>7}{'healed':>8}{'calls':>7}{'gone':>5}{'lost':>5}{'wrong':>6}{'late':>5}  what, refusals"


def show(row: dict) -> None:
    healed = "never" if row["healed"] is None else f"{max(row['healed'], 0):.1f} s"
    numbers = f"{row['calls']:>7}{row['gone']:>5}{len(row['lost']):>5}{len(row['wrong']):>6}{len(row['late']):>5}"
    refusals = ", ".join(f"{reason} {count}" for reason, count in sorted(row["refusals"].items()))
    print(f"{row['fault']:<22}{row['lasted']:>5.1f} s{healed:>8}{numbers}  {row['what']}; {refusals}", flush=True)


def main() -> int:
    options = arguments()
    if options.list:
        # Nothing of the network is needed for this.
        import stubs

        stubs.generate()
        from faults import all_faults

        print("\n".join(all_faults(options.etcd)))
        return 0
    network.enter()
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import stubs

    stubs.generate()
    return Run(options).go()


if __name__ == "__main__":
    sys.exit(main())
