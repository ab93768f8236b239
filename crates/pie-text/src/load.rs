//! Loading a tokenizer: what it is, whether it can be used, and what stands before every text.

use crate::added::AddedTokens;
use crate::alphabet::{characters, is_needed};
use crate::beside::Beside;
use crate::decoder::TokenBytes;
use crate::error::TokenizerError;
use crate::fim::{FimSetting, FimSupport};
use crate::form::{LookAhead, PreTokenizerKind, RestartKind};
use crate::gguf::{self, GgufTokenizer};
use crate::region::PromptForm;
use crate::tokenizer::{Fingerprint, Tokenizer};
use pie_gguf::Gguf;
use pie_words::TokenId;
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::Xxh3;

/// Tables have an entry for each id, so that one stray id must not fill the memory. The largest vocabularies have some 2^18.
const LARGEST_VOCABULARY: u32 = 1 << 24;

impl Tokenizer {
    /// Loads the tokenizer of a model: that in a GGUF file, or that of a folder, its `tokenizer.json`, and what stands beside it. A `tokenizer_config.json`
    /// decides about the begin of sentence as in Transformers (DeepSeek-Coder's `tokenizer.json` adds none, its
    /// configuration does), and names the end of text; where it does not name a token, an older folder's
    /// `special_tokens_map.json` may.
    ///
    /// # Errors
    /// [`TokenizerError`] names the file and what cannot be used.
    pub fn open(model: &Path) -> Result<Self, TokenizerError> {
        Self::open_with(model, TokenizerSettings::default())
    }

    /// The same, with what somebody says of the model.
    ///
    /// # Errors
    /// Also a setting that the model has no tokens for.
    pub fn open_with(model: &Path, settings: TokenizerSettings<'_>) -> Result<Self, TokenizerError> {
        if Gguf::is_named(model) {
            let GgufTokenizer { json, beside } = gguf::read(model)?;
            let file = TokenizerFile { name: model.display().to_string(), beside, settings };
            return file.load(json.to_string().as_bytes());
        }
        let path = model.join("tokenizer.json");
        let bytes = read(&path)?;
        TokenizerFile { name: path.display().to_string(), beside: Beside::read(model)?, settings }
            .load(&bytes)
    }

    /// Takes the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError`] says what cannot be used.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        TokenizerFile {
            name: "the tokenizer".into(),
            beside: Beside::default(),
            settings: TokenizerSettings::default(),
        }
        .load(bytes)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    std::fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })
}

/// What a model's files do not say, or say otherwise than somebody who knows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerSettings<'a> {
    /// How it fills in the middle.
    pub fim: Option<&'a FimSetting>,
    /// How it is asked to write lines anew.
    pub form: Option<PromptForm>,
}

/// Carries the name of what is loaded to the errors.
struct TokenizerFile<'a> {
    name: String,
    beside: Beside,
    settings: TokenizerSettings<'a>,
}

