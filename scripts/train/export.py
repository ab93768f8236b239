"""Writes the model as a Hugging Face folder: config.json and model.safetensors in bf16 beside tokenizer.json.

`train.py` does this at each checkpoint. As a command it checks the folder: that Transformers' Llama, if installed, gives
the same logits, in one pass and token by token.

    python scripts/train/export.py [FOLDER]
"""

import argparse
import os
from pathlib import Path

import torch

MOST_BYTES = 26_000_000
# Of the logits' deviation: Transformers computes RoPE's angles in f32, which heads that tell neighbours apart sharply show.
MOST_DIFFERENCE = 0.005


def export(model, special, folder):
    """Each file appears whole or not at all."""
    from safetensors.torch import save

    weights = {name: weight.detach().to("cpu", torch.bfloat16).contiguous() for name, weight in model.named_parameters()}
    packed = save(weights, metadata={"format": "pt"})
    if len(packed) > MOST_BYTES:
        raise SystemExit(f"model.safetensors would be {len(packed)} bytes; at most {MOST_BYTES} go into the repository")
    for name, content in [("config.json", model.shape.config(special.bos, special.eos).encode()), ("model.safetensors", packed)]:
        (folder / f"{name}.new").write_bytes(content)
        os.replace(folder / f"{name}.new", folder / name)


@torch.no_grad()
def check(folder):
    """The largest difference of logits from Transformers', in f32, and from decoding with a cache."""
    from model import load
    from transformers import LlamaForCausalLM

    own = load(folder)
    other = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, own.shape.vocab_size, (2, 1500), generator=torch.Generator().manual_seed(1))
    logits = own(tokens)
    cache = []
    parts = torch.cat([own(tokens[:, :1490], cache)] + [own(tokens[:, at:at + 1], cache) for at in range(1490, 1500)], dim=1)
    return float((logits - other(tokens).logits).abs().max()), float((logits - parts).abs().max()), float(logits.std())


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parents[2] / "models/pie-coder")
    folder = arguments.parse_args().folder
    transformers, cached, spread = check(folder)
    print(f"logits differ by at most {transformers:.2e} from Transformers', {cached:.2e} with a cache (their deviation is {spread:.2f})")
    if max(transformers, cached) > MOST_DIFFERENCE * spread:
        raise SystemExit("the folder does not compute what was trained")


if __name__ == "__main__":
    main()
