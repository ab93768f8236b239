//! A cursor in a document: what a completion there sees as tokens.

use crate::document::{Document, DocumentText};
use crate::edit::{CheckedEdit, bytes};
use crate::error::TextError;
use crate::tokenizer::Tokenizer;
use pie_words::{Cursor, TextRange, TokenId};

/// A document's tokens, cut at a cursor. Tokens that the cursor splits, or whose pieces end elsewhere without the text
/// beyond it, are tokens of their own on each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The text before the cursor is the document's first `kept` tokens,
    pub kept: usize,
    /// and these.
    pub front: Vec<TokenId>,
    /// The text behind it is these,
    pub back: Vec<TokenId>,
    /// and the document's tokens from this one on.
    pub resumes: usize,
}

/// The tokens around the two sides of a document for filling in the middle: begin, front, hole, back, end, and then the
/// model writes what stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FimMarkers {
    /// Before the text before the cursor.
    pub begin: TokenId,
    /// In place of what is to be written.
    pub hole: TokenId,
    /// Behind the text behind the cursor.
    pub end: TokenId,
}

/// Begin, hole and end as model families name them: DeepSeek-Coder, StarCoder, Qwen and CodeGemma, Code Llama.
const MARKERS: [[&str; 3]; 4] = [
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
];

/// Whether a token is one of any family's markers.
pub(crate) fn is_marker(content: &str) -> bool {
    MARKERS.as_flattened().contains(&content)
}

impl Tokenizer {
    /// The model's markers for filling in the middle, if it has them.
    pub fn fim_markers(&self) -> Option<FimMarkers> {
        MARKERS.iter().find_map(|[begin, hole, end]| {
            let (begin, hole, end) = (self.token_id(begin)?, self.token_id(hole)?, self.token_id(end)?);
            Some(FimMarkers { begin, hole, end })
        })
    }
}

impl Document {
    /// Cuts the document's tokens at a cursor. Changes nothing; only the text around the cursor is tokenized.
    ///
    /// # Errors
    /// A cursor that is no place in the document, or of another kind than its content.
    pub fn cut(&self, cursor: Cursor) -> Result<Cut, TextError> {
        let text = match self.content() {
            DocumentText::Text(text) => text,
            DocumentText::TokensOnly => return self.cut_tokens(cursor),
        };
        let range = match cursor {
            Cursor::Byte(at) => TextRange::Bytes { start: at, end: at },
            Cursor::Lsp(at) => TextRange::Lsp { start: at, end: at },
            Cursor::Token(_) => return Err(TextError::TextOnly),
        };
        let (at, _) = bytes(text, 0, range)?;
        let tokens: Vec<TokenId> = self.tokens().collect();
        let without = |start, end| {
            let edit = CheckedEdit { start, end, insert: "", index: 0 };
            self.change(text, &[edit], self.revision()).map(|change| change.splices().apply(&tokens))
        };
        let (front, back) = (without(at, text.len_bytes())?, without(0, at)?);
        let kept = tokens.iter().zip(&front).take_while(|(ours, theirs)| ours == theirs).count();
        let prefix = tokens.len() - self.text_tokens();
        let behind = tokens[prefix..].iter().rev().zip(back[prefix..].iter().rev());
        let same = behind.take_while(|(ours, theirs)| ours == theirs).count();
        Ok(Cut {
            kept,
            front: front[kept..].to_vec(),
            back: back[prefix..back.len() - same].to_vec(),
            resumes: tokens.len() - same,
        })
    }

    fn cut_tokens(&self, cursor: Cursor) -> Result<Cut, TextError> {
        let Cursor::Token(at) = cursor else { return Err(TextError::TokensOnly) };
        let length = self.token_count();
        if at.usize() > length {
            let length = crate::change::count(length);
            return Err(TextError::SpliceOutOfBounds { edit: 0, end: u64::from(at.0), length });
        }
        Ok(Cut { kept: at.usize(), front: Vec::new(), back: Vec::new(), resumes: at.usize() })
    }
}
