"""The same edits and completions at world sizes 1 to 8 on this machine's cores, and where the time goes.

    .venv/bin/python scripts/measure/world.py --out world.json

For each world size a pool is started, a document of some 3,700 tokens is opened, and then, in turns: 64 tokens' worth of text is
inserted in the middle and the first token awaited; 64 tokens are decoded. `collectives` is the share of rank 0's time that it
spends in them, waiting for the others included.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from client import Client, at_bytes, connect  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
INSERTED = "    let measured = compute(width, height, depth) + 1; // and so on\n" * 4


def document() -> str:
    files = sorted((ROOT / "crates").glob("*/src/*.rs"))
    text = "".join(path.read_text() for path in files if path.stat().st_size < 16_000)
    return text[:11_000]


def measure(size: int, model: str, repeat: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [str(ROOT / "target/release/pie"), "pool", "--world-size", str(size), "--listen", "127.0.0.1:0"]
        command += ["--ready-file", str(ready), *(["--model", model] if model else [])]
        pool = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while not ready.exists():
                assert pool.poll() is None, "the pool did not start"
                time.sleep(0.05)
            with connect(json.loads(ready.read_text())["address"]) as channel:
                return one_pool(Client(channel), size, repeat)
        finally:
            pool.terminate()
            pool.wait()


def one_pool(client: Client, size: int, repeat: int) -> dict:
    text = document()
    opened = client.open(text)
    client.complete(opened.session, max_tokens=1)
    middle, revision, edits, decodes = len(text) // 2, opened.revision, [], []
    before = client.describe().groups[0].counters
    for _ in range(repeat):
        start = time.perf_counter()
        client.edit(opened.session, revision, at_bytes(middle, middle, INSERTED))
        next(client.stream(opened.session, max_tokens=1))
        edits.append(1000 * (time.perf_counter() - start))
        client.edit(opened.session, revision + 1, at_bytes(middle, middle + len(INSERTED)))
        client.complete(opened.session, max_tokens=1)
        revision += 2
        start, first = time.perf_counter(), None
        for message in client.stream(opened.session, max_tokens=65):
            if first is None and message.tokens:
                first = time.perf_counter()
        decodes.append(64 / (time.perf_counter() - first))
    after = client.describe().groups[0].counters
    compute, collective = after.compute_us - before.compute_us, after.collective_us - before.collective_us
    return {
        "world_size": size,
        "tokens": opened.tokens,
        "edit_ms": statistics.median(edits),
        "decode_per_s": statistics.median(decodes),
        "collective_share": collective / compute,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores\n")
    print("| world size | edit to first token | decode, tokens/s | collectives |")
    print("| --- | --- | --- | --- |")
    rows = []
    for size in arguments.sizes:
        row = measure(size, arguments.model, arguments.repeat)
        rows.append(row)
        print(
            f"| {size} | {row['edit_ms']:.1f} ms | {row['decode_per_s']:.0f} | {100 * row['collective_share']:.0f} % |",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
