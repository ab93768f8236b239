"""What looking ahead in the document gains: tokens per second of pools with and without it, in turns, on the same prompts.

    F=.cache/models/qwen2.5-coder-0.5b.gguf
    pie pool --model $F --world-size 1 --threads 2 --kv-memory 1GiB --listen 127.0.0.1:7401 --http off --draft-tokens 16 &
    pie pool --model $F --world-size 1 --threads 2 --kv-memory 1GiB --listen 127.0.0.1:7402 --http off --draft-tokens 0 &
    .venv/bin/python scripts/measure/rewriting.py ahead=127.0.0.1:7401 plain=127.0.0.1:7402

`rewrite`: functions of this repository, with a name that is to be replaced; what the model writes stands in its prompt, but for that.
`fresh`: functions that stand nowhere. `follow`: files of this repository, continued in their middle. For an instruction model whose
turns begin with <|im_start|>.
"""

import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from client import Client, connect  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FRESH = [
    "a Python class for a priority queue on a binary heap, with push, pop and a method that changes a priority",
    "a Rust function that parses an IPv4 address by hand and returns a Result",
    "a JavaScript function that debounces another one, with a way to cancel it",
    "a Go program that counts the words of a file and prints the ten most frequent",
    "a Python function that solves a Sudoku by backtracking",
    "a C function that reverses a linked list, and one that merges two sorted ones",
]


def turn(request: str) -> str:
    return f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n```"


def functions(count: int) -> list[tuple[str, str, str]]:
    """Functions of 15 to 40 lines, each with a name in it that stands there at least three times, and another one for it."""
    found = []
    for path in sorted(ROOT.glob("crates/*/src/*.rs")):
        for match in re.finditer(r"(?ms)^(    )?(pub )?fn \w+.*?^\1?}\n", path.read_text()):
            text = match[0]
            names = re.findall(r"\blet (?:mut )?([a-z_]{4,})\b", text)
            often = [name for name in names if len(re.findall(rf"\b{name}\b", text)) >= 3]
            if often and 15 <= text.count("\n") <= 40:
                found.append((text, often[0], f"new_{often[0]}"))
                break
    return found[:: max(1, len(found) // count)][:count]


def prompts(count: int) -> dict[str, list[str]]:
    rewrite = [
        turn(f"Rename `{old}` to `{new}` in this function. Answer with the whole function.\n```rust\n{text}```")
        for text, old, new in functions(count)
    ]
    files = [path.read_text() for path in sorted(ROOT.glob("scripts/**/*.py")) if path.stat().st_size > 6000]
    follow = ["".join(text.splitlines(keepends=True)[:90]) for text in files[:: max(1, len(files) // count)][:count]]
    return {"rewrite": rewrite, "fresh": [turn(f"Write {what}.") for what in FRESH[:count]], "follow": follow}


def rate(client: Client, prompt: str, tokens: int) -> tuple[float, list[int]]:
    """Tokens per second behind the first one, and which."""
    session = client.open(prompt, control_tokens=True).session
    ids, times = [], []
    for message in client.stream(session, timeout=300, max_tokens=tokens):
        ids += [token.id for token in message.tokens]
        times += [time.perf_counter()] * len(message.tokens)
    client.close(session)
    return (len(times) - 1) / max(times[-1] - times[0], 1e-6), ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", nargs=2, metavar="NAME=HOST:PORT")
    parser.add_argument("--count", type=int, default=6, help="prompts of each kind")
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    pools = {name: Client(connect(address)) for name, address in (pool.split("=", 1) for pool in arguments.pools)}
    first, second = pools
    results = {}
    print(f"| | prompts | {first}, tokens/s | {second}, tokens/s | times as fast, median | least, most | same tokens | drafted | drawn |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind, texts in prompts(arguments.count).items():
        counters = lambda: pools[first].describe().groups[0].counters  # noqa: E731
        before = counters()
        rates, same = {name: [] for name in pools}, 0
        for index, text in enumerate(texts):
            order = list(pools) if index % 2 == 0 else list(reversed(pools))
            got = {name: rate(pools[name], text, arguments.tokens) for name in order}
            for name, (one, _) in got.items():
                rates[name].append(one)
            same += got[first][1] == got[second][1]
        after = counters()
        ratios = [one / other for one, other in zip(rates[first], rates[second])]
        drafted = after.tokens_drafted - before.tokens_drafted
        accepted = after.tokens_accepted - before.tokens_accepted
        results[kind] = {**rates, "ratios": ratios, "same": same, "drafted": drafted, "accepted": accepted}
        print(
            f"| {kind} | {len(texts)} | {statistics.median(rates[first]):.0f} | {statistics.median(rates[second]):.0f} | "
            f"**{statistics.median(ratios):.2f}** | {min(ratios):.2f}, {max(ratios):.2f} | {same} of {len(texts)} | {drafted} | {accepted} |",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
