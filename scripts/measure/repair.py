"""What repairs cost those who type, and what they make of a document: the same stream of edits on pools with and without them, in turns.

    .venv/bin/python scripts/measure/repair.py --model .cache/models/qwen2.5-coder-0.5b.gguf --out repair.json

One person types into the middle of a source file in bursts, and thinks between them; after each edit the pool fills in at the cursor. Told are
the times from edit to first token, the share of tokens that are stale when the token is drawn, and, in the end, whether what is left
alone becomes exact.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from client import Client, at_bytes, connect  # noqa: E402
from pie.v1 import pie_pb2 as pb  # noqa: E402
from pool import Pool  # noqa: E402

FIM = pb.COMPLETION_MODE_FILL_IN_THE_MIDDLE
ROOT = Path(__file__).resolve().parents[2]
# Seconds between two edits of a burst, and between bursts.
BETWEEN, PAUSE = 0.25, 1.5
BURST = 8


def document(tokens: int) -> str:
    """Code of this repository, about so many tokens long."""
    files = sorted([*(ROOT / "crates/pie-group/src").glob("*.rs"), *(ROOT / "crates/pie-router/src").glob("*.rs")])
    return "".join(path.read_text() for path in files)[: tokens * 4]


class Person:
    def __init__(self, address: str, text: str, seed: int):
        self.client, self.text, self.choose = Client(connect(address)), text, random.Random(seed)
        opened = self.client.open(text, strategy=pb.STRATEGY_PIE)
        self.session, self.revision = opened.session, opened.revision
        self.rows = []

    def burst(self) -> None:
        lines = [index for index, letter in enumerate(self.text) if letter == "\n"]
        at = self.choose.choice(lines[len(lines) // 4 : 3 * len(lines) // 4])
        for letter in self.choose.choice(["let x = ", "return a", "// why? ", "if self."]):
            start = time.perf_counter()
            offset = len(self.text[:at].encode())
            self.revision = self.client.edit(self.session, self.revision, at_bytes(offset, offset, letter)).revision
            self.text = self.text[:at] + letter + self.text[at:]
            at += 1
            cursor = len(self.text[:at].encode())
            stream = self.client.stream(self.session, max_tokens=1, at_byte=cursor, mode=FIM)
            first = next(message for message in stream if message.tokens)
            took = 1000 * (time.perf_counter() - start)
            timings = first.timings
            context = timings.tokens_encoded + timings.tokens_reused
            self.rows.append({"ms": took, "stale": timings.tokens_stale / context, "repaired": timings.tokens_repaired})
            time.sleep(max(0.0, BETWEEN - took / 1000))

    def state(self) -> pb.Session:
        return self.client.get(self.session, content=False).session


def quantile(numbers: list[float], part: float) -> float:
    return sorted(numbers)[min(len(numbers) - 1, int(part * len(numbers)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="as `pie pool` takes it; what ships if not given")
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--bursts", type=int, default=12, help="in each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = ["--model", arguments.model or str(ROOT / "models/pie-coder")]
    text, told = document(arguments.tokens), {}
    with tempfile.TemporaryDirectory() as cache:
        flags = [*model, "--kv-memory", "1GiB"]
        pools = {when: Pool(Path(cache), *flags, "--repair", when, world_size=1) for when in ("with-edits", "always")}
        people = {when: Person(pool.address, text, 7) for when, pool in pools.items()}
        for person in people.values():
            list(person.client.stream(person.session, timeout=300, max_tokens=1))
        for _ in range(arguments.turns):
            for person in people.values():
                for _ in range(arguments.bursts):
                    person.burst()
                    time.sleep(PAUSE)
        for when, person in people.items():
            left = person.state()
            begun = time.monotonic()
            while when == "always" and person.state().tokens_stale > 0:
                time.sleep(0.1)
            took, counters = time.monotonic() - begun, person.client.describe().groups[0].counters
            times = [row["ms"] for row in person.rows]
            told[when] = {
                "tokens": left.tokens,
                "edits": len(times),
                "p50_ms": statistics.median(times),
                "p90_ms": quantile(times, 0.9),
                "p99_ms": quantile(times, 0.99),
                "stale_when_drawn": statistics.mean(row["stale"] for row in person.rows),
                "stale_at_the_end": left.tokens_stale,
                "exact_after_s": took if when == "always" else None,
                "repaired": counters.tokens_repaired,
                "given_up": counters.repairs_given_up,
                "free_rows": person.client.describe().groups[0].free_rows,
                "rows": person.rows,
            }
            print(when, json.dumps({name: value for name, value in told[when].items() if name != "rows"}), flush=True)
        for pool in pools.values():
            pool.end()
    if arguments.out:
        arguments.out.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
