//! The public gRPC service: checks requests, finds the session's home, and hands the call to the owner there: in this router, or,
//! over the internal plane, in another one. Other routers are served by the same code, for this router's own groups alone.

mod preparing;
#[cfg(test)]
mod tests;
mod whole;

use crate::call::{Call, Reply, Why};
use crate::calls;
use crate::closing::Place;
use crate::directory::{Claim, Directory, Home, Refused, Target};
use crate::faults;
use crate::owner::Owner;
use crate::peers::{Elsewhere, GROUP, TENANT, passed_on};
use crate::server::Phase;
use crate::stats::{Stats, Streaming};
use crate::tenants::{self, Tenant};
use pie_placement::{GroupId, RouterRecord};
use pie_proto::reason::reason_of;
use pie_proto::request::{ApplyEdits, Complete, Identity, OpenSession, SessionName};
use pie_proto::v1::pool_server::Pool;
use pie_proto::{Fault, Reason, v1};
use pie_text::Tokenizer;
use preparing::Opening;
use prost::Message;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::{oneshot, watch};
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// Groups are tried one after the other when one has just been cordoned, or somebody else is quicker.
const ATTEMPTS: usize = 4;
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1000;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    /// Clients: whatever the pool holds.
    Public,
    /// Other routers: what this one owns.
    Internal,
}

/// The API of a pool.
#[derive(Clone)]
pub(crate) struct PoolService {
    pub plane: Plane,
    pub directory: Arc<Directory>,
    pub tokenizer: Arc<Tokenizer>,
    pub document_limit: usize,
    pub phase: watch::Receiver<Phase>,
    /// Of the router, for what no owner counts.
    pub stats: Arc<Stats>,
}

/// What a call carries beside its message.
struct CallContext {
    tenant: Tenant,
    /// Of a forwarded call.
    group: Option<GroupId>,
}

impl PoolService {
    /// What the owner refuses, the owner counts.
    async fn ask<T>(&self, owner: &Owner, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        Ok(self.reach(owner, call(reply), answer).await??)
    }

    /// Hands a call to an owner, and waits for its answer.
    async fn reach<T>(&self, owner: &Owner, call: Call, answer: oneshot::Receiver<T>) -> Result<T, Status> {
        self.counted(owner.call(call))?;
        self.counted(answer.await.map_err(|_| faults::stopping()))
    }

    /// What the service itself refuses is counted here.
    fn counted<T>(&self, result: Result<T, Fault>) -> Result<T, Status> {
        Ok(result.inspect_err(|fault| self.stats.fault(fault))?)
    }

