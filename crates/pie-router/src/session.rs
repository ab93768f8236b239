//! A session as its group's owner holds it.

use crate::completion::Completion;
use pie_plan::schedule::Ticket;
use pie_plan::{SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use pie_proto::request::{SessionName, strategy_to_wire};
use pie_proto::v1;
use pie_text::{Change, Document, Range, TextEdit, TextError};
use std::collections::VecDeque;
use std::time::Instant;

/// One open document. The first of `completions` runs, the others wait for their turn.
pub(crate) struct Session {
    pub name: SessionName,
    pub id: SessionId,
    pub document: Document,
    pub strategy: Strategy,
    pub completions: VecDeque<Completion>,
    pub ticket: Ticket,
    /// Tokens that wait to be encoded: exact after each plan, an upper bound while edits are queued.
    pub pending: usize,
    pub ahead: Ahead,
    /// The latest edit since the last completion began.
    pub edited: Option<Instant>,
}

/// Pending tokens from which on a session is encoded without being asked for a completion. A smaller edit waits for
/// the completion that follows it: both then cost one pass over the weights instead of two.
const AHEAD_TOKENS: usize = 256;

/// What is encoded without being asked for a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Much came at once: it is encoded to the end.
    pub wanted: bool,
    /// Tokens encoded so since the latest change, for the next answer's timings.
    pub encoded: u32,
    /// Tokens turned so.
    pub rotated: u32,
}

impl Ahead {
    /// After a change that leaves `pending` tokens to encode.
    pub fn of(pending: usize) -> Self {
        Self { wanted: pending >= AHEAD_TOKENS, ..Self::default() }
    }
}

impl Session {
    pub fn tokens(&self) -> usize {
        self.document.token_count()
    }

    /// The session as the API describes it.
    pub fn describe(&self, group: &str) -> v1::Session {
        v1::Session {
            session: self.name.as_str().to_owned(),
            revision: self.document.revision().0,
            tokens: count(self.tokens()),
            tokens_pending: count(self.pending),
            bytes: self.document.len_bytes() as u64,
            strategy: strategy_to_wire(self.strategy).into(),
            group: group.to_owned(),
            tokens_shared: 0,
            rotations: 0,
            resident: true,
        }
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
    vec![TextEdit { range: Range::Bytes { start, end }, insert }]
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
