//! A plan: what a group does in one lockstep step, and what that means for a rank's tensors.

use crate::blocks::PlanBlocks;
use crate::rows::OutOfSlots;
use pie_words::{Epoch, Seq, SessionId, Slot, SpliceError, Splices, Strategy, TokenId, TokenIndex};
use std::ops::Range;

/// A change of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new, empty session.
    Open {
        /// Its name, never used before in this epoch.
        session: SessionId,
    },
    /// An edit of the document. The branch follows it.
    Splice {
        /// Whose document.
        session: SessionId,
        /// What changes, in token indices before this change.
        splices: Splices,
        /// How the cache follows.
        strategy: Strategy,
    },
    /// A new, empty session begins with the leading rows of another, which both then hold until one of them edits there.
    Share {
        /// Which begins.
        session: SessionId,
        /// Whose rows.
        from: SessionId,
        /// How many: all encoded, with keys that stand at their index.
        length: u32,
    },
    /// A branch in place of the one that is there: a completion at a cursor.
    Branch {
        /// Whose.
        session: SessionId,
        /// It stands behind the document's tokens before this one, and sees no others.
        at: TokenIndex,
        /// Its first tokens: the text before the cursor that the document's own tokens do not end with.
        tokens: Vec<TokenId>,
    },
    /// The completion is over: its generated tokens go.
    EndBranch {
        /// Whose.
        session: SessionId,
    },
    /// All rows go, and their slots; the session stays, empty.
    Clear {
        /// Whose.
        session: SessionId,
    },
    /// Rows of a document are encoded again, in their slots, by the session's run in this plan: what they say becomes as new as
    /// what stands on their left. Rows that other sessions hold too are exact and stay.
    Repair {
        /// Whose.
        session: SessionId,
        /// Sorted and disjoint, in indices of the document's tokens; all encoded.
        rows: Vec<Range<u32>>,
    },
    /// The session goes, and all its slots.
    Close {
        /// Which.
        session: SessionId,
    },
}

impl Change {
    /// The session that changes.
    pub fn session(&self) -> SessionId {
        match self {
            Self::Open { session }
            | Self::Splice { session, .. }
            | Self::Share { session, .. }
            | Self::Branch { session, .. }
            | Self::EndBranch { session }
            | Self::Clear { session }
            | Self::Repair { session, .. }
            | Self::Close { session } => *session,
        }
    }
}

/// What follows when a run's rows are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the session only catches up.
    Stop,
    /// The next token is sampled from the last row's logits and joins the branch.
    Sample,
}

/// One session's part in the forward pass of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Encode pending tokens, in index order, and no more than `limit`: a chunk of a prefill.
    Encode {
        /// Whose tokens.
        session: SessionId,
        /// The most to encode.
        limit: u32,
    },
    /// Encode all that is pending and, in any case, the last token again (W1); sample the next token from its logits.
    Sample {
        /// Whose tokens.
        session: SessionId,
    },
}

impl Run {
    /// The session that runs.
    pub fn session(&self) -> SessionId {
        match self {
            Self::Encode { session, .. } | Self::Sample { session } => *session,
        }
    }
}

/// Whether the replicas report the digest of their tables after this plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestWanted {
    /// No: a digest reads every table.
    #[default]
    Skip,
    /// Yes, and every invariant is checked on the way (P4).
    Report,
}

/// One step of a group: first the changes in order, then one forward pass over the runs, then `passes - 1` further
/// passes that decode the sampled sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The owner's fencing token.
    pub epoch: Epoch,
    /// Counts plans from 1.
    pub seq: Seq,
    /// Changes of the tables, in order.
    pub changes: Vec<Change>,
    /// Who takes part in the forward pass; each session at most once.
    pub runs: Vec<Run>,
    /// Forward passes in all; those after the first decode. 1 unless something samples.
    pub passes: u32,
    /// Whether to report a digest.
    pub digest: DigestWanted,
    /// What ranks write to disk and read back, when rows are copied and keys turned, and before the passes.
    pub blocks: PlanBlocks,
}

impl Plan {
    /// Whether nobody waits for what it encodes: all its rows but pending ones that come along are repaired. Ranks may give such a
    /// plan up in the middle of its pass ([`Group::give_up`](crate::Group::give_up)).
    pub fn only_repairs(&self) -> bool {
        let latest = |session| self.changes.iter().rev().find(|change| change.session() == session);
        let repaired = |session| matches!(latest(session), Some(Change::Repair { .. }));
        let repairs = |run: &Run| matches!(run, Run::Encode { session, .. } if repaired(*session));
        !self.runs.is_empty() && self.runs.iter().all(repairs)
    }

    /// The rows of a session that are encoded again.
    pub(crate) fn repaired(&self, session: SessionId) -> impl Iterator<Item = Range<usize>> + '_ {
        let of = move |change: &Change| match change {
            Change::Repair { session: whose, rows } if *whose == session => Some(rows.clone()),
            _ => None,
        };
        self.changes.iter().filter_map(of).flatten().map(|rows| rows.start as usize..rows.end as usize)
    }
}

/// A token to encode: its keys and values are written to `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The token.
    pub token: TokenId,
    /// Its index, which its query and key are rotated for.
    pub position: TokenIndex,
    /// Where its KV row goes.
    pub slot: Slot,
}

/// Keys to turn, as two flat arrays of equal length: one kernel launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Which KV rows.
    pub slots: Vec<Slot>,
    /// By how many positions, never 0.
    pub deltas: Vec<i32>,
}

