//! A cursor in a document: what a completion there sees as tokens.

use crate::document::{Document, DocumentText};
use crate::edit::{CheckedEdit, bytes};
use crate::error::TextError;
use pie_words::{Cursor, TextRange, TokenId};

/// A document's tokens, cut at a cursor: those of its prefix, the text before the cursor, and of its suffix, the text behind it. Most of
/// them are the document's own. Where the cursor splits a token, or a piece ends elsewhere without the text beyond it, each side has
/// tokens that the document has not:
///
/// ```text
/// document   a b c d e f g     the cursor is inside of d, whose halves are x y and z
/// prefix     a b c + x y       shared_prefix is 3
/// suffix         z + e f g     shared_suffix is 4
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// How many of the document's tokens the prefix begins with.
    pub shared_prefix: usize,
    /// The rest of the prefix.
    pub prefix_end: Vec<TokenId>,
    /// The tokens that the suffix begins with, up to the first of the document's.
    pub suffix_start: Vec<TokenId>,
    /// The index of that token: the suffix ends with the document's tokens from here on.
    pub shared_suffix: usize,
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
        let (prefix, suffix) = (without(at, text.len_bytes())?, without(0, at)?);
        let shared_prefix = tokens.iter().zip(&prefix).take_while(|(ours, theirs)| ours == theirs).count();
        // Both begin with the tokens that stand before every text: they are none of the suffix.
        let leading = tokens.len() - self.text_tokens();
        let from_the_end = tokens[leading..].iter().rev().zip(suffix[leading..].iter().rev());
        let shared = from_the_end.take_while(|(ours, theirs)| ours == theirs).count();
        Ok(Cut {
            shared_prefix,
            prefix_end: prefix[shared_prefix..].to_vec(),
            suffix_start: suffix[leading..suffix.len() - shared].to_vec(),
            shared_suffix: tokens.len() - shared,
        })
    }

    fn cut_tokens(&self, cursor: Cursor) -> Result<Cut, TextError> {
        let Cursor::Token(at) = cursor else { return Err(TextError::TokensOnly) };
        let length = self.token_count();
        if at.usize() > length {
            let length = crate::change::count(length);
            return Err(TextError::SpliceOutOfBounds { edit: 0, end: u64::from(at.0), length });
        }
        let at = at.usize();
        Ok(Cut { shared_prefix: at, prefix_end: Vec::new(), suffix_start: Vec::new(), shared_suffix: at })
    }
}
