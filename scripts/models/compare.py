#!/usr/bin/env python3
"""Compares a pool that serves a real model with Transformers on the same folder: tokens of a text, and greedy tokens behind it.

    .venv/bin/pip install 'transformers>=5.23' torch accelerate gguf
    .venv/bin/python scripts/models/fetch.py qwen2.5-coder-0.5b --folder
    pie pool --model .cache/models/qwen2.5-coder-0.5b &
    .venv/bin/python scripts/models/compare.py .cache/models/qwen2.5-coder-0.5b crates/pie-words/src/ids.rs

Exits with 1 if anything differs.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--pool", default="127.0.0.1:7400", metavar="HOST:PORT")
    parser.add_argument("--characters", type=int, default=1200, help="of the text's beginning")
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    text = arguments.text.read_text()[: arguments.characters]
    with connect(arguments.pool) as channel:
        client = Client(channel)
        client.open(text, session="compare")
        held = list(client.get("compare").tokens.ids)
        got = [token.id for piece in client.stream("compare", max_tokens=arguments.tokens) for token in piece.tokens]
        client.close("compare")
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    prompt = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        whole = model.generate(prompt, max_new_tokens=arguments.tokens, do_sample=False, repetition_penalty=1.0)
    expected = whole[0, prompt.shape[1] :].tolist()
    same = sum(ours == theirs for ours, theirs in zip(got, expected))
    print(f"{arguments.model.name}: {len(held)} tokens of the text, {'equal' if held == prompt[0].tolist() else 'DIFFERENT'};")
    print(f"{same} of {len(expected)} greedy tokens equal")
    sys.exit(0 if held == prompt[0].tolist() and got[: len(expected)] == expected else 1)


if __name__ == "__main__":
    main()
