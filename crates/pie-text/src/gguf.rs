//! The tokenizer in a GGUF file, as the tokenizer.json that it was made of: so that one loader checks and reads both.

use crate::beside::Beside;
use crate::error::TokenizerError;
use crate::form::PreTokenizerKind;
use pie_gguf::{Gguf, GgufValue as Setting};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Kinds of tokens, by ggml's numbers.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;

/// What a pre-tokenizer's name stands for.
struct GgufPreTokenizer {
    name: &'static str,
    form: PreTokenizerKind,
    /// Pieces that are tokens as they are, whatever the merges make of them.
    ignores_merges: bool,
    normalizer: Option<&'static str>,
}

impl GgufPreTokenizer {
    const fn new(name: &'static str, form: PreTokenizerKind) -> Self {
        Self { name, form, ignores_merges: false, normalizer: None }
    }
}

const KNOWN: [GgufPreTokenizer; 11] = [
    GgufPreTokenizer::new("gpt-2", PreTokenizerKind::Gpt2),
    GgufPreTokenizer::new("starcoder", PreTokenizerKind::StarCoder),
    GgufPreTokenizer::new("refact", PreTokenizerKind::StarCoder),
    GgufPreTokenizer::new("smollm", PreTokenizerKind::StarCoder),
    GgufPreTokenizer::new("deepseek-coder", PreTokenizerKind::DeepSeekCoder),
    GgufPreTokenizer { ignores_merges: true, ..GgufPreTokenizer::new("llama-bpe", PreTokenizerKind::Llama3) },
    GgufPreTokenizer { ignores_merges: true, ..GgufPreTokenizer::new("llama3", PreTokenizerKind::Llama3) },
    GgufPreTokenizer { ignores_merges: true, ..GgufPreTokenizer::new("llama-v3", PreTokenizerKind::Llama3) },
    GgufPreTokenizer::new("gpt-4o", PreTokenizerKind::Gpt4o),
    GgufPreTokenizer { normalizer: Some("NFC"), ..GgufPreTokenizer::new("qwen2", PreTokenizerKind::Qwen2) },
    GgufPreTokenizer {
        normalizer: Some("NFC"),
        ..GgufPreTokenizer::new("deepseek-r1-qwen", PreTokenizerKind::Qwen2)
    },
];

/// A tokenizer.json, and what would stand beside it.
pub(crate) struct GgufTokenizer {
    /// The tokenizer.json.
    pub json: Value,
    /// What a folder's tokenizer_config.json would say.
    pub beside: Beside,
}

/// Reads the settings of a file.
pub(crate) fn read(path: &Path) -> Result<GgufTokenizer, TokenizerError> {
    let name = || path.display().to_string();
    let unsupported = |what: String| TokenizerError::Unsupported { name: name(), what };
    let invalid = |message: String| TokenizerError::Parse { name: name(), message };
    let file = Gguf::open(path).map_err(|error| invalid(error.to_string()))?;
    match file.text("tokenizer.ggml.model") {
        Some("gpt2") => {}
        Some(other) => return Err(unsupported(format!("its tokenizer is of the kind \"{other}\""))),
        None => return Err(unsupported("it has no tokenizer".to_owned())),
    }
    let pre = file.text("tokenizer.ggml.pre").unwrap_or("default");
    let Some(known) = KNOWN.iter().find(|known| known.name == pre) else {
        return Err(unsupported(format!("its pre-tokenizer \"{pre}\" is not known here")));
    };
    let list = |key: &str| file.list(key).ok_or_else(|| invalid(format!("it has no list {key}")));
    let tokens = GgufVocabulary::of(list("tokenizer.ggml.tokens")?, file.list("tokenizer.ggml.token_type"));
    let merges: Vec<&str> = list("tokenizer.ggml.merges")?.iter().filter_map(text).collect();
    let token = |role: &str| {
        let id = usize::try_from(file.unsigned(&format!("tokenizer.ggml.{role}_token_id"))?).ok()?;
        Some((id, *tokens.spelled.get(id)?))
    };
    let begins = file.flag("tokenizer.ggml.add_bos_token").unwrap_or(known.form == PreTokenizerKind::Llama3);
    let begin = token("bos").filter(|_| begins);
    let json = json!({
        "version": "1.0",
        "added_tokens": tokens.added,
        "normalizer": known.normalizer.map(|kind| json!({"type": kind})),
        "pre_tokenizer": known.form.written(),
        "post_processor": begin.map(|(id, token)| begin_of_text(id, token)),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "fuse_unk": false, "byte_fallback": false, "ignore_merges": known.ignores_merges,
            "vocab": tokens.vocabulary, "merges": merges,
        },
    });
    let names = [("bos_token", token("bos")), ("eos_token", token("eos")), ("pad_token", token("padding"))];
    let beside = names.into_iter().filter_map(|(role, token)| Some((role.to_owned(), token?.1.into())));
    let model = format!("{} {}", file.text("general.name").unwrap_or_default(), name());
    Ok(GgufTokenizer { json, beside: Beside::of(Value::Object(beside.collect()), model) })
}

/// The tokens of a file, parted as a tokenizer.json has them.
struct GgufVocabulary<'a> {
    /// All, by their ids.
    spelled: Vec<&'a str>,
    vocabulary: Map<String, Value>,
    added: Vec<Value>,
}

impl<'a> GgufVocabulary<'a> {
    fn of(tokens: &'a [Setting], kinds: Option<&[Setting]>) -> Self {
        let kind = |id: usize| match kinds.and_then(|kinds| kinds.get(id)) {
            Some(Setting::Signed(kind)) => u64::try_from(*kind).unwrap_or(0),
            Some(Setting::Unsigned(kind)) => *kind,
            _ => 0,
        };
        let spelled: Vec<&str> = tokens.iter().map(|token| text(token).unwrap_or_default()).collect();
        let (mut vocabulary, mut added) = (Map::new(), Vec::new());
        for (id, token) in spelled.iter().enumerate() {
            match kind(id) {
                // What fills the table up to the model's size is no token.
                UNUSED => {}
                kind @ (CONTROL | USER_DEFINED) => added.push(json!({
                    "id": id, "content": token, "special": kind == CONTROL, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false,
                })),
                _ => {
                    vocabulary.insert((*token).to_owned(), id.into());
                }
            }
        }
        Self { spelled, vocabulary, added }
    }
}

fn text(setting: &Setting) -> Option<&str> {
    match setting {
        Setting::Text(text) => Some(text),
        _ => None,
    }
}

/// A post-processor that puts a token in front.
fn begin_of_text(id: usize, token: &str) -> Value {
    let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
    json!({
        "type": "TemplateProcessing",
        "single": [special, text("A", 0)],
        "pair": [special, text("A", 0), text("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    })
}
