"""Writes one seeded model three ways: a Hugging Face folder in f32 for pie-pool and Transformers, and in it model.gguf.

    python scripts/compare/export.py 14m FOLDER
    python scripts/compare/export.py 116m FOLDER

The tokenizer is models/tiny-code. Weights depend on the shape and the seed alone. There is no end-of-text token in
config.json: random weights would meet it by chance, and a decode rate wants all its tokens.
"""

import argparse
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "tiny-code"
VOCABULARY, CONTEXT, THETA, FACTOR, EPSILON = 8192, 16_384, 100_000.0, 4.0, 1e-6
SHAPES = {
    "14m": dict(hidden=256, layers=8, heads=8, kv_heads=4, mlp=1408),
    "116m": dict(hidden=768, layers=12, heads=12, kv_heads=4, mlp=3072),
}
# Of a layer: the name in a Hugging Face folder, and in a GGUF file.
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def weights(hidden: int, layers: int, heads: int, kv_heads: int, mlp: int, seed: int) -> dict[str, np.ndarray]:
    """Matrices keep the size of what they are given, attention chooses, logits spread by about 2: neither flat nor certain."""
    random = np.random.default_rng(seed)
    keys = hidden // heads * kv_heads

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> np.ndarray:
        return (gain / inputs**0.5 * random.standard_normal((outputs, inputs))).astype(np.float32)

    def norm() -> np.ndarray:
        return (1 + 0.1 * random.standard_normal(hidden)).astype(np.float32)

    tensors = {"model.embed_tokens.weight": matrix(VOCABULARY, hidden, 2.0)}
    for layer in range(layers):
        parts = [norm(), matrix(hidden, hidden, 1.5), matrix(keys, hidden, 1.5), matrix(keys, hidden), matrix(hidden, hidden)]
        parts += [norm(), matrix(mlp, hidden), matrix(mlp, hidden), matrix(hidden, mlp)]
        tensors |= {f"model.layers.{layer}.{name}.weight": part for name, part in zip(NAMES, parts, strict=True)}
    return tensors | {"model.norm.weight": norm(), "lm_head.weight": matrix(VOCABULARY, hidden, 2.0)}


def config(hidden: int, layers: int, heads: int, kv_heads: int, mlp: int) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPSILON,
        "rope_theta": THETA,
        "rope_scaling": {"type": "linear", "factor": FACTOR},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": None,
        "torch_dtype": "float32",
    }


def interleaved(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of Q or K in the order of a rotation that pairs neighbours, from one that pairs the halves of a head."""
    rows, inputs = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def write_gguf(path: Path, shape: dict[str, int], tensors: dict[str, np.ndarray], tokenizer: dict) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape["hidden"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["mlp"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(shape["hidden"] // shape["heads"])
    writer.add_rope_freq_base(THETA)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(FACTOR)

    model = tokenizer["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    assert [model["vocab"][token] for token in tokens] == list(range(VOCABULARY)), "the tokenizer fills the vocabulary"
    special = {token["id"] for token in tokenizer["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if id in special else gguf.TokenType.NORMAL for id in range(VOCABULARY)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-coder")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)

    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for layer in range(shape["layers"]):
        names |= {f"model.layers.{layer}.{name}": f"blk.{layer}.{other}" for name, other in NAMES.items()}
    turned = {"q_proj": shape["heads"], "k_proj": shape["kv_heads"]}
    for name, tensor in tensors.items():
        stem = name.removesuffix(".weight")
        heads = turned.get(stem.rsplit(".", 1)[-1])
        writer.add_tensor(f"{names[stem]}.weight", tensor if heads is None else interleaved(tensor, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("shape", choices=SHAPES)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    shape, folder = SHAPES[arguments.shape], arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder)
    tensors = weights(**shape, seed=arguments.seed)
    (folder / "config.json").write_text(json.dumps(config(**shape), indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_gguf(folder / "model.gguf", shape, tensors, json.loads((folder / "tokenizer.json").read_text()))
    print(f"{folder}: {sum(tensor.size for tensor in tensors.values()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
