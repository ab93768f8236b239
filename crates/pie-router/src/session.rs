//! A session as its group's owner holds it.

use crate::completion::Completion;
use pie_plan::schedule::Ticket;
use pie_plan::{SessionId, Strategy};
use pie_proto::request::{SessionName, strategy_to_wire};
use pie_proto::v1;
use pie_text::Document;
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
    /// The latest edit since the last completion began.
    pub edited: Option<Instant>,
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
        }
    }
}

/// Counts on the wire have 32 bits; documents are far below.
pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
