//! Moves the sessions of a group to other groups, one by one: the document arrives first, then the placement says where it
//! lives (A2), then it goes here. Whoever asks meanwhile is told to ask again.

use crate::directory::Home;
use crate::elsewhere::Elsewhere;
use crate::faults;
use crate::group::{Asker, GroupCall, LocalGroup};
use pie_group::call::{BusySessionPolicy, Call, Departure, GiveReply, Resident};
use pie_group::carrying;
use pie_group::peers::peer;
use pie_group::tenants::Tenant;
use pie_placement::Moved;
use pie_proto::carried::Carried;
use pie_proto::reason::reason_of;
use pie_proto::request::SessionName;
use pie_proto::{Fault, Reason, peer_v1, v1};
use pie_words::Epoch;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;

/// Sessions that are on their way at a time.
const AT_ONCE: usize = 8;
/// Before completions that run are looked at again.
const PAUSE: Duration = Duration::from_millis(50);
/// Before a group is looked for that takes what the last one did not.
const ATTEMPTS: usize = 3;

/// A session is carried in this time, or stays: less than an owner waits until it looks up the session's home itself.
const CARRY: Duration = Duration::from_secs(40);

/// What becomes of a session that is to be moved.
enum MoveOutcome {
    Moved,
    /// A completion runs.
    Busy(Tenant, SessionName),
    /// It is not here any more: its client closed it.
    Gone,
    /// It stays, and why.
    Stays(String),
}

impl LocalGroup {
    /// Moves all, and says how far it is.
    pub async fn drain(
        self,
        timeout: Duration,
        progress: mpsc::Sender<Result<v1::DrainGroupResponse, Status>>,
    ) {
        let end = Instant::now() + timeout;
        let mut said = v1::DrainGroupResponse::default();
        let residents = match self.owner.ask_surely(|reply| Call::Residents { reply }).await {
            Ok(residents) => residents,
            Err(fault) => return drop(progress.send(Err(fault.into())).await),
        };
        // Whoever drains one group after the other has just closed or opened another.
        let groups = &self.router.groups;
        groups.look().await;
        if let Err(fault) = groups.roomiest(Some(&self.id)).await {
            (said.left, said.why) = (
                u32::try_from(residents.len()).unwrap_or(u32::MAX),
                format!("{fault}; the documents stay with their router"),
            );
            return drop(progress.send(Ok(said)).await);
        }
        let mut waiting: VecDeque<_> = residents.into();
        let (mut stay, mut why) = (0, String::new());
        let mut moving = JoinSet::new();
        loop {
            let mut busy = Vec::new();
            while !waiting.is_empty() || !moving.is_empty() {
                while moving.len() < AT_ONCE
                    && let Some((tenant, name)) = waiting.pop_front()
                {
                    let group = self.clone();
                    let patience = if Instant::now() < end {
                        BusySessionPolicy::Waits
                    } else {
                        BusySessionPolicy::Fails
                    };
                    moving.spawn(async move { group.move_one(tenant, name, patience).await });
                }
                match moving.join_next().await {
                    Some(Ok(MoveOutcome::Moved)) => said.moved += 1,
                    Some(Ok(MoveOutcome::Busy(tenant, name))) => busy.push((tenant, name)),
                    Some(Ok(MoveOutcome::Stays(said))) => (stay, why) = (stay + 1, said),
                    Some(Ok(MoveOutcome::Gone)) | None => {}
                    Some(Err(error)) => (stay, why) = (stay + 1, error.to_string()),
                }
            }
            said.left = u32::try_from(busy.len() + stay).unwrap_or(u32::MAX);
            if busy.is_empty() || progress.send(Ok(said.clone())).await.is_err() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            waiting = busy.into();
        }
        said.why = why;
        tracing::info!(group = %self.id, moved = said.moved, left = said.left, "a group was drained");
        let _ = progress.send(Ok(said)).await;
    }

