//! The public gRPC service: finds each session's home, and has the call answered there, in this router or in another one
//! ([`GroupCall`](crate::group::GroupCall)). Other routers are served by the same code, for this router's own groups alone.

mod preparing;
mod resuming;
mod rewriting;
mod sessions;
#[cfg(test)]
mod tests;
mod whole;

use crate::calls;
use crate::directory::{ClaimOutcome, Home, OwnerLocation, Refused};
use crate::elsewhere::{GROUP, TENANT};
use crate::faults;
use crate::group::{Asker, OpenStream, Router};
use crate::packing::answer;
use pie_group::tenants::{self, Tenant};
use pie_placement::GroupId;
use pie_proto::reason::reason_of;
use pie_proto::request::SessionName;
use pie_proto::v1::pool_server::Pool;
use pie_proto::{Fault, REVISION_METADATA, Reason, v1};
use prost::Message;
use resuming::{CompletionAttempt, ResumeContext, Resuming};
use sessions::{AcceptedCompletion, Messages, SessionCall};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::Instrument;

/// Groups are tried one after the other when one has just been cordoned, or somebody else is quicker.
const ATTEMPTS: usize = 4;

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
    /// Who calls.
    pub plane: Plane,
    /// What answers.
    pub router: Arc<Router>,
}

/// What a call carries beside its message.
#[derive(Clone)]
struct CallMetadata {
    asker: Asker,
    /// Of a forwarded call.
    group: Option<GroupId>,
}

impl PoolService {
    fn caller<T>(&self, request: &Request<T>) -> Result<CallMetadata, Fault> {
        let arrived = Instant::now();
        let tenant = self.router.counted(tenant(request, self.plane))?;
        // A token's tenant is not in the headers, where the call's span looks.
        if tenant != Tenant::default() {
            tracing::Span::current().record("tenant", tenant.as_str());
        }
        let group = match self.plane {
            Plane::Public => None,
            Plane::Internal => self.router.counted(group(request.metadata()))?,
        };
        Ok(CallMetadata { asker: Asker { tenant, arrived }, group })
    }

    /// Where a session's calls go. On the internal plane the caller has said so.
    async fn home(&self, caller: &CallMetadata, name: &SessionName) -> Result<Home, Fault> {
        let home = match &caller.group {
            None => self.router.directory.home(&caller.asker.tenant, name).await,
            Some(group) => self.own(group),
        };
        self.router.counted(home)
    }

    fn own(&self, group: &GroupId) -> Result<Home, Fault> {
        let owned = self.router.owned(group)?;
        Ok(Home { group: owned.id, target: OwnerLocation::Local(owned.owner) })
    }

