//! How a router comes to own a group: it waits for its turn and for all ranks, wins the ownership, fetches the documents from
//! the owner before, and forms the group.

use super::{Concern, Event, OwnerOptions};
use crate::call::Taken;
use crate::carrying;
use crate::ranks::{self, Events, Formed};
use pie_placement::{Campaign, Placement, RouterRecord};
use pie_proto::carried::Carried;
use pie_proto::peer_v1::{GiveGroupRequest, StandingRequest, TakeSessionRequest};
use pie_text::Tokenizer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Status;

/// Between two attempts to form the group.
const FORM_PAUSE: Duration = Duration::from_millis(500);
/// Between two attempts while only the former owner's word is waited for.
const TURN_PAUSE: Duration = Duration::from_millis(100);
/// For so long a group that was lost is left to the router that had it, which holds the documents.
const PATIENCE: Duration = Duration::from_secs(3);
/// A router with groups leaves a free one to routers with fewer, so long for each that it has.
const DEFERENCE: Duration = Duration::from_millis(300);
/// A router that lives says so in this time.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Documents are fetched in this time, or are lost to the clients, who open them again.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// A router that wants a group.
pub(super) struct Candidate {
    pub options: OwnerOptions,
    pub placement: Arc<dyn Placement>,
    pub tokenizer: Arc<Tokenizer>,
    pub events: Events,
    /// Another router that was seen to own the group: it has the documents.
    pub former: Option<RouterRecord>,
    /// Whether this router had it just now.
    pub claim: Claim,
    /// Since when nobody owns it.
    pub free_since: Option<Instant>,
}

/// What a router's wish for a group rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It never had it.
    New,
    /// It had it, and has its documents.
    Old,
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

