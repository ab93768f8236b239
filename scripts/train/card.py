"""Makes the model card: README.md and loss.svg beside the weights, from the run's log and from `measure.py`'s figures.

    python scripts/train/card.py [--figures FILE]

`--figures` takes figures that `measure.py` printed before, instead of measuring again.
"""

import argparse
import collections
import csv
import json
from pathlib import Path

import data
from measure import measure
from train import CACHE, DECAY, OUT, REPEATS, REPEATS_THEN, REPEATS_UNTIL, TESTED

HERE = Path(__file__).resolve().parent
NAMES = {"python": "Python", "rust": "Rust", "java": "Java"}
LABELS = NAMES | {"again": "passage again"}
FENCE = "```"
# Readable on white and on dark pages; told apart without colour by their labels.
COLOURS = {"training": "#9aa0a6", "python": "#3776ab", "rust": "#c2571a", "java": "#2e8b57", "again": "#7b4fa3"}


def curve(log, path):
    """The losses over the tokens, as SVG."""
    rows = [{key: float(value) for key, value in row.items() if value} for row in log]
    series = {"training": [(row["tokens"] / 1e6, row["loss"]) for row in rows]}
    for tested in TESTED:
        series[tested] = [(row["tokens"] / 1e6, row[tested]) for row in rows if tested in row]
    width, height, left, right, top, bottom = 760, 380, 50, 130, 20, 44
    most = max(row["tokens"] for row in rows) / 1e6
    low = int(2 * min(loss for points in series.values() for _, loss in points)) / 2
    high = 7.0

    def at(x, y):
        return (left + x / most * (width - left - right), top + (high - min(y, high)) / (high - low) * (height - top - bottom))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for tick in range(int(2 * low), int(2 * high) + 1):
        (x, y), (end, _) = at(0, tick / 2), at(most, tick / 2)
        out.append(f'<path d="M{x} {y:.1f}H{end}" stroke="#e4e6e8"/><text x="{x - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{tick / 2:g}</text>')
    step = next(size for size in (0.25, 0.5, 1, 2, 5, 10, 50, 100, 500, 1000, 5000) if most / size <= 10)
    for tick in range(int(most / step) + 1):
        x, y = at(tick * step, low)
        out.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle" fill="#555">{tick * step:g}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle" fill="#555">million tokens trained on; the ordinate is the loss per token in nats</text>')
    length, borders = None, []
    for row in rows:
        if length is not None and row["length"] != length:
            borders.append((row["tokens"] / 1e6, row["length"]))
        length = row["length"]
    for tokens, length in borders:
        x = at(tokens, low)[0]
        out.append(f'<path d="M{x:.1f} {top}V{height - bottom}" stroke="#b0b4b8" stroke-dasharray="3 3"/>'
                   f'<text x="{x + 4:.1f}" y="{top + 10}" fill="#555">{length:.0f}</text>')
    ends = []
    for name, points in series.items():
        path_data = "M" + "L".join("{:.1f} {:.1f}".format(*at(*point)) for point in points)
        out.append(f'<path d="{path_data}" fill="none" stroke="{COLOURS[name]}" stroke-width="{1 if name == "training" else 2}"/>')
        ends.append((at(*points[-1])[1], name, points[-1][1]))
    floor = 0.0
    for y, name, loss in sorted(ends):
        floor = max(y, floor + 15)
        out.append(f'<text x="{width - right + 6}" y="{floor + 4:.1f}" fill="{"#555" if name == "training" else COLOURS[name]}">{LABELS.get(name, name)} {loss:.2f}</text>')
    path.write_text("\n".join([*out, "</svg>"]) + "\n")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def corpus_tables(cache):
    """Packages and sizes by language and split; licences by count."""
    packages = list(csv.DictReader((HERE / "packages.csv").open()))
    sizes = collections.Counter()
    for split in ("train", "validation", "test"):
        for file in data.files(cache / f"{split}.jsonl"):
            sizes[file["language"], split] += len(file["text"].encode())
    rows = []
    for language in data.LANGUAGES:
        cells = [NAMES[language]]
        for split in ("train", "validation", "test"):
            count = sum((package["language"], package["split"]) == (language, split) for package in packages)
            cells.append(f"{count} packages, {sizes[language, split] / 1e6:.1f} MB")
        rows.append(cells)
    licences = collections.Counter(package["licence"] for package in packages)
    return table(["", "training", "validation", "test"], rows), "; ".join(f"{name}: {count}" for name, count in licences.most_common())


