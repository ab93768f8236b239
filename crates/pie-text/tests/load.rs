//! Which tokenizers are taken, how they restart, and what stands before a text.

mod common;

use common::{GPT2, TINY, changed};
use pie_text::{RestartKind, Tokenizer};
use pie_words::TokenId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[test]
fn tokenizers_that_are_no_byte_level_bpe_are_refused_by_name() {
    let with = |change: fn(&mut Value)| changed(GPT2, change);
    let piece = |kind: &str, id: &str| json!({kind: {"id": id, "type_id": 0}});
    let (text, end) = (piece("Sequence", "A"), piece("SpecialToken", "<|endoftext|>"));
    let template = |single: [&Value; 2], id: u32| {
        let special = json!({"id": "<|endoftext|>", "ids": [id], "tokens": ["<|endoftext|>"]});
        let post_processor = json!({"type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": {"<|endoftext|>": special}});
        changed(GPT2, |file| file["post_processor"] = post_processor)
    };
    let (second, unknown) = (piece("Sequence", "B"), piece("SpecialToken", "<nothing>"));
    let in_a_row = changed(GPT2, |file| {
        let broken =
            json!({"type": "TemplateProcessing", "single": [unknown], "pair": [], "special_tokens": {}});
        file["post_processor"] = json!({"type": "Sequence", "processors": [broken]});
    });
    let table: [(Vec<u8>, &str, &str); 13] = [
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
        (template([&text, &end], 0), "TOKENIZER_UNSUPPORTED", "behind the text"),
        // Fuzzing found that a template may spell an id that no token has, and name what there is not.
        (template([&end, &text], u32::MAX), "TOKENIZER_UNSUPPORTED", "the id 4294967295"),
        (template([&end, &second], 0), "TOKENIZER_UNSUPPORTED", "a second text"),
        (template([&unknown, &text], 0), "TOKENIZER_UNSUPPORTED", "which token <nothing> is"),
        (in_a_row, "TOKENIZER_UNSUPPORTED", "which token <nothing> is"),
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
    let missing = Tokenizer::open(Path::new("/nowhere")).expect_err("is not there");
    assert_eq!(missing.code(), "TOKENIZER_UNREADABLE");
}

#[test]
fn the_tokenizer_that_ships_is_in_deepseek_coders_form() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-code");
    let tokenizer = Tokenizer::open(&folder).expect("loads");
    let bos = tokenizer.token_id("<｜begin▁of▁sentence｜>").expect("is there");
    assert_eq!((tokenizer.prefix(), tokenizer.vocab_size()), (&[bos][..], 8192));
    assert_eq!(
        tokenizer.restart_kind(),
        &RestartKind::Piece(pie_text::form::PreTokenizerKind::DeepSeekCoder)
    );
    assert_eq!(tokenizer.token_id("<|nothing|>"), None);
    let tokens = tokenizer.encode("\n1 é").expect("encodes");
    assert_eq!(tokenizer.decode(&tokens), "\n1 é");
    assert_eq!((tokens[0], Some(tokens[1])), (bos, tokenizer.token_id("Ċ")));
    assert_eq!((tokenizer.control_tokens().len(), tokenizer.ends()), (5, tokenizer.control_tokens()));
    assert_eq!(tokenizer.fingerprint(), Tokenizer::from_bytes(TINY).expect("loads").fingerprint());
    assert_ne!(tokenizer.fingerprint(), Tokenizer::from_bytes(GPT2).expect("loads").fingerprint());
}

