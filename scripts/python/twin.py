"""Slow and obvious twins of what the pool does: a text under edits, positions, and text from tokens."""

import json
import random
from dataclasses import dataclass
from functools import cache

from client import at_bytes, at_lsp
from stubs import ROOT


@dataclass(frozen=True)
class Place:
    """A character boundary, in all the ways in which it can be named."""

    index: int
    byte: int
    # (line, UTF-16 column); None between \r and \n, where the Language Server Protocol has no position.
    lsp: tuple[int, int] | None


def places(text: str) -> list[Place]:
    """All character boundaries of a text."""
    found, byte, line, column = [], 0, 0, 0
    for index, character in enumerate(text):
        inside_line_end = character == "\n" and text[index - 1 : index] == "\r"
        found.append(Place(index, byte, None if inside_line_end else (line, column)))
        byte += len(character.encode())
        if character == "\n" or (character == "\r" and text[index + 1 : index + 2] != "\n"):
            line, column = line + 1, 0
        else:
            column += 2 if ord(character) > 0xFFFF else 1
    return [*found, Place(len(text), byte, (line, column))]


@dataclass(frozen=True)
class Change:
    """One edit: both for the twin, and as the pool is told."""

    start: Place
    end: Place
    text: str
    as_lsp: bool

    def wire(self):
        if self.as_lsp:
            return at_lsp(self.start.lsp, self.end.lsp, self.text)
        return at_bytes(self.start.byte, self.end.byte, self.text)


def apply(text: str, changes: list[Change]) -> str:
    """The text after changes that were all made against it: insertions at one place in the order of the request."""
    result, behind = [], 0
    for change in sorted(changes, key=lambda change: (change.start.index, change.end.index)):
        result += [text[behind : change.start.index], change.text]
        behind = change.end.index
    return "".join(result) + text[behind:]


PIECES = ["", "", "x", " ", "\n", "\r\n", "\r", "🙂", "👩‍👩‍👧", "日本語", "é", "e\u0301", "ß", "\u2028", "0123456789"]
LINES = ["fn main() {}\n", "    let x = y + 1;\r\n", "# αβγ 🙂 comment\n", "def f(a, b):\n    return a\n", '"…"']


def random_changes(text: str, choose: random.Random, growth_limit: int) -> list[Change]:
    """One to four disjoint changes in any order; a text above the limit shrinks."""
    known, may_grow = places(text), len(text) < growth_limit
    chosen = sorted(choose.choices(known, k=2 * choose.randint(1, 4)), key=lambda place: place.index)
    changes = []
    for start, end in zip(chosen[::2], chosen[1::2], strict=True):
        if may_grow:
            end = known[min(end.index, start.index + choose.choice([0, 0, 0, 1, 3, 12]))]
        inserted = choose.choice(PIECES + LINES) if may_grow else ""
        as_lsp = choose.random() < 0.5 and start.lsp is not None and end.lsp is not None
        changes.append(Change(start, end, inserted, as_lsp))
    choose.shuffle(changes)
    return changes


@cache
def _token_bytes() -> list[bytes]:
    """The bytes of each token of the tokenizer that ships (byte-level BPE, GPT-2's alphabet); none for special ones."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet |= {chr(256 + index): byte for index, byte in enumerate(others)}
    tokenizer = json.loads((ROOT / "models/tiny-code/tokenizer.json").read_text(encoding="utf-8"))
    special = {token["id"] for token in tokenizer["added_tokens"]}
    table = [b""] * len(tokenizer["model"]["vocab"])
    for token, number in tokenizer["model"]["vocab"].items():
        if number not in special:
            table[number] = bytes(alphabet[character] for character in token)
    return table


def decode(ids) -> str:
    """The text of tokens, all at once; what is no UTF-8 becomes U+FFFD."""
    return b"".join(_token_bytes()[token] for token in ids).decode("utf-8", errors="replace")
