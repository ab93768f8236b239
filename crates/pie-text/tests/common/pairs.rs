//! Tokenizers of every form, each with the tokenizers crate's own as oracle. The fuzz targets use this file too.

use pie_text::Tokenizer;
use pie_words::TokenId;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub const TINY: &[u8] = include_bytes!("../../../../models/tiny-code/tokenizer.json");
pub const GPT2: &[u8] = include_bytes!("../data/gpt2-2k.json");

/// Ours and the tokenizers crate's, from the same bytes.
pub struct Pair {
    pub name: &'static str,
    pub ours: Arc<Tokenizer>,
    pub theirs: tokenizers::Tokenizer,
    /// Theirs for text that is text: control tokens have spellings that no text has.
    cutter: tokenizers::Tokenizer,
}

impl Pair {
    pub fn new(name: &'static str, bytes: &[u8]) -> Self {
        let ours = Arc::new(Tokenizer::from_bytes(bytes).expect(name));
        let theirs = |bytes: &[u8]| tokenizers::Tokenizer::from_bytes(bytes).expect(name);
        Self { name, ours, theirs: theirs(bytes), cutter: theirs(&respelled(bytes)) }
    }

    /// T1's right side: the whole text, tokenized at once by the tokenizers crate.
    pub fn whole(&self, text: &str) -> Vec<TokenId> {
        self.cutter.encode(text, true).expect("encodes").get_ids().iter().map(|id| TokenId(*id)).collect()
    }
}

/// A tokenizer file with parts replaced.
pub fn changed(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut file: Value = serde_json::from_slice(bytes).expect("is JSON");
    change(&mut file);
    serde_json::to_vec(&file).expect("is JSON")
}

/// A tokenizer file whose control tokens, special or between bars, are spelled otherwise.
fn respelled(bytes: &[u8]) -> Vec<u8> {
    changed(bytes, |file| {
        let mut vocab = file["model"]["vocab"].take();
        for token in file["added_tokens"].as_array_mut().expect("added tokens") {
            let content = token["content"].as_str().expect("a content").to_owned();
            if token["special"] == true || content.starts_with("<|") || content.starts_with("<｜") {
                let spelling = format!("\u{10fffd}{content}\u{10fffd}");
                token["content"] = json!(spelling);
                if let Some(id) = vocab.as_object_mut().expect("vocabulary").remove(&content) {
                    vocab[spelling] = id;
                }
            }
        }
        file["model"]["vocab"] = vocab;
    })
}

/// As SmolLM2: no tokens for some bytes that are rare in text, here 0x00, 0x04 and 0xF3.
fn without_some_bytes(bytes: &[u8]) -> Vec<u8> {
    const MISSING: [char; 3] = ['Ā', 'Ą', 'ó'];
    changed(bytes, |file| {
        let vocab = file["model"]["vocab"].as_object_mut().expect("vocabulary");
        vocab.retain(|token, _| !token.contains(MISSING));
        let merges = file["model"]["merges"].as_array_mut().expect("merges");
        merges.retain(|merge| !merge.to_string().contains(MISSING));
    })
}

fn added(id: u32, content: &str, normalized: bool) -> Value {
    let special = content.contains("eot");
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": normalized, "special": special})
}