    /// Owners of this router take new work until it is drained.
    fn check_phase(&self) -> Result<(), Status> {
        match *self.phase.borrow() {
            Phase::Serving => Ok(()),
            Phase::Draining => self.counted(Err(faults::draining())),
        }
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<CallContext, Status> {
        let tenant = self.counted(tenant(request, self.plane))?;
        // A token's tenant is not in the headers, where the call's span looks.
        if tenant != Tenant::default() {
            tracing::Span::current().record("tenant", tenant.as_str());
        }
        let group = match self.plane {
            Plane::Public => None,
            Plane::Internal => self.counted(group(request.metadata()))?,
        };
        Ok(CallContext { tenant, group })
    }

    /// Where a session's calls go. On the internal plane the caller has said so.
    async fn home(&self, caller: &CallContext, name: &SessionName) -> Result<Home, Status> {
        match &caller.group {
            None => self.counted(self.directory.home(&caller.tenant, name).await),
            Some(group) => self.own(group),
        }
    }

    fn own(&self, group: &GroupId) -> Result<Home, Status> {
        let owner = self.directory.local(group).ok_or_else(|| faults::not_the_owner(group.as_str()));
        let target = Target::Local(self.counted(owner)?.clone());
        Ok(Home { group: group.clone(), target })
    }

    /// Where to try again after a refusal, if the session has moved.
    async fn moved(
        &self,
        caller: &CallContext,
        name: &SessionName,
        asked: &Home,
        status: &Status,
    ) -> Option<Home> {
        let refused = match reason_of(status) {
            Some(Reason::SessionUnknown | Reason::SessionReplaced) => Refused::Missing,
            Some(Reason::SessionElsewhere | Reason::OwnershipUnsure) => Refused::Elsewhere,
            _ => return None,
        };
        match self.plane {
            Plane::Public => self.directory.moved(&caller.tenant, name, asked, refused).await,
            Plane::Internal => None,
        }
    }

    fn place(&self, group: &GroupId, owner: &Owner) -> Place {
        Place { directory: self.directory.clone(), group: group.clone(), owner: owner.clone() }
    }

    fn elsewhere(
        &self,
        router: &RouterRecord,
        group: &GroupId,
        tenant: &Tenant,
    ) -> Result<Elsewhere, Status> {
        self.counted(self.directory.peers().elsewhere(router, group, tenant))
    }

    /// Sends a call to the session's home, and, should the session have moved, to its new one.
    async fn at_home<T, Answer: Future<Output = Result<T, Status>> + Send>(
        &self,
        caller: &CallContext,
        name: &SessionName,
        call: impl Fn(Home) -> Answer + Send + Sync,
    ) -> Result<T, Status> {
        let home = self.home(caller, name).await?;
        match call(home.clone()).await {
            Err(status) => match self.moved(caller, name, &home, &status).await {
                Some(home) => call(home).await,
                None => Err(status),
            },
            answered => answered,
        }
    }

    async fn open_at(
        &self,
        home: Home,
        tenant: Tenant,
        name: SessionName,
        message: v1::OpenSessionRequest,
    ) -> Result<v1::OpenSessionResponse, Status> {
        match &home.target {
            Target::Local(owner) => {
                self.check_phase()?;
                let OpenSession { content, strategy, .. } = self.counted(OpenSession::try_from(message))?;
                // Before the work of tokenizing: whoever has no room is told at once.
                self.place(&home.group, owner).make_room(&tenant, &name).await?;
                self.open_here(owner, Opening { tenant, name, content, strategy }).await
            }
            Target::Remote(router) => {
                let elsewhere = self.elsewhere(router, &home.group, &tenant)?;
                elsewhere.call(message, async |pool, request| pool.open_session(request).await).await
            }
        }
    }

    /// Opens a session where it lives, or where there is most room, and makes that its home.
    async fn open_somewhere(
        &self,
        tenant: Tenant,
        name: SessionName,
        message: v1::OpenSessionRequest,
    ) -> Result<v1::OpenSessionResponse, Status> {
        for _ in 0..ATTEMPTS {
            let site = self.counted(self.directory.site(&tenant, &name, message.encoded_len()).await)?;
            let opened =
                self.open_at(site.home.clone(), tenant.clone(), name.clone(), message.clone()).await?;
            match self.counted(self.directory.claim(&tenant, &name, &site).await)? {
                Claim::Home => return Ok(opened),
                Claim::Elsewhere => self.withdraw(site.home, &tenant, opened).await,
            }
        }
        self.counted(Err(faults::moving(name.as_str())))
    }

    /// What was opened where it does not live is not left there.
    async fn withdraw(&self, home: Home, tenant: &Tenant, opened: v1::OpenSessionResponse) {
        let group = home.group.clone();
        let message = v1::CloseSessionRequest { session: opened.session.clone(), identity: opened.identity };
        if let Err(error) = self.close_at(home, tenant.clone(), message).await {
            let error = error.message();
            tracing::warn!(error, session = opened.session, %group, "a session is left where it does not live: it is closed when it was idle for long");
        }
    }

    async fn edit_at(
        &self,
        home: Home,
        tenant: Tenant,
        message: v1::ApplyEditsRequest,
        arrived: Instant,
    ) -> Result<v1::ApplyEditsResponse, Status> {
        match &home.target {
            Target::Local(owner) => {
                let request = self.counted(ApplyEdits::try_from(message))?;
                tracing::debug!(target: calls::TEXT, edits = ?request.edits, "edits");
                self.edit_here(owner, tenant, request, arrived).await
            }
            Target::Remote(router) => {
                let elsewhere = self.elsewhere(router, &home.group, &tenant)?;
                elsewhere.call(message, async |pool, request| pool.apply_edits(request).await).await
            }
        }
    }

    async fn complete_at(
        &self,
        home: Home,
        tenant: Tenant,
        message: v1::CompleteRequest,
        arrived: Instant,
    ) -> Result<CompletionStream, Status> {
        match &home.target {
            Target::Local(owner) => {
                // Counted before the phase is looked at: whoever drains waits for it, or it is refused.
                let counted = Streaming::new(&self.stats);
                self.check_phase()?;
                let request = self.counted(Complete::try_from(message))?;
                let stream =
                    self.ask(owner, |reply| Call::Complete { tenant, request, arrived, reply }).await?;
                Ok(CompletionStream { messages: Box::pin(stream), _counted: counted })
            }
            Target::Remote(router) => {
                let counted = Streaming::new(&self.stats);
                let elsewhere = self.elsewhere(router, &home.group, &tenant)?;
                let stream =
                    elsewhere.call(message, async |pool, request| pool.complete(request).await).await?;
                let router = router.clone();
                let messages = tokio_stream::StreamExt::map(stream, move |message| {
                    message.map_err(|status| passed_on(&router, status))
                });
                Ok(CompletionStream { messages: Box::pin(messages), _counted: counted })
            }
        }
    }

    async fn get_at(
        &self,
        home: Home,
        tenant: Tenant,
        message: v1::GetSessionRequest,
    ) -> Result<v1::GetSessionResponse, Status> {
        match &home.target {
            Target::Local(owner) => {
                let v1::GetSessionRequest { session, content, identity } = message;
                let session = self.counted(SessionName::new(session))?;
                let identity = Identity::given(identity);
                self.ask(owner, |reply| Call::Get { tenant, session, identity, content, reply }).await
            }
            Target::Remote(router) => {
                let elsewhere = self.elsewhere(router, &home.group, &tenant)?;
                elsewhere.call(message, async |pool, request| pool.get_session(request).await).await
            }
        }
    }

    async fn close_at(
        &self,
        home: Home,
        tenant: Tenant,
        message: v1::CloseSessionRequest,
    ) -> Result<(), Status> {
        match &home.target {
            Target::Local(owner) => {
                let session = self.counted(SessionName::new(message.session))?;
                let place = self.place(&home.group, owner);
                Ok(place.close(tenant, session, Identity::given(message.identity), Why::Client).await?)
            }
            Target::Remote(router) => {
                let elsewhere = self.elsewhere(router, &home.group, &tenant)?;
                elsewhere
                    .call(message, async |pool, request| pool.close_session(request).await)
                    .await
                    .map(drop)
            }
        }
    }
}

/// For a session whose client leaves the choice to the pool: no router must ask another whether it is free.
fn new_name() -> Result<String, Fault> {
    Ok(format!("session-{:016x}", random()?))
}

/// Bits of a seed that the pool chooses: as many as a client's floating point number keeps.
const SEED_BITS: u32 = 53;

fn new_seed() -> Result<u64, Fault> {
    Ok(random()? >> (u64::BITS - SEED_BITS))
}

fn random() -> Result<u64, Fault> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Fault::new(Reason::Internal, error.to_string()))?;
    Ok(u64::from_le_bytes(random))
}

