//! Configurations that are refused: what would be computed wrongly by its name, what no model can have by its number.

use pie_kv::RopeScaling;
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

/// What a setting of a GGUF file is.
enum Setting {
    Number(u32),
    Float(f32),
    Text(&'static str),
}

use Setting::{Float, Number, Text};

/// Settings in place of others, or taken away.
type Changes<'a> = &'a [(&'a str, Option<Setting>)];

/// A GGUF file with these settings beside, or in place of, those of a small Llama, and with `factors` for its frequencies.
fn of_gguf(folder: &Path, changes: Changes<'_>, factors: &[f32]) -> Result<Config, String> {
    let usual = [
        ("general.architecture", Text("llama")),
        ("llama.context_length", Number(131_072)),
        ("llama.embedding_length", Number(64)),
        ("llama.block_count", Number(2)),
        ("llama.feed_forward_length", Number(64)),
        ("llama.attention.head_count", Number(2)),
        ("llama.attention.layer_norm_rms_epsilon", Float(1e-6)),
        ("llama.rope.freq_base", Float(500_000.0)),
    ];
    let kept = usual.into_iter().filter(|(key, _)| !changes.iter().any(|(changed, _)| changed == key));
    let changed = changes.iter().filter_map(|(key, setting)| Some((*key, setting.as_ref()?)));
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let value = |setting: &Setting| match setting {
        Number(number) => [4_u32.to_le_bytes(), number.to_le_bytes()].concat(),
        Float(number) => [6_u32.to_le_bytes(), number.to_le_bytes()].concat(),
        Text(value) => [8_u32.to_le_bytes().to_vec(), text(value)].concat(),
    };
    let mut settings: Vec<Vec<u8>> =
        kept.map(|(key, setting)| [text(key), value(&setting)].concat()).collect();
    settings.extend(changed.map(|(key, setting)| [text(key), value(setting)].concat()));
    let tensor = |name: &str, shape: &[u64], start: u64| {
        let sizes: Vec<u8> = shape.iter().flat_map(|size| size.to_le_bytes()).collect();
        let kind = 0_u32.to_le_bytes();
        [
            text(name),
            (shape.len() as u32).to_le_bytes().to_vec(),
            sizes,
            kind.to_vec(),
            start.to_le_bytes().to_vec(),
        ]
        .concat()
    };
    let mut tensors = vec![tensor("token_embd.weight", &[1, 40], 0)];
    if !factors.is_empty() {
        tensors.push(tensor("rope_freqs.weight", &[factors.len() as u64], 160));
    }
    let counts = [tensors.len() as u64, settings.len() as u64].map(u64::to_le_bytes).concat();
    let mut file = [&b"GGUF\x03\0\0\0"[..], &counts, &settings.concat(), &tensors.concat()].concat();
    file.resize(file.len().next_multiple_of(32) + 160, 0);
    file.extend(factors.iter().flat_map(|factor| factor.to_le_bytes()));
    let path = folder.join("model.gguf");
    std::fs::write(&path, file).expect("it can be written");
    Config::read(&path).map_err(|error| error.to_string())
}

#[test]
fn settings_of_gguf_files_are_the_keys_of_a_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let read =
        |changes: &[(&str, Option<Setting>)], factors: &[f32]| of_gguf(folder.path(), changes, factors);
    let usual = read(&[], &[]).expect("is whole");
    assert_eq!((usual.heads, usual.kv_heads, usual.head_dim, usual.vocab_size), (2, 2, 32, 40));
    assert!(usual.tied_head && usual.rope_theta == 500_000.0);
    let said = [
        ("llama.attention.key_length", Some(Number(16))),
        ("llama.attention.head_count_kv", Some(Number(1))),
    ];
    let said = read(&said, &[]).expect("is whole");
    assert_eq!((said.head_dim, said.kv_heads), (16, 1));
    // Llama 3.1's frequencies, as its own files have them: short waves are kept, long ones divided by eight, some lie between.
    let waves = (0..16).map(|pair| 2.0 * std::f64::consts::PI * 500_000_f64.powf(f64::from(pair) / 16.0));
    let between = |wave: f64| 1.0 / ((1.0 - (8192.0 / wave - 1.0) / 3.0) / 8.0 + (8192.0 / wave - 1.0) / 3.0);
    let factor = |wave: f64| match wave {
        short if short < 2048.0 => 1.0,
        long if long > 8192.0 => 8.0,
        wave => between(wave),
    };
    let factors: Vec<f32> = waves.map(|wave| factor(wave) as f32).collect();
    let scaled = read(&[], &factors).expect("Llama 3.1's");
    let RopeScaling::Llama3 { factor, original_max_position, .. } = scaled.rope_scaling else {
        panic!("{scaled:?}")
    };
    assert_eq!((factor, original_max_position), (8.0, 8192.0));
    let linear =
        [("llama.rope.scaling.type", Some(Text("linear"))), ("llama.rope.scaling.factor", Some(Float(4.0)))];
    assert_eq!(read(&linear, &[]).expect("linear").rope_scaling, RopeScaling::Linear { factor: 4.0 });
    let table: [(Changes<'_>, &[f32], &str); 9] = [
        (&[], &[1.0, 2.0], "rope_freqs.weight"),
        (&[("split.count", Some(Number(3)))], &[], "--merge"),
        (&[("llama.expert_count", Some(Number(8)))], &[], "experts"),
        (&[("general.architecture", Some(Text("gemma3")))], &[], "sliding window"),
        (&[("llama.rope.dimension_count", Some(Number(16)))], &[], "partial_rotary_factor 0.5"),
        (&[("llama.attention.sliding_window", Some(Number(64)))], &[], "sliding_window 64"),
        (&[("llama.block_count", None)], &[], "llama.block_count"),
        (&[("llama.rope.scaling.type", Some(Text("longrope")))], &[], "longrope"),
        (&[("general.architecture", None)], &[], "general.architecture"),
    ];
    for (changes, factors, word) in table {
        let error = read(changes, factors).expect_err(word);
        assert!(error.contains(word), "{word}: {error}");
    }
}
