"""The paper's way on a GPU: Positional Integrity Encoding written plainly in Transformers, at DeepSeek-Coder's shapes, with
random weights.

    python3 scripts/gpu/transformers_pie.py --shape deepseek-coder-33b --report transformers.json
"""

import argparse
import inspect
import json
import statistics
import time

import torch
import transformers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicLayer
from transformers.models.llama.modeling_llama import rotate_half

# layers, hidden, heads, KV heads, MLP
SHAPES = {
    "deepseek-coder-1.3b": (24, 2048, 16, 16, 5504),
    "deepseek-coder-6.7b": (32, 4096, 32, 32, 11008),
    "deepseek-coder-33b": (62, 7168, 56, 8, 19200),
}
# The argument that takes a cache was renamed.
CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"


def model_of(shape: str) -> LlamaForCausalLM:
    """Random weights, made where they are used."""
    layers, hidden, heads, kv_heads, mlp = SHAPES[shape]
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=mlp,
        vocab_size=32256,
        max_position_embeddings=16384,
        rope_theta=100000.0,
        rope_scaling={"rope_type": "linear", "factor": 4.0},
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cuda").eval()
    for weight in model.parameters():
        weight.normal_(0.0 if weight.dim() > 1 else 1.0, weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.1)
    # Buffers of the rotation were made without numbers too.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config, device="cuda")
    return model


def assembled(layers) -> DynamicCache:
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        # What it is told besides the keys differs between releases.
        takes_values = "value_states" in inspect.signature(layer.lazy_initialization).parameters
        layer.lazy_initialization(*((keys, values) if takes_values else (keys,)))
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


class Paper:
    def __init__(self, shape: str):
        self.model = model_of(shape)

    def encode(self, tokens: torch.Tensor, start: int, cache: DynamicCache) -> torch.Tensor:
        positions = torch.arange(start, start + tokens.shape[1], device="cuda")[None]
        given = {CACHE: cache}
        return self.model(tokens, position_ids=positions, use_cache=True, logits_to_keep=1, **given).logits[0, -1]

    def turn(self, keys: torch.Tensor, by: int) -> torch.Tensor:
        cos, sin = self.model.model.rotary_emb(keys, torch.tensor([[by]], device="cuda"))
        return keys * cos[:, None] + rotate_half(keys) * sin[:, None]

    def edit(self, held: DynamicCache, at: int, insert: torch.Tensor, last: torch.Tensor) -> int:
        front = assembled((layer.keys[:, :, :at], layer.values[:, :, :at]) for layer in held.layers)
        self.encode(insert, at, front)
        moved = insert.shape[1]
        whole = assembled(
            (
                torch.cat([head.keys, self.turn(layer.keys[:, :, at:-1], moved)], dim=2),
                torch.cat([head.values, layer.values[:, :, at:-1]], dim=2),
            )
            for head, layer in zip(front.layers, held.layers, strict=True)
        )
        length = held.get_seq_length() + moved
        return int(self.encode(last, length - 1, whole).argmax())

    def again(self, held: DynamicCache, at: int, rest: torch.Tensor) -> int:
        """Encodes everything behind an edit again."""
        front = assembled((layer.keys[:, :, :at], layer.values[:, :, :at]) for layer in held.layers)
        return int(self.encode(rest, at, front).argmax())


def timed(run, repeat: int) -> float:
    """Milliseconds, the median."""
    times = []
    for _ in range(repeat + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[1:])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--insert", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--report", required=True)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    paper = Paper(arguments.shape)
    tokens = torch.randint(0, 32000, (1, arguments.context), device="cuda")
    insert = torch.randint(0, 32000, (1, arguments.insert), device="cuda")
    rows = [{"what": "full", "ms": timed(lambda: int(paper.encode(tokens, 0, DynamicCache()).argmax()), arguments.repeat)}]
    held = DynamicCache()
    paper.encode(tokens, 0, held)
    for percent in (10, 50, 90):
        at = arguments.context * percent // 100
        rest = torch.cat([insert, tokens[:, at:]], dim=1)
        pie = timed(lambda at=at: paper.edit(held, at, insert, tokens[:, -1:]), arguments.repeat)
        full = timed(lambda at=at, rest=rest: paper.again(held, at, rest), arguments.repeat)
        rows.append({"what": f"insert {arguments.insert} at {percent} %", "pie_ms": pie, "recompute_ms": full})
    facts = {"shape": arguments.shape, "context": arguments.context, "gpu": torch.cuda.get_device_name()}
    facts |= {"transformers": transformers.__version__, "torch": torch.__version__, "rows": rows}
    with open(arguments.report, "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=2)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