    /// Where to try again after a refusal, if the session has moved.
    async fn moved(
        &self,
        tenant: &Tenant,
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
            Plane::Public => self.router.directory.moved(tenant, name, asked, refused).await,
            Plane::Internal => None,
        }
    }

    /// Sends a call to its session's home, and, should the session have moved, to its new one.
    async fn at_home<C: SessionCall>(&self, request: Request<C>) -> Result<Response<C::Answer>, Status> {
        calls::about(request.get_ref().session());
        let caller = self.caller(&request)?;
        self.answered(caller, request.into_inner()).await.map(Response::new)
    }

    async fn answered<C: SessionCall>(&self, caller: CallMetadata, call: C) -> Result<C::Answer, Status> {
        let name = self.router.counted(SessionName::new(call.session().to_owned()))?;
        let home = self.home(&caller, &name).await?;
        let asker = caller.asker;
        match self.router.call(&home, asker.clone(), call.clone()).await {
            Err(status) => match self.moved(&asker.tenant, &name, &home, &status).await {
                Some(home) => self.router.call(&home, asker, call).await,
                None => Err(status),
            },
            answered => answered,
        }
    }

    /// A completion that goes on when its group or its owner has gone, and come back. One that another router asks for does not: that one
    /// looks for the session's home again.
    fn going_on(
        &self,
        caller: CallMetadata,
        call: v1::CompleteRequest,
        accepted: AcceptedCompletion,
    ) -> Messages {
        // What a new owner knows of the latest edits is not what the former one knew.
        let is_bound = call.mode() == v1::CompletionMode::Rewrite;
        if self.plane == Plane::Internal || is_bound {
            return accepted.messages;
        }
        let (service, span) = (self.clone(), tracing::Span::current());
        let ask = move |call| -> CompletionAttempt {
            let (service, caller) = (service.clone(), caller.clone());
            let asking = async move { service.answered(caller, call).await };
            Box::pin(asking.instrument(span.clone()))
        };
        let (phase, stats) = (self.router.phase.clone(), self.router.stats.clone());
        Box::pin(Resuming::new(call, accepted, ResumeContext { ask: Arc::new(ask), phase, stats }))
    }

    /// Opens a session where it lives, or where there is most room, and makes that its home.
    async fn open_somewhere(
        &self,
        asker: Asker,
        name: SessionName,
        message: v1::OpenSessionRequest,
    ) -> Result<v1::OpenSessionResponse, Status> {
        let Router { directory, .. } = &*self.router;
        for _ in 0..ATTEMPTS {
            let site = directory.site(&asker.tenant, &name, message.encoded_len()).await;
            let site = self.router.counted(site)?;
            let opened = self.router.call(&site.home, asker.clone(), message.clone()).await?;
            match self.router.counted(directory.claim(&asker.tenant, &name, &site).await)? {
                ClaimOutcome::Home => return Ok(opened),
                ClaimOutcome::Elsewhere => self.withdraw(&site.home, asker.clone(), opened).await,
            }
        }
        Ok(self.router.counted(Err(faults::moving(name.as_str())))?)
    }

    /// What was opened where it does not live is not left there.
    async fn withdraw(&self, home: &Home, asker: Asker, opened: v1::OpenSessionResponse) {
        let session = opened.session.clone();
        let message = v1::CloseSessionRequest { session: opened.session, identity: opened.identity };
        if let Err(error) = self.router.call(home, asker, message).await {
            let (error, group) = (error.message(), &home.group);
            tracing::warn!(error, session, %group, "a session is left where it does not live: it is closed when it was idle for long");
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

/// A completion's messages. The stream is open until all are sent or nobody reads them.
pub(crate) struct CompletionStream {
    messages: Messages,
    _open: OpenStream,
}

impl Stream for CompletionStream {
    type Item = Result<v1::CompleteResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.as_mut().poll_next(context)
    }
}

#[tonic::async_trait]
impl Pool for PoolService {
    type CompleteStream = CompletionStream;

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        calls::about(&request.get_ref().session);
        let CallMetadata { asker, group } = self.caller(&request)?;
        let mut message = request.into_inner();
        if message.session.is_empty() {
            message.session = self.router.counted(new_name())?;
        }
        let name = self.router.counted(SessionName::new(message.session.clone()))?;
        let opened = match group {
            Some(group) => self.router.call(&self.router.counted(self.own(&group))?, asker, message).await,
            None => self.open_somewhere(asker, name, message).await,
        };
        opened.inspect(calls::opened).map(Response::new)
    }

    async fn apply_edits(
        &self,
        request: Request<v1::ApplyEditsRequest>,
    ) -> Result<Response<v1::ApplyEditsResponse>, Status> {
        self.at_home(request).await.inspect(|edited| calls::edited(edited.get_ref()))
    }

    async fn complete(
        &self,
        mut request: Request<v1::CompleteRequest>,
    ) -> Result<Response<Self::CompleteStream>, Status> {
        // Counted before the phase is looked at: whoever drains waits for it, or it is refused.
        let open = OpenStream::new(&self.router);
        let message = request.get_mut();
        // Here, so that the call draws the same wherever it is answered. What went before has drawn with one already.
        if message.seed.is_none() && message.temperature != 0.0 && message.generated.is_empty() {
            message.seed = Some(self.router.counted(new_seed())?);
        }
        calls::about(&message.session);
        let caller = self.caller(&request)?;
        let call = request.into_inner();
        let accepted = self.answered(caller.clone(), call.clone()).await?;
        let revision = accepted.revision;
        let messages = self.going_on(caller, call, accepted);
        let mut answer = Response::new(CompletionStream { messages, _open: open });
        if let Some(revision) = revision {
            answer.metadata_mut().insert(REVISION_METADATA, revision.into());
        }
        Ok(answer)
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        self.at_home(request).await.map(|got| answer(got.into_inner()))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        self.at_home(request).await
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let CallMetadata { asker, .. } = self.caller(&request)?;
        Ok(answer(self.list(asker.tenant, request.into_inner()).await?))
    }

    async fn describe_pool(
        &self,
        _request: Request<v1::DescribePoolRequest>,
    ) -> Result<Response<v1::DescribePoolResponse>, Status> {
        Ok(Response::new(self.describe().await?))
    }
}
