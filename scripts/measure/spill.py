#!/usr/bin/env python3
"""What a pool gains that finds its documents' rows on disk: `pie pool --kv-spill` is killed and started again, a document is opened as before, and
completed. Writes a table for BENCHMARKS.md.

    .venv/bin/python scripts/measure/spill.py --model .cache/models/qwen2.5-coder-0.5b.gguf [--tokens 2048,4096] [--rounds 3] [-- FLAGS OF pie pool]

Each length is a text of its own, of real code of this repository. From OpenSession to the first token of a completion behind the text, median of the rounds:
in a pool without the folder, where all is encoded, and in one with it, after SIGKILL; processes are started in turns, and the files are
read through the system's cache, as on a machine that was not started anew. Beside it what the rows take on disk, and what was encoded.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from client import Client, connect  # noqa: E402
from pool import Pool, is_running, until  # noqa: E402
from stubs import ROOT  # noqa: E402

# Of `--kv-spill`, in tokens.
BLOCK = 256


def code() -> str:
    files = sorted([*(ROOT / "crates/pie-group/src").rglob("*.rs"), *(ROOT / "crates/pie-router/src").rglob("*.rs")])
    return "\n".join(file.read_text() for file in files)


def prefix(client: Client, tokens: int, first: int) -> str:
    """Real code of about so many tokens."""
    text, length = code()[first:], tokens * 3
    while (counted := client.open(text[:length], session="counted").tokens) < tokens:
        length += max(64, (tokens - counted) * 3)
    client.close("counted")
    return text[:length]


def first_token(client: Client, text: str) -> tuple[float, int, str]:
    """Seconds from opening to the first token, tokens that were encoded for it, and what was written."""
    began = time.perf_counter()
    client.open(text, session="s")
    stream = client.stream("s", max_tokens=8, timeout=600)
    first = next(stream)
    took = time.perf_counter() - began
    written = first.text_delta + "".join(message.text_delta for message in stream)
    return took, first.timings.tokens_encoded, written


def kill(pool: Pool) -> None:
    for pid in [pool.pid, *pool.workers.values()]:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
    pool.end()


def rows_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*.rows"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", default="1024,2048,4096")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("pool", nargs="*", help="flags of pie pool")
    options = parser.parse_args()
    lengths = [int(length) for length in options.tokens.split(",")]
    with tempfile.TemporaryDirectory(prefix="pie-spill-") as folder:
        disk = Path(folder) / "rows"
        flags = ["--model", options.model, "--kv-memory", "1GiB", *options.pool]

        def start(*more: str) -> tuple[Pool, Client]:
            pool = Pool(Path(folder), *flags, *more, world_size=options.world_size)
            return pool, Client(connect(pool.address))

        spill = ("--kv-spill", str(disk))
        pool, client = start(*spill)
        texts = [prefix(client, length, 40_000 * number) for number, length in enumerate(lengths)]
        sizes, written = [], []
        for text in texts:
            before = rows_in(disk)
            tokens = client.open(text, session="s").tokens
            written.append(first_token(client, text)[2])
            wanted = len(before) + options.world_size * ((tokens - 1) // BLOCK)
            until("the document is written", lambda wanted=wanted: len(rows_in(disk)) >= wanted, deadline=120)
            sizes.append((tokens, sum(file.stat().st_size for file in rows_in(disk) - before)))
            client.close("s")
        kill(pool)
        times: dict[tuple[int, bool], list[float]] = {}
        encoded: dict[int, int] = {}
        for _ in range(options.rounds):
            for more in ((), spill):
                pool, client = start(*more)
                for number, text in enumerate(texts):
                    took, count, answer = first_token(client, text)
                    assert answer == written[number], f"{answer!r} instead of {written[number]!r}"
                    times.setdefault((number, bool(more)), []).append(took)
                    if more:
                        encoded[number] = count
                    client.close("s")
                kill(pool)
    print("| tokens | encoded anew | read from disk | times as fast | encoded then | on disk |\n| --- | --- | --- | --- | --- | --- |")
    for number, (tokens, size) in enumerate(sizes):
        anew, read = (median(times[number, more]) for more in (False, True))
        print(
            f"| {tokens} | {1e3 * anew:.0f} ms | {1e3 * read:.0f} ms | **{anew / read:.1f}** | {encoded[number]} | {size / (1 << 20):.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
