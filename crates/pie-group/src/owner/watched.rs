//! An owner for those who only look on.

use super::inbox::Inbox;
use super::{Event, GroupState};
use crate::stats::{RankTimes, Stats};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Looks at an owner without keeping it alive, and without asking it anything.
#[derive(Clone)]
pub struct Watched {
    pub(super) events: mpsc::WeakSender<Event>,
    pub(super) inbox: Inbox,
    pub(super) state: watch::Receiver<GroupState>,
    pub(super) stats: Arc<Stats>,
    pub(super) ranks: Arc<[RankTimes]>,
}

impl Watched {
    /// The state of the group, to watch.
    pub fn state(&self) -> watch::Receiver<GroupState> {
        self.state.clone()
    }

    /// What the owner counts.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the ranks reported, in rank order.
    pub fn ranks(&self) -> &[RankTimes] {
        &self.ranks
    }

    /// Calls and reports that wait for the owner.
    pub fn queue_length(&self) -> usize {
        let events = self.events.upgrade().map_or(0, |events| events.max_capacity() - events.capacity());
        events + self.inbox.len()
    }
}
