#!/usr/bin/env python3
"""Writes the tables of docs/operating.md: what fits on which GPUs, and the time that no pass can go below.

usage: scripts/docs/sizing.py [--check]              writes the tables into docs/operating.md, or fails if they are not these
       scripts/docs/sizing.py --config config.json   prints the tables for another model

Arithmetic of the program's own budget (crates/pie/src/device.rs, crates/pie-model/src/cuda/{weights,space}.rs), in bf16.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/operating.md"
SIZE = 2  # bf16
STEP_ROWS, WANTED_ROWS = 512, 64
KV_SHARE = 0.9  # of what is left: kernels, graphs and NCCL take some too
SESSION = 4096
WORLDS = (1, 2, 4, 8)
# Name, memory in GB, bandwidth in GB/s: the makers' data sheets (SXM).
GPUS = (("A100 40 GB", 40, 1555), ("A100 80 GB", 80, 2039), ("H100 80 GB", 80, 3350), ("H200 141 GB", 141, 4800))


@dataclass
class Model:
    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    tied: bool = False
    own_head_dim: int = 0

    @property
    def head_dim(self) -> int:
        return self.own_head_dim or self.hidden // self.heads

    def fits(self, world: int) -> bool:
        shares = self.kv_heads % world == 0 or world % self.kv_heads == 0
        return self.heads % world == 0 and self.mlp % world == 0 and shares

    def kv_heads_of(self, world: int) -> int:
        return -(-self.kv_heads // world)

    def layer_bytes(self, world: int) -> int:
        """What a pass reads of the layers of one rank."""
        heads = 2 * self.heads // world + 2 * self.kv_heads_of(world)
        layer = self.hidden * (heads * self.head_dim + 3 * self.mlp // world)
        return SIZE * self.layers * layer + 4 * self.hidden * (2 * self.layers + 1)

    def head_bytes(self, world: int) -> int:
        return SIZE * -(-self.vocab // world) * self.hidden

    def weights(self, world: int) -> int:
        """The embedding is whole on each rank."""
        table = SIZE * max(self.vocab, world * -(-self.vocab // world)) * self.hidden
        return self.layer_bytes(world) + table + (0 if self.tied else self.head_bytes(world))

    def activations(self, world: int) -> int:
        queries = self.heads // world * self.head_dim
        qkv = queries + 2 * self.kv_heads_of(world) * self.head_dim
        row = 12 * self.hidden + SIZE * (self.hidden + 3 * queries + qkv + 3 * self.mlp // world)
        return row * STEP_ROWS + 4 * WANTED_ROWS * -(-self.vocab // world) * (1 + world)

    def token(self, world: int) -> int:
        """KV bytes of a token on a rank."""
        return 2 * SIZE * self.layers * self.kv_heads_of(world) * self.head_dim

    def tokens(self, world: int, memory: int) -> int:
        left = memory - self.weights(world) - self.activations(world)
        return max(0, int(left * KV_SHARE)) // self.token(world)


MODELS = (
    Model("DeepSeek-Coder 1.3B", 24, 2048, 16, 16, 5504, 32256),
    Model("DeepSeek-Coder 6.7B", 32, 4096, 32, 32, 11008, 32256),
    Model("DeepSeek-Coder 33B", 62, 7168, 56, 8, 19200, 32256),
)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def count(tokens: int) -> str:
    return f"{tokens / 1e6:.1f} M" if tokens >= 1e6 else f"{tokens // 1000} k"


def per_rank(models) -> str:
    def cell(model: Model, world: int) -> str:
        if not model.fits(world):
            return "-"
        return f"{model.weights(world) / 1e9:.1f} GB + {model.token(world) / 1024:.0f} KiB"

    rows = [[model.name, *(cell(model, world) for world in WORLDS)] for model in models]
    return table(["weights + KV of a token, on each rank", *(f"TP {world}" for world in WORLDS)], rows)


def capacity(models) -> str:
    def cell(model: Model, world: int, memory: int) -> str:
        tokens = model.tokens(world, memory * 10**9) if model.fits(world) else 0
        return f"{count(tokens)} / {tokens // SESSION}" if tokens >= SESSION else "-"

    rows = [
        [model.name if index == 0 else "", gpu, *(cell(model, world, memory) for world in WORLDS)]
        for model in models
        for index, (gpu, memory, _) in enumerate(GPUS)
    ]
    return table(["tokens / sessions of 4096 tokens", "each rank on", *(f"TP {world}" for world in WORLDS)], rows)


def floors(models) -> str:
    def cell(model: Model, world: int, memory: int, bandwidth: int) -> str:
        if not model.fits(world) or model.tokens(world, memory * 10**9) < SESSION:
            return "-"
        read = model.layer_bytes(world) + model.head_bytes(world)
        return f"{(read + SESSION * model.token(world)) / bandwidth / 1e6:.1f} ms"

    rows = [
        [model.name if index == 0 else "", gpu, *(cell(model, world, memory, bandwidth) for world in WORLDS)]
        for model in models
        for index, (gpu, memory, bandwidth) in enumerate(GPUS)
    ]
    return table(["no pass is faster than", "each rank on", *(f"TP {world}" for world in WORLDS)], rows)


TABLES = {"per rank": per_rank, "capacity": capacity, "floors": floors}


def filled(page: str, models) -> str:
    for name, make in TABLES.items():
        pattern = rf"(<!-- sizing: {name} -->\n).*?(<!-- end -->)"
        if not re.search(pattern, page, re.DOTALL):
            sys.exit(f"{PAGE} has no place for the table `{name}`")
        page = re.sub(pattern, lambda found: found[1] + make(models) + found[2], page, flags=re.DOTALL)
    return page


def read(path: str) -> Model:
    config = json.loads(Path(path).read_text())
    heads = config["num_attention_heads"]
    return Model(
        config.get("_name_or_path") or path,
        config["num_hidden_layers"],
        config["hidden_size"],
        heads,
        config.get("num_key_value_heads", heads),
        config["intermediate_size"],
        config["vocab_size"],
        config.get("tie_word_embeddings", False),
        config.get("head_dim") or 0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--config")
    arguments = parser.parse_args()
    if arguments.config:
        models = (read(arguments.config),)
        print("\n".join(make(models) for make in TABLES.values()))
        return
    old = PAGE.read_text()
    new = filled(old, MODELS)
    if not arguments.check:
        PAGE.write_text(new)
    elif old != new:
        sys.exit(f"{PAGE} is stale: run scripts/docs/sizing.py")


main()
