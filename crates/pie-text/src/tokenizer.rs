//! The tokenizer of a model: its pieces, the tokens of a piece, and what stands around a text.

use crate::decoder::{SpecialTokens, TokenBytes, TokenDecoder};
use crate::error::TextError;
use crate::form::{Reach, RestartKind};
use crate::scan::PieceScan;
use crate::store::Entry;
use pie_plan::TokenId;
use ropey::Rope;
use std::sync::Arc;
use tokenizers::{Model, OffsetReferential, OffsetType, PreTokenizer};

/// Tells tokenizers apart: a hash of the file and of the prefix tokens. Two processes whose fingerprints are equal cut
/// texts equally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A byte-level BPE tokenizer from a Hugging Face `tokenizer.json`.
#[derive(Debug)]
pub struct Tokenizer {
    pub(crate) inner: tokenizers::Tokenizer,
    pub(crate) restart: RestartKind,
    /// `None` where texts are tokenized whole.
    pub(crate) reach: Option<Reach>,
    pub(crate) prefix: Vec<TokenId>,
    pub(crate) vocabulary: u32,
    pub(crate) table: Arc<TokenBytes>,
    pub(crate) fingerprint: Fingerprint,
}

/// A piece before its bytes are merged to tokens.
pub(crate) struct RawPiece {
    /// Bytes of text.
    pub bytes: usize,
    cut: Cut,
}

enum Cut {
    /// An added token.
    Added(TokenId),
    /// A piece in the characters of the byte-level alphabet.
    Merge(String),
}

impl Tokenizer {
    /// One more than the largest token id.
    pub fn vocab_size(&self) -> u32 {
        self.vocabulary
    }

    /// The tokens that stand before every text, such as the begin of sentence.
    pub fn prefix(&self) -> &[TokenId] {
        &self.prefix
    }

    /// The id of a token by its content, for example `<｜fim▁hole｜>`.
    pub fn token_id(&self, content: &str) -> Option<TokenId> {
        self.inner.token_to_id(content).map(TokenId)
    }

    /// The content of a token as it stands in the file: bytes in the byte-level alphabet.
    pub fn token_content(&self, token: TokenId) -> Option<String> {
        self.inner.id_to_token(token.0)
    }

    /// Tells this tokenizer from others.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether edits are tokenized around or documents whole.
    pub fn restart_kind(&self) -> &RestartKind {
        &self.restart
    }

    /// A decoder that leaves special tokens out.
    pub fn decoder(&self) -> TokenDecoder {
        self.decoder_with(SpecialTokens::Skip)
    }

    /// A decoder.
    pub fn decoder_with(&self, special: SpecialTokens) -> TokenDecoder {
        TokenDecoder::new(self.table.clone(), special)
    }

    /// All tokens as text, without special tokens.
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        let mut decoder = self.decoder();
        let mut text: String = tokens.iter().map(|token| decoder.push(*token)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// The tokens of a text, with the prefix.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] where the tokenizers crate refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, TextError> {
        let entries = self.entries(&Rope::from_str(text))?;
        Ok(self.prefix.iter().copied().chain(entries.iter().map(|entry| entry.id)).collect())
    }

    /// The tokens of a text, without the prefix.
    pub(crate) fn entries(&self, text: &Rope) -> Result<Vec<Entry>, TextError> {
        let Some(reach) = self.reach else { return self.entries_whole(text) };
        let mut scan = PieceScan::new(self, reach, text, 0, text.len_bytes());
        let mut entries = Vec::with_capacity(text.len_bytes() / 3);
        while scan.next_piece(&mut entries)? > 0 {}
        Ok(entries)
    }

    /// The tokens of a text as the tokenizers crate gives them; where pieces start is not known.
    fn entries_whole(&self, text: &Rope) -> Result<Vec<Entry>, TextError> {
        let text = text.to_string();
        let encoding = self.inner.encode_fast(text.as_str(), false).map_err(failed(text.len()))?;
        Ok(encoding.get_ids().iter().map(|id| Entry { id: TokenId(*id), piece_bytes: 0 }).collect())
    }

    /// The pieces of a text that stands alone.
    pub(crate) fn pieces(&self, text: &str) -> Result<Vec<RawPiece>, TextError> {
        let added = self.inner.get_added_vocabulary();
        let mut cut = added.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut cut).map_err(failed(text.len()))?;
        }
        let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let piece =
            |(content, (start, end), tokens): (&str, (usize, usize), &Option<Vec<tokenizers::Token>>)| {
                let cut = match tokens.as_deref() {
                    Some([token]) => Cut::Added(TokenId(token.id)),
                    _ => Cut::Merge(content.to_owned()),
                };
                RawPiece { bytes: end - start, cut }
            };
        Ok(splits.into_iter().map(piece).filter(|piece| piece.bytes > 0).collect())
    }

    /// Merges a piece to tokens, at least one.
    pub(crate) fn tokens_of(&self, piece: &RawPiece, entries: &mut Vec<Entry>) -> Result<(), TextError> {
        let first = entries.len();
        match &piece.cut {
            Cut::Added(token) => entries.push(Entry { id: *token, piece_bytes: 0 }),
            Cut::Merge(content) => {
                let tokens = self.inner.get_model().tokenize(content).map_err(failed(piece.bytes))?;
                entries
                    .extend(tokens.into_iter().map(|token| Entry { id: TokenId(token.id), piece_bytes: 0 }));
            }
        }
        let too_long = || failed(piece.bytes)("a piece of more than 4 GiB, or without tokens".into());
        let entry = entries.get_mut(first).ok_or_else(too_long)?;
        entry.piece_bytes = u32::try_from(piece.bytes).map_err(|_| too_long())?;
        Ok(())
    }
}

fn failed(bytes: usize) -> impl Fn(tokenizers::Error) -> TextError {
    move |error| TextError::Tokenizer { bytes, message: error.to_string() }
}
