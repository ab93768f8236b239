"""The model in DeepSeek-Coder's shape: Llama with linearly scaled RoPE, grouped heads and a head tied to the embedding.

Names of weights are Hugging Face's, so a checkpoint is a `model.safetensors` without renaming.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Shape:
    """The sizes, by the names of config.json."""

    vocab_size: int = 6144
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 32
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    rope_theta: float = 100_000.0
    rope_factor: float = 4.0

    def config(self, bos, eos):
        """The text of config.json."""
        sizes = asdict(self)
        factor = sizes.pop("rope_factor")
        return json.dumps({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", **sizes,
            "rope_scaling": {"type": "linear", "factor": factor}, "hidden_act": "silu", "attention_bias": False,
            "mlp_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02, "pretraining_tp": 1,
            "tie_word_embeddings": True, "use_cache": True, "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": "bfloat16",
        }, indent=2) + "\n"


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, cos, sin):
    """RoPE in halves, as Hugging Face's Llama: dimension i turns with dimension i + half."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.heads, self.kv_heads, self.dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, shape.hidden_size, bias=False)

    def forward(self, x, cos, sin, cache):
        batch, length, _ = x.shape
        q, k, v = (project(x).view(batch, length, -1, self.dim).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cos, sin).type_as(v), rotate(k, cos, sin).type_as(v)
        if cache is not None:
            k, v = cache[:] = [torch.cat((old, new), dim=2) for old, new in zip(cache, (k, v))] if cache else [k, v]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=length == k.shape[2], enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x, cos, sin, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


class Model(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
        angles = torch.outer(torch.arange(shape.max_position_embeddings, dtype=torch.float64) / shape.rope_factor, frequencies)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.start()

    @torch.no_grad()
    def start(self):
        """Random weights; but what writes into the residual stream starts at zero, so that only `start_copying` does."""
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
            elif weight.ndim == 2:
                nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        self.start_copying()

    @torch.no_grad()
    def start_copying(self, near=200.0, match=40.0, gain=1.5, fast=9):
        """Lets the model start with heads that copy from context: learning them takes more tokens than a CPU can afford,
        because scaled positions turn neighbours apart by a quarter of a radian at most.

        The embedding's first half holds a random sign in each coordinate, a token's code; its second half is free.
        Layer 0: heads attend to the token before, and to the one before that, and write these tokens' codes into the free half.
        Layer 1: heads look for places where the two tokens before are the current one and the one before it, and add the
        code of the token there to the prediction: the head is tied, so that its probability rises.
        """
        shape, dim, half = self.shape, self.shape.head_dim, self.shape.hidden_size // 2
        group, looking, copying = shape.num_attention_heads // shape.num_key_value_heads, 2, 4
        # Large beside what one step of training writes into the stream; the last norm brings the logits back.
        size, common = 0.8, 16.0
        if group < 2 or half < max(2 * looking, copying) * dim or shape.num_hidden_layers < 2:
            raise ValueError("the shape has no room for the heads that copy")
        table = self.model.embed_tokens.weight
        table.copy_(size * torch.randn_like(table).sign())
        table[:, half:] = 0
        # All tokens have this number in common: constant queries and keys are made from it.
        table[:, 0] = common
        self.model.norm.weight.fill_(1 / common)

        def part(matrix, head):
            return matrix.weight[head * dim:(head + 1) * dim]

        # The root mean square of what layers 0 and 1 read: the norm divides by it.
        at_first, then = (math.sqrt((common**2 + size**2 * codes) / shape.hidden_size) for codes in (half - 1, half - 1 + 2 * looking * dim))
        layer, pairs, each = self.model.layers[0].self_attn, min(4, dim // 2), torch.arange(dim)
        constant = math.sqrt(near * math.sqrt(dim)) * at_first / common
        for head in range(looking):
            key, value = part(layer.k_proj, head).zero_(), part(layer.v_proj, head).zero_()
            key[:pairs, 0] = constant
            value[each, 1 + head * dim + each] = 1
            for back in (1, 2):
                at = head * group + back - 1
                query = part(layer.q_proj, at).zero_()
                query[:pairs, 0] = constant * self.cos[back, :pairs]
                query[dim // 2:dim // 2 + pairs, 0] = -constant * self.sin[back, :pairs]
                layer.o_proj.weight[half + ((back - 1) * looking + head) * dim + each, at * dim + each] = at_first

        # Codes are compared in the pairs that turn slowly: a match holds at a distance of thousands.
        layer, slow = self.model.layers[1].self_attn, torch.arange(fast, dim // 2)
        slots = torch.cat((slow, dim // 2 + slow))
        now, before = slots[0::2], slots[1::2]
        weight = math.sqrt(match * math.sqrt(dim) / len(slots)) * then / size
        for head in range(copying):
            key, value = part(layer.k_proj, head).zero_(), part(layer.v_proj, head).zero_()
            code = (head * len(now) + torch.arange(len(now))) % (looking * dim)
            key[now, half + code] = weight
            key[before, half + looking * dim + code] = weight
            own = torch.arange(max(1, head * dim), (head + 1) * dim)
            value[own - head * dim, own] = 1
            for at in range(head * group, (head + 1) * group):
                # The first head of a group looks for the pair of tokens, the others for the current token alone.
                query, pair = part(layer.q_proj, at).zero_(), at == head * group
                query[now, 1 + code] = weight if pair else 2 * weight
                query[before, half + code] = weight if pair else 0
                layer.o_proj.weight[own, at * dim + own - head * dim] = gain * then

    def forward(self, tokens, cache=None):
        """Logits for each of the tokens; `cache` is an empty list at first, then what the call before left in it."""
        x = self.model.embed_tokens(tokens)
        start = 0
        if cache is not None:
            if not cache:
                cache.extend([] for _ in self.model.layers)
            start = cache[0][0].shape[2] if cache[0] else 0
        cos, sin = (table[start:start + tokens.shape[1]] for table in (self.cos, self.sin))
        for at, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, None if cache is None else cache[at])
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def loss(self, tokens, reduction="mean"):
        """Cross entropy of each token after the first."""
        logits = self(tokens[:, :-1])
        targets = tokens[:, 1:]
        losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)
        return losses if reduction == "mean" else losses.view_as(targets)


def load(folder):
    """The model of a folder with config.json and model.safetensors, computed in f32."""
    from safetensors.torch import load_file

    raw = json.loads((Path(folder) / "config.json").read_text())
    sizes = {name: raw[name] for name in Shape.__dataclass_fields__ if name in raw}
    model = Model(Shape(**sizes, rope_factor=raw["rope_scaling"]["factor"]))
    model.load_state_dict({name: weight.float() for name, weight in load_file(Path(folder) / "model.safetensors").items()})
    return model.eval()