impl TokenizerFile<'_> {
    fn load(&self, bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
        let file: Value = serde_json::from_slice(bytes).map_err(|error| self.invalid(&error))?;
        self.check(&file)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| self.invalid(&error))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| self.invalid(&error))?;
        self.check_alphabet(&inner)?;
        let mut prefix = self.prefix(&inner)?;
        self.configured_prefix(&inner, &mut prefix)?;
        let largest = inner.get_vocab(true).values().max().copied();
        let vocabulary = largest.map_or(0, |largest| largest.saturating_add(1));
        if vocabulary > LARGEST_VOCABULARY {
            let what = format!("its largest token id is {}, which no model has", vocabulary - 1);
            return Err(self.unsupported(what));
        }
        // A post-processor spells its ids itself; the library does not look whether they are any.
        if let Some(stray) = prefix.iter().find(|token| token.0 >= vocabulary) {
            let what =
                format!("its post-processor puts the id {} in front of the text, which is no token", stray.0);
            return Err(self.unsupported(what));
        }
        let found = FimSupport::of(&inner, self.beside.model(), self.settings.fim)
            .map_err(|what| TokenizerError::Fim { name: self.name.clone(), what })?;
        let added = AddedTokens::of(&inner, &file, &self.beside, &found.control)
            .map_err(|error| self.invalid(&error))?;
        let all = added.all_in_text(&inner).map_err(|error| self.invalid(&error))?;
        let end = self.beside.token("eos_token").and_then(|content| inner.token_to_id(content));
        let mut ends: Vec<TokenId> = added.control.iter().copied().chain(end.map(TokenId)).collect();
        ends.sort_unstable();
        ends.dedup();
        let table = Arc::new(TokenBytes::of(&inner, vocabulary, added.control.clone()));
        let (inner, fim) = (Arc::new(inner), found.fim);
        let tokenizer = |added: AddedTokens, spellings: u64, reading_control| {
            let (restart, reach) = restart(&added, &file);
            let fingerprint = fingerprint(bytes, &prefix, &added.control, spellings);
            let (inner, fim, prefix) = (inner.clone(), fim.clone(), prefix.clone());
            let (ends, table) = (ends.clone(), table.clone());
            Tokenizer {
                inner,
                fim,
                form: self.settings.form.unwrap_or_else(|| PromptForm::of(self.beside.model())),
                reading_control,
                restart,
                reach,
                prefix,
                added,
                ends,
                vocabulary,
                table,
                fingerprint,
                line_ends: OnceLock::new(),
            }
        };
        let reading = tokenizer(all, 1, None);
        Ok(tokenizer(added, 0, Some(Arc::new(reading))))
    }

    /// Refuses models and decoders whose tokens are not bytes.
    fn check(&self, file: &Value) -> Result<(), TokenizerError> {
        let model = &file["model"];
        let empty = |value: &Value| value.as_str().is_none_or(str::is_empty);
        // Old files leave the type out where it is BPE.
        if !(model["type"] == "BPE" || model["type"].is_null() && model["merges"].is_array()) {
            return Err(self.unsupported(format!("its model is {}", model["type"])));
        }
        if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
            return Err(self.unsupported("its merges drop out at random".into()));
        }
        if !(empty(&model["continuing_subword_prefix"]) && empty(&model["end_of_word_suffix"])) {
            return Err(self.unsupported("its tokens carry subword marks".into()));
        }
        if file["decoder"]["type"] != "ByteLevel" {
            return Err(
                self.unsupported(format!("its decoder is {}, not ByteLevel", file["decoder"]["type"]))
            );
        }
        self.check_template(&file["post_processor"])
    }

    /// Refuses templates that ask for what there is not: the library takes them, and panics when it fills them in.
    fn check_template(&self, processor: &Value) -> Result<(), TokenizerError> {
        for inner in processor["processors"].as_array().into_iter().flatten() {
            self.check_template(inner)?;
        }
        for piece in processor["single"].as_array().into_iter().flatten() {
            let (text, token) = (&piece["Sequence"]["id"], &piece["SpecialToken"]["id"]);
            if !text.is_null() && text != "A" {
                return Err(self.unsupported("its post-processor wants a second text beside each".into()));
            }
            let is_known = |token: &str| processor["special_tokens"].get(token).is_some();
            if let Some(token) = token.as_str().filter(|token| !is_known(token)) {
                return Err(
                    self.unsupported(format!("its post-processor does not say which token {token} is"))
                );
            }
        }
        Ok(())
    }

    /// Without a token for each byte some text would have no tokens. SmolLM2 lacks some of bytes that code does not have:
    /// its tokenizer leaves them out.
    fn check_alphabet(&self, inner: &tokenizers::Tokenizer) -> Result<(), TokenizerError> {
        let missing = |(byte, character): &(u8, char)| {
            is_needed(*byte) && inner.token_to_id(character.encode_utf8(&mut [0; 4])).is_none()
        };
        match (0..=255).zip(characters()).find(missing) {
            Some((byte, _)) => Err(self.unsupported(format!("no token stands for byte {byte:#04x}"))),
            None => Ok(()),
        }
    }

    /// The tokens that the post-processor puts in front.
    fn prefix(&self, inner: &tokenizers::Tokenizer) -> Result<Vec<TokenId>, TokenizerError> {
        let probe = inner.encode("a", true).map_err(|error| self.invalid(&error))?;
        let special = probe.get_special_tokens_mask();
        if special.last() == Some(&1) {
            return Err(self.unsupported("its post-processor puts tokens behind the text".into()));
        }
        let length = special.iter().take_while(|mark| **mark == 1).count();
        Ok(probe.get_ids()[..length].iter().map(|id| TokenId(*id)).collect())
    }

    /// Applies `add_bos_token` and `add_eos_token` of a tokenizer_config.json. The Llama classes of Transformers, which
    /// DeepSeek-Coder names, put their own in place of the post-processor's, the begin of sentence unless they are told
    /// not to; other classes do not look at the flags. So it is in 4.57; Transformers 5 drops the flags, and with them
    /// the token that these models were trained with.
    fn configured_prefix(
        &self,
        inner: &tokenizers::Tokenizer,
        prefix: &mut Vec<TokenId>,
    ) -> Result<(), TokenizerError> {
        if !self.beside.class().starts_with("LlamaTokenizer") {
            return Ok(());
        }
        if self.beside.flag("add_eos_token") == Some(true) {
            return Err(
                self.unsupported("its configuration puts a token behind the text (add_eos_token)".into())
            );
        }
        let Some(content) = self.beside.token("bos_token") else { return Ok(()) };
        let Some(token) = inner.token_to_id(content).map(TokenId) else {
            return Err(self.unsupported(format!("its begin of sentence {content} is no token")));
        };
        prefix.clear();
        if self.beside.flag("add_bos_token") != Some(false) {
            prefix.push(token);
        }
        Ok(())
    }

    fn invalid(&self, error: &dyn std::fmt::Display) -> TokenizerError {
        TokenizerError::Parse { name: self.name.clone(), message: error.to_string() }
    }

    fn unsupported(&self, what: String) -> TokenizerError {
        TokenizerError::Unsupported { name: self.name.clone(), what }
    }
}

