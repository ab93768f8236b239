#!/usr/bin/env python3
"""Makes crates/pie-model/tests/loading: model folders as they are found, and what Transformers makes of each.

    python3 -m venv venv && venv/bin/pip install 'torch>=2.15' 'transformers==5.24.*' safetensors numpy
    venv/bin/python scripts/goldens/loading.py crates/pie-model/tests/loading

tensors.safetensors holds all tensors that any case stores. cases.json has for each case what differs from the base in its
config.json and in the tensors of its folder, and either the logits that Transformers computes (in expected.safetensors under
the case's name, for the tokens of `prompt`) or the code and a word of the refusal, where there is no right answer or it is
not built. The same versions give the same bytes.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

PROMPT = 24
BASE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, "eos_token_id": None, "bos_token_id": None,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
LAYER = {
    "input_layernorm": (32,), "self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32), "post_attention_layernorm": (32,), "mlp.gate_proj": (48, 32), "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BIASES = {"self_attn.q_proj": 32, "self_attn.o_proj": 32, "mlp.down_proj": 32}
INVERSE = "rotary_emb.inv_freq"


def layer(index: int) -> list[str]:
    return [f"model.layers.{index}.{part}.weight" for part in LAYER]


TRUNK = [*layer(0), *layer(1), "model.norm.weight"]
WHOLE = [EMBEDDING, *TRUNK, HEAD]


def case(name: str, config: dict | None = None, refused: tuple[str, str] | None = None, **tensors) -> dict:
    """`tensors`: `without` some of the names, `others` by name and source, `bare` names without "model."."""
    return {"name": name, "config": config or {}, **tensors} | ({"refused": list(refused)} if refused else {})


def stored(one: dict) -> dict[str, str]:
    names = {name: name for name in WHOLE if name not in one.get("without", [])} | one.get("others", {})
    return {name.removeprefix("model.") if one.get("bare") else name: source for name, source in names.items()}


def rope(name: str, refused: tuple[str, str] | None = None, **keys) -> dict:
    return case(f"rope: {name}", keys, refused)


TIED = {"tie_word_embeddings": True}
UNUSED, MISSING, ROPE = "MODEL_TENSOR_UNUSED", "MODEL_TENSOR_MISSING", "MODEL_ROPE_NOT_LINEAR"
CASES = [
    case("as most are"),
    case("head_dim and KV heads by default", {"num_key_value_heads": None, "head_dim": None},
         others={name: name.replace("_proj", "_wide") for name in TRUNK if "k_proj" in name or "v_proj" in name}),
    # Rotation: which of the keys counts.
    rope("theta alone", rope_theta=500.0),
    rope("old spelling", rope_theta=500.0, rope_scaling={"type": "linear", "factor": 4.0}),
    rope("newer spelling", rope_theta=500.0, rope_scaling=LINEAR),
    rope("both types", rope_scaling={"type": "dynamic", **LINEAR}),
    rope("parameters", rope_parameters=LINEAR | {"rope_theta": 500.0}),
    rope("parameters and an older theta", rope_theta=90.0, rope_parameters=LINEAR | {"rope_theta": 500.0}),
    rope("parameters without theta", rope_theta=500.0, rope_parameters=LINEAR),
    rope("scaling with a theta", rope_theta=90.0, rope_scaling=LINEAR | {"rope_theta": 500.0}),
    rope("parameters and scaling", rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rope_scaling=LINEAR),
    rope("parameters, scaling and theta", rope_theta=90.0, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
         rope_scaling=LINEAR),
    rope("parameters and an empty scaling", rope_parameters=LINEAR | {"rope_theta": 500.0}, rope_scaling={}),
    rope("parameters and no scaling", rope_parameters=LINEAR | {"rope_theta": 500.0}, rope_scaling=None),
    rope("llama3", rope_theta=500.0, rope_scaling=LLAMA3 | {"original_max_position_embeddings": 32}),
    rope("llama3 of the whole context", rope_theta=500.0, max_position_embeddings=512, rope_scaling=LLAMA3),
    rope("llama3 with the original context outside", rope_theta=500.0, original_max_position_embeddings=16,
         rope_scaling=LLAMA3 | {"original_max_position_embeddings": 48}),
    rope("yarn", rope_theta=500.0, rope_scaling=YARN),
    rope("yarn of the whole context", rope_theta=500.0, rope_scaling={"type": "yarn", "factor": 2.0}),
    rope("yarn with the original context outside", rope_theta=500.0, original_max_position_embeddings=64, rope_scaling=YARN),
    rope("yarn with an attention factor", rope_theta=500.0, rope_scaling=YARN | {"attention_factor": 1.4}),
    rope("yarn with mscale", rope_theta=500.0, rope_scaling=YARN | {"mscale": 1.5, "mscale_all_dim": 0.8}),
    rope("yarn with one mscale", rope_theta=500.0, rope_scaling=YARN | {"mscale": 1.5}),
    rope("yarn with bounds", rope_theta=500.0, rope_scaling=YARN | {"beta_fast": 2.0, "beta_slow": 0.25}),
    rope("yarn with bounds not rounded", rope_theta=500.0,
         rope_scaling=YARN | {"beta_fast": 2.0, "beta_slow": 0.25, "truncate": False}),
    rope("yarn with bounds at one place", rope_theta=500.0, rope_scaling=YARN | {"beta_fast": 1.0, "beta_slow": 1.0, "truncate": False}),
    rope("yarn without a factor", ("MODEL_CONFIG_INVALID", "factor"), rope_scaling={"type": "yarn"}),
    rope("linear without a factor", ("MODEL_CONFIG_INVALID", "factor"), rope_scaling={"type": "linear"}),
    rope("dynamic", (ROPE, "dynamic"), rope_scaling={"type": "dynamic", "factor": 2.0}),
    rope("longrope", (ROPE, "longrope"), rope_scaling={
        "type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 16}),
    rope("another", ("MODEL_UNSUPPORTED", "proportional"), rope_scaling={"type": "proportional", "factor": 2.0}),
    # The two tables.
    case("tied, one table", TIED, without=[HEAD]),
    case("tied, both the same", TIED, others={HEAD: EMBEDDING}),
    case("tied, both and different", TIED),
    case("tied, only the head", TIED, without=[EMBEDDING]),
    case("not tied, no head", {}, (MISSING, HEAD), without=[HEAD]),
    case("not tied, only the head", {}, (MISSING, EMBEDDING), without=[EMBEDDING]),
    # Names.
    case("names of the model alone, tied", TIED, without=[HEAD], bare=True),
    case("names of the model alone", bare=True),
    case("names of the model alone, no head", {}, (MISSING, HEAD), without=[HEAD], bare=True),
    case("frequencies that are stored", others={f"model.layers.{i}.self_attn.{INVERSE}": INVERSE for i in range(2)}),
    case("frequencies that are stored once", others={f"model.{INVERSE}": INVERSE}),
    # What would be left out, or is not there.
    case("fewer layers than stored", {"num_hidden_layers": 1}, (UNUSED, "num_hidden_layers")),
    case("more layers than stored", {"num_hidden_layers": 3}, (MISSING, "model.layers.2")),
    *[case(f"a bias: {part}", {}, (UNUSED, f"{part}.bias"), others={f"model.layers.1.{part}.bias": f"{part}.bias"})
      for part in BIASES],
    case("a bias by the name of the model alone", {}, (UNUSED, "biases"), bare=True,
         others={"model.layers.1.self_attn.q_proj.bias": "self_attn.q_proj.bias"}),
    case("biases that the configuration has", {"attention_bias": True}, ("MODEL_UNSUPPORTED", "attention_bias")),
    case("a norm of another model", {}, (UNUSED, "q_norm"),
         others={"model.layers.0.self_attn.q_norm.weight": "model.norm.weight"}),
    case("a tensor from elsewhere", {}, (UNUSED, "value_head"), others={"value_head.weight": "model.norm.weight"}),
    case("a smaller vocabulary than stored", {"vocab_size": 39}, ("MODEL_TENSOR_SHAPE", EMBEDDING)),
]


def tensors() -> dict[str, torch.Tensor]:
    """Weights that keep the size of what they are given, and attention that chooses."""
    torch.manual_seed(1)
    made = {EMBEDDING: 2 * torch.randn(40, 32) / 32**0.5}
    for index in range(2):
        for part, shape in LAYER.items():
            gain = 2.0 if part in ("self_attn.q_proj", "self_attn.k_proj") else 1.2
            made[f"model.layers.{index}.{part}.weight"] = (
                gain * torch.randn(shape) / 32**0.5 if len(shape) == 2 else 1 + 0.2 * torch.randn(shape))
        for part in ("k", "v"):
            made[f"model.layers.{index}.self_attn.{part}_wide.weight"] = 2 * torch.randn(32, 32) / 32**0.5
    made["model.norm.weight"] = 1 + 0.2 * torch.randn(32)
    made[HEAD] = 2 * torch.randn(40, 32) / 32**0.5
    made |= {f"{part}.bias": torch.randn(length) for part, length in BIASES.items()}
    made[INVERSE] = torch.randn(4)
    return {name: tensor.contiguous() for name, tensor in made.items()}


@torch.no_grad()
def ask(one: dict, made: dict[str, torch.Tensor], prompt: torch.Tensor) -> tuple[torch.Tensor | None, str]:
    """The logits of Transformers, or why it has none that anybody could expect."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(BASE | one["config"]))
        tensors = {name: made[source].clone() for name, source in stored(one).items()}
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        try:
            model, about = LlamaForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"
        logits = model.eval()(prompt, use_cache=False).logits[0]
        about = {key: value for key, value in about.items() if value}
        return (None if about else logits), str(about)


def main() -> None:
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    made = tensors()
    prompt = torch.randint(0, 39, (1, PROMPT), generator=torch.Generator().manual_seed(2))
    expected = {"prompt": prompt[0].int()}
    for one in CASES:
        logits, about = ask(one, made, prompt)
        if "refused" in one:
            print(f"{one['name']}: refused ({one['refused'][0]}); Transformers: {about[:200] or 'computes it'}")
        elif logits is None:
            raise SystemExit(f"{one['name']}: Transformers has no answer: {about}")
        else:
            expected[one["name"]] = logits[-4:].contiguous()
            print(f"{one['name']}: {logits[-1, :3].tolist()}")
    save_file(made, target / "tensors.safetensors")
    save_file(expected, target / "expected.safetensors")
    lines = ",\n  ".join(json.dumps(one) for one in CASES)
    page = f'{{"base": {json.dumps(BASE)},\n "whole": {json.dumps(WHOLE)},\n "cases": [\n  {lines}\n]}}\n'
    (target / "cases.json").write_text(page)


if __name__ == "__main__":
    main()
