//! What a new owner makes of what the ranks say: whose ledger has the documents, and whether the caches go on.
//!
//! E3: caches go on only where every rank has the same tables, after the same plan of the same epoch. Else the group begins empty,
//! with all documents.

use crate::ledger::Position;
use pie_words::{Epoch, Seq};

/// What a rank says of itself when it is fenced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankSurvey {
    /// How far its ledger is; none if it never had a complete one.
    pub ledger: Option<Position>,
    /// Its tables; none if it is in no group.
    pub tables: Option<TablesAt>,
}

/// A rank's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablesAt {
    /// Of the group that it is in.
    pub epoch: Epoch,
    /// The last plan that it has done.
    pub applied: Seq,
    /// Slots of the group.
    pub slots: u32,
    /// What it does now.
    pub activity: Activity,
}

/// What a rank does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It is between two plans.
    Idle {
        /// P4: of all tables and slots.
        digest: u64,
    },
    /// It is at work on the plan behind the last one, and may wait for ranks that do not have it.
    Busy,
}

impl TablesAt {
    /// The latest plan that it was given.
    fn latest(&self) -> Seq {
        match self.activity {
            Activity::Idle { .. } => self.applied,
            Activity::Busy => self.applied.next(),
        }
    }
}

/// What becomes of the caches. Ranks are named by their place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caches {
    /// They go on, from this epoch into the new one.
    GoOn(Epoch),
    /// All ranks have the same plan, and some still work on it.
    Wait,
    /// Some lack a plan that others have: it is given to them.
    Level {
        /// A rank that has it.
        from: usize,
        /// Those that lack it.
        to: Vec<usize>,
    },
    /// The group begins empty, and why.
    Empty(String),
}

/// The rank whose ledger has all that was confirmed; none if no rank has one (E1).
pub fn best_ledger(standings: &[RankSurvey]) -> Option<usize> {
    let kept = standings.iter().enumerate().filter_map(|(rank, standing)| Some((standing.ledger?, rank)));
    // Of equals the first, so that all routers choose alike.
    kept.max_by_key(|(position, rank)| (*position, std::cmp::Reverse(*rank))).map(|(_, rank)| rank)
}

/// Whether the caches go on (E3). Where not, the rank that stands in the way is named.
pub fn caches(standings: &[RankSurvey]) -> Caches {
    let mut ranks = Vec::with_capacity(standings.len());
    for (rank, standing) in standings.iter().enumerate() {
        match standing.tables {
            Some(tables) => ranks.push(tables),
            None => return Caches::Empty(format!("rank {rank} is in no group")),
        }
    }
    let Some(first) = ranks.first().copied() else { return Caches::Empty("there are no ranks".to_owned()) };
    if let Some(rank) = ranks.iter().position(|tables| tables.epoch != first.epoch) {
        return Caches::Empty(format!(
            "rank {rank} is in epoch {}, rank 0 in epoch {}",
            ranks[rank].epoch, first.epoch
        ));
    }
    let latest = ranks.iter().map(TablesAt::latest).max().unwrap_or_default();
    let is_busy = |tables: &TablesAt| tables.activity == Activity::Busy;
    // Who works on an older plan has others with it, or it would not be older: it ends by itself, and is levelled then.
    let lacks = |tables: &TablesAt| !is_busy(tables) && tables.latest().next() == latest;
    let to: Vec<usize> = (0..ranks.len()).filter(|rank| lacks(&ranks[*rank])).collect();
    if let (Some(from), false) = (ranks.iter().position(|tables| tables.latest() == latest), to.is_empty()) {
        return Caches::Level { from, to };
    }
    if ranks.iter().any(is_busy) {
        return Caches::Wait;
    }
    match ranks.iter().position(|tables| *tables != first) {
        None => Caches::GoOn(first.epoch),
        Some(rank) => Caches::Empty(format!("rank {rank} has {}, rank 0 {}", ranks[rank], first)),
    }
}

impl std::fmt::Display for TablesAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.activity {
            Activity::Idle { digest } => write!(f, "the tables {digest:x} after plan {}", self.applied),
            Activity::Busy => write!(f, "work beyond plan {}", self.applied),
        }
    }
}
