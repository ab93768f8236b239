"""Positional Integrity Encoding written plainly in Transformers, as the paper did: in Python, around a DynamicCache.

    python scripts/compare/transformers_pie.py --model FOLDER [--threads 2]
    python scripts/compare/transformers_pie.py --model FOLDER --prompt 300 301 302     # only what follows these tokens

An edit: the inserted tokens are encoded behind the kept prefix, the keys behind them are turned by as many positions as
they moved, the caches are put together, and the last token is encoded again for its logits.
"""

import argparse
import time
from pathlib import Path

import torch
import transformers
from transformers import DynamicCache, LlamaForCausalLM
from transformers.cache_utils import DynamicLayer
from transformers.models.llama.modeling_llama import rotate_half


def assembled(layers) -> DynamicCache:
    """A cache of these keys and values, without copying them."""
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


class TransformersPie:
    name = "Transformers PIE"
    kinds = frozenset({"prefill", "type", "insert", "delete", "decode"})

    def __init__(self, model: Path, threads: int):
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._model = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self._tokens: list[int] = []
        self._cache = DynamicCache()

    def _encode(self, tokens: list[int], start: int, cache: DynamicCache) -> torch.Tensor:
        """Encodes tokens behind a cache, and gives the last one's logits."""
        positions = torch.arange(start, start + len(tokens))[None]
        return self._model(torch.tensor([tokens]), position_ids=positions, cache=cache, use_cache=True, logits_to_keep=1).logits[0, -1]

    def _turn(self, keys: torch.Tensor, by: int) -> torch.Tensor:
        cos, sin = self._model.model.rotary_emb(keys, torch.tensor([[by]]))
        return keys * cos[:, None] + rotate_half(keys) * sin[:, None]

    def prefill(self, tokens: list[int]) -> float:
        sent = time.perf_counter()
        int(self._encode(tokens, 0, DynamicCache()).argmax())
        return time.perf_counter() - sent

    def hold(self, slot: int, tokens: list[int]) -> None:
        if self._tokens != tokens:
            self._tokens, self._cache = tokens, DynamicCache()
            if tokens:
                self._encode(tokens, 0, self._cache)

    def edit(self, slot: int, splice) -> tuple[float, int]:
        """The held cache is not changed: the next edit meets the same document."""
        old, new = self._tokens, splice.apply(self._tokens)
        behind, moved = splice.at + splice.delete, len(new) - len(old)
        layers = self._cache.layers
        sent = time.perf_counter()
        front = assembled((layer.keys[:, :, : splice.at], layer.values[:, :, : splice.at]) for layer in layers)
        if splice.insert:
            self._encode(list(splice.insert), splice.at, front)
        # Without the last token, which is encoded again.
        whole = assembled(
            (
                torch.cat([head.keys, self._turn(layer.keys[:, :, behind:-1], moved)], dim=2),
                torch.cat([head.values, layer.values[:, :, behind:-1]], dim=2),
            )
            for head, layer in zip(front.layers, layers, strict=True)
        )
        token = int(self._encode(new[-1:], len(new) - 1, whole).argmax())
        return time.perf_counter() - sent, token

    def _generate(self, tokens: list[int], cache: DynamicCache, count: int) -> tuple[list[int], float]:
        """Greedy tokens, and the seconds between the first and the last of them."""
        found = [int(self._encode(tokens[cache.get_seq_length() :], cache.get_seq_length(), cache).argmax())]
        first = time.perf_counter()
        for position in range(len(tokens), len(tokens) + count - 1):
            found.append(int(self._encode(found[-1:], position, cache).argmax()))
        return found, time.perf_counter() - first

    def decode(self, slot: int, count: int) -> float:
        cache = assembled((layer.keys[:, :, :-1], layer.values[:, :, :-1]) for layer in self._cache.layers)
        return (count - 1) / self._generate(self._tokens, cache, count)[1]

    def greedy(self, tokens: list[int], count: int) -> list[int]:
        return self._generate(tokens, DynamicCache(), count)[0]

    def describe(self) -> dict:
        versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        return versions | {"threads": torch.get_num_threads(), "attention": self._model.config._attn_implementation}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--context", type=int, default=4000)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--prompt", type=int, nargs="+", help="only say what follows these tokens")
    arguments = arguments.parse_args()
    system = TransformersPie(arguments.model, arguments.threads)
    if arguments.prompt:
        print(system.greedy(arguments.prompt, 16))
        return
    import workload

    workload.alone(system, arguments.model, arguments.context, arguments.repeat)


if __name__ == "__main__":
    main()
