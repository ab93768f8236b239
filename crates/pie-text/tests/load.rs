//! Which tokenizers are taken, how they restart, and what stands before a text.

mod common;

use common::{GPT2, TINY, changed};
use pie_plan::TokenId;
use pie_text::{RestartKind, Tokenizer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[test]
fn tokenizers_that_are_no_byte_level_bpe_are_refused_by_name() {
    let with = |change: fn(&mut Value)| changed(GPT2, change);
    let template = |file: &mut Value| {
        let piece = |kind: &str, id: &str| json!({kind: {"id": id, "type_id": 0}});
        let single = [piece("Sequence", "A"), piece("SpecialToken", "<|endoftext|>")];
        let special = json!({"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]});
        file["post_processor"] = json!({"type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": {"<|endoftext|>": special}});
    };
    let table: [(Vec<u8>, &str, &str); 9] = [
        (b"{".to_vec(), "TOKENIZER_INVALID", "EOF"),
        (b"{}".to_vec(), "TOKENIZER_UNSUPPORTED", "its model is null"),
        (with(|file| file["model"]["type"] = json!("WordPiece")), "TOKENIZER_UNSUPPORTED", "WordPiece"),
        (with(|file| file["model"]["dropout"] = json!(0.1)), "TOKENIZER_UNSUPPORTED", "drop out"),
        (
            with(|file| file["model"]["end_of_word_suffix"] = json!("</w>")),
            "TOKENIZER_UNSUPPORTED",
            "subword marks",
        ),
        (with(|file| file["decoder"] = Value::Null), "TOKENIZER_UNSUPPORTED", "decoder is null"),
        (with(template), "TOKENIZER_UNSUPPORTED", "behind the text"),
        (
            with(|file| {
                file["model"]["merges"] = json!([]);
                file["model"]["vocab"].as_object_mut().expect("vocabulary").remove("Q");
            }),
            "TOKENIZER_UNSUPPORTED",
            "byte 0x51",
        ),
        // Found while the fuzz targets were written: a table with an entry for each id.
        (
            with(|file| file["model"]["vocab"]["stray"] = json!(u32::MAX - 1)),
            "TOKENIZER_UNSUPPORTED",
            "4294967294",
        ),
    ];
    for (bytes, code, part) in table {
        let error = Tokenizer::from_bytes(&bytes).expect_err(part);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(part), "{error} should say {part}");
    }
    let missing = Tokenizer::from_folder(Path::new("/nowhere")).expect_err("is not there");
    assert_eq!(missing.code(), "TOKENIZER_UNREADABLE");
}

#[test]
fn the_tokenizer_that_ships_is_in_deepseek_coders_form() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-code");
    let tokenizer = Tokenizer::from_folder(&folder).expect("loads");
    let bos = tokenizer.token_id("<｜begin▁of▁sentence｜>").expect("is there");
    assert_eq!((tokenizer.prefix(), tokenizer.vocab_size()), (&[bos][..], 8192));
    assert_eq!(tokenizer.restart_kind(), &RestartKind::Piece(pie_text::form::Form::DeepSeekCoder));
    assert_eq!(tokenizer.token_id("<|nothing|>"), None);
    let tokens = tokenizer.encode("<｜fim▁hole｜>\n1 é").expect("encodes");
    assert_eq!(tokens[..2], [bos, tokenizer.token_id("<｜fim▁hole｜>").expect("is there")]);
    assert_eq!(tokenizer.decode(&tokens), "\n1 é");
    assert_eq!(tokenizer.token_content(tokens[2]).as_deref(), Some("Ċ"));
    assert_eq!(tokenizer.fingerprint(), Tokenizer::from_bytes(TINY).expect("loads").fingerprint());
    assert_ne!(tokenizer.fingerprint(), Tokenizer::from_bytes(GPT2).expect("loads").fingerprint());
}

fn folder(name: &str, config: &Value) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("creates");
    std::fs::write(folder.join("tokenizer.json"), changed(TINY, |file| file["post_processor"] = Value::Null))
        .expect("writes");
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).expect("writes");
    folder
}

#[test]
fn the_configuration_beside_a_tokenizer_adds_the_begin_of_sentence() {
    let bos = "<｜begin▁of▁sentence｜>";
    let config = |class: &str, add: Value, bos: Value| json!({"tokenizer_class": class, "add_bos_token": add, "add_eos_token": false, "bos_token": bos});
    let object = json!({"__type": "AddedToken", "content": bos});
    let table: [(&str, Value, &[u32]); 4] = [
        ("deepseek", config("LlamaTokenizerFast", json!(true), object), &[0]),
        ("plain", config("LlamaTokenizerFast", json!(true), json!(bos)), &[0]),
        ("without", config("LlamaTokenizerFast", json!(false), json!(bos)), &[]),
        ("other", config("PreTrainedTokenizerFast", json!(true), json!(bos)), &[]),
    ];
    for (name, config, prefix) in table {
        let tokenizer = Tokenizer::from_folder(&folder(name, &config)).expect(name);
        assert_eq!(tokenizer.prefix(), prefix.iter().map(|id| TokenId(*id)).collect::<Vec<_>>(), "{name}");
    }
    let eos = json!({"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": true});
    let error = Tokenizer::from_folder(&folder("eos", &eos)).expect_err("is refused");
    assert!(error.to_string().contains("add_eos_token"), "{error}");
}
