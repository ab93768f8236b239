//! A change of a document that was prepared and not yet made.

use crate::parts::Lead;
use crate::retokenize::Replacement;
use crate::store::TokenStore;
use crate::tokenizer::Tokenizer;
use pie_words::{Revision, Rewrite, Splice, Splices, TextToken, TokenIndex};
use ropey::Rope;
use std::sync::Arc;

/// What tokenizing around an edit cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditStats {
    /// Bytes of text that were cut into pieces, those looked at twice counted twice.
    pub bytes_retokenized: usize,
    /// Tokens that came out, those equal to the old ones included.
    pub tokens_retokenized: usize,
    /// Places that were tokenized on their own.
    pub windows: usize,
}

/// A change that [`crate::Document::prepare`] checked and worked out. It changes nothing until it is committed.
#[derive(Debug)]
pub struct DocumentChange {
    pub(crate) base: Revision,
    pub(crate) revision: Revision,
    pub(crate) splices: Splices,
    pub(crate) stats: EditStats,
    pub(crate) next: Next,
    /// The document that prepared it.
    pub(crate) document: Arc<()>,
}

/// What a change does to what its document was opened with.
#[derive(Clone, Copy, Debug)]
pub enum ContentChange<'a> {
    /// Its text, and the tokens of that: both sorted and disjoint.
    Rewritten {
        /// In bytes of the text before.
        text: &'a [Rewrite],
        /// In tokens of the text before, without what stands before every text.
        tokens: &'a [Replacement],
    },
    /// Its tokens: as the splices say.
    Spliced,
    /// All of it may be another.
    Replaced,
}

/// What a commit does.
#[derive(Debug)]
pub(crate) enum Next {
    /// A new text, and its tokens in place of some old ones.
    Text { text: Rope, replacements: Vec<Replacement>, rewrites: Vec<Rewrite> },
    /// Another text, or the same one, read otherwise.
    Reading { text: Rope, tokens: TokenStore, tokenizer: Arc<Tokenizer> },
    /// The same text, with others in front of it.
    Lead(Arc<Lead>),
    /// The splices themselves: a document of tokens alone has no text to follow.
    Tokens,
}

impl DocumentChange {
    /// The token edits, in indices of the document's tokens with its prefix. S1: sorted and disjoint; none begins or
    /// ends with tokens that stay.
    pub fn splices(&self) -> &Splices {
        &self.splices
    }

    /// The revision that the document will have.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What becomes of the text, or of the tokens of a document without one.
    pub fn content(&self) -> ContentChange<'_> {
        match &self.next {
            Next::Text { rewrites, replacements, .. } => {
                ContentChange::Rewritten { text: rewrites, tokens: replacements }
            }
            Next::Tokens => ContentChange::Spliced,
            Next::Reading { .. } | Next::Lead(_) => ContentChange::Replaced,
        }
    }

    /// What tokenizing around the edit cost.
    pub fn stats(&self) -> EditStats {
        self.stats
    }
}

impl EditStats {
    pub(crate) fn of(replacements: &[Replacement]) -> Self {
        Self {
            bytes_retokenized: replacements.iter().map(|replacement| replacement.bytes_scanned).sum(),
            tokens_retokenized: replacements.iter().map(|replacement| replacement.entries.len()).sum(),
            windows: replacements.len(),
        }
    }
}

/// A number of tokens of a document, or an index of one.
pub(crate) fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).expect("the byte limit of documents keeps token counts within 32 bits")
}

/// The smallest splice that a replacement is, `prefix` tokens further on.
pub(crate) fn trimmed(tokens: &TokenStore, replacement: &Replacement, prefix: usize) -> Splice {
    let Replacement { start, end, entries, .. } = replacement;
    let old: Vec<&TextToken> = tokens.iter_from(*start).take(end - start).collect();
    let same = |(old, new): &(&&TextToken, &TextToken)| old.id == new.id;
    let front = old.iter().zip(entries).take_while(same).count();
    let back = old[front..].iter().rev().zip(entries[front..].iter().rev()).take_while(same).count();
    Splice {
        at: TokenIndex(count(prefix + start + front)),
        delete: count(old.len() - front - back),
        insert: entries[front..entries.len() - back].iter().map(|entry| entry.id).collect(),
    }
}