/// How texts are tokenized around edits, if they can be.
fn restart(added: &AddedTokens, file: &Value) -> (RestartKind, Option<LookAhead>) {
    let whole = |why: String| (RestartKind::WholeText { why }, None);
    let normalizers: Vec<&Value> = match &file["normalizer"] {
        Value::Null => Vec::new(),
        normalizer if normalizer["type"] == "Sequence" => {
            normalizer["normalizers"].as_array().into_iter().flatten().collect()
        }
        normalizer => vec![normalizer],
    };
    if let Some(other) = normalizers.iter().find(|normalizer| normalizer["type"] != "NFC") {
        return whole(format!("normalizer {}", other["type"]));
    }
    let Some(form) = PreTokenizerKind::of(&file["pre_tokenizer"]) else {
        return whole(format!("unknown pre-tokenizer {}", file["pre_tokenizer"]));
    };
    let kind =
        if normalizers.is_empty() { RestartKind::Piece(form) } else { RestartKind::PieceOfPlainText(form) };
    match added.reach() {
        Ok(reach) => (kind, Some(LookAhead::new(form, reach))),
        Err(why) => whole(why),
    }
}

fn fingerprint(bytes: &[u8], prefix: &[TokenId], control: &[TokenId], spellings: u64) -> Fingerprint {
    let mut hash = Xxh3::with_seed(spellings);
    hash.update(bytes);
    for list in [prefix, control] {
        hash.update(&list.len().to_le_bytes());
        list.iter().for_each(|token| hash.update(&token.0.to_le_bytes()));
    }
    Fingerprint(hash.digest())
}