/// Whose call it is: by its token, where tokens are asked for, or as it says.
fn tenant<T>(request: &Request<T>, plane: Plane) -> Result<Tenant, Fault> {
    if let Some(caller) = request.extensions().get::<tenants::Caller>() {
        return Ok(caller.tenant.clone());
    }
    match request.metadata().get(TENANT) {
        None => Ok(Tenant::default()),
        // Another router says so of nobody in particular; a client that does has lost a name.
        Some(name) if name.is_empty() && plane == Plane::Internal => Ok(Tenant::default()),
        Some(name) => Tenant::new(name.to_str().unwrap_or_default()),
    }
}

/// Whose owner is to answer, where a router forwards.
fn group(metadata: &MetadataMap) -> Result<Option<GroupId>, Fault> {
    let Some(group) = metadata.get(GROUP) else { return Ok(None) };
    let group = GroupId::new(group.to_str().unwrap_or_default());
    group.map(Some).map_err(|error| Fault::new(Reason::GroupUnknown, error.to_string()))
}

/// A completion's messages, counted as an open stream until all are sent or nobody reads them.
pub(crate) struct CompletionStream {
    messages: Pin<Box<dyn Stream<Item = Result<v1::CompleteResponse, Status>> + Send>>,
    _counted: Streaming,
}

