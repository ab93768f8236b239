"""Trains the tokenizers that ship with pie-pool, byte for byte reproducibly.

Two byte-level BPE tokenizers come out:

* `models/tiny-code/tokenizer.json`: vocabulary 8192, in the form of DeepSeek-Coder's (split at line breaks, words,
  punctuation, CJK and digits; a begin-of-sentence token in front; the same fill-in-the-middle markers), with
  `tokenizer_config.json` beside it.
* `crates/pie-text/tests/data/gpt2-2k.json`: vocabulary 2048, in the form of GPT-2's, for tests.

Input is what every machine with this Python and Rust has: the *.py files of the standard library, and if
`--rust` names a folder, the *.rs files below it. Files are read in the order of their paths, so equal inputs give
equal files. Run:

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.2
    venv/bin/python scripts/train/tokenizer.py [--rust FOLDER]

With `--corpus`, it makes instead the tokenizer of the small code model, in the same form, from a part of each package
of the corpus that `corpus.py` made: `models/pie-coder/tokenizer.json` and `tokenizer_config.json`.

    venv/bin/python scripts/train/tokenizer.py --corpus ~/.cache/pie-pool/train/train.jsonl
"""

import argparse
import json
import sysconfig
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[2]
BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
FIM = ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"]
# Folders of the standard library that are no typical code: vendored, generated, or tests made of data.
SKIPPED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__", "ensurepip", "pydoc_data", "encodings"}
# At most this much of one file, so that one long table does not set the vocabulary.
BYTES_PER_FILE = 120_000
# Of the corpus: the small code model's vocabulary, and how much of each package it is made from.
CODER_VOCABULARY = 6144
BYTES_PER_PACKAGE = 250_000


def sources(rust):
    """The training files in a fixed order."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    found = [path for path in sorted(stdlib.rglob("*.py")) if not SKIPPED & set(path.relative_to(stdlib).parts)]
    if rust:
        found += sorted(Path(rust).rglob("*.rs"))
    return found


def texts(paths):
    """Their texts, whole lines at a time: what a trainer splits the same way in any batch size."""
    for path in paths:
        yield path.read_text(encoding="utf-8", errors="ignore")[:BYTES_PER_FILE]


def corpus_texts(path):
    """Files of the corpus in its order, up to a share of each package."""
    used = {}
    for line in path.open(encoding="utf-8"):
        file = json.loads(line)
        if used.get(file["package"], 0) < BYTES_PER_PACKAGE:
            used[file["package"]] = used.get(file["package"], 0) + len(file["text"].encode())
            yield file["text"]


def byte_level(vocabulary, special, splits):
    """An untrained byte-level BPE and its trainer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splits
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    return tokenizer, trainer


def deepseek_splits():
    """DeepSeek-Coder's pre-tokenizer."""

    def isolated(pattern):
        return pre_tokenizers.Split(Regex(pattern), behavior="isolated")

    return pre_tokenizers.Sequence(
        [
            isolated("[\r\n]"),
            isolated(r"\s?\p{L}+"),
            isolated(r"\s?\p{P}+"),
            isolated("[一-龥ࠀ-一가-퟿]+"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def train_deepseek_form(vocabulary, texts, folder):
    """A tokenizer in the form of DeepSeek-Coder's, with its configuration beside it."""
    tokenizer, trainer = byte_level(vocabulary, [BOS, EOS, *FIM], deepseek_splits())
    tokenizer.train_from_iterator(texts, trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(single=[BOS, "$A"], special_tokens=[(BOS, bos)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "LlamaTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 16384,
    }
    text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return tokenizer


def train_gpt2(paths, path):
    """The other family, small, for tests."""
    splits = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer, trainer = byte_level(2048, ["<|endoftext|>"], splits)
    tokenizer.train_from_iterator(texts(paths), trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path), pretty=False)
    return tokenizer


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rust", help="a folder with Rust sources")
    arguments.add_argument("--root", type=Path, default=ROOT, help="where models/ and crates/ lie")
    arguments.add_argument("--corpus", type=Path, help="train.jsonl of corpus.py: make the small code model's instead")
    given = arguments.parse_args()
    if given.corpus:
        coder = train_deepseek_form(CODER_VOCABULARY, corpus_texts(given.corpus), given.root / "models/pie-coder")
        print(f"vocabulary {coder.get_vocab_size()}")
        return
    paths = sources(given.rust)
    tiny = train_deepseek_form(8192, texts(paths), given.root / "models/tiny-code")
    gpt2 = train_gpt2(paths, given.root / "crates/pie-text/tests/data/gpt2-2k.json")
    print(f"{len(paths)} files; vocabularies {tiny.get_vocab_size()} and {gpt2.get_vocab_size()}")


if __name__ == "__main__":
    main()
