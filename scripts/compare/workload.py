"""What is measured, the same for every system: documents of real code, edits, scenarios, and the turns they take.

A system has a `name`, a set of `kinds` of scenarios that it takes part in, and these methods; `slot` is one of four documents:

    prefill(tokens)              seconds to the first token, with nothing of these tokens cached
    hold(slot, tokens)           holds a document whose tokens are all encoded (no tokens: drops what is held); not timed
    edit(slot, splice)           seconds from sending an edit of the held document to the first token behind it, and the token
    decode(slot, count)          tokens a second behind the held document
    greedy(tokens, count)        the tokens that follow, for a check that all compute the same model
    describe()                   what is measured, for the report
"""

import inspect
import math
import os
import platform
import random
import statistics
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tokenizers import Tokenizer

# Modules of the standard library that are one long file each.
MODULES = ("argparse", "tarfile", "typing", "inspect", "configparser", "smtplib", "doctest", "pydoc")
PASTED, LINES, DECODED = 64, 5, 128
SESSIONS, EDITS = 4, 6
# Lets threads that still spin from another system's turn go to sleep.
SETTLE = 0.3


@dataclass(frozen=True)
class Splice:
    """At token `at`, deletes `delete` tokens and inserts these."""

    at: int
    delete: int
    insert: tuple[int, ...] = ()

    def apply(self, tokens: list[int]) -> list[int]:
        return tokens[: self.at] + list(self.insert) + tokens[self.at + self.delete :]

    @staticmethod
    def between(old: list[int], new: list[int]) -> "Splice":
        shorter = min(len(old), len(new))
        head = next((at for at in range(shorter) if old[at] != new[at]), shorter)
        tail = next((at for at in range(shorter - head) if old[-1 - at] != new[-1 - at]), shorter - head)
        return Splice(head, len(old) - head - tail, tuple(new[head : len(new) - tail]))


class Code:
    """Tokens of real code: documents of equal length, and pieces to paste into them that no document holds."""

    def __init__(self, model: Path, context: int):
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        text = "".join(inspect.getsource(import_module(name)) for name in MODULES)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        self.newline = tokenizer.encode("\n", add_special_tokens=False).ids[-1]
        self.documents = [ids[slot * context : (slot + 1) * context] for slot in range(SESSIONS)]
        self._spare = ids[SESSIONS * context :]
        if len(self._spare) < 32 * context:
            wanted = len(ids) // (SESSIONS + 32)
            raise SystemExit(f"the standard library's {len(ids)} tokens are too few for this context: at most {wanted}")

    def paste(self, at: int, chance: random.Random) -> Splice:
        start = chance.randrange(len(self._spare) - PASTED)
        return Splice(at, 0, tuple(self._spare[start : start + PASTED]))

    def cut(self, at: int, tokens: list[int]) -> Splice:
        """Deletes whole lines, from the first that begins behind `at`."""
        ends = (index for index in range(at, len(tokens)) if tokens[index] == self.newline)
        start = next(ends) + 1
        for _ in range(LINES):
            end = next(ends) + 1
        return Splice(start, end - start)


def turn(kind: str, part: float, code: Code, system, repetition: int) -> float:
    """One measurement of one system: seconds, or tokens a second for decoding."""
    chance = random.Random(f"{kind} {part} {repetition}")
    document = code.documents[0]
    if kind == "prefill":
        # A first token of its own: nothing that is held has the same leading text.
        tokens = [chance.randrange(1000, 8000), *document[1:]]
        time.sleep(SETTLE)
        return system.prefill(tokens)
    if kind == "decode":
        system.hold(0, document if part else document[:1])
        time.sleep(SETTLE)
        return system.decode(0, DECODED)
    system.hold(0, document)
    at = int(part * len(document))
    splice = code.paste(at, chance) if kind == "insert" else code.cut(at, document)
    time.sleep(SETTLE)
    return system.edit(0, splice)[0]


def sessions_at_once(code: Code, system, repetition: int) -> list[float]:
    """Four documents, each edited at random places as fast as its answers come: insertions and deletions in turn."""
    for slot, document in enumerate(code.documents):
        system.hold(slot, document)
    times, failures = [], []
    barrier = threading.Barrier(SESSIONS)

    def editor(slot: int) -> None:
        try:
            chance = random.Random(f"session {slot} {repetition}")
            tokens = code.documents[slot]
            barrier.wait()
            for number in range(EDITS):
                at = int(chance.uniform(0.05, 0.9) * len(tokens))
                splice = code.paste(at, chance) if (number + slot) % 2 == 0 else code.cut(at, tokens)
                times.append(system.edit(slot, splice)[0])
                tokens = splice.apply(tokens)
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    time.sleep(SETTLE)
    threads = [threading.Thread(target=editor, args=(slot,)) for slot in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return times


def percentile(values: list[float], share: float) -> float:
    """The smallest value that this share of the values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


# Title, kind, part of the document.
SCENARIOS = (
    ("full prefill", "prefill", 1.0),
    ("64 tokens inserted at 10 %", "insert", 0.1),
    ("64 tokens inserted at 50 %", "insert", 0.5),
    ("64 tokens inserted at 90 %", "insert", 0.9),
    ("5 lines deleted at 50 %", "delete", 0.5),
    ("decode behind the document", "decode", 1.0),
    ("decode at depth 0", "decode", 0.0),
)
AT_ONCE = ("four sessions edited at once, p50", "four sessions edited at once, p95")


def measure(systems: list, code: Code, repeat: int, say=print) -> dict[str, dict[str, list[float]]]:
    """{scenario: {system: one figure per repetition}}: seconds, or tokens a second for decoding."""
    results: dict[str, dict[str, list[float]]] = {}

    def turns(title: str, kind: str, one) -> None:
        taking = [system for system in systems if kind in system.kinds]
        for repetition in range(-1, repeat):
            # Another one begins each time; the first round warms up and does not count.
            first = repetition % len(taking) if taking else 0
            for system in taking[first:] + taking[:first]:
                if repetition < 0 and kind == "sessions":
                    continue
                for name, figure in one(system, repetition).items():
                    if repetition >= 0:
                        results.setdefault(name, {}).setdefault(system.name, []).append(figure)
        said = (f"{system.name} {statistics.median(results[title][system.name]):.4g}" for system in taking)
        say(f"{title}: {', '.join(said)}")

    for title, kind, part in SCENARIOS:
        turns(title, kind, lambda system, repetition: {title: turn(kind, part, code, system, repetition)})

    def four(system, repetition: int) -> dict[str, float]:
        times = sessions_at_once(code, system, repetition)
        return dict(zip(AT_ONCE, (percentile(times, 0.5), percentile(times, 0.95)), strict=True))

    turns(AT_ONCE[1], "sessions", four)
    return results


def machine() -> dict:
    names = {line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line}
    return {
        "cpu": ", ".join(sorted(names)) or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }


def alone(system, model: Path, context: int, repeat: int) -> None:
    """One system by itself, as a command."""
    print(f"{system.name}: {system.describe()}; {machine()}")
    for title, figures in measure([system], Code(model, context), repeat, say=lambda line: None).items():
        for values in figures.values():
            print(f"{title:40} {show(title, statistics.median(values))}   {[float(f'{value:.4g}') for value in values]}")


def show(title: str, figure: float) -> str:
    if title.startswith("decode"):
        return f"{figure:,.0f} tokens/s"
    return f"{1000 * figure:,.0f} ms" if figure >= 0.1 else f"{1000 * figure:.1f} ms"
