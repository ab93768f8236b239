#!/usr/bin/env python3
"""Writes what Transformers makes of SmolLM2-135M's GGUF file: tokens of texts, logits, greedy tokens.

    pip install 'torch>=2.15' 'transformers==5.24.*' accelerate gguf
    python3 scripts/models/fetch.py smollm2-135m
    python3 scripts/goldens/smollm2.py > scripts/python/smollm2.json
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

FILE = Path(__file__).resolve().parents[2] / ".cache" / "models" / "smollm2-135m.gguf"
CODE = '''import math


class Circle:
    """A circle, by its radius."""

    def __init__(self, radius: float):
        self.radius = radius

    def area(self) -> float:
        return math.pi * self.radius**2

    def circumference(self) -> float:
        return'''
# Each kind of thing that a split, a merge or the alphabet could get wrong.
TEXTS = [
    CODE,
    "",
    " ",
    "a\n\n\n    b\t\tc  \r\n\r\nd   ",
    "x=1234567890; y = 0xDEADbeef + 3.14e-10",
    "don't I'LL we've it's 'S 're",
    # No numbers beside the ASCII ones: the model's own tokenizer.json cuts at each, which Transformers' reading of GGUF files forgets.
    "naïve Ærøskøbing Straße ﬁ",
    "日本語のコード 한국어 русский язык العربية עברית",
    "e\u0301 o\u0308 n\u0303 か\u3099",
    "👩‍👩‍👧‍👦🏳️‍🌈 → ≠ ∑ 𝔘𝔫𝔦 \U000e0041",
    # The vocabulary has no token for some bytes.
    "a\x04b\x06c\x13d\x14e\x16f\x1dg \x00\x01\x7f",
    "\U00040000\U000f0000\U0010fffd",
    "{'a': [1, 2, {\"b\": None}], **kwargs}  # comment -- !!! ???",
    "    " * 40 + "deep",
]
GREEDY = 64

tokenizer = AutoTokenizer.from_pretrained(FILE.parent, gguf_file=FILE.name)
model = AutoModelForCausalLM.from_pretrained(FILE.parent, gguf_file=FILE.name, dtype=torch.float32).eval()
prompt = tokenizer(CODE, return_tensors="pt").input_ids
with torch.no_grad():
    logits = model(prompt).logits[0, -1]
    tokens = model.generate(prompt, max_new_tokens=GREEDY, do_sample=False, repetition_penalty=1.0)
top = torch.topk(logits, 20)
golden = {
    "texts": [{"text": text, "ids": tokenizer(text).input_ids} for text in TEXTS],
    "prompt": CODE,
    "top": [[int(token), round(float(logit), 5)] for token, logit in zip(top.indices, top.values)],
    "greedy": tokens[0, prompt.shape[1] :].tolist(),
}
json.dump(golden, sys.stdout, indent=1)
print()
