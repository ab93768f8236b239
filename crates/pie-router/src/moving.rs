//! Moves the sessions of a group to other groups, one by one: the document arrives first, then the placement says where it
//! lives (A2), then it goes here. Whoever asks meanwhile is told to ask again.

use crate::call::{Busy, Call, Departure, Given, Resident, Taken};
use crate::carrying;
use crate::closing::Place;
use crate::core::session::count;
use crate::directory::{Directory, Home, Target};
use crate::faults;
use crate::owner::Owner;
use crate::tenants::Tenant;
use pie_placement::{GroupId, Moved};
use pie_proto::carried::Carried;
use pie_proto::request::{Identity, SessionName};
use pie_proto::{Fault, peer_v1, v1};
use pie_text::Tokenizer;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
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
enum Fate {
    Moved,
    /// A completion runs.
    Busy(Tenant, SessionName),
    /// It is not here any more: its client closed it.
    Gone,
    /// It stays, and why.
    Stays(Fault),
}

/// Moves sessions out of a group of this router's.
#[derive(Clone)]
pub(crate) struct Mover {
    pub directory: Arc<Directory>,
    pub tokenizer: Arc<Tokenizer>,
    pub document_limit: usize,
    pub group: GroupId,
    pub owner: Owner,
}

impl Mover {
    /// Moves all, and says how far it is.
    pub async fn drain(
        self,
        timeout: Duration,
        progress: mpsc::Sender<Result<v1::DrainGroupResponse, Status>>,
    ) {
        let end = Instant::now() + timeout;
        let mut said = v1::DrainGroupResponse::default();
        let residents = match self.residents().await {
            Ok(residents) => residents,
            Err(fault) => return drop(progress.send(Err(fault.into())).await),
        };
        // Whoever drains one group after the other has just closed or opened another.
        self.directory.look().await;
        if let Err(fault) = self.directory.roomiest(Some(&self.group)).await {
            (said.left, said.why) =
                (count(residents.len()), format!("{fault}; the documents stay with their router"));
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
                    let mover = self.clone();
                    let patience = if Instant::now() < end { Busy::Waits } else { Busy::Fails };
                    moving.spawn(async move { mover.move_one(tenant, name, patience).await });
                }
                match moving.join_next().await {
                    Some(Ok(Fate::Moved)) => said.moved += 1,
                    Some(Ok(Fate::Busy(tenant, name))) => busy.push((tenant, name)),
                    Some(Ok(Fate::Stays(fault))) => (stay, why) = (stay + 1, fault.to_string()),
                    Some(Ok(Fate::Gone)) | None => {}
                    Some(Err(error)) => (stay, why) = (stay + 1, error.to_string()),
                }
            }
            said.left = count(busy.len() + stay);
            if busy.is_empty() || progress.send(Ok(said.clone())).await.is_err() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            waiting = busy.into();
        }
        said.why = why;
        tracing::info!(group = %self.group, moved = said.moved, left = said.left, "a group was drained");
        let _ = progress.send(Ok(said)).await;
    }

    async fn residents(&self) -> Result<Vec<(Tenant, SessionName)>, Fault> {
        let (reply, answer) = oneshot::channel();
        self.owner.tell(Call::Residents { reply }).await?;
        answer.await.map_err(|_| faults::stopping())
    }

    async fn move_one(self, tenant: Tenant, name: SessionName, busy: Busy) -> Fate {
        let (reply, answer) = oneshot::channel();
        let session = name.clone();
        let give = Call::Give { tenant: tenant.clone(), session, busy, reply };
        if let Err(fault) = self.owner.tell(give).await {
            return Fate::Stays(fault);
        }
        let carried = match answer.await {
            Ok(Ok(Given::Carried(carried))) => *carried,
            Ok(Ok(Given::NotYet)) => return Fate::Busy(tenant, name),
            Ok(Err(_)) | Err(_) => return Fate::Gone,
        };
        let Some(identity) = carried.identity.clone() else { return Fate::Gone };
        let resident = Resident { tenant: tenant.clone(), name: name.clone(), identity };
        let carry = tokio::time::timeout(CARRY, self.carry(&tenant, &name, carried)).await;
        let fault = match carry {
            Ok(Ok(())) => {
                // An owner that cannot be told is gone, with what it had; one that hangs looks up the session's home later.
                let _ = self.owner.tell(Call::Depart { resident, departure: Departure::Moved }).await;
                return Fate::Moved;
            }
            Ok(Err(fault)) => fault,
            Err(_) => faults::too_slow(name.as_str()),
        };
        // Whatever was answered or was not: where it lives now is in its home. If that cannot be asked, it is asked again later.
        let place = Place { directory: self.directory, group: self.group, owner: self.owner };
        if let Err(unknown) = place.resolve(resident).await {
            tracing::debug!(%unknown, session = name.as_str(), "a session's home is looked up later");
        }
        Fate::Stays(fault)
    }

    /// Finds a group that takes the session, and makes that its home.
    async fn carry(&self, tenant: &Tenant, name: &SessionName, carried: Carried) -> Result<(), Fault> {
        let mut attempt = 1;
        loop {
            let home = self.directory.roomiest(Some(&self.group)).await?;
            match self.settle(tenant, name, &home, carried.clone()).await {
                Err(_) if attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                    self.directory.look().await;
                }
                settled => return settled,
            }
        }
    }

    /// Brings the session to a group. If that cannot be its home after all, it is not left there.
    async fn settle(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        home: &Home,
        carried: Carried,
    ) -> Result<(), Fault> {
        let identity = carried.identity.clone();
        self.deliver(&home.group, &home.target, carried).await?;
        let settled = match self.directory.moves(tenant, name, &self.group, &home.group).await {
            Ok(Moved::Done) => return Ok(()),
            Ok(Moved::Conflict { .. }) => Err(faults::no_session(name.as_str())),
            Err(fault) => Err(fault),
        };
        // A lost answer is no refusal: only what does not live there is taken back.
        if self.directory.home_now(tenant, name).await? == Some(home.group.clone()) {
            return Ok(());
        }
        if let Err(error) = self.take_back(tenant, name, identity, home).await {
            tracing::warn!(%error, session = name.as_str(), group = %home.group, "a session was left where it does not live");
        }
        settled
    }

    async fn take_back(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        identity: Option<Identity>,
        home: &Home,
    ) -> Result<(), Status> {
        match &home.target {
            Target::Local(owner) => {
                let (reply, answer) = oneshot::channel();
                let (tenant, session) = (tenant.clone(), name.clone());
                owner.tell(Call::Close { tenant, session, identity, reply }).await?;
                Ok(answer.await.map_err(|_| faults::stopping())??)
            }
            Target::Remote(router) => {
                let (session, identity) = (name.as_str().to_owned(), Identity::to_wire(identity.as_ref()));
                let message = v1::CloseSessionRequest { session, identity };
                let elsewhere = self.directory.peers().elsewhere(router, &home.group, tenant)?;
                elsewhere
                    .call(message, async |pool, request| pool.close_session(request).await)
                    .await
                    .map(drop)
            }
        }
    }

    async fn deliver(&self, group: &GroupId, target: &Target, carried: Carried) -> Result<(), Fault> {
        match target {
            Target::Local(owner) => {
                let taken = carrying::open(carried, self.tokenizer.clone(), self.document_limit).await?;
                take(owner, taken).await
            }
            Target::Remote(router) => {
                let message =
                    peer_v1::TakeSessionRequest { group: group.to_string(), session: Some(carried.into()) };
                let mut peer = self.directory.peers().peer(router)?;
                let taken = peer.take_session(message).await;
                taken.map(drop).map_err(|status| faults::undelivered(&router.id.to_string(), &status))
            }
        }
    }
}

/// An owner takes a session.
pub(crate) async fn take(owner: &Owner, taken: Taken) -> Result<(), Fault> {
    let (reply, answer) = oneshot::channel();
    owner.tell(Call::Take { taken, reply }).await?;
    answer.await.map_err(|_| faults::stopping())?
}
