//! How a router comes to own a group: it waits for its turn and for all ranks, wins the ownership, fetches the documents from
//! the owner before, and forms the group. One that owns it already, and lost a rank, goes on as the owner.

use super::background::Common;
use super::tenure::tell_when_lost;
use super::{Concern, Event, OwnerOptions};
use crate::call::ImportedSession;
use crate::carrying;
use crate::core::Ack;
use crate::peers::Listening;
use crate::ranks::{DocumentTokenizer, Formed, GroupFormation, Ranks, TableRetention};
use pie_placement::{Campaign, LeaseState, Ownership, PlacementError, RouterRecord};
use pie_proto::Reason;
use pie_proto::peer_v1::{GiveGroupRequest, GroupArrivedRequest, StandingRequest};
use pie_proto::reason::reason_of;
use pie_words::Epoch;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Status;

/// Between two attempts to form the group.
const FORM_PAUSE: Duration = Duration::from_millis(500);
/// Between two attempts while only the former owner's word is waited for.
const TURN_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at a group that another router owns.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// For so long a group that was lost is left to the router that had it, which holds the documents.
const PATIENCE: Duration = Duration::from_secs(3);
/// A router with groups leaves a free one to routers with fewer, so long for each that it has.
const DEFERENCE: Duration = Duration::from_millis(300);
/// A router that lives says so in this time.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Documents are fetched in this time, or follow later.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// A router that wants a group.
pub(super) struct OwnerCandidate {
    /// What the owner and it have in common.
    pub common: Arc<Common>,
    /// Another router that was seen to own the group: it has the documents.
    pub former: Option<RouterRecord>,
    /// Whether this router had it just now.
    pub claim: OwnershipClaim,
    /// Since when nobody owns it.
    pub free_since: Option<Instant>,
    /// What this router has of the group already: a group that is formed again need not change hands.
    pub ownership: Option<Ownership>,
    /// The latest epoch that this router has served.
    pub served: Epoch,
    /// What becomes of the tables that the ranks hold.
    pub tables: TableRetention,
}

/// What a router's wish for a group rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnershipClaim {
    /// It never had it.
    New,
    /// It had it, and has its documents.
    Old,
}

/// The router that had a group before another one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Former {
    /// None was seen since this router began to want the group.
    Unknown,
    /// It has the documents, and forms the group again as soon as it can.
    WantsIt,
    /// It has gone, or leaves the group to others.
    LeavesIt,
}

/// How long a group that nobody owns is left to others, by who had it before, whether that was this router, and how many groups
/// this one owns.
fn turn(former: Former, claim: OwnershipClaim, owned: usize) -> Duration {
    match (former, claim) {
        // Its own documents need no way.
        (Former::WantsIt, _) => PATIENCE,
        // Whoever saw it last fetches its documents, and the quickest may.
        (Former::LeavesIt, _) => Duration::ZERO,
        // The documents are here.
        (Former::Unknown, OwnershipClaim::Old) => Duration::ZERO,
        // The documents are nowhere: groups are shared out.
        (Former::Unknown, OwnershipClaim::New) => DEFERENCE * u32::try_from(owned).unwrap_or(u32::MAX),
    }
}

/// Why there is no group yet, and when to try again.
struct NotYet {
    why: String,
    concern: Concern,
    pause: Duration,
}

impl From<String> for NotYet {
    fn from(why: String) -> Self {
        Self { why, concern: Concern::Operators, pause: FORM_PAUSE }
    }
}