    async fn move_one(self, tenant: Tenant, name: SessionName, busy: BusySessionPolicy) -> MoveOutcome {
        let (whose, session) = (tenant.clone(), name.clone());
        let give = self.owner.ask_surely(|reply| Call::Give { tenant: whose, session, busy, reply });
        let carried = match give.await {
            Ok(Ok(GiveReply::Carried(carried))) => *carried,
            Ok(Ok(GiveReply::NotYet)) => return MoveOutcome::Busy(tenant, name),
            Ok(Err(_)) => return MoveOutcome::Gone,
            Err(fault) if fault.reason == Reason::ShuttingDown => return MoveOutcome::Gone,
            Err(fault) => return MoveOutcome::Stays(fault.to_string()),
        };
        let Some(identity) = carried.identity.clone() else { return MoveOutcome::Gone };
        let resident = Resident { tenant, name, identity };
        let why = match tokio::time::timeout(CARRY, self.carry(&resident, carried)).await {
            Ok(Ok(())) => {
                // An owner that cannot be told is gone, with what it had; one that hangs looks up the session's home later.
                let _ = self.owner.tell(Call::Depart { resident, departure: Departure::Moved }).await;
                return MoveOutcome::Moved;
            }
            Ok(Err(status)) => status,
            Err(_) => faults::too_slow(resident.name.as_str()).into(),
        };
        // Whatever was answered or was not: where it lives now is in its home. If that cannot be asked, it is asked again later.
        let session = resident.name.clone();
        if let Err(unknown) = self.resolve(resident).await {
            tracing::debug!(%unknown, session = session.as_str(), "a session's home is looked up later");
        }
        MoveOutcome::Stays(in_words(&why))
    }

    /// Finds a group that takes the session, and makes that its home.
    async fn carry(&self, resident: &Resident, carried: Carried) -> Result<(), Status> {
        let mut attempt = 1;
        loop {
            let home = self.router.groups.roomiest(Some(&self.id)).await?;
            match self.settle(resident, &home, carried.clone()).await {
                Err(_) if attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                    self.router.groups.look().await;
                }
                settled => return settled,
            }
        }
    }

    /// Brings the session to a group. If that cannot be its home after all, it is not left there.
    async fn settle(&self, resident: &Resident, home: &Home, carried: Carried) -> Result<(), Status> {
        let Resident { tenant, name, identity } = resident;
        let (router, directory) = (&self.router, &self.router.directory);
        let asker = Asker { tenant: tenant.clone(), arrived: Instant::now() };
        let (group, session) = (home.group.to_string(), Some(carried.into()));
        router
            .call(home, asker.clone(), peer_v1::TakeSessionRequest { group, session, left_from: 0 })
            .await?;
        let settled: Fault = match directory.moves(tenant, name, &self.id, &home.group).await {
            Ok(Moved::Done) => return Ok(()),
            Ok(Moved::Conflict { .. }) => faults::no_session(name.as_str()),
            Err(fault) => fault,
        };
        // A lost answer is no refusal: only what does not live there is taken back.
        if directory.home_now(tenant, name).await?.as_ref() == Some(&home.group) {
            return Ok(());
        }
        let (session, identity) = (name.as_str().to_owned(), identity.as_str().to_owned());
        if let Err(error) = router.call(home, asker, v1::CloseSessionRequest { session, identity }).await {
            tracing::warn!(%error, session = name.as_str(), group = %home.group, "a session was left where it does not live");
        }
        Err(settled.into())
    }
}

impl GroupCall for peer_v1::TakeSessionRequest {
    type Answer = peer_v1::TakeSessionResponse;

    async fn here(self, group: LocalGroup, _: Asker) -> Result<Self::Answer, Status> {
        let session = self.session.ok_or_else(|| Fault::new(Reason::FieldMissing, "`session` is missing"))?;
        if self.left_from > 0 && Epoch(self.left_from) <= group.owner.holdings().recalled {
            return Ok(peer_v1::TakeSessionResponse {});
        }
        let (tokenizer, limit) = (group.router.tokenizer.clone(), group.router.document_limit);
        let taken = carrying::unpack(session, tokenizer, limit).await?;
        group.owner.ask_surely(|reply| Call::Take { taken, reply }).await??;
        Ok(peer_v1::TakeSessionResponse {})
    }

    async fn elsewhere(self, group: Elsewhere) -> Result<Self::Answer, Status> {
        let router = group.router.id.clone();
        let taken =
            group.call(self, async |channel, request| peer(channel).take_session(request).await).await;
        taken.map_err(|status| faults::undelivered(router.as_str(), &status).into())
    }
}

/// A refusal with its reason, as those read it who drain a group.
fn in_words(status: &Status) -> String {
    match reason_of(status) {
        Some(reason) => format!("{reason}: {}", status.message()),
        None => status.message().to_owned(),
    }
}
