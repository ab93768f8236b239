"""Filling in the middle by moving markers, against filling in from scratch: agreement and time.

    pie pool --world-size 1 --listen 127.0.0.1:7400 &
    .venv/bin/python scripts/measure/fim.py --pool 127.0.0.1:7400 --out fim.json

For each document a cursor stands somewhere, and then moves: to the next line, or far away. A session with the strategy `pie`
moves its markers and turns the keys between them; one with `full` encodes again everything from the first marker that moved.
Both fill in at the new place, in turns; a third session, opened for the purpose, fills in from scratch and is the reference.
"""

import argparse
import difflib
import json
import math
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
from client import Client, connect  # noqa: E402
from pie.v1 import pie_pb2 as pb  # noqa: E402

FIM = pb.COMPLETION_MODE_FILL_IN_THE_MIDDLE
ROOT = Path(__file__).resolve().parents[2]
MOVES = ("next line", "far")


def documents(count: int, lines: int) -> list[str]:
    """Source files of this repository, cut to so many lines."""
    files = sorted([*ROOT.glob("crates/*/src/**/*.rs"), *ROOT.glob("scripts/**/*.py")], key=lambda path: path.name)
    texts = ("".join(path.read_text().splitlines(keepends=True)[:lines]) for path in files)
    long_enough = [text for text in texts if text.count("\n") >= lines]
    return long_enough[:: max(1, len(long_enough) // count)][:count]


def line_start(text: str, line: int) -> int:
    """Byte offset behind the indentation of a line."""
    before = "".join(text.splitlines(keepends=True)[:line])
    rest = text[len(before) :]
    return len((before + rest[: len(rest) - len(rest.lstrip(" "))]).encode())


def ask(client: Client, session: str, cursor: int, tokens: int) -> tuple[pb.CompleteResponse, list[int], float]:
    start, first, ids = time.perf_counter(), None, []
    fields = {"at_byte": cursor, "mode": FIM, "max_tokens": tokens, "top_logprobs": 20}
    for message in client.stream(session, **fields):
        if first is None and message.tokens:
            first, took = message, time.perf_counter() - start
        ids += [token.id for token in message.tokens]
    return first, ids, took * 1000


def divergence(reference: pb.CompleteResponse, other: pb.CompleteResponse) -> float:
    """KL(reference || other) of the first token over the reference's 20 likeliest; those that `other` does not list are taken
    as its least likely listed one, so this is a lower bound there."""
    theirs = {top.id: top.logprob for top in other.tokens[0].top}
    least = min(theirs.values())
    return sum(
        math.exp(top.logprob) * (top.logprob - theirs.get(top.id, least)) for top in reference.tokens[0].top
    )


def measure(client: Client, text: str, here: int, there: int, tokens: int) -> dict:
    moved = {
        "pie": client.open(text, strategy=pb.STRATEGY_PIE).session,
        "full": client.open(text, strategy=pb.STRATEGY_FULL).session,
    }
    for session in moved.values():
        ask(client, session, here, 1)
    answers = {name: ask(client, session, there, tokens) for name, session in moved.items()}
    # A leading character of its own, so that it shares nothing with the two.
    scratch = client.open("\n" + text).session
    reference = ask(client, scratch, there + 1, tokens)
    exact = answers["full"]
    row = {"tokens": exact[0].timings.tokens_encoded + exact[0].timings.tokens_reused}
    for name, (first, ids, took) in answers.items():
        row[name] = {"ms": took, "encoded": first.timings.tokens_encoded, "rotated": first.timings.tokens_rotated}
    row["scratch_ms"] = reference[2]
    pie = answers["pie"]
    row["first_equal"] = pie[1][0] == exact[1][0]
    row["all_equal"] = pie[1] == exact[1]
    row["similarity"] = difflib.SequenceMatcher(None, pie[1], exact[1]).ratio()
    row["kl"] = divergence(exact[0], pie[0])
    for session in [*moved.values(), scratch]:
        client.close(session)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="127.0.0.1:7400")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--lines", type=int, default=150)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = {move: [] for move in MOVES}
    with connect(arguments.pool) as channel:
        client = Client(channel)
        for text in documents(arguments.documents, arguments.lines):
            lines = text.count("\n")
            for move, (here, there) in {
                "next line": (lines // 2, lines // 2 + 1),
                "far": (lines // 5, lines * 4 // 5),
            }.items():
                here, there = line_start(text, here), line_start(text, there)
                rows[move].append(measure(client, text, here, there, arguments.tokens))
    print("| the cursor moves | tokens | `pie` | `full` | from scratch | full / pie | encoded, pie / full | turned "
          "| first token equal | all equal | similarity | KL |")
    print("| --- " * 12 + "|")
    for move, list_of_rows in rows.items():
        median = lambda pick: statistics.median(pick(row) for row in list_of_rows)  # noqa: E731
        share = lambda key: f"{100 * statistics.mean(row[key] for row in list_of_rows):.0f} %"  # noqa: E731
        print(
            f"| {move} | {median(lambda row: row['tokens']):.0f} "
            f"| {median(lambda row: row['pie']['ms']):.1f} ms | {median(lambda row: row['full']['ms']):.1f} ms "
            f"| {median(lambda row: row['scratch_ms']):.1f} ms "
            f"| {median(lambda row: row['full']['ms'] / row['pie']['ms']):.1f} "
            f"| {median(lambda row: row['pie']['encoded']):.0f} / {median(lambda row: row['full']['encoded']):.0f} "
            f"| {median(lambda row: row['pie']['rotated']):.0f} "
            f"| {share('first_equal')} | {share('all_equal')} | {share('similarity')} | {median(lambda row: row['kl']):.4f} |"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