impl Turns {
    /// Slots that were let go need not turn: what comes into them is another row, and may be copied before these turns.
    pub(crate) fn forget(&mut self, slots: &[Slot]) {
        if self.slots.is_empty() {
            return;
        }
        let stays = |(slot, _): &(Slot, i32)| !slots.contains(slot);
        let all = std::mem::take(&mut self.slots).into_iter().zip(std::mem::take(&mut self.deltas));
        (self.slots, self.deltas) = all.filter(stays).unzip();
    }
}

/// KV rows to copy, pair by pair in this order: a row that one pair wrote may be read by a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// From which slots.
    pub from: Vec<Slot>,
    /// To which.
    pub to: Vec<Slot>,
}

/// The rows of one session in a forward pass. M1: the row at position p sees the slots of the session's
/// [`view`](crate::Table::view) up to and including index p.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRows {
    /// Whose.
    pub session: SessionId,
    /// Its part of [`Work::rows`], ascending in position.
    pub rows: Range<usize>,
    /// Whether the last of these rows is sampled.
    pub then: Then,
    /// Keys turned for this session.
    pub turned: usize,
}

/// What a plan asks of a rank's tensors: copy, then turn, then one ragged forward pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Rows to copy before anything else.
    pub copies: Copies,
    /// Tokens whose rows were taken over from a branch: no work at all.
    pub adopted: usize,
    /// Keys to turn before the pass.
    pub turns: Turns,
    /// Tokens to encode.
    pub rows: Vec<Row>,
    /// Which rows belong together.
    pub sequences: Vec<SequenceRows>,
}

/// Why a plan is refused. A refused plan has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The plan is of another owner's epoch (P1).
    #[error(
        "the plan is of epoch {got}, this group is in epoch {expected}: its sender no longer owns the group"
    )]
    WrongEpoch {
        /// Ours.
        expected: Epoch,
        /// The plan's.
        got: Epoch,
    },
    /// A plan is missing or came twice (P1).
    #[error(
        "plan {got} came where plan {expected} was due: the ordered stream has a gap; form the group again"
    )]
    OutOfOrder {
        /// What was due.
        expected: Seq,
        /// What came.
        got: Seq,
    },
    /// A session is not open.
    #[error("session {0} is not open in this group")]
    UnknownSession(SessionId),
    /// A session is opened twice.
    #[error("session {0} is open already")]
    SessionExists(SessionId),
    /// The splices do not fit the session.
    #[error("session {session}: {source}")]
    Splice {
        /// Whose.
        session: SessionId,
        /// Why.
        source: SpliceError,
    },
    /// The cache is full.
    #[error(
        "the plan needs {needed} KV slots and {free} are free: close sessions, or start the pool with more KV memory"
    )]
    OutOfSlots {
        /// Slots that the change, or the passes, need.
        needed: usize,
        /// Slots that are free for it: those that it gives back are counted.
        free: usize,
    },
    /// A session without tokens cannot be sampled.
    #[error("session {0} has no tokens: there is nothing to complete")]
    EmptyContext(SessionId),
    /// A session stands twice among the runs.
    #[error("session {0} runs twice in one plan")]
    RunsTwice(SessionId),
    /// A plan must have a forward pass for each sampled token.
    #[error(
        "the plan asks for {passes} passes: 1 is the least, and more than 1 needs a session that samples"
    )]
    BadPasses {
        /// What it asks.
        passes: u32,
    },
    /// A branch would stand behind the document's end.
    #[error("session {session} has no token {at} for a branch to stand before")]
    NoSuchPlace {
        /// Whose.
        session: SessionId,
        /// Where.
        at: TokenIndex,
    },
    /// Rows that are repaired are not encoded, or not in order.
    #[error(
        "session {session} has no rows {rows:?} to be repaired: not all of them are encoded, or they are not in order"
    )]
    NoSuchRows {
        /// Whose.
        session: SessionId,
        /// Which.
        rows: Range<u32>,
    },
    /// Rows that are written are not exact, or rows that are read are not those that wait first.
    #[error("session {session} has no block of rows before row {end} to be written or read")]
    NoSuchBlock {
        /// Whose.
        session: SessionId,
        /// The row behind it.
        end: TokenIndex,
    },
    /// Rows that are not exact cannot be shared.
    #[error(
        "session {session} cannot hold the rows of session {from}: they are not exact, or it has rows already"
    )]
    NotShareable {
        /// Which would.
        session: SessionId,
        /// Whose rows.
        from: SessionId,
    },
    /// A token was reported for a session that does not sample.
    #[error("session {0} did not sample in this pass")]
    DidNotSample(SessionId),
}

impl From<OutOfSlots> for PlanError {
    fn from(OutOfSlots { needed, free }: OutOfSlots) -> Self {
        Self::OutOfSlots { needed, free }
    }
}

impl PlanError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongEpoch { .. } => "PLAN_WRONG_EPOCH",
            Self::OutOfOrder { .. } => "PLAN_OUT_OF_ORDER",
            Self::UnknownSession(_) => "SESSION_UNKNOWN",
            Self::SessionExists(_) => "SESSION_EXISTS",
            Self::Splice { source, .. } => source.code(),
            Self::OutOfSlots { .. } => "KV_EXHAUSTED",
            Self::EmptyContext(_) => "CONTEXT_EMPTY",
            Self::RunsTwice(_) => "PLAN_RUNS_TWICE",
            Self::BadPasses { .. } => "PLAN_BAD_PASSES",
            Self::NoSuchPlace { .. } => "PLAN_NO_SUCH_PLACE",
            Self::NoSuchRows { .. } => "PLAN_NO_SUCH_ROWS",
            Self::NoSuchBlock { .. } => "PLAN_NO_SUCH_BLOCK",
            Self::NotShareable { .. } => "PLAN_NOT_SHAREABLE",
            Self::DidNotSample(_) => "PLAN_DID_NOT_SAMPLE",
        }
    }
}
