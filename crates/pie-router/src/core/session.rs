//! A session: one open document.

use crate::tenants::Tenant;
use pie_proto::request::{Identity, SessionName};
use pie_text::{Change, Document, TextError};
use pie_words::{Revision, SessionId, Splice, Splices, Strategy, TextEdit, TextRange, TokenId, TokenIndex};
use std::time::Instant;

/// One open document, whoever serves it: what the ranks hold of it is in [`super::tables`].
pub(crate) struct Session {
    pub name: SessionName,
    pub id: SessionId,
    /// Which life of the name this is.
    pub identity: Identity,
    pub tenant: Tenant,
    pub standing: Standing,
    /// When its client was last heard of.
    pub used: Instant,
    pub document: Document,
    pub strategy: Strategy,
    /// When the latest edit came in since a completion began.
    pub edited: Option<Instant>,
}

/// Whether a session may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may.
    Here,
    /// It is on its way since then: whoever asks for it is to ask again.
    Leaving(Instant),
}

impl Session {
    pub fn tokens(&self) -> usize {
        self.document.token_count()
    }

    pub fn revision(&self) -> Revision {
        self.document.revision()
    }
}

/// Counts on the wire have 32 bits; documents are far below.
pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The change that makes `held` equal to `wanted`: what both have in front and behind stays.
pub(crate) fn difference(held: &Document, wanted: &Document) -> Result<Change, TextError> {
    match (held.text(), wanted.text()) {
        (Some(held_text), Some(text)) => {
            let edits = text_difference(&held_text, &text);
            held.prepare(held.revision(), &edits)
        }
        (None, None) => held.prepare_tokens(held.revision(), token_difference(held, wanted)),
        (None, Some(_)) => Err(TextError::TokensOnly),
        (Some(_), None) => Err(TextError::TextOnly),
    }
}

fn text_difference(held: &str, wanted: &str) -> Vec<TextEdit> {
    let same = |(a, b): &(char, char)| a == b;
    let bytes = |(a, _): (char, char)| a.len_utf8();
    let start: usize = held.chars().zip(wanted.chars()).take_while(same).map(bytes).sum();
    let behind = held[start..].chars().rev().zip(wanted[start..].chars().rev());
    let kept: usize = behind.take_while(same).map(bytes).sum();
    let (end, insert) = (held.len() - kept, wanted[start..wanted.len() - kept].to_owned());
    if start == end && insert.is_empty() {
        return Vec::new();
    }
    vec![TextEdit { range: TextRange::Bytes { start, end }, insert }]
}

fn token_difference(held: &Document, wanted: &Document) -> Splices {
    let (held, wanted): (Vec<TokenId>, Vec<TokenId>) = (held.tokens().collect(), wanted.tokens().collect());
    let start = held.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    let behind = held[start..].iter().rev().zip(wanted[start..].iter().rev());
    let kept = behind.take_while(|(a, b)| a == b).count();
    let insert = wanted[start..wanted.len() - kept].to_vec();
    let splice = Splice { at: TokenIndex(count(start)), delete: count(held.len() - kept - start), insert };
    Splices::new(vec![splice], held.len()).unwrap_or_default()
}