impl Stream for CompletionStream {
    type Item = Result<v1::CompleteResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.as_mut().poll_next(context)
    }
}

#[tonic::async_trait]
impl Pool for PoolService {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        calls::about(&request.get_ref().session);
        let CallContext { tenant, group } = self.caller(&request)?;
        let mut message = request.into_inner();
        if message.session.is_empty() {
            message.session = self.counted(new_name())?;
        }
        let name = self.counted(SessionName::new(message.session.clone()))?;
        let opened = match group {
            Some(group) => self.open_at(self.own(&group)?, tenant, name, message).await,
            None => self.open_somewhere(tenant, name, message).await,
        };
        opened.inspect(calls::opened).map(Response::new)
    }

    async fn apply_edits(
        &self,
        request: Request<v1::ApplyEditsRequest>,
    ) -> Result<Response<v1::ApplyEditsResponse>, Status> {
        let arrived = Instant::now();
        calls::about(&request.get_ref().session);
        let caller = self.caller(&request)?;
        let message = request.into_inner();
        let name = self.counted(SessionName::new(message.session.clone()))?;
        let edited = self
            .at_home(&caller, &name, |home| {
                self.edit_at(home, caller.tenant.clone(), message.clone(), arrived)
            })
            .await;
        edited.inspect(calls::edited).map(Response::new)
    }

    type CompleteStream = CompletionStream;

    async fn complete(
        &self,
        request: Request<v1::CompleteRequest>,
    ) -> Result<Response<Self::CompleteStream>, Status> {
        let arrived = Instant::now();
        calls::about(&request.get_ref().session);
        let caller = self.caller(&request)?;
        let mut message = request.into_inner();
        // Here, so that the call draws the same wherever it is answered.
        if message.seed.is_none() && message.temperature != 0.0 {
            message.seed = Some(self.counted(new_seed())?);
        }
        let name = self.counted(SessionName::new(message.session.clone()))?;
        let stream = self
            .at_home(&caller, &name, |home| {
                self.complete_at(home, caller.tenant.clone(), message.clone(), arrived)
            })
            .await;
        stream.map(Response::new)
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        calls::about(&request.get_ref().session);
        let caller = self.caller(&request)?;
        let message = request.into_inner();
        let name = self.counted(SessionName::new(message.session.clone()))?;
        let got = self
            .at_home(&caller, &name, |home| self.get_at(home, caller.tenant.clone(), message.clone()))
            .await;
        got.map(Response::new)
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        calls::about(&request.get_ref().session);
        let caller = self.caller(&request)?;
        let message = request.into_inner();
        let name = self.counted(SessionName::new(message.session.clone()))?;
        let closed = self
            .at_home(&caller, &name, |home| self.close_at(home, caller.tenant.clone(), message.clone()))
            .await;
        closed.map(|()| Response::new(v1::CloseSessionResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let limit = match request.page_size as usize {
            0 => PAGE,
            size => size.min(PAGE_LIMIT),
        };
        let after = self.counted(whole::after(&request.page_token))?;
        Ok(Response::new(self.list(&caller.tenant, after, limit).await?))
    }

    async fn describe_pool(
        &self,
        _request: Request<v1::DescribePoolRequest>,
    ) -> Result<Response<v1::DescribePoolResponse>, Status> {
        let mut pool = self.describe_own().await?;
        if self.plane == Plane::Public {
            self.describe_others(&mut pool).await?;
        }
        Ok(Response::new(pool))
    }
}
