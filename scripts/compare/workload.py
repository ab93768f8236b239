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
# Tokenizers with large vocabularies make fewer tokens of them.
MORE = ("turtle", "pickletools", "subprocess", "zipfile", "ast", "enum", "statistics", "datetime", "fractions", "pickle", "optparse", "locale")
PASTED, LINES, DECODED = 64, 5, 128
# Tokens of eight characters of code.
TYPED = 3
SESSIONS, EDITS = 4, 6
# Lets threads that still spin from another system's turn go to sleep, and then looks whether the machine is quiet.
SETTLE, LOOK = 0.3, 0.2


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


def tokenizer_of(model: Path) -> Tokenizer:
    if model.is_dir():
        return Tokenizer.from_file(str(model / "tokenizer.json"))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name).backend_tokenizer


class Code:
    """Tokens of real code: documents of equal length, and pieces to paste into them that no document holds."""

    def __init__(self, model: Path, context: int):
        tokenizer = tokenizer_of(model)
        text = "".join(inspect.getsource(import_module(name)) for name in (MODULES if model.is_dir() else MODULES + MORE))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        self.newline = tokenizer.encode("\n", add_special_tokens=False).ids[-1]
        self.documents = [ids[slot * context : (slot + 1) * context] for slot in range(SESSIONS)]
        self._spare = ids[SESSIONS * context :]
        if len(self._spare) < 32 * context:
            wanted = len(ids) // (SESSIONS + 32)
            raise SystemExit(f"the standard library's {len(ids)} tokens are too few for this context: at most {wanted}")

    def paste(self, at: int, chance: random.Random, tokens: int = PASTED) -> Splice:
        start = chance.randrange(len(self._spare) - tokens)
        return Splice(at, 0, tuple(self._spare[start : start + tokens]))

    def cut(self, at: int, tokens: list[int]) -> Splice:
        """Deletes whole lines, from the first that begins behind `at`."""
        ends = (index for index in range(at, len(tokens)) if tokens[index] == self.newline)
        start = next(ends) + 1
        for _ in range(LINES):
            end = next(ends) + 1
        return Splice(start, end - start)


# Shares of the CPUs that others took while every system idled, one per measurement.
taken_by_others: list[float] = []


def settle() -> None:
    def busy() -> float:
        user, nice, system, _idle, _wait, irq, soft, steal, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")

    time.sleep(SETTLE)
    before, start = busy(), time.perf_counter()
    time.sleep(LOOK)
    share = (busy() - before) / (time.perf_counter() - start) / (os.cpu_count() or 1)
    taken_by_others.append(min(1.0, max(0.0, share)))


def turn(kind: str, part: float, code: Code, system, repetition: int) -> float:
    """One measurement of one system: seconds, or tokens a second for decoding."""
    chance = random.Random(f"{kind} {part} {repetition}")
    document = code.documents[0]
    if kind == "prefill":
        # A first token of its own: nothing that is held has the same leading text.
        tokens = [chance.randrange(1000, 8000), *document[1:]]
        settle()
        return system.prefill(tokens)
    if kind == "decode":
        system.hold(0, document if part else document[:1])
        settle()
        return system.decode(0, DECODED)
    system.hold(0, document)
    at = int(part * len(document))
    if kind == "delete":
        splice = code.cut(at, document)
    else:
        splice = code.paste(at, chance, TYPED if kind == "type" else PASTED)
    settle()
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

    settle()
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
    ("8 characters typed at 50 %", "type", 0.5),
    ("64 tokens inserted at 10 %", "insert", 0.1),
    ("64 tokens inserted at 50 %", "insert", 0.5),
    ("64 tokens inserted at 90 %", "insert", 0.9),
    ("5 lines deleted at 50 %", "delete", 0.5),
    ("decode behind the document", "decode", 1.0),
    ("decode at depth 0", "decode", 0.0),
    ("four sessions edited at once", "sessions", 0.0),
)
KINDS = tuple(dict.fromkeys(kind for _, kind, _ in SCENARIOS))
AT_ONCE = ("four sessions edited at once, p50", "four sessions edited at once, p95")


def measure(systems: list, code: Code, repeat: int, kinds=KINDS, say=print):
    """Gives (scenario, {system: one figure per repetition}) one by one: seconds, or tokens a second for decoding."""
    warm = {"sessions"}
    for title, kind, part in SCENARIOS:
        if kind not in kinds:
            continue
        taking = [system for system in systems if kind in system.kinds]
        figures: dict[str, dict[str, list[float]]] = {}
        # The first round of each kind warms up and does not count.
        for repetition in range(0 if kind in warm else -1, repeat):
            # Another one begins each time.
            first = repetition % max(1, len(taking))
            for system in taking[first:] + taking[:first]:
                if kind == "sessions":
                    times = sessions_at_once(code, system, repetition)
                    found = dict(zip(AT_ONCE, (percentile(times, 0.5), percentile(times, 0.95)), strict=True))
                else:
                    found = {title: turn(kind, part, code, system, repetition)}
                for name, figure in found.items():
                    if repetition >= 0:
                        figures.setdefault(name, {}).setdefault(system.name, []).append(figure)
        warm.add(kind)
        for name, values in figures.items():
            medians = (f"{system} {show(name, statistics.median(each))}" for system, each in values.items())
            say(f"{name}: {', '.join(medians)}")
        yield from figures.items()


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
    for title, figures in measure([system], Code(model, context), repeat, say=lambda line: None):
        for values in figures.values():
            print(f"{title:40} {show(title, statistics.median(values))}   {[float(f'{value:.4g}') for value in values]}")


def show(title: str, figure: float) -> str:
    if title.startswith("decode"):
        return f"{figure:,.0f} tokens/s"
    return f"{1000 * figure:,.0f} ms" if figure >= 0.1 else f"{1000 * figure:.1f} ms"
