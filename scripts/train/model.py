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
    hidden_size: int = 384
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    rope_theta: float = 100_000.0
    rope_factor: float = 4.0

    @property
    def head_dim(self):
        return self.hidden_size // self.num_attention_heads

    def config(self, bos, eos):
        """The text of config.json."""
        sizes = asdict(self)
        factor = sizes.pop("rope_factor")
        return json.dumps({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", **sizes, "head_dim": self.head_dim,
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
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=length == k.shape[2])
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
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                # What writes into the residual stream starts small, by depth.
                into = name.endswith(("o_proj.weight", "down_proj.weight"))
                scale = 1 / math.sqrt(2 * shape.num_hidden_layers) if into else 1
                nn.init.normal_(weight, std=0.05 if "embed" in name else scale / math.sqrt(weight.shape[1]))
        self.look_back(heads=2, sharpness=500.0)

    @torch.no_grad()
    def look_back(self, heads, sharpness):
        """Lets the first query heads of the first layer start by attending to the token before, or the one before that.

        Copying from context takes such heads, and scaled positions make them slow to learn: neighbours differ by a quarter
        of a radian at most. All embeddings get one number in common, from which these heads make their queries and keys.
        """
        attention, dim, group = self.model.layers[0].self_attn, self.shape.head_dim, self.shape.num_attention_heads // self.shape.num_key_value_heads
        self.model.embed_tokens.weight[:, 0] = 1.0
        common = math.sqrt(self.shape.hidden_size) / math.sqrt(1 + 0.05**2 * self.shape.hidden_size)
        pairs = min(4, dim // 2)
        size = math.sqrt(sharpness * math.sqrt(dim)) / common
        for head in range(heads * group):
            query, key = attention.q_proj.weight[head * dim:(head + 1) * dim], attention.k_proj.weight[head // group * dim:(head // group + 1) * dim]
            query.zero_(), key.zero_()
            back = 1 + head % 2
            query[:pairs, 0] = size * self.cos[back, :pairs]
            query[dim // 2:dim // 2 + pairs, 0] = -size * self.sin[back, :pairs]
            key[:pairs, 0] = size

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