impl Candidate {
    /// Tries until the group is formed or the owner is gone.
    pub async fn run(mut self) {
        loop {
            let (event, pause) = match self.attempt().await {
                Ok(formed) => (Event::Formed(Box::new(formed)), None),
                Err(NotYet { why, concern, pause }) => (Event::NotFormed { why, concern }, Some(pause)),
            };
            if self.events.send(event).await.is_err() {
                return;
            }
            let Some(pause) = pause else { return };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&mut self) -> Result<Formed, NotYet> {
        self.wait_for_turn().await?;
        let addresses = self.addresses().await?;
        // A1: the epoch is the revision of the ownership key, so it grows with every formation.
        let OwnerOptions { group, router, lease, .. } = &self.options;
        let campaign = self.placement.campaign(group, router, *lease).await;
        let ownership = match campaign.map_err(|error| error.to_string())? {
            Campaign::Won(ownership) => ownership,
            Campaign::Held(owner) => return Err(self.held(owner.router)),
        };
        let (epoch, mut lease, told) = (ownership.epoch(), ownership.lease(), self.events.clone());
        tokio::spawn(async move {
            lease.lost().await;
            // An owner that has gone owns nothing.
            let _ = told.send(Event::OwnershipLost { epoch }).await;
        });
        self.inherit().await;
        let formed = ranks::form(
            ownership,
            &addresses,
            &self.options.ranks,
            self.options.deadline,
            self.events.clone(),
        )
        .await;
        Ok(formed.map_err(|error| error.to_string())?)
    }

    /// The control addresses of all ranks.
    async fn addresses(&self) -> Result<Vec<String>, String> {
        let world_size = self.options.world_size;
        let records = self.placement.ranks(&self.options.group).await.map_err(|error| error.to_string())?;
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
        self.former = Some(router).filter(|router| router.id != self.options.router.id);
        NotYet { why, concern: Concern::Nobody, pause: FORM_PAUSE }
    }

    /// A group is first its former owner's, who has the documents, and then of the router with the fewest groups.
    async fn wait_for_turn(&mut self) -> Result<(), NotYet> {
        let owner = self.placement.owner(&self.options.group).await.map_err(|error| error.to_string())?;
        if let Some(owner) = owner {
            if owner.router.id != self.options.router.id {
                let _ = self.events.send(Event::OwnedBy(owner.router.clone())).await;
            }
            return Err(self.held(owner.router));
        }
        let free = self.free_since.get_or_insert_with(Instant::now).elapsed();
        let turn = match &self.former {
            Some(former) if free < PATIENCE => match self.wants_it(former).await {
                true => PATIENCE,
                false => Duration::ZERO,
            },
            Some(_) => Duration::ZERO,
            None if self.claim == Claim::Old => Duration::ZERO,
            None => DEFERENCE * u32::try_from(self.options.owned.count()).unwrap_or(0),
        };
        if free >= turn {
            return Ok(());
        }
        let why = "another router may take the group first".to_owned();
        Err(NotYet { why, concern: Concern::Nobody, pause: TURN_PAUSE })
    }

    /// Whether the former owner is there and wants the group back.
    async fn wants_it(&self, former: &RouterRecord) -> bool {
        let Ok(mut peer) = self.options.peers.peer(former) else { return false };
        let request = StandingRequest { group: self.options.group.to_string() };
        let answer = tokio::time::timeout(ASK_TIMEOUT, peer.standing(request)).await;
        matches!(answer, Ok(Ok(answer)) if answer.get_ref().candidate)
    }

    /// Fetches the documents from the owner before. They reach the owner at once: whatever becomes of this attempt, they are here.
    async fn inherit(&mut self) {
        let Some(former) = self.former.take() else { return };
        match tokio::time::timeout(FETCH_TIMEOUT, self.fetch(&former)).await {
            Ok(Ok(taken)) => {
                let group = &self.options.group;
                tracing::info!(%group, sessions = taken.len(), router = %former.id, "documents came with the group");
                let _ = self.events.send(Event::Inherited(taken)).await;
            }
            Ok(Err(status)) => {
                let error = status.message();
                tracing::warn!(group = %self.options.group, %error, router = %former.id, "the owner before gives no documents: clients open them again");
            }
            Err(_) => {
                tracing::warn!(group = %self.options.group, router = %former.id, "the owner before is too slow: clients open their documents again")
            }
        }
    }

    async fn fetch(&self, former: &RouterRecord) -> Result<Vec<Taken>, Status> {
        let mut peer = self.options.peers.peer(former)?;
        let request = GiveGroupRequest { group: self.options.group.to_string() };
        let mut stream = peer.give_group(request).await?.into_inner();
        let mut taken = Vec::new();
        while let Some(carried) = stream.message().await? {
            match carrying::unpack(carried, self.tokenizer.clone(), self.options.document_limit).await {
                Ok(session) => taken.push(session),
                Err(fault) => {
                    tracing::error!(group = %self.options.group, %fault, "a document that came with the group cannot be opened")
                }
            }
        }
        Ok(taken)
    }
}

/// How often a document is offered to the group's owner, which may have to form the group first.
const OFFERS: usize = 40;

/// Sends documents to the router that owns their group.
pub(super) async fn send_after(options: OwnerOptions, router: RouterRecord, left: Vec<Carried>) {
    let group = options.group.to_string();
    tracing::info!(sessions = left.len(), router = %router.id, "documents follow the group to its owner");
    for carried in left {
        let name = carried.name.clone();
        let request = TakeSessionRequest { group: group.clone(), session: Some(carried.into()) };
        for offer in 1..=OFFERS {
            let taken = match options.peers.peer(&router) {
                Ok(mut peer) => peer.take_session(request.clone()).await.map(drop),
                Err(fault) => Err(fault.into()),
            };
            match taken {
                Ok(()) => break,
                Err(error) if offer == OFFERS => {
                    let error = error.message();
                    tracing::warn!(%error, session = name.as_str(), "the group's owner does not take a document: its client opens it again");
                }
                Err(_) => tokio::time::sleep(FORM_PAUSE).await,
            }
        }
    }
}
