"""Windows of tokens to learn from, cut out of the corpus.

The files of a package follow each other, each under a comment with its path, as benchmarks for completion across files
join them; an end-of-text token closes a package. A window starts at the start of a line with a begin-of-sentence token.
A share of windows is turned into fill-in-the-middle form: begin, prefix, hole, suffix, end, middle, end of text.
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

LANGUAGES = ["python", "rust", "java"]
COMMENT = {"python": "#", "rust": "//", "java": "//"}
# Files without their path above them: also a form that the model meets.
UNNAMED_SHARE = 0.15
FIM_SHARE = 0.15
# How much of the windows is which language.
SHARES = [0.4, 0.2, 0.4]


class Special:
    """The tokens with a meaning."""

    def __init__(self, tokenizer):
        self.bos, self.eos, self.begin, self.hole, self.end = (
            tokenizer.token_to_id(f"<｜{name}｜>")
            for name in ("begin▁of▁sentence", "end▁of▁sentence", "fim▁begin", "fim▁hole", "fim▁end"))
        self.newline = tokenizer.encode("\n", add_special_tokens=False).ids[0]


def files(path):
    """The files of a split, in order."""
    with Path(path).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def header(file):
    """The comment above a file when files are joined."""
    return f"{COMMENT[file['language']]} {file['path']}\n"


def tokenize(tokenizer, path):
    """Tokens of a split by language; kept beside it until tokenizer or split change."""
    path = Path(path)
    kept = path.with_suffix(".npz")
    stamp = f"{path.stat().st_mtime_ns} {hash_of(tokenizer.to_str())}"
    if kept.exists():
        with np.load(kept) as arrays:
            if str(arrays["stamp"]) == stamp:
                return {language: arrays[language] for language in LANGUAGES}
    print(f"tokenizing {path.name}", flush=True)
    special, parts, package = Special(tokenizer), {language: [] for language in LANGUAGES}, {}
    batch = []

    def flush():
        for file, encoding in zip(batch, tokenizer.encode_batch_fast([file["shown"] for file in batch], add_special_tokens=False)):
            own = parts[file["language"]]
            if package.setdefault(file["language"], file["package"]) != file["package"]:
                own.append(np.array([special.eos], np.uint16))
                package[file["language"]] = file["package"]
            own.append(np.array(encoding.ids, np.uint16))
        batch.clear()

    for file in files(path):
        unnamed = hash_of(file["path"]) % 100 < 100 * UNNAMED_SHARE
        batch.append({**file, "shown": file["text"] if unnamed else header(file) + file["text"]})
        if len(batch) == 1000:
            flush()
    flush()
    tokens = {language: np.concatenate(own) for language, own in parts.items()}
    np.savez(kept, stamp=stamp, **tokens)
    return tokens


def hash_of(text):
    """A number that is the same in each run."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")


class Windows:
    """Random windows of a split; the same seed gives the same windows."""

    def __init__(self, tokens, special, seed):
        self.tokens, self.special = tokens, special
        self.lines = {language: np.flatnonzero(own == special.newline) + 1 for language, own in tokens.items()}
        self.random = np.random.default_rng(seed)

    def plain(self, language, length):
        """`length` tokens from the start of a line on."""
        lines = self.lines[language]
        usable = np.searchsorted(lines, len(self.tokens[language]) - length)
        start = lines[self.random.integers(usable)]
        return self.tokens[language][start:start + length]

    def window(self, language, length, fim_share=FIM_SHARE):
        special = self.special
        if self.random.random() >= fim_share:
            return np.concatenate(([special.bos], self.plain(language, length)))
        text = self.plain(language, length - 4)
        # A middle of few tokens to a few lines, anywhere but at the very ends.
        middle = int(np.exp(self.random.uniform(np.log(3), np.log(min(160, length // 4)))))
        start = int(self.random.integers(8, len(text) - middle - 8))
        prefix, inside, suffix = text[:start], text[start:start + middle], text[start + middle:]
        return np.concatenate(([special.bos, special.begin], prefix, [special.hole], suffix, [special.end], inside, [special.eos]))

    def batch(self, count, length, fim_share=FIM_SHARE):
        """`count` windows of `length` + 1 tokens, languages by chance."""
        rows = [self.window(language, length, fim_share) for language in self.random.choice(LANGUAGES, count, p=SHARES)]
        return np.stack(rows).astype(np.int64)


def open_tokenizer(folder):
    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
