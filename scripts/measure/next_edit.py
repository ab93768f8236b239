"""What a next edit takes (mode REWRITE): files of this repository, edited as somebody would who renames a variable, and the lines
around it written anew, by pools that look ahead in the document and that do not.

    F=.cache/models/qwen2.5-coder-0.5b.gguf
    pie pool --model $F --world-size 1 --threads 2 --kv-memory 1GiB --listen 127.0.0.1:7401 --http off --draft-tokens 16 &
    pie pool --model $F --world-size 1 --threads 2 --kv-memory 1GiB --listen 127.0.0.1:7402 --http off --draft-tokens 0 &
    .venv/bin/python scripts/measure/next_edit.py ahead=127.0.0.1:7401 plain=127.0.0.1:7402

Each region is asked of each pool in turn. `passes` are those of the model for a written token, the prompt's own not counted.
"""

import argparse
import re
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from client import Client, at_bytes, connect  # noqa: E402
from pie.v1 import pie_pb2 as pb  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# 30 lines with the cursor's own.
BEFORE, BEHIND = 15, 14


@dataclass
class Case:
    text: str
    name: str
    at: int


@dataclass
class Answer:
    seconds: float
    tokens: int
    passes: int
    edits: list[tuple[int, int, str]]
    first_token_ms: float


def cases(count: int) -> list[Case]:
    """Files of 100 to 400 lines, each with a variable that stands at least three times within 30 lines."""
    found = []
    for path in sorted(ROOT.glob("crates/*/src/*.rs")):
        text = path.read_text()
        if not 100 <= text.count("\n") <= 400:
            continue
        for match in re.finditer(r"\blet (?:mut )?([a-z_]{4,})\b", text):
            start = text.rfind("\n", 0, match.start()) + 1
            near = "".join(text[start:].splitlines(keepends=True)[:BEHIND])
            if len(re.findall(rf"\b{match[1]}\b", near)) >= 3:
                found.append(Case(text, match[1], match.start(1)))
                break
    return found[:: max(1, len(found) // count)][:count]


def ask(client: Client, case: Case) -> Answer:
    opened = client.open(case.text)
    client.complete(opened.session, max_tokens=1)
    at = len(case.text[: case.at].encode())
    edited = client.edit(opened.session, opened.revision, at_bytes(at, at + len(case.name), f"new_{case.name}"))
    before = client.describe().groups[0].counters.passes
    began = time.monotonic()
    asked = {"at_byte": at, "lines_before": BEFORE, "lines_behind": BEHIND, "revision": edited.revision}
    messages = list(client.stream(opened.session, timeout=300, mode=pb.COMPLETION_MODE_REWRITE, **asked))
    seconds = time.monotonic() - began
    # A step is counted when its last pass is reported.
    time.sleep(0.3)
    passes = client.describe().groups[0].counters.passes - before
    client.close(opened.session)
    timings = next(message.timings for message in messages if message.HasField("timings"))
    edits = [(edit.bytes.start, edit.bytes.end, edit.text) for message in messages for edit in message.edits]
    return Answer(seconds, sum(len(message.tokens) for message in messages), passes, edits, timings.first_token_us / 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", nargs="+", help="NAME=HOST:PORT")
    parser.add_argument("--files", type=int, default=6)
    arguments = parser.parse_args()
    pools = [pool.split("=", 1) for pool in arguments.pools]
    clients = {name: Client(connect(address)) for name, address in pools}
    answers: dict[str, list[Answer]] = {name: [] for name in clients}
    for case in cases(arguments.files):
        for name, client in clients.items():
            answers[name].append(ask(client, case))
    print("| pool | files | tokens | passes for a token, median | tokens/s, median | first token, ms | whole answer, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, all_of in answers.items():
        passes = statistics.median(answer.passes / answer.tokens for answer in all_of)
        rates = statistics.median(answer.tokens / (answer.seconds - answer.first_token_ms / 1e3) for answer in all_of)
        first = statistics.median(answer.first_token_ms for answer in all_of)
        whole = statistics.median(answer.seconds for answer in all_of)
        tokens = sum(answer.tokens for answer in all_of)
        print(f"| {name} | {len(all_of)} | {tokens} | {passes:.2f} | {rates:.0f} | {first:.0f} | {whole:.2f} |")
    first, *others = answers.values()
    for other in others:
        same = sum(one.edits == two.edits for one, two in zip(first, other))
        ratios = [two.seconds / one.seconds for one, two in zip(first, other)]
        print(f"same edits in {same} of {len(first)}; whole answers {statistics.median(ratios):.2f} times as fast")
    print(f"{sum(bool(answer.edits) for answer in first)} of {len(first)} answers change something")


if __name__ == "__main__":
    main()
