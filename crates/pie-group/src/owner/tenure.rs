//! Whether this router owns a group right now, by the clock: what it may answer rests on that.

use super::{Event, OwnerHandle, Task};
use crate::call::Call;
use crate::core::Core;
use crate::faults;
use crate::owner::forming::OwnershipClaim;
use crate::owner::{GroupState, RELEASE};
use pie_placement::{LeaseState, LeaseWatch, Ownership};
use std::sync::Arc;
use tokio::sync::watch;

/// The lease of the ownership, whoever has the ownership itself at the moment: the group, or those who form it.
#[derive(Clone, Debug)]
pub(crate) struct Tenure(Arc<watch::Sender<Option<LeaseWatch>>>);

impl Tenure {
    /// The group is another router's, or nobody's.
    pub fn none() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// The group is won.
    pub fn begins(&self, lease: LeaseWatch) {
        self.0.send_replace(Some(lease));
    }

    /// Whether nobody else can own the group now. A process that was frozen finds out here, before it says anything.
    pub fn is_sure(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(|lease| lease.state() == LeaseState::Held)
    }
}

impl OwnerHandle {
    /// Whether the group is certainly this router's.
    pub fn is_sure(&self) -> bool {
        self.tenure.is_sure()
    }
}

impl Task {
    /// Answers a call. A document that another router may have by now is neither shown nor changed: two owners would both say yes.
    pub(super) fn answer(&mut self, call: Call) {
        let sure = self.common.tenure.is_sure();
        let call = match call {
            // Whoever asks has won the group, which can only be while this router is unsure of it.
            Call::GiveAll { reply } if sure => {
                return drop(reply.send(Err(faults::owned(self.common.options.group.as_str()))));
            }
            Call::GiveAll { .. } if self.formed.is_some() => {
                self.lose("another router has won the group");
                Some(call)
            }
            // It came late: the group is this router's again, with its documents.
            Call::Arrived { .. } if sure => None,
            Call::Arrived { .. } => {
                // Should its next owner die before the ranks have heard of it, they still have what goes here now.
                self.common.knowledge.forgets();
                Some(call)
            }
            call if sure => Some(call),
            call => call.refuse_unless_free(|| {
                let fault = faults::unsure(self.common.options.group.as_str());
                self.stats.fault(&fault);
                fault
            }),
        };
        if let Some(call) = call {
            self.desk.call(call);
        }
    }

    /// Whoever is next need not wait until the lease runs out.
    pub(super) async fn release(&mut self) {
        if let Some(forming) = self.background.forming.take() {
            forming.abort();
        }
        self.keep_nothing();
        let Some(formed) = self.formed.take() else { return };
        self.common.options.owned.one_less();
        if let Ok(Err(error)) = tokio::time::timeout(RELEASE, formed.ownership.release()).await {
            tracing::warn!(group = %self.common.options.group, %error, "the ownership of the group is left to run out");
        }
    }

    /// The documents stay until the next owner asks for them.
    pub(super) async fn retire(&mut self) {
        tracing::info!(group = %self.common.options.group, "the group is given up");
        self.desk.act(Core::retire);
        self.shown.state.send_replace(GroupState::Retired);
        self.release().await;
    }

    /// Ends the epoch: the streams to all ranks close with `formed`, so the ranks leave too. The group stays this router's, with its
    /// documents, unless its lease is gone.
    pub(super) fn lose(&mut self, why: &str) {
        let epoch = self.formed.as_ref().map(|formed| formed.epoch.0);
        tracing::error!(group = %self.common.options.group, epoch, why, "the group is lost");
        self.stats.event(crate::stats::GroupEvent::Lost);
        self.reports.spans.lost(why);
        let ownership = self.formed.take().map(|formed| {
            self.common.options.owned.one_less();
            formed.ownership
        });
        self.desk.act(|core| core.lost(why));
        self.shown.state.send_replace(GroupState::Lost(why.to_owned()));
        self.start_forming(OwnershipClaim::Old, ownership);
    }

    pub(super) fn is_of(&self, lease: u64) -> bool {
        self.formed.as_ref().is_some_and(|formed| formed.ownership.lease_id() == lease)
    }
}

/// Says when the lease of an ownership is gone.
pub(super) fn tell_when_lost(ownership: &Ownership, told: crate::ranks::Events) {
    let (id, mut lease) = (ownership.lease_id(), ownership.lease());
    tokio::spawn(async move {
        lease.lost().await;
        // An owner that has gone owns nothing.
        let _ = told.send(Event::OwnershipLost { lease: id }).await;
    });
}