impl OwnerCandidate {
    /// Tries until the group is formed or the owner is gone.
    pub async fn run(mut self) {
        loop {
            let (event, pause) = match self.attempt().await {
                Ok(formed) => (Event::Formed(Box::new(formed)), None),
                Err(NotYet { why, concern, pause }) => (Event::NotFormed { why, concern }, Some(pause)),
            };
            if self.common.events.send(event).await.is_err() {
                return;
            }
            let Some(pause) = pause else { return };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&mut self) -> Result<Formed, NotYet> {
        let owned = self.check_ownership()?;
        if !owned {
            self.wait_for_turn().await?;
        }
        let addresses = self.addresses().await?;
        let ownership = match self.ownership.take() {
            Some(ownership) => self.advance(ownership).await?,
            None => self.campaign().await?,
        };
        self.inherit().await;
        let common = &self.common;
        let forming = GroupFormation {
            ownership: &ownership,
            served: self.served,
            written: self.common.knowledge.written(),
            addresses: &addresses,
            connector: &common.options.ranks,
            deadline: common.options.deadline,
            tables: self.tables,
            reading: DocumentTokenizer {
                tokenizer: common.tokenizer.clone(),
                limit: common.options.document_limit,
            },
            events: common.events.clone(),
        };
        match forming.form().await {
            Ok(Ranks { streams, found, keepers }) => Ok(Formed { streams, found, keepers, ownership }),
            Err(error) => {
                // Whoever has the documents keeps them together with the group; without, another router may do better.
                self.ownership = Some(ownership).filter(|_| self.claim == OwnershipClaim::Old);
                Err(error.to_string().into())
            }
        }
    }

    /// Whether the group is still this router's.
    fn check_ownership(&mut self) -> Result<bool, NotYet> {
        match self.ownership.as_ref().map(|ownership| ownership.lease().state()) {
            None => Ok(false),
            Some(LeaseState::Held) => Ok(true),
            Some(LeaseState::Doubtful) => {
                let why = "the placement has not confirmed lately that this router owns the group".to_owned();
                Err(NotYet { why, concern: Concern::Operators, pause: TURN_PAUSE })
            }
            Some(LeaseState::Lost(_)) => {
                self.ownership = None;
                Ok(false)
            }
        }
    }

    /// A1: the epoch grows with every formation.
    async fn advance(&mut self, mut ownership: Ownership) -> Result<Ownership, NotYet> {
        match self.common.placement.advance(&mut ownership).await {
            Ok(()) => Ok(ownership),
            Err(error @ PlacementError::NotOwner { .. }) => Err(error.to_string().into()),
            Err(error) => {
                self.ownership = Some(ownership);
                Err(error.to_string().into())
            }
        }
    }

    async fn campaign(&mut self) -> Result<Ownership, NotYet> {
        let OwnerOptions { group, router, lease, .. } = &self.common.options;
        let campaign = self.common.placement.campaign(group, router, *lease).await;
        match campaign.map_err(|error| error.to_string())? {
            Campaign::Won(ownership) => {
                self.common.tenure.begins(ownership.lease());
                tell_when_lost(&ownership, self.common.events.clone());
                Ok(ownership)
            }
            Campaign::Held(owner) => Err(self.held(owner.router)),
        }
    }

    /// The control addresses of all ranks.
    async fn addresses(&self) -> Result<Vec<String>, String> {
        let world_size = self.common.options.world_size;
        let records = self
            .common
            .placement
            .ranks(&self.common.options.group)
            .await
            .map_err(|error| error.to_string())?;
        let mut addresses = Vec::new();
        for rank in 0..world_size {
            match records.iter().find(|record| record.rank == rank && record.world_size == world_size) {
                Some(record) => addresses.push(record.control.clone()),
                None => {
                    let registered = records.len();
                    return Err(format!(
                        "waiting for rank {rank} of {world_size}: {registered} ranks are registered"
                    ));
                }
            }
        }
        Ok(addresses)
    }

    fn held(&mut self, router: RouterRecord) -> NotYet {
        let why = format!("router {} owns the group", router.id);
        self.free_since = None;
        self.former = Some(router).filter(|router| router.id != self.common.options.router.id);
        NotYet { why, concern: Concern::Nobody, pause: LOOK_PAUSE }
    }

    /// Whether another router's process has ended, as far as that is sure: nobody listens where it did, twice, or this router does.
    /// Should it live after all, its ranks are fenced from it, and nothing that they have not got was told as made. Where changes are told
    /// without them, its lease is waited for.
    async fn is_gone(&self, router: &RouterRecord) -> bool {
        let OwnerOptions { router: me, settings, peers, .. } = &self.common.options;
        if settings.ack == Ack::Owner || router.id == me.id {
            return false;
        }
        if router.address == me.address {
            return true;
        }
        if peers.listens(router).await != Listening::Nobody {
            return false;
        }
        tokio::time::sleep(TURN_PAUSE).await;
        peers.listens(router).await == Listening::Nobody
    }

    /// A group is first its former owner's, who has the documents, and then of the router with the fewest groups.
    async fn wait_for_turn(&mut self) -> Result<(), NotYet> {
        let owner = self
            .common
            .placement
            .owner(&self.common.options.group)
            .await
            .map_err(|error| error.to_string())?;
        if let Some(owner) = owner {
            if self.is_gone(&owner.router).await && self.common.knowledge.may_depose(&owner.router.id) {
                let (group, gone) = (&self.common.options.group, &owner.router);
                tracing::warn!(%group, router = %gone.id, address = gone.address, "the router that owns the group has ended: its lease is not waited for");
                self.common.placement.depose(group, &gone.id).await.map_err(|error| error.to_string())?;
                self.former = Some(gone.clone());
            } else if owner.router.id != self.common.options.router.id {
                let _ = self.common.events.send(Event::OwnedBy(owner.router.clone())).await;
            }
            return Err(self.held(owner.router));
        }
        let free = self.free_since.get_or_insert_with(Instant::now).elapsed();
        let former = match &self.former {
            None => Former::Unknown,
            Some(former) if free < PATIENCE && self.wants_it(former).await => Former::WantsIt,
            Some(_) => Former::LeavesIt,
        };
        let turn = turn(former, self.claim, self.common.options.owned.count());
        if free >= turn {
            return Ok(());
        }
        let why = "another router may take the group first".to_owned();
        Err(NotYet { why, concern: Concern::Nobody, pause: TURN_PAUSE })
    }

    /// Whether the former owner is there and wants the group back.
    async fn wants_it(&self, former: &RouterRecord) -> bool {
        let Ok(mut peer) = self.common.options.peers.peer(former) else { return false };
        let request =
            StandingRequest { group: self.common.options.group.to_string(), router: former.id.to_string() };
        let answer = tokio::time::timeout(ASK_TIMEOUT, peer.standing(request)).await;
        matches!(answer, Ok(Ok(answer)) if answer.get_ref().candidate)
    }

    /// Fetches the documents from the owner before. They reach the owner at once: whatever becomes of this attempt, they are here.
    /// What cannot be fetched now is with that router still, which sends it as soon as it sees who owns the group.
    async fn inherit(&mut self) {
        let Some(former) = self.former.take() else { return };
        let group = &self.common.options.group;
        // One that does not know yet that it has lost the group finds out when its lease has run out, at the latest.
        let patience = Instant::now() + self.common.options.lease.duration() + FORM_PAUSE;
        loop {
            let why = match tokio::time::timeout(FETCH_TIMEOUT, self.fetch(&former)).await {
                Ok(Ok(taken)) => {
                    tracing::info!(%group, sessions = taken.len(), router = %former.id, "documents came with the group");
                    if self.common.events.send(Event::Inherited(taken)).await.is_ok() {
                        self.confirm(&former).await;
                    }
                    self.claim = OwnershipClaim::Old;
                    return;
                }
                Ok(Err(status))
                    if reason_of(&status) == Some(Reason::OwnershipUnsure) && Instant::now() < patience =>
                {
                    tokio::time::sleep(TURN_PAUSE).await;
                    continue;
                }
                Ok(Err(status)) => status.message().to_owned(),
                Err(_) => format!("it is not done within {FETCH_TIMEOUT:?}"),
            };
            tracing::warn!(%group, error = why, router = %former.id, "the owner before gives no documents now: those that the ranks kept are used");
            return;
        }
    }

    /// The owner before need not keep what has arrived. One that does not hear of it sends it all once more.
    async fn confirm(&self, former: &RouterRecord) {
        let Ok(mut peer) = self.common.options.peers.peer(former) else { return };
        let request = GroupArrivedRequest { group: self.common.options.group.to_string() };
        let _ = tokio::time::timeout(ASK_TIMEOUT, peer.group_arrived(request)).await;
    }

    async fn fetch(&self, former: &RouterRecord) -> Result<Vec<ImportedSession>, Status> {
        let mut peer = self.common.options.peers.peer(former)?;
        let (group, router) = (self.common.options.group.to_string(), former.id.to_string());
        let request = GiveGroupRequest { group, router };
        // One that lives begins at once; one that is frozen must not keep the group from being formed.
        let begun = tokio::time::timeout(ASK_TIMEOUT, peer.give_group(request)).await;
        let late = |_| Status::deadline_exceeded("it does not answer in time");
        let mut stream = begun.map_err(late)??.into_inner();
        let mut taken = Vec::new();
        while let Some(carried) = stream.message().await? {
            match carrying::unpack(carried, self.common.tokenizer.clone(), self.common.options.document_limit)
                .await
            {
                Ok(session) => taken.push(session),
                Err(fault) => {
                    tracing::error!(group = %self.common.options.group, %fault, "a document that came with the group cannot be opened")
                }
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_group_is_first_its_documents_and_then_of_who_has_fewest() {
        let cases = [
            (Former::WantsIt, OwnershipClaim::New, 0, PATIENCE),
            (Former::WantsIt, OwnershipClaim::New, 5, PATIENCE),
            (Former::WantsIt, OwnershipClaim::Old, 0, PATIENCE),
            (Former::LeavesIt, OwnershipClaim::New, 5, Duration::ZERO),
            (Former::LeavesIt, OwnershipClaim::Old, 5, Duration::ZERO),
            (Former::Unknown, OwnershipClaim::Old, 5, Duration::ZERO),
            (Former::Unknown, OwnershipClaim::New, 0, Duration::ZERO),
            (Former::Unknown, OwnershipClaim::New, 1, DEFERENCE),
            (Former::Unknown, OwnershipClaim::New, 3, DEFERENCE * 3),
        ];
        for (former, claim, owned, wanted) in cases {
            assert_eq!(turn(former, claim, owned), wanted, "{former:?}, {claim:?}, {owned} groups");
        }
    }
}
