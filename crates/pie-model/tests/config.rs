//! Configurations that are refused: what would be computed wrongly by its name, what no model can have by its number.

use pie_model::Config;
use serde_json::{Value, json};
use std::path::Path;

/// A whole configuration with one key changed; null takes it away.
fn parsed(key: &str, value: Value) -> Result<Config, String> {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 99, "hidden_size": 48,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "hidden_act": "silu"
    });
    config[key] = value;
    if config[key].is_null() {
        config.as_object_mut().expect("an object").remove(key);
    }
    Config::parse(&config.to_string(), Path::new("folder/config.json")).map_err(|error| error.to_string())
}

#[test]
fn configurations_that_cannot_be_computed_are_refused_by_name_or_number() {
    let good = parsed("head_dim", json!(6)).expect("the configuration is whole");
    assert_eq!(good.parameters(), Config::parse(&good.to_json(), Path::new("")).expect("reads").parameters());
    parsed("rope_scaling", json!({"type": "linear", "rope_type": "linear", "factor": 4.0}))
        .expect("both spellings");
    // What is written for a configuration is read as the same one: ranks compare it.
    let yarn =
        json!({"type": "yarn", "factor": 4.0, "truncate": false, "mscale": 0.7, "mscale_all_dim": 1.3});
    let yarn = parsed("rope_scaling", yarn).expect("all keys");
    assert_eq!(Config::parse(&yarn.to_json(), Path::new("")).expect("reads"), yarn);
    // Windows that no token is beyond, or that are said not to be used.
    parsed("sliding_window", json!(512)).expect("as long as the context");
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 99, "hidden_size": 56,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "hidden_act": "silu", "sliding_window": 128,
        "use_sliding_window": false
    });
    let qwen = Config::parse(&config.to_string(), Path::new("")).expect("Qwen2.5-Coder's");
    assert_eq!(qwen.architecture.class, "Qwen2ForCausalLM");
    assert_eq!(Config::parse(&qwen.to_json(), Path::new("")).expect("reads"), qwen);
    let error = qwen.check_world_size(8).expect_err("14 heads").to_string();
    assert!(error.contains("[1, 2, 7, 14]") || error.contains("[1, 2]"), "{error}");
    let table = [
        ("model_type", json!("qwen2"), "LlamaForCausalLM"),
        ("model_type", json!("mixtral"), "experts"),
        ("model_type", json!("deepseek_v2"), "MLA"),
        ("model_type", json!("gemma3"), "window"),
        ("model_type", json!("mamba2"), "recurrent"),
        ("model_type", json!("gpt_bigcode"), "not of Llama's family"),
        ("sliding_window", json!(128), "sliding_window 128"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "sliding_attention"),
        ("architectures", json!(["MistralForCausalLM"]), "MistralForCausalLM"),
        ("quantization_config", json!({"quant_method": "gptq"}), "gptq"),
        ("attention_bias", json!(true), "attention_bias"),
        ("hidden_act", json!("gelu"), "gelu"),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "dynamic"),
        ("rope_scaling", json!({"type": "yarn", "factor": 2.0, "attention_factor": 0.0}), "attention_factor"),
        ("rope_scaling", json!({"type": "yarn", "factor": 2.0, "beta_slow": -1.0}), "beta_slow"),
        ("rope_scaling", json!({"type": "linear"}), "factor"),
        ("hidden_size", Value::Null, "hidden_size"),
        ("num_attention_heads", json!(0), "num_attention_heads"),
        ("num_attention_heads", json!(7), "divide"),
        ("num_key_value_heads", json!(3), "share"),
        ("head_dim", json!(5), "even"),
        ("rms_norm_eps", json!(0), "rms_norm_eps"),
        ("eos_token_id", json!(99), "beyond the vocabulary"),
        ("vocab_size", json!(1 << 25), "vocab_size"),
        ("vocab_size", json!(-1), "invalid value"),
    ];
    for (key, value, words) in table {
        let error = parsed(key, value.clone()).expect_err(&format!("{key} = {value}"));
        assert!(error.contains(words), "{key} = {value}: {error}");
    }
    // Found while the fuzz targets were written: each size is possible, their product is not.
    let wide = Config { hidden_size: 1 << 24, head_dim: 1 << 24, layers: 1 << 24, ..good };
    let error =
        Config::parse(&wide.to_json(), Path::new("")).expect_err("no model is that large").to_string();
    assert!(error.contains("parameters"), "{error}");
}
