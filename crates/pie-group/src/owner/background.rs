//! What an owner has done beside its own task, since it may wait for others: forming the group, sending documents after it, and
//! telling where sessions live.

use super::forming::{OwnerCandidate, OwnershipClaim};
use super::tenure::Tenure;
use super::{OwnerOptions, Task};
use crate::ranks::Events;
use pie_placement::{Ownership, Placement, RouterId, RouterRecord};
use pie_text::Tokenizer;
use pie_words::Epoch;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;

/// What an owner's task has in common with those that it sends out.
pub(super) struct Common {
    /// How the owner works.
    pub options: OwnerOptions,
    /// Where ownership is decided.
    pub placement: Arc<dyn Placement>,
    /// Of the group's model.
    pub tokenizer: Arc<Tokenizer>,
    /// The way back to the owner.
    pub events: Events,
    /// Whether the group is this router's now.
    pub tenure: Tenure,
    /// Whether this router has the documents that it had.
    pub knowledge: Knowledge,
}

/// What this router knows of the group's documents and owners, for those that form it.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// The epoch in which it wrote the ranks' ledgers, as long as it has all those documents; 0: it has not.
    written: AtomicU64,
    /// Routers whose ownership it ended because they seemed to be gone, the latest last.
    deposed: Mutex<VecDeque<RouterId>>,
}

/// So many are remembered.
const DEPOSED: usize = 16;

impl Knowledge {
    /// The ranks' ledgers are written here, in this epoch.
    pub fn writes(&self, epoch: Epoch) {
        self.written.store(epoch.0, Ordering::SeqCst);
    }

    /// Documents were given away, or may be lost: what the ranks have kept is looked at like somebody else's.
    pub fn forgets(&self) {
        self.written.store(0, Ordering::SeqCst);
    }

    /// The epoch whose ledgers hold nothing that is not here.
    pub fn written(&self) -> Epoch {
        Epoch(self.written.load(Ordering::SeqCst))
    }

    /// Whether a router that seems to be gone may lose its group to this one: once. One that comes back under the same name is not gone,
    /// whatever its address says, as where two routers on two machines both say 127.0.0.1.
    pub fn may_depose(&self, router: &RouterId) -> bool {
        let mut deposed = self.deposed.lock().unwrap_or_else(PoisonError::into_inner);
        if deposed.contains(router) {
            return false;
        }
        if deposed.len() == DEPOSED {
            deposed.pop_front();
        }
        deposed.push_back(router.clone());
        true
    }
}

/// The tasks that were sent out, one of each kind.
#[derive(Default)]
pub(super) struct Background {
    /// Tries until the group is formed.
    pub forming: Option<AbortHandle>,
    /// Sends documents after a group that another router owns.
    following: Option<AbortHandle>,
    /// Tells the placement where the sessions live.
    claiming: Option<AbortHandle>,
}

impl Task {
    pub(super) fn start_forming(&mut self, claim: OwnershipClaim, ownership: Option<Ownership>) {
        let candidate = OwnerCandidate {
            common: self.common.clone(),
            ownership,
            served: self.served,
            tables: self.tables,
            former: None,
            claim,
            free_since: None,
        };
        self.background.forming = Some(tokio::spawn(candidate.run()).abort_handle());
    }

    /// Documents that are still here when another router has won the group go to it.
    pub(super) fn send_after(&mut self, router: RouterRecord) {
        let follow = self.background.following.as_ref().is_some_and(|following| !following.is_finished());
        if follow || self.common.tenure.is_sure() {
            return;
        }
        if let Ok(left) = self.desk.give_all()
            && !left.is_empty()
        {
            let following = self.common.clone().send_after(router, self.served, left);
            self.background.following = Some(tokio::spawn(following).abort_handle());
        }
    }

    /// The placement may have forgotten where the sessions live, and given the group once more for that reason.
    pub(super) fn claim_homes(&mut self) {
        let claiming = self.common.clone().claim_homes(self.desk.core().sessions.residents());
        let claiming = tokio::spawn(claiming).abort_handle();
        if let Some(before) = self.background.claiming.replace(claiming) {
            before.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_deposed_once() {
        let name = |number: usize| RouterId::new(format!("r{number}")).expect("a right name");
        let knowledge = Knowledge::default();
        assert!(knowledge.may_depose(&name(0)));
        assert!(!knowledge.may_depose(&name(0)), "it came back: it is not gone");
        assert!((1..=DEPOSED).all(|number| knowledge.may_depose(&name(number))));
        assert!(knowledge.may_depose(&name(0)), "so many are remembered");
    }
}
