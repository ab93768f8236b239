#!/usr/bin/env python3
"""Compares a pool that serves a real model with Transformers on the same folder or GGUF file: tokens of a text, the logits of the five
likeliest tokens behind it, and greedy tokens.

    .venv/bin/pip install 'transformers>=5.23' torch accelerate gguf
    .venv/bin/python scripts/models/fetch.py qwen2.5-coder-0.5b
    pie pool --model .cache/models/qwen2.5-coder-0.5b.gguf &
    .venv/bin/python scripts/models/compare.py .cache/models/qwen2.5-coder-0.5b.gguf crates/pie-words/src/ids.rs

Exits with 1 if anything differs: a token, or a logit's difference to the likeliest one's by more than --tolerance.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import stubs  # noqa: E402

stubs.generate()
import torch  # noqa: E402
from client import Client, connect  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402


TOP = 5


def loaded(model: Path) -> tuple:
    """Tokenizer and model, in f32, as Transformers opens them."""
    place, more = (model.parent, {"gguf_file": model.name}) if model.is_file() else (model, {})
    tokenizer = AutoTokenizer.from_pretrained(place, **more)
    return tokenizer, AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **more).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--pool", default="127.0.0.1:7400", metavar="HOST:PORT")
    parser.add_argument("--characters", type=int, default=1200, help="of the text's beginning")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    arguments = parser.parse_args()
    text = arguments.text.read_text()[: arguments.characters]
    with connect(arguments.pool) as channel:
        client = Client(channel)
        client.open(text, session="compare")
        held = list(client.get("compare").tokens.ids)
        stream = client.stream("compare", max_tokens=arguments.tokens, top_logprobs=TOP)
        got = [token for piece in stream for token in piece.tokens]
        client.close("compare")
    tokenizer, model = loaded(arguments.model)
    prompt = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        first = model(prompt).logits[0, -1]
        whole = model.generate(prompt, max_new_tokens=arguments.tokens, do_sample=False, repetition_penalty=1.0)
    expected = whole[0, prompt.shape[1] :].tolist()
    ids = [token.id for token in got]
    same = sum(ours == theirs for ours, theirs in zip(ids, expected))
    # Logits that are all moved by the same are the same distribution.
    top = got[0].top
    off = max(abs((top[0].logprob - other.logprob) - float(first[top[0].id] - first[other.id])) for other in top)
    print(f"{arguments.model.name}: {len(held)} tokens of the text, {'equal' if held == prompt[0].tolist() else 'DIFFERENT'};")
    print(f"logits of the {TOP} likeliest differ by {off:.1e} at most; {same} of {len(expected)} greedy tokens equal")
    equal = held == prompt[0].tolist() and ids[: len(expected)] == expected and off <= arguments.tolerance
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
