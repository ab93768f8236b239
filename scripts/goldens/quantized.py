#!/usr/bin/env python3
"""Makes the quantized ones of crates/pie-model/tests/goldens: GGUF files of small random models, and what Transformers computes with them.

    python3 -m venv venv && venv/bin/pip install 'torch>=2.15' 'transformers==5.24.*' accelerate gguf safetensors numpy
    venv/bin/python scripts/goldens/quantized.py crates/pie-model/tests/goldens

As make.py has it, with model.gguf in place of the folder's files. Every storage stands for some matrix, in sizes that eight ranks can
share; blocks of 256 are random bytes with scales that give weights of the right size.
"""

import shutil
import sys
from pathlib import Path

import gguf
import make
import numpy
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

TYPES = gguf.GGMLQuantizationType
HIDDEN, MLP, LAYERS, HEADS, KV_HEADS, VOCABULARY = 256, 256, 2, 8, 4, make.SIZES["vocab_size"]
PARTS = {
    "attn_q": (HIDDEN, HIDDEN),
    "attn_k": (HIDDEN // 2, HIDDEN),
    "attn_v": (HIDDEN // 2, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN),
    "ffn_gate": (MLP, HIDDEN),
    "ffn_up": (MLP, HIDDEN),
    "ffn_down": (HIDDEN, MLP),
    "token_embd": (VOCABULARY, HIDDEN),
    "output": (VOCABULARY, HIDDEN),
}
STORED = {
    "gguf-llama": (
        TYPES.Q4_K, TYPES.Q8_0, TYPES.Q6_K, TYPES.Q5_K, TYPES.Q4_0, TYPES.Q5_0, TYPES.Q4_K, TYPES.Q5_0, TYPES.Q6_K,
    ),
    "gguf-qwen2": (
        TYPES.Q5_0, TYPES.Q5_0, TYPES.Q8_0, TYPES.Q4_1, TYPES.Q5_1, TYPES.Q4_1, TYPES.Q6_K, TYPES.Q8_0, None,
    ),
}


def large(kind: TYPES, shape: tuple[int, int], size: float, random: numpy.random.Generator) -> numpy.ndarray:
    """Blocks of 256: random levels and small scales; their large scales are set, so that numbers are about so large."""
    numbers, length = gguf.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (shape[0] * shape[1] // numbers, length), dtype=numpy.uint8)

    def put(at: int, scale: float) -> None:
        data[:, at : at + 2] = numpy.array([scale], dtype=numpy.float16).view(numpy.uint8)

    if kind == TYPES.Q6_K:
        put(208, size / 1350)
    else:
        middle = 7.5 if kind == TYPES.Q4_K else 15.5
        put(0, size / (27 * middle))
        put(2, size / 27)
    return data.reshape(shape[0], -1)


def write(name: str, seed: int, path: Path) -> None:
    random = numpy.random.default_rng(seed)
    architecture = name.removeprefix("gguf-")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(100_000.0)
    writer.add_vocab_size(VOCABULARY)

    def matrix(name: str, part: str, kind: TYPES) -> None:
        shape = PARTS[part]
        size = (2.0 if part in ("attn_q", "attn_k", "token_embd", "output") else 1.2) / shape[1] ** 0.5
        if kind in (TYPES.Q4_K, TYPES.Q5_K, TYPES.Q6_K):
            data = large(kind, shape, size, random)
        else:
            data = gguf.quants.quantize(random.normal(0, size, shape).astype(numpy.float32), kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def vector(name: str, middle: float, size: float, length: int) -> None:
        writer.add_tensor(name, (middle + random.normal(0, size, length)).astype(numpy.float32))

    for part, kind in zip(PARTS, STORED[name], strict=True):
        if part in ("token_embd", "output"):
            if kind is not None:
                matrix(part, part, kind)
            continue
        for layer in range(LAYERS):
            matrix(f"blk.{layer}.{part}", part, kind)
            if architecture == "qwen2" and part in ("attn_q", "attn_k", "attn_v"):
                vector(f"blk.{layer}.{part}.bias", 0, 0.5, PARTS[part][0])
    for layer in range(LAYERS):
        vector(f"blk.{layer}.attn_norm.weight", 1, 0.2, HIDDEN)
        vector(f"blk.{layer}.ffn_norm.weight", 1, 0.2, HIDDEN)
    vector("output_norm.weight", 1, 0.2, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    target = Path(sys.argv[1])
    for name in STORED:
        folder = target / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for seed in range(1000):
            write(name, seed, folder / "model.gguf")
            tensors, margin = make.expect(folder, seed, gguf_file="model.gguf")
            kinds = len(set(tensors["greedy"].tolist()))
            if margin > make.MARGIN and kinds > 16:
                break
        else:
            raise SystemExit(f"{name}: no seed gives clear greedy tokens")
        save_file(tensors, folder / "expected.safetensors")
        print(f"{name}: seed {seed}, smallest lead {margin:.3f}, {kinds} different greedy tokens")


if __name__ == "__main__":
    main()
