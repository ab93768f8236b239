//! `tokenizer.json`: bytes as they are, and files whose parts were replaced. What loads must tokenize and decode.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use pie_fuzz::explained;
use pie_fuzz::texts::Text;
use pie_text::{Document, Tokenizer};
use pie_words::{Revision, Spellings, TextEdit, TextRange, TokenId};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// A byte-level BPE of bytes, some merges and one added token.
static SMALL: LazyLock<Value> = LazyLock::new(|| {
    let alphabet: Vec<char> = ('!'..='~').chain('¡'..='¬').chain('®'..='ń').collect();
    let mut vocab = serde_json::Map::new();
    for character in alphabet.iter().map(char::to_string).chain(["ab", "Ġa", "abc"].map(str::to_owned)) {
        vocab.insert(character, vocab.len().into());
    }
    let id = vocab.len();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{"id": id, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                  "merges": ["a b", "Ġ a", "ab c"]}
    })
});

const PLACES: [&str; 26] = [
    "/truncation",
    "/padding",
    "/normalizer",
    "/added_tokens",
    "/added_tokens/0",
    "/added_tokens/0/id",
    "/added_tokens/0/content",
    "/added_tokens/0/single_word",
    "/added_tokens/0/lstrip",
    "/added_tokens/0/rstrip",
    "/added_tokens/0/normalized",
    "/added_tokens/0/special",
    "/pre_tokenizer",
    "/pre_tokenizer/add_prefix_space",
    "/pre_tokenizer/use_regex",
    "/pre_tokenizer/type",
    "/post_processor",
    "/decoder",
    "/decoder/type",
    "/model",
    "/model/type",
    "/model/vocab/abc",
    "/model/vocab/a",
    "/model/merges",
    "/model/merges/0",
    "/model/unk_token",
];

const VALUES: [&str; 34] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "4294967295",
    "4294967296",
    "1e300",
    "\"\"",
    "\"a\"",
    "\"a b\"",
    "[]",
    "{}",
    "[\"a\", \"b\"]",
    "[[\"a\", \"b\"]]",
    "[\"a b\", \"a b\"]",
    "[\"a\"]",
    "\"ab c\"",
    "\"BPE\"",
    "\"ByteLevel\"",
    r#"{"type": "NFC"}"#,
    r#"{"type": "Prepend", "prepend": "_"}"#,
    r#"{"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}"#,
    r#"{"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}"#,
    r#"{"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": false}"#,
    r#"{"type": "Split", "pattern": {"Regex": "[^"}, "behavior": "Removed", "invert": true}"#,
    r#"{"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]}"#,
    r#"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [4294967295], "tokens": ["<s>"]}}}"#,
    r#"{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}], "pair": [], "special_tokens": {}}"#,
    r#"{"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}"#,
    r#"{"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 4}"#,
    r#"{"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": 0, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}"#,
    r#"{"id": 3, "content": "\u0000", "single_word": true, "lstrip": true, "rstrip": true, "normalized": true, "special": false}"#,
];

#[derive(Arbitrary, Debug)]
struct Input {
    patches: Vec<(u8, u8)>,
    text: Text,
    insert: Text,
    at: u8,
    ids: [u32; 3],
}

/// Uses whatever loads, as a router does.
fn using(tokenizer: Tokenizer, input: &Input) {
    let _ = (tokenizer.fim(), tokenizer.restart_kind());
    let tokenizer = Arc::new(tokenizer);
    for spellings in [Spellings::Text, Spellings::ControlTokens] {
        reading(&tokenizer.reading(spellings), input);
    }
}

fn reading(tokenizer: &Arc<Tokenizer>, input: &Input) {
    let Some(mut document) = explained(Document::open(tokenizer.clone(), &input.text.0, 1 << 16)) else {
        return;
    };
    let at = usize::from(input.at) % (input.text.0.len() + 1);
    let edit = TextEdit { range: TextRange::Bytes { start: at, end: at }, insert: input.insert.0.clone() };
    if let Some(change) = explained(document.prepare(Revision(0), &[edit])) {
        document.commit(change).expect("what was just prepared can be committed");
        let text = document.text().expect("it has a text");
        let whole = tokenizer.encode(&text).expect("what was taken in parts is taken whole");
        assert!(document.tokens().eq(whole), "T1: {text:?}");
    }
    assert!(document.tokens().all(|token| token.0 < tokenizer.vocab_size()), "ids lie in the vocabulary");
    let tokens: Vec<TokenId> = document.tokens().chain(input.ids.map(TokenId)).collect();
    let mut decoder = tokenizer.decoder();
    let mut text: String = tokens.iter().map(|token| decoder.push(*token)).collect();
    text.push_str(&decoder.finish());
    assert_eq!(text, tokenizer.decode(&tokens));
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.first() == Some(&b'{') {
        let input = Input {
            patches: Vec::new(),
            text: Text("ab abc".into()),
            insert: Text(" ab".into()),
            at: 2,
            ids: [0, 1, u32::MAX],
        };
        if let Some(tokenizer) = explained(Tokenizer::from_bytes(bytes)) {
            using(tokenizer, &input);
        }
        return;
    }
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(bytes)) else { return };
    let mut file = SMALL.clone();
    for (place, value) in input.patches.iter().take(6) {
        let place = PLACES[usize::from(*place) % PLACES.len()];
        let value = VALUES[usize::from(*value) % VALUES.len()];
        if let Some(part) = file.pointer_mut(place) {
            *part = serde_json::from_str(value).expect("the values above are JSON");
        }
    }
    let file = serde_json::to_vec(&file).expect("JSON can be written");
    if let Some(tokenizer) = explained(Tokenizer::from_bytes(&file)) {
        using(tokenizer, &input);
    }
});