/// A model folder with a `tokenizer.json` that puts nothing before a text, and files beside it.
fn folder(name: &str, beside: &[(&str, &Value)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("creates");
    std::fs::write(folder.join("tokenizer.json"), changed(TINY, |file| file["post_processor"] = Value::Null))
        .expect("writes");
    for (name, content) in beside {
        std::fs::write(folder.join(name), content.to_string()).expect("writes");
    }
    folder
}

#[test]
fn the_configuration_beside_a_tokenizer_adds_the_begin_of_sentence() {
    let bos = "<｜begin▁of▁sentence｜>";
    let config = |class: &str, add: Value, bos: Value| json!({"tokenizer_class": class, "add_bos_token": add, "add_eos_token": false, "bos_token": bos});
    let object = json!({"__type": "AddedToken", "content": bos});
    let table: [(&str, Value, &[u32]); 5] = [
        ("deepseek", config("LlamaTokenizerFast", json!(true), object), &[0]),
        ("plain", config("LlamaTokenizerFast", json!(true), json!(bos)), &[0]),
        ("by default", config("LlamaTokenizerFast", Value::Null, json!(bos)), &[0]),
        ("without", config("LlamaTokenizerFast", json!(false), json!(bos)), &[]),
        ("other", config("PreTrainedTokenizerFast", json!(true), json!(bos)), &[]),
    ];
    for (name, config, prefix) in table {
        let tokenizer = Tokenizer::open(&folder(name, &[(CONFIG, &config)])).expect(name);
        assert_eq!(tokenizer.prefix(), prefix.iter().map(|id| TokenId(*id)).collect::<Vec<_>>(), "{name}");
    }
    // An older folder names its tokens in a file of their own.
    let (config, map) = (config("LlamaTokenizerFast", json!(true), Value::Null), json!({"bos_token": bos}));
    let older = folder("older", &[(CONFIG, &config), ("special_tokens_map.json", &map)]);
    assert_eq!(Tokenizer::open(&older).expect("loads").prefix(), [TokenId(0)]);
    let eos = json!({"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": true});
    let error = Tokenizer::open(&folder("eos", &[(CONFIG, &eos)])).expect_err("is refused");
    assert!(error.to_string().contains("add_eos_token"), "{error}");
    let broken = folder("broken", &[]);
    std::fs::write(broken.join(CONFIG), "{").expect("writes");
    let error = Tokenizer::open(&broken).expect_err("is refused");
    assert!(error.to_string().contains(CONFIG), "{error}");
}

const CONFIG: &str = "tokenizer_config.json";

#[test]
fn what_the_configuration_calls_special_is_a_control_token_and_ends_a_text() {
    let added = |file: &mut Value| {
        for (id, content) in (8192..).zip(["[END]", "[TURN]", "[OF]", "[TEXT]"]) {
            let token = json!({"id": id, "content": content, "special": false, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false});
            file["added_tokens"].as_array_mut().expect("added tokens").push(token);
        }
    };
    let table = [
        ("string", json!({"eos_token": "[END]"}), Value::Null, "[END]"),
        ("object", json!({"eos_token": {"content": "[END]"}}), Value::Null, "[END]"),
        ("map", json!({}), json!({"eos_token": {"content": "[END]"}}), "[END]"),
        ("list", json!({"additional_special_tokens": ["[TURN]", "[OF]"]}), Value::Null, "[OF]"),
        (
            "flag",
            json!({"added_tokens_decoder": {"8195": {"content": "[TEXT]", "special": true}}}),
            Value::Null,
            "[TEXT]",
        ),
    ];
    for (name, config, map, control) in table {
        let folder =
            folder(&format!("special {name}"), &[(CONFIG, &config), ("special_tokens_map.json", &map)]);
        std::fs::write(folder.join("tokenizer.json"), changed(TINY, added)).expect("writes");
        let tokenizer = Tokenizer::open(&folder).expect(name);
        for content in ["[END]", "[OF]", "[TEXT]"] {
            let id = tokenizer.token_id(content).expect("is there");
            let found = tokenizer.encode(&format!("a{content}")).expect("encodes").contains(&id);
            assert_eq!(
                (tokenizer.ends().contains(&id), found),
                (content == control, content != control),
                "{name}"
            );
        }
    }
    // A text may end with what is text: the file means it, but documents may contain it.
    let config = json!({"eos_token": "\n"});
    let newline = changed(TINY, |file| file["model"]["vocab"]["\n"] = json!(9000));
    let folder = folder("newline", &[(CONFIG, &config)]);
    std::fs::write(folder.join("tokenizer.json"), newline).expect("writes");
    let tokenizer = Tokenizer::open(&folder).expect("loads");
    assert!(
        tokenizer.ends().contains(&TokenId(9000)) && !tokenizer.control_tokens().contains(&TokenId(9000))
    );
}