/// Tokens that start like one another, that code may contain, and that begin with white space; `õ` as DeepSeek-Coder has it.
pub fn with_added(bytes: &[u8], first: u32) -> Vec<u8> {
    changed(bytes, |file| {
        let list = file["added_tokens"].as_array_mut().expect("added tokens");
        let tokens = [
            ("<|eot|>", false),
            ("<|eot|><|eot|>!", false),
            ("|>", true),
            ("    ", true),
            ("õ", true),
            ("ab\nc", false),
            ("<|file_sep|>", false),
        ];
        for (id, (content, normalized)) in (first..).zip(tokens) {
            list.push(added(id, content, normalized));
        }
    })
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let own =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let split =
        json!({"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": false});
    let mut qwen2 = split.clone();
    qwen2["pattern"]["Regex"] = json!(QWEN2);
    // As the file has it that is passed around, and as others write it.
    let gpt4o = |behavior: &str, invert: bool| {
        let pattern = json!({"Regex": GPT4O});
        json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert})
    };
    let nfc = |bytes: &[u8]| changed(bytes, |file| file["normalizer"] = json!({"type": "NFC"}));
    let digits = json!({"type": "Digits", "individual_digits": true});
    let sequence = |list: Vec<Value>| json!({"type": "Sequence", "pretokenizers": list});
    // Without added tokens nothing hides how far a pattern reads.
    let bare = |bytes: &[u8]| {
        changed(bytes, |file| {
            file["added_tokens"] = json!([]);
            file["post_processor"] = Value::Null;
        })
    };
    let with = |value: Value| changed(GPT2, |file| file["pre_tokenizer"] = value);
    vec![
        Pair::new("deepseek", TINY),
        Pair::new("gpt2", GPT2),
        Pair::new("deepseek with added tokens", &with_added(TINY, 8192)),
        Pair::new("gpt2 with added tokens", &with_added(GPT2, 2048)),
        Pair::new(
            "llama3 with added tokens",
            &with_added(&with(sequence(vec![split.clone(), byte_level.clone()])), 2048),
        ),
        Pair::new("deepseek, bare", &bare(TINY)),
        Pair::new("gpt2, bare", &bare(GPT2)),
        Pair::new("llama3, bare", &bare(&with(sequence(vec![split.clone(), byte_level.clone()])))),
        Pair::new("gpt4o", &bare(&with(sequence(vec![gpt4o("Removed", true), byte_level.clone()])))),
        Pair::new(
            "gpt4o with added tokens",
            &with_added(&with(sequence(vec![gpt4o("Isolated", false), byte_level.clone()])), 2048),
        ),
        Pair::new("starcoder", &with(sequence(vec![digits, own]))),
        Pair::new("qwen2", &with_added(&nfc(&with(sequence(vec![qwen2, byte_level]))), 2048)),
        Pair::new("gpt2, nfc", &nfc(&bare(GPT2))),
        Pair::new("gpt2 without some bytes", &without_some_bytes(GPT2)),
    ]
});

/// Tokenizers that cannot be restarted, and what they say.
pub static FALLBACKS: LazyLock<Vec<(Pair, &'static str)>> = LazyLock::new(|| {
    let strip = |file: &mut Value| {
        let mut token = added(2048, "@@", false);
        token["lstrip"] = json!(true);
        file["added_tokens"].as_array_mut().expect("added tokens").push(token);
    };
    let quotes =
        json!({"type": "Split", "pattern": {"String": "'"}, "behavior": "MergedWithNext", "invert": false});
    vec![
        (Pair::new("nfd", &changed(GPT2, |file| file["normalizer"] = json!({"type": "NFD"}))), "NFD"),
        (
            Pair::new(
                "space",
                &changed(GPT2, |file| file["pre_tokenizer"]["add_prefix_space"] = json!(true)),
            ),
            "ByteLevel",
        ),
        (Pair::new("strip", &changed(GPT2, strip)), "@@"),
        (
            Pair::new(
                "quotes",
                &changed(TINY, |file| {
                    file["pre_tokenizer"]["pretokenizers"]
                        .as_array_mut()
                        .expect("a sequence")
                        .insert(0, quotes);
                }),
            ),
            "MergedWithNext",
        ),
    ]
});

/// What patterns treat specially, one after another and by themselves.
pub const HARD: &[&str] = &[
    "",
    " ",
    "  ",
    "    ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\n\n\n",
    " \n \n",
    "a",
    "word",
    " word",
    "'",
    "'s",
    "'re",
    "'r",
    "e",
    "don't",
    "ABc",
    "你AB",
    "ǅ",
    "e\u{301}\u{327}",
    "//\n/",
    "x's 're''ll",
    "1",
    "12345",
    "٣",
    "½",
    "_",
    "==",
    " ==",
    "()",
    "::",
    "é",
    "e\u{301}",
    "😀",
    "👨‍👩‍👧",
    "你好",
    " 你",
    "的。",
    "　",
    "ࠀ",
    "한국",
    "ไทย",
    "\u{2028}",
    "\u{a0}",
    "\u{85}",
    "õ",
    "<",
    "<|",
    "eot",
    "|>",
    "!",
    "<|eot|>",
    "<|eot|><|eot|>",
    "ab",
    "\nc",
    "<｜fim▁hole｜>",
    "<｜fim",
    "▁hole｜>",
    "<|endoftext|>",
    "<|file_sep|>",
    "#",
    "/",
    "\\",
    "\0",
    "\u{4}",
    "=\u{4}=",
    "\u{c0000}",
    "\u{fffd}",
    "ſ",
    "'ſ",
    "ǅ",
    "$",
    "+",
    "~",
    "^",
    "`",
    "’s",
];
