"""What the small code model can do, in figures: for the model card, and as JSON for whoever asks.

    python scripts/train/measure.py [--model FOLDER] [--windows 60] [--lines 300]

* Loss per language on the validation packages, beside a model that knows only how frequent each token is.
* Exact match of a next line, greedily, from the lines before it in the same file (test packages; one line of a file).
* Use of context: the loss on the last 256 tokens of 2,048, after the true context, after its lines in a random order, and
  after nothing; and the loss on a passage the first time, again at once, and again after 1,536 other tokens.
* Three completions, for the three test files whose hashes come first.
"""

import argparse
import difflib
import json
import random
import re
from pathlib import Path

import numpy as np
import torch

import data
from model import load
from train import CACHE, OUT

WINDOW, TAIL, BETWEEN = 2048, 256, 1536
LINE_CONTEXT, LINE_TOKENS = 1024, 48
COMMENTS = ("#", "//", "/*", "*", '"""', "'''", "@")


@torch.no_grad()
def losses(model, rows, tail=None):
    """Loss of each token of the rows, of their last `tail` only if given."""
    rows = torch.from_numpy(np.asarray(rows).astype(np.int64))
    found = torch.cat([model.loss(row, "none") for row in rows.split(max(1, 4096 // rows.shape[1]))])
    return found[:, -tail:] if tail else found


@torch.no_grad()
def greedy(model, tokens, most, stop):
    """The likeliest tokens one by one, until `stop` says so of the new ones."""
    cache, new, given = [], [], torch.tensor([tokens])
    while len(new) < most and len(tokens) + len(new) < model.shape.max_position_embeddings:
        token = int(model(given, cache)[0, -1].argmax())
        new.append(token)
        if stop(new):
            break
        given = torch.tensor([[token]])
    return new


def by_language(model, validation, train, special, count):
    """Loss per token of the model and of token frequencies, in nats, and bits per byte."""
    windows, figures = data.Windows(validation, special, seed=11), {}
    tokenizer = model.tokenizer
    counts = 1.0 + sum(np.bincount(own, minlength=model.shape.vocab_size) for own in train.values())
    unigram = -np.log(counts / counts.sum())
    for language in data.LANGUAGES:
        rows = np.stack([windows.window(language, 1024, fim_share=0) for _ in range(count)])
        loss = losses(model, rows)
        size = sum(len(tokenizer.decode(row[1:].tolist()).encode()) for row in rows)
        figures[language] = {"loss": float(loss.mean()), "unigram": float(unigram[rows[:, 1:]].mean()),
                             "bits_per_byte": float(loss.sum()) / np.log(2) / size, "windows": count}
    return figures


def context_use(model, tokens, special, count):
    """The losses after true, shuffled and no context, and those of a passage met twice, near and far."""
    windows, chance = data.Windows(tokens, special, seed=13), np.random.default_rng(13)
    true, shuffled, none, twice, far = [], [], [], [], []
    for at in range(count):
        language = data.LANGUAGES[at % len(data.LANGUAGES)]
        own = windows.plain(language, WINDOW)
        context, tail = own[:-TAIL], own[-TAIL:]
        lines = np.split(context, np.flatnonzero(context == special.newline) + 1)
        mixed = np.concatenate([lines[line] for line in chance.permutation(len(lines))])
        true.append(np.concatenate(([special.bos], context, tail)))
        shuffled.append(np.concatenate(([special.bos], mixed, tail)))
        none.append(np.concatenate(([special.bos], tail)))
        twice.append(np.concatenate(([special.bos], tail, tail)))
        far.append(np.concatenate(([special.bos], tail, windows.plain(language, BETWEEN), tail)))
    first, second = losses(model, twice).split(TAIL, dim=1)
    return {"windows": count, "true": float(losses(model, true, TAIL).mean()), "shuffled": float(losses(model, shuffled, TAIL).mean()),
            "none": float(losses(model, none, TAIL).mean()), "first": float(first.mean()), "second": float(second.mean()),
            "far": float(losses(model, far, TAIL).mean())}


def by_hash(files):
    return sorted(files, key=lambda file: data.hash_of(f"{file['package']} {file['path']}"))


def ids(model, text):
    return model.tokenizer.encode(text, add_special_tokens=False).ids


def next_lines(model, files, special, count):
    """Exact match and similarity of `count` greedily completed lines of each language, one of a file, files in the order of their hashes."""
    figures = {}
    for language in data.LANGUAGES:
        exact, similar, done = 0, 0.0, 0
        for file in by_hash([file for file in files if file["language"] == language]):
            lines = file["text"].split("\n")
            usable = [at for at in range(15, len(lines)) if re.search(r"\w.*\w.*\w", lines[at]) and len(lines[at].strip()) <= 100
                      and not lines[at].strip().startswith(COMMENTS)]
            if not usable or done == count:
                continue
            at = random.Random(data.hash_of(file["path"])).choice(usable)
            indent = re.match(r"\s*", lines[at]).group()
            before = ids(model, data.header(file) + "\n".join(lines[:at]) + "\n")[-LINE_CONTEXT:]
            new = greedy(model, [special.bos, *before], LINE_TOKENS, lambda new: new[-1] in (special.newline, special.eos)
                         and bool(model.tokenizer.decode(new).strip()))
            guess, truth = model.tokenizer.decode(new).strip().split("\n")[0].strip(), lines[at][len(indent):].strip()
            exact += guess == truth
            similar += difflib.SequenceMatcher(None, guess, truth, autojunk=False).ratio()
            done += 1
        figures[language] = {"samples": done, "exact": exact / done, "similarity": similar / done}
    return figures


def completions(model, files, special):
    """What follows the first half of each of three files."""
    shown = []
    for file in by_hash([file for file in files if 40 <= file["text"].count("\n") <= 400])[:3]:
        lines = file["text"].split("\n")
        half = len(lines) // 2
        before = ids(model, data.header(file) + "\n".join(lines[:half]) + "\n")[-3000:]
        new = greedy(model, [special.bos, *before], 120, lambda new: new[-1] == special.eos or new.count(special.newline) == 8)
        shown.append({"language": file["language"], "package": file["package"], "path": file["path"], "line": half,
                      "before": "\n".join(lines[half - 10:half]), "model": model.tokenizer.decode(new).rstrip("\n"),
                      "truth": "\n".join(lines[half:half + 8])})
    return shown


def measure(folder, cache, windows, lines):
    model = load(folder)
    model.tokenizer = data.open_tokenizer(folder)
    special = data.Special(model.tokenizer)
    train, validation, test = (data.tokenize(model.tokenizer, cache / f"{split}.jsonl") for split in ("train", "validation", "test"))
    files = list(data.files(cache / "test.jsonl"))
    figures = {}
    for name, find in [
        ("languages", lambda: by_language(model, validation, train, special, windows // 2)),
        ("context", lambda: context_use(model, validation, special, windows)),
        ("lines", lambda: next_lines(model, files, special, lines)),
        ("completions", lambda: completions(model, files, special)),
    ]:
        figures[name] = find()
        if name != "completions":
            print(name, json.dumps(figures[name]), flush=True)
    return figures


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, default=OUT)
    arguments.add_argument("--cache", type=Path, default=CACHE)
    arguments.add_argument("--windows", type=int, default=60, help="of context; of each language, half as many")
    arguments.add_argument("--lines", type=int, default=300, help="of each language, where the test packages have as many files")
    given = arguments.parse_args()
    print(json.dumps(measure(given.model, given.cache, given.windows, given.lines), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
