//! A session as its group's owner holds it.

use crate::completion::Completion;
use crate::core::Standing;
use crate::layout::Layout;
use crate::tenants::Tenant;
use pie_plan::schedule::Ticket;
use pie_plan::{SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use pie_proto::request::{Identity, SessionName};
use pie_text::{Change, Document, TextError};
use pie_words::{TextEdit, TextRange};
use std::collections::VecDeque;
use std::time::Instant;

/// One open document. The first of `completions` runs, the others wait for their turn.
pub(crate) struct Session {
    pub name: SessionName,
    pub id: SessionId,
    /// Which life of the name this is.
    pub identity: Identity,
    pub tenant: Tenant,
    pub standing: Standing,
    /// Since when it is on its way, if it is.
    pub left: Instant,
    /// When its client was last heard of.
    pub used: Instant,
    pub document: Document,
    pub strategy: Strategy,
    pub completions: VecDeque<Completion>,
    /// Since when it was not served: who waits longest is next, who is idle longest makes room.
    pub ticket: Ticket,
    pub ahead: Ahead,
    /// The latest edit since the last completion began.
    pub edited: Option<Instant>,
    pub residence: Residence,
    pub layout: Layout,
    pub exact: Exact,
    /// Tokens adopted since the last completion began.
    pub adopted: u32,
    /// The same document, being encoded anew beside this session's worn rows.
    pub shadow: Option<SessionId>,
}

/// Whether the ranks hold the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residence {
    /// In slots, encoded or to be.
    Resident,
    /// Dropped to make room; the document is here, and is encoded again when it is wanted.
    Dropped,
}

/// How many leading rows are what encoding the text afresh would give: others may share those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exact {
    /// So many.
    Until(usize),
    /// All.
    All,
}

impl Exact {
    /// After splices of a table that had `length` tokens.
    pub fn after(self, splices: &Splices, strategy: Strategy, length: usize) -> Self {
        let Some(first) = splices.iter().next().map(|splice| splice.at.usize()) else { return self };
        let appended = first == length && splices.deleted() == 0;
        if self >= Self::Until(first) && (appended || strategy == Strategy::Full) {
            Self::All
        } else {
            self.min(Self::Until(first))
        }
    }
}

/// Pending tokens from which on a session is encoded without being asked for a completion. A smaller edit waits for
/// the completion that follows it: both then cost one pass over the weights instead of two.
pub(crate) const AHEAD_TOKENS: usize = 256;

/// What is encoded without being asked for a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Tokens that came in since all was encoded.
    waiting: usize,
    /// Tokens encoded so since the latest change, for the next answer's timings.
    pub encoded: u32,
    /// Tokens turned so.
    pub rotated: u32,
}

impl Ahead {
    /// More tokens wait.
    pub fn add(&mut self, tokens: usize) {
        *self = Self { waiting: self.waiting + tokens, ..Self::default() };
    }

    /// Much came at once: it is encoded to the end.
    pub fn is_wanted(&self) -> bool {
        self.waiting >= AHEAD_TOKENS
    }

    /// All is encoded.
    pub fn done(&mut self) {
        self.waiting = 0;
    }

    /// What was done ahead of a completion that begins now.
    pub fn take(&mut self) -> (u32, u32) {
        (std::mem::take(&mut self.encoded), std::mem::take(&mut self.rotated))
    }
}

impl Session {
    pub fn tokens(&self) -> usize {
        self.document.token_count()
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
