//! What an owner has done beside its own task, since it may wait for others: forming the group, sending documents after it, and
//! telling where sessions live.

use super::forming::{Candidate, Claim};
use super::tenure::Tenure;
use super::{OwnerOptions, Task};
use crate::ranks::Events;
use pie_placement::{Ownership, Placement, RouterRecord};
use pie_text::Tokenizer;
use std::sync::Arc;
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
    pub(super) fn start_forming(&mut self, claim: Claim, ownership: Option<Ownership>) {
        let candidate = Candidate {
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
