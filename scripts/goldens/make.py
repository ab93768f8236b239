#!/usr/bin/env python3
"""Makes crates/pie-model/tests/goldens: small seeded models of each architecture, and what Transformers computes with them.

    python3 -m venv venv && venv/bin/pip install 'torch>=2.15' 'transformers>=5.23' safetensors numpy
    venv/bin/python scripts/goldens/make.py crates/pie-model/tests/goldens [NAME ...]

Each folder is a model as a user would have it, and expected.safetensors: prompt [48], the logits of all its rows
[48, vocabulary], and greedy [64], the tokens that follow. The same versions give the same bytes. Transformers reads
the finished folder back before it computes, so that what config.json says is what is tested.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel, Qwen2Config, Qwen3Config

PROMPT, GREEDY = 48, 64
# Greedy tokens must not hang on the last digits.
MARGIN = 2e-2
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# As Qwen2.5's model cards say it for long texts.
YARN = {"rope_type": "yarn", "rope_theta": 1_000_000.0, "factor": 4.0, "original_max_position_embeddings": 32}
PLAIN = {"rope_type": "default", "rope_theta": 1_000_000.0}
# The vocabulary does not divide by 2, 4 or 8 but for padding; 4 KV heads are fewer than 8 ranks.
SIZES = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=16, head_dim=8, vocab_size=99,
             max_position_embeddings=512, rms_norm_eps=1e-6, eos_token_id=None, bos_token_id=None, pad_token_id=None)
MODELS = {
    "linear-tied": dict(num_key_value_heads=8, tie_word_embeddings=True, rope_parameters=LINEAR),
    "linear-4kv": dict(num_key_value_heads=4, tie_word_embeddings=False, rope_parameters=LINEAR),
    "llama3": dict(num_key_value_heads=8, tie_word_embeddings=False, rope_parameters=LLAMA3),
    "sharded-bf16": dict(num_key_value_heads=16, tie_word_embeddings=False, rope_parameters=LINEAR),
    "mistral": dict(num_key_value_heads=4, tie_word_embeddings=False, rope_parameters=PLAIN, sliding_window=None),
    "qwen2": dict(num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=PLAIN),
    "qwen2-yarn": dict(num_key_value_heads=4, tie_word_embeddings=True, rope_parameters=YARN),
    "qwen3": dict(num_key_value_heads=4, tie_word_embeddings=True, rope_parameters=PLAIN),
}
CONFIGS = {"mistral": MistralConfig, "qwen2": Qwen2Config, "qwen2-yarn": Qwen2Config, "qwen3": Qwen3Config}


def build(name: str, seed: int) -> PreTrainedModel:
    """Weights that keep the size of what they are given, and attention that chooses."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS.get(name, LlamaConfig)(**SIZES, **MODELS[name]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".bias"):
                weight.copy_(0.5 * torch.randn_like(weight))
            elif weight.dim() == 1:
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            else:
                gain = 2.0 if any(part in name for part in ("q_proj", "k_proj", "embed", "lm_head")) else 1.2
                weight.copy_(gain / weight.shape[1] ** 0.5 * torch.randn_like(weight))
    return model


def write(name: str, model: PreTrainedModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if name == "sharded-bf16":
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="60KB")
    else:
        model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name == "linear-tied":
        # DeepSeek-Coder's folders have the older spelling.
        path = folder / "config.json"
        config = json.loads(path.read_text())
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = {"type": rope["rope_type"], "factor": rope["factor"]}
        path.write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def expect(folder: Path, seed: int, **more) -> tuple[dict, float]:
    """What Transformers computes in f32, without a cache, and the smallest lead of a greedy token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **more).eval()
    torch.manual_seed(seed + 1)
    prompt = torch.randint(0, SIZES["vocab_size"], (1, PROMPT))
    logits = model(prompt, use_cache=False).logits[0]
    tokens, margin = prompt, float("inf")
    for _ in range(GREEDY):
        best = model(tokens, use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        tokens = torch.cat([tokens, best.indices[:1].view(1, 1)], dim=1)
    greedy = tokens[0, PROMPT:]
    tensors = {"prompt": prompt[0].int(), "logits": logits.contiguous(), "greedy": greedy.int().contiguous()}
    return tensors, margin


def main() -> None:
    target = Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        for seed in range(1000):
            model = build(name, seed)
            write(name, model, target / name)
            tensors, margin = expect(target / name, seed)
            kinds = len(set(tensors["greedy"].tolist()))
            if margin > MARGIN and kinds > 16:
                break
        else:
            raise SystemExit(f"{name}: no seed gives clear greedy tokens")
        save_file(tensors, target / name / "expected.safetensors")
        print(f"{name}: seed {seed}, smallest lead {margin:.3f}, {kinds} different greedy tokens")


if __name__ == "__main__":
    main()