def card(config, facts, log, figures, cache):
    data_table, licences = corpus_tables(cache)
    spent, before = collections.Counter(), 0.0
    for row in log:
        spent[row["length"]] += float(row["minutes"]) - before
        before = float(row["minutes"])
    stages = [f"{length} tokens ({spent[str(length)] / before:.0%} of the time, {facts['batch'] * times} tokens a step)"
              for _, length, times in facts["stages"]]
    hardware = f"{facts['threads']} CPU cores without bf16 units, f32" if facts["device"] == "cpu" else "one GPU, bf16"
    context, lines = figures["context"], figures["lines"]
    loss_table = table(["loss per token in nats", *NAMES.values()], [
        ["token frequencies alone", *(f"{figures['languages'][language]['unigram']:.2f}" for language in NAMES)],
        ["this model", *(f"**{figures['languages'][language]['loss']:.2f}**" for language in NAMES)],
        ["this model, bits per byte", *(f"{figures['languages'][language]['bits_per_byte']:.2f}" for language in NAMES)]])
    line_table = table(["next line, greedily", *NAMES.values()], [
        ["lines", *(lines[language]["samples"] for language in NAMES)],
        ["exactly right", *(f"{lines[language]['exact']:.1%}" for language in NAMES)],
        ["similarity of characters", *(f"{lines[language]['similarity']:.0%}" for language in NAMES)]])
    context_table = table(["loss on the last 256 tokens of 2,048", "nats"], [
        ["after the true context", f"**{context['true']:.2f}**"], ["after its lines in a random order", f"{context['shuffled']:.2f}"],
        ["after nothing", f"{context['none']:.2f}"]])
    shown = "\n\n".join(
        f"`{one['package']}`, {one['path']}, after line {one['line']}:\n\n{FENCE}{one['language']}\n{one['before']}\n{FENCE}\n\n"
        f"the model:\n\n{FENCE}{one['language']}\n{one['model']}\n{FENCE}\n\nthe file:\n\n{FENCE}{one['language']}\n{one['truth']}\n{FENCE}"
        for one in figures["completions"])
    return f"""# pie-coder

A code model of {facts['parameters'] / 1e6:.1f} million parameters in DeepSeek-Coder's shape, so that pie-pool can be tried, tested and
measured offline with weights that learned something. It is a test object: see "What it can and cannot do". It was trained on
{"a CPU, and is to be replaced by a GPU-trained one" if facts["device"] == "cpu" else "one GPU"}: the folder's name says no size.

Llama form: {config['num_hidden_layers']} layers, width {config['hidden_size']}, {config['num_attention_heads']} query heads of {config['head_dim']} over {config['num_key_value_heads']} KV heads, MLP {config['intermediate_size']}, head tied to the embedding,
RoPE with theta {config['rope_theta']:g} scaled linearly by {config['rope_scaling']['factor']:g}, {config['max_position_embeddings']} positions. Byte-level BPE of {config['vocab_size']} tokens with DeepSeek-Coder's
split, a begin-of-sentence token in front, and its fill-in-the-middle markers. Weights in bf16.

## Data

Published source packages under permissive licences, by name and version in `scripts/train/packages.csv`. Whole packages
belong to one split; files near others, tests, generated and huge files were dropped, and licence headers cut off.

{data_table}

Licences, by packages: {licences}.

Of {sum(facts['text_tokens'].values()) / 1e6:.0f} million training tokens, the run drew {facts['tokens'] / 1e6:.1f} million at random: most of the text was never seen,
and next to nothing twice.

## Recipe

{hardware}; {facts['minutes']:.0f} minutes, partly shared with other programs; {facts['step']} steps. Windows of\n{'; '.join(stages)}.
{", ".join(f"{NAMES[language]} {share:.0%}" for language, share in zip(data.LANGUAGES, data.SHARES))} of the windows. Files of a package joined under
comments with their paths; {data.FIM_SHARE:.0%} of the windows in fill-in-the-middle order (begin, prefix, hole, suffix, end, middle).
Matrices by Muon (rate {facts['rate']:g}), embedding and norms by Adam (rate {facts['table_rate']:g}), linear decay over
the last {DECAY:.0%} of the time. Two helps for copying from context, which so few tokens do not teach: heads that copy are there
from the start (heads of the first layer look at the one and two tokens before, heads of the second find where these tokens
stood together before and copy what followed; all learn on), and some windows hold a passage twice, at any distance
({REPEATS:.0%} of them at first, {REPEATS_THEN:.0%} from about {REPEATS_UNTIL:.0%} of the time on). Commands: `scripts/train/README.md`.

![Loss while training](loss.svg)

The broken lines show where windows get longer. The coloured lines are the validation packages, in windows of 512 tokens;
"passage again" is the loss on 128 tokens that come a second time.

## Figures

On packages the model never saw. Windows of 1,024 tokens, {figures['languages']['python']['windows']} of each language:

{loss_table}

A line in the middle of a test file, given up to 1,024 tokens before it, one line of a file:

{line_table}

Does it use its context? {context['windows']} windows of the validation packages:

{context_table}

A passage of 256 tokens costs {context['first']:.2f} nats a token the first time, {context['second']:.2f} when it comes again at once, and
{context['far']:.2f} when it comes again after 1,536 other tokens.

## Three completions

Of the test files of 40 to 400 lines, the three whose hashes come first, completed greedily from the middle on for up to
eight lines. Not picked.

{shown}

## What it can and cannot do

{verdict(figures)}
"""


