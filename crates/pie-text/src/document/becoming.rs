//! How a document becomes another: a client's own text when it opens it again, other tokens, other texts in front. What both have in common
//! stays.

use super::{Document, DocumentText};
use crate::change::{DocumentChange, EditStats, Next, count};
use crate::diff::diff;
use crate::edit::CheckedEdit;
use crate::error::TextError;
use pie_words::{Parts, Revision, Splice, Splices, TokenId, TokenIndex};
use ropey::Rope;
use similar::DiffOp;
use std::sync::Arc;

impl Document {
    /// Works out how to make this document hold a text, as when a client opens it again with its own: only what differs is
    /// tokenized, and only that is in the splices. A text that it holds already gives an empty change that keeps the revision.
    ///
    /// # Errors
    /// [`TextError::TokensOnly`] in a document of tokens, [`TextError::TooLong`] and [`TextError::Tokenizer`].
    pub fn become_text(&self, insert: &str) -> Result<DocumentChange, TextError> {
        let text = self.rope().ok_or(TextError::TokensOnly)?;
        self.replaced(text, vec![CheckedEdit { start: 0, end: text.len_bytes(), insert, index: 0 }])
    }

    /// The same of a document of tokens.
    ///
    /// # Errors
    /// [`TextError::TextOnly`] in a document with a text, [`TextError::TooLong`].
    pub fn become_tokens(&self, tokens: &[TokenId]) -> Result<DocumentChange, TextError> {
        self.prepare_tokens(self.revision, self.tokens_between(tokens))
    }

    /// Works out how to make this document the same text as another that reads it otherwise: only the tokens that differ are in the
    /// splices. Documents with equal texts and tokens give an empty change that keeps the revision.
    ///
    /// # Errors
    /// [`TextError::TokensOnly`] where one of the two has no text.
    pub fn become_read_as(&self, other: &Document) -> Result<DocumentChange, TextError> {
        let (DocumentText::Text(old), DocumentText::Text(new)) = (&self.content, &other.content) else {
            return Err(TextError::TokensOnly);
        };
        let tokens = self.prefix().iter().copied().chain(other.entries().map(|entry| entry.id));
        let splices = self.tokens_between(&tokens.collect::<Vec<_>>());
        let is_same = splices.is_empty() && old == new;
        let revision = if is_same { self.revision } else { self.revision.next() };
        let (text, tokens, tokenizer) = (new.clone(), other.tokens.clone(), other.tokenizer.clone());
        let next = Next::Reading { text, tokens, tokenizer };
        Ok(self.changed(revision, splices, EditStats::default(), next))
    }

    /// Works out how to put these texts in front of the document, in place of those that are there: what both have in common stays.
    ///
    /// # Errors
    /// [`TextError::TokensOnly`] in a document of tokens, [`TextError::RevisionMismatch`], [`TextError::Tokenizer`].
    pub fn prepare_parts(&self, base: Revision, parts: &Parts) -> Result<DocumentChange, TextError> {
        self.rope().ok_or(TextError::TokensOnly)?;
        self.check_revision(base)?;
        let lead = self.lead.with(&self.tokenizer, parts)?;
        let inner = self.tokenizer.difference(&self.lead.tokens, &lead.tokens);
        // In a list of the document's length.
        let splices = Splices::new(inner.iter().cloned().collect(), self.token_count())
            .expect("splices of the lead are splices of what begins with it");
        let is_same = splices.is_empty() && lead.parts == self.lead.parts;
        let revision = if is_same { self.revision } else { self.revision.next() };
        Ok(self.changed(revision, splices, EditStats::default(), Next::Lead(Arc::new(lead))))
    }

    /// What turns its tokens into others.
    fn tokens_between(&self, tokens: &[TokenId]) -> Splices {
        splices_between(&self.tokens().collect::<Vec<_>>(), tokens)
    }
}

/// The splices that turn tokens into others: what both have in common stays.
pub fn splices_between(old: &[TokenId], new: &[TokenId]) -> Splices {
    let splice = |hunk: DiffOp| Splice {
        at: TokenIndex(count(hunk.old_range().start)),
        delete: count(hunk.old_range().len()),
        insert: new[hunk.new_range()].to_vec(),
    };
    let list = diff(old, new).into_iter().map(splice).collect();
    Splices::new(list, old.len()).expect("hunks are sorted, disjoint and of these tokens")
}

/// Where so many times more bytes go than come, few lines can stay, and looking for them would cost more than the edit itself.
const LOOKED_THROUGH: usize = 16;

/// Edits that replace lines by lines, as formatters and clients without increments send them, shrink to the lines that
/// differ.
pub(super) fn narrowed<'a>(text: &Rope, edits: Vec<CheckedEdit<'a>>) -> Vec<CheckedEdit<'a>> {
    let narrow = |edit: CheckedEdit<'a>| {
        if edit.end - edit.start > LOOKED_THROUGH * edit.insert.len() {
            return vec![edit];
        }
        let removed = text.byte_slice(edit.start..edit.end).to_string();
        if !removed.contains('\n') || !edit.insert.contains('\n') {
            return vec![edit];
        }
        let mut narrower = line_edits(&removed, edit.insert);
        for part in &mut narrower {
            (part.start, part.end, part.index) = (part.start + edit.start, part.end + edit.start, edit.index);
        }
        narrower
    };
    edits.into_iter().flat_map(narrow).collect()
}

/// The edits that turn one text into another, whole lines at a time.
fn line_edits<'a>(old: &str, new: &'a str) -> Vec<CheckedEdit<'a>> {
    let (old_lines, new_lines): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let starts = |lines: &[&str]| -> Vec<usize> {
        let mut at = 0;
        let ends = lines.iter().map(|line| {
            at += line.len();
            at
        });
        std::iter::once(0).chain(ends).collect()
    };
    let (old_starts, new_starts) = (starts(&old_lines), starts(&new_lines));
    let edit = |hunk: DiffOp| CheckedEdit {
        start: old_starts[hunk.old_range().start],
        end: old_starts[hunk.old_range().end],
        insert: &new[new_starts[hunk.new_range().start]..new_starts[hunk.new_range().end]],
        index: 0,
    };
    diff(&old_lines, &new_lines).into_iter().map(edit).collect()
}
