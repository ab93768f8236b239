//! What is said of an owner: whether its group serves, and how many groups its router has.

use pie_words::Epoch;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether the group serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// It does not, and this is why.
    Waiting(String),
    /// It does.
    Serving,
    /// It did, and lost a rank; it will be formed again.
    Lost(String),
    /// It is given up for another router to own.
    Retired,
}

/// What an owner holds. Others decide by it: where sessions are opened, what is too long for a group, whether documents still wait here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Open sessions.
    pub sessions: usize,
    /// Tokens of their documents.
    pub tokens: usize,
    /// KV slots of the group; 0 without one.
    pub slots: usize,
    /// Positions of the model that was served last; 0 before the first.
    pub context_limit: usize,
    /// All that was told up to this epoch is here: the ranks had kept it.
    pub recalled: Epoch,
}

/// Whom it concerns that this router does not form a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Nobody: another router has the group, or takes it.
    Nobody,
    /// Those who run the pool, if it lasts.
    Operators,
}

/// How many groups a router owns.
#[derive(Clone, Debug, Default)]
pub struct Owned(Arc<AtomicUsize>);

impl Owned {
    /// As many.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn one_less(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
