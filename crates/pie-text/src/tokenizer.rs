//! The tokenizer of a model: its pieces, the tokens of a piece, and what stands around a text.

use crate::added::AddedTokens;
use crate::decoder::{TokenBytes, TokenDecoder};
use crate::difference::LineEnds;
use crate::error::TextError;
use crate::fim::Fim;
use crate::form::{LookAhead, RestartKind};
use crate::nfc;
use crate::pieces::{PieceCut, RawPiece};
use crate::region::PromptForm;
use crate::scan::PieceScan;
use pie_words::{Spellings, TextToken, TokenId};
use ropey::Rope;
use std::sync::{Arc, OnceLock};
use tokenizers::Model;

/// Tells tokenizers apart: a hash of the file, of the prefix, and of the control tokens. Two processes whose fingerprints are equal cut
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
    pub(crate) inner: Arc<tokenizers::Tokenizer>,
    pub(crate) fim: Option<Fim>,
    pub(crate) form: PromptForm,
    /// The same for texts that are read with their control tokens; `None` in that one itself.
    pub(crate) reading_control: Option<Arc<Tokenizer>>,
    pub(crate) restart: RestartKind,
    /// `None` where all texts are tokenized whole.
    pub(crate) reach: Option<LookAhead>,
    pub(crate) prefix: Vec<TokenId>,
    pub(crate) added: AddedTokens,
    /// Tokens that end a text. Sorted.
    pub(crate) ends: Vec<TokenId>,
    pub(crate) vocabulary: u32,
    pub(crate) table: Arc<TokenBytes>,
    pub(crate) fingerprint: Fingerprint,
    /// Found out when they are needed first.
    pub(crate) line_ends: OnceLock<LineEnds>,
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

    /// Tokens that are no text: those that the pool puts around one, and that end a text when the model writes them. They
    /// are never found in a text, whatever it spells.
    pub fn control_tokens(&self) -> &[TokenId] {
        &self.added.control
    }

    /// Tokens that end what the model writes: the control tokens, and the `eos_token` of the configuration. Sorted.
    pub fn ends(&self) -> &[TokenId] {
        &self.ends
    }

    /// The id of a token by its content, for example `<｜fim▁hole｜>`.
    pub fn token_id(&self, content: &str) -> Option<TokenId> {
        self.inner.token_to_id(content).map(TokenId)
    }

    /// How the model fills in the middle, if it does.
    pub fn fim(&self) -> Option<&Fim> {
        self.fim.as_ref()
    }

    /// How the model is asked to write lines anew.
    pub fn prompt_form(&self) -> PromptForm {
        self.form
    }

    /// The tokenizer for texts that are read so.
    #[must_use]
    pub fn reading(self: &Arc<Self>, spellings: Spellings) -> Arc<Self> {
        match (spellings, &self.reading_control) {
            (Spellings::ControlTokens, Some(reading)) => reading.clone(),
            (Spellings::ControlTokens, None) | (Spellings::Text, _) => self.clone(),
        }
    }

    /// How it reads texts.
    pub fn spellings(&self) -> Spellings {
        if self.reading_control.is_some() { Spellings::Text } else { Spellings::ControlTokens }
    }

    /// Tells this tokenizer from others.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether edits are tokenized around or documents whole.
    pub fn restart_kind(&self) -> &RestartKind {
        &self.restart
    }

    /// The most bytes of a text of so many tokens: none stands for more than the longest does, and NFC composes at most so many
    /// bytes to one. `None` where it is not known what texts become before they are cut.
    pub fn most_bytes(&self, tokens: usize) -> Option<usize> {
        let composed = match self.restart {
            RestartKind::Piece(_) => 1,
            RestartKind::PieceOfPlainText(_) => nfc::MOST_COMPOSED,
            RestartKind::WholeText { .. } => return None,
        };
        Some(tokens.saturating_mul(self.table.longest()).saturating_mul(composed))
    }

    /// A decoder that leaves control tokens out.
    pub fn decoder(&self) -> TokenDecoder {
        TokenDecoder::new(self.table.clone())
    }

    /// The bytes that a token stands for, which may end within a character; of a control token, its spelling. None of an id that names no token.
    pub fn bytes(&self, token: TokenId) -> &[u8] {
        self.table.get(token)
    }

    /// All tokens as text, without control tokens.
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

    /// The same without the prefix.
    pub(crate) fn text_tokens(&self, text: &str) -> Result<Vec<TokenId>, TextError> {
        Ok(self.entries(&Rope::from_str(text))?.iter().map(|entry| entry.id).collect())
    }

    /// How far decisions reach in a text of these parts; `None` where it is tokenized whole.
    pub(crate) fn reach_in<'a>(&self, mut parts: impl Iterator<Item = &'a str>) -> Option<LookAhead> {
        let any_text = !matches!(self.restart, RestartKind::PieceOfPlainText(_));
        self.reach.filter(|_| any_text || parts.all(nfc::leaves_alone))
    }

    /// The tokens of a text, without the prefix.
    pub(crate) fn entries(&self, text: &Rope) -> Result<Vec<TextToken>, TextError> {
        let Some(reach) = self.reach_in(text.chunks()) else { return self.entries_whole(text) };
        let mut scan = PieceScan::new(self, reach, text, 0, text.len_bytes());
        let mut entries = Vec::with_capacity(text.len_bytes() / 3);
        while scan.next_piece(&mut entries)? > 0 {}
        Ok(entries)
    }

    /// The tokens of a text where it is not known how pieces could be found again.
    fn entries_whole(&self, text: &Rope) -> Result<Vec<TextToken>, TextError> {
        let mut entries = Vec::new();
        for piece in self.pieces(&text.to_string())? {
            self.tokens_of(&piece, &mut entries)?;
        }
        Ok(entries)
    }

    /// Merges a piece to tokens, which do not say yet where it starts.
    pub(crate) fn tokens_of(&self, piece: &RawPiece, entries: &mut Vec<TextToken>) -> Result<(), TextError> {
        match &piece.cut {
            PieceCut::Added(token) => entries.push(TextToken { id: *token, piece_bytes: 0 }),
            PieceCut::Merge(content) => self.merge(content, piece.bytes, entries)?,
        }
        Ok(())
    }

    fn merge(&self, content: &str, bytes: usize, entries: &mut Vec<TextToken>) -> Result<(), TextError> {
        let tokens = self.inner.get_model().tokenize(content).map_err(failed(bytes))?;
        if let ([token], Some((last, _))) = (tokens.as_slice(), content.char_indices().next_back())
            && self.added.tempting.binary_search(&TokenId(token.id)).is_ok()
        {
            // The spelling of a control token that is a piece of text: the last byte stands alone, so that it is none.
            self.merge(&content[..last], bytes, entries)?;
            return self.merge(&content[last..], bytes, entries);
        }
        entries.extend(tokens.into_iter().map(|token| TextToken { id: TokenId(token.id), piece_bytes: 0 }));
        Ok(())
    }
}

pub(crate) fn failed(bytes: usize) -> impl Fn(tokenizers::Error) -> TextError {
    move |error| TextError::Tokenizer { bytes, message: error.to_string() }
}