def verdict(figures):
    """In plain words, as far as the figures carry them."""
    context, lines = figures["context"], figures["lines"]
    gain, copied, far = context["none"] - context["true"], context["first"] - context["second"], context["first"] - context["far"]
    order = context["shuffled"] - context["true"]
    exact = ", ".join(f"{lines[language]['exact']:.0%} of {NAMES[language]}" for language in NAMES)
    said = ["It writes text that looks like Python, Rust or Java: indentation, brackets, keywords, common phrases."]
    said.append(f"It gets few whole lines right ({exact}), mostly short, formulaic or repeated ones. It does not understand programs, "
                "follow instructions, or write correct functions: use it for no work.")
    said.append(f"Context lowers its loss by {gain:.2f} nats a token; the order of the context's lines matters by {order:.2f}. "
                + ("So a cache that holds wrong or misplaced context shows in its figures." if gain > 0.3 else
                   "That is little: it predicts mostly from the last lines, and differences between caches show weakly in its figures."))
    said.append(f"Repetition helps by {copied:.2f} nats a token near and {far:.2f} far: " + ("it copies from near context, and from far context less well." if copied > 1 and far > 0.5 else
                "it copies from near context." if copied > 1 else "it copies from its context weakly, if at all.") + " That skill was built in, and kept by training.")
    said.append("It learned from few tokens for its size; the same commands with a GPU's budget make a better one.")
    return "\n".join(f"* {one}" for one in said)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, default=OUT)
    arguments.add_argument("--cache", type=Path, default=CACHE)
    arguments.add_argument("--run", default="run")
    arguments.add_argument("--windows", type=int, default=60)
    arguments.add_argument("--lines", type=int, default=300)
    arguments.add_argument("--figures", type=Path)
    given = arguments.parse_args()
    folder = given.cache / given.run
    figures = json.loads(given.figures.read_text()) if given.figures else measure(given.model, given.cache, given.windows, given.lines)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    config = json.loads((given.model / "config.json").read_text())
    facts = json.loads((folder / "facts.json").read_text())
    with (folder / "loss.csv").open() as file:
        log = list(csv.DictReader(file))
    curve(log, given.model / "loss.svg")
    (given.model / "README.md").write_text(card(config, facts, log, figures, given.cache), encoding="utf-8")
    print(given.model / "README.md")


if __name__ == "__main__":
    main()
