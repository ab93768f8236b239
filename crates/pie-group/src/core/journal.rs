//! What happened to the documents of a group, for its ranks to keep (`pie-plan/src/ledger.rs`): the documents outlive their router.
//!
//! **Invariant.** Who has all entries up to a number has every document as it was then. Numbers only grow, whatever happens to the
//! group.

use super::session::Session;
use crate::call::ImportedSession;
use pie_plan::ledger::{Entry, Position};
use pie_proto::memo::{self, MemoEdit, Retokenized, SessionMemo};
use pie_text::{ContentChange, DocumentChange, DocumentText, Replacement};
use pie_words::{Epoch, SessionId};

/// Edits are written whole again when they take more bytes than this beside a document that is small.
const EDITS_BYTES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    latest: u64,
    entries: Vec<(SessionId, Entry)>,
    /// Where the ranks' ledgers are that have just this, if somebody else wrote them.
    recalled: Option<Position>,
}

/// How long a session's memo is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoBytes {
    whole: usize,
    edits: usize,
}

/// Entries that follow each other.
#[derive(Debug)]
pub struct JournalBatch {
    /// Of the first.
    pub first: u64,
    /// In order.
    pub entries: Vec<(SessionId, Entry)>,
}

impl Journal {
    /// The number of the latest entry.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// Where a ledger is that has just what is here, if this router was the last to serve the group, in that epoch.
    pub fn position(&self, served: Epoch) -> Position {
        self.recalled.unwrap_or(Position { epoch: served, number: self.latest })
    }

    /// What has been written since the last time.
    pub fn take(&mut self) -> Option<JournalBatch> {
        let entries = std::mem::take(&mut self.entries);
        let first = self.latest + 1 - entries.len() as u64;
        (!entries.is_empty()).then_some(JournalBatch { first, entries })
    }

    /// A session that is new here, or otherwise than its edits say.
    pub fn whole(&mut self, session: &Session) -> MemoBytes {
        let memo = memo::whole(session.snapshot().kept());
        let whole = memo.len();
        self.write(session.id, Entry::Whole(memo));
        MemoBytes { whole, edits: 0 }
    }

    /// A session is gone.
    pub fn gone(&mut self, id: SessionId) {
        self.write(id, Entry::Gone);
    }

    /// An edit that was made.
    pub fn edited(&mut self, session: &Session, edit: Vec<u8>) -> MemoBytes {
        let before = session.memo;
        let edits = before.edits + edit.len();
        if edits > EDITS_BYTES + before.whole {
            return self.whole(session);
        }
        self.write(session.id, Entry::More(edit));
        MemoBytes { edits, ..before }
    }

    /// What is here is no more what any ledger has.
    pub fn break_off(&mut self) {
        self.latest += 1;
        (self.entries, self.recalled) = (Vec::new(), None);
    }

    /// The documents have just come from a ledger.
    pub fn recalled(&mut self, position: Position) {
        self.break_off();
        self.recalled = Some(position);
    }

    fn write(&mut self, id: SessionId, entry: Entry) {
        self.latest += 1;
        self.recalled = None;
        self.entries.push((id, entry));
    }
}

/// What a change makes of a document, to be kept; `None` where all of it may be another.
pub(super) fn memo_of(change: &DocumentChange) -> Option<Vec<u8>> {
    let edited = match change.content() {
        ContentChange::Rewritten { text, tokens } => {
            let retokenize = |replaced: &Replacement| Retokenized {
                start: replaced.start,
                end: replaced.end,
                tokens: replaced.entries.clone(),
            };
            MemoEdit::Text { rewrites: text.to_vec(), retokenized: tokens.iter().map(retokenize).collect() }
        }
        ContentChange::Spliced => MemoEdit::Tokens(change.splices().clone()),
        ContentChange::Replaced => return None,
    };
    Some(memo::edit(change.revision(), edited))
}

impl ImportedSession {
    /// The session as the ranks keep it.
    pub(crate) fn kept(&self) -> SessionMemo {
        let document = &self.document;
        let tokens = match document.content() {
            DocumentText::Text(_) => document.entries().collect(),
            DocumentText::TokensOnly => Vec::new(),
        };
        SessionMemo { session: self.carried(), tokens, fingerprint: document.fingerprint().0 }
    }
}
