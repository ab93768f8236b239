//! The public gRPC service: checks requests, tokenizes new documents off the owner's task, and hands calls on.

use crate::call::{Call, More, Reply};
use crate::calls;
use crate::faults;
use crate::owner::Owner;
use crate::server::Phase;
use crate::stats::Streaming;
use crate::tenants::Tenant;
use pie_placement::{GroupId, Placed, Placement, PlacementError, SessionKey};
use pie_proto::request::{ApplyEdits, Complete, Content, OpenSession, SessionName};
use pie_proto::v1::pool_server::Pool;
use pie_proto::{Fault, Reason, v1};
use pie_text::{Document, Tokenizer};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The metadata that names a tenant.
const TENANT: &str = "pie-tenant";
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1000;
/// Page tokens are names behind this, so that a client's own text is not taken for one.
const PAGE_TOKEN: &str = "after:";

/// The public API of a pool.
pub struct PoolService {
    owner: Owner,
    tokenizer: Arc<Tokenizer>,
    bytes_limit: usize,
    homes: Homes,
    phase: watch::Receiver<Phase>,
}

/// Where sessions live (A2).
#[derive(Clone)]
pub struct Homes {
    /// Who knows.
    pub placement: Arc<dyn Placement>,
    /// The group of this router's owner.
    pub group: GroupId,
}

impl Homes {
    /// Makes this router's group the home of a session.
    async fn place(&self, name: &str) -> Result<Placed, Fault> {
        let placed =
            self.placement.place_session(&key(name)?, &self.group).await.map_err(|error| unplaced(&error))?;
        if placed.group() == &self.group {
            return Ok(placed);
        }
        let message =
            format!("session `{name}` lives in group {}: ask a router of that group", placed.group());
        Err(Fault::new(Reason::SessionElsewhere, message).with("group", placed.group()))
    }

    /// The session lives nowhere now.
    pub(crate) async fn forget(&self, name: &str) -> Result<(), Fault> {
        self.placement.forget_session(&key(name)?, &self.group).await.map_err(|error| unplaced(&error))?;
        Ok(())
    }
}

fn key(name: &str) -> Result<SessionKey, Fault> {
    SessionKey::new(name).map_err(|error| Fault::new(Reason::BadSessionName, error.to_string()))
}

fn unplaced(error: &PlacementError) -> Fault {
    Fault::new(Reason::NoGroup, error.to_string())
}

impl PoolService {
    /// A service in front of an owner. Documents may have at most `bytes_limit` bytes.
    pub fn new(
        owner: Owner,
        tokenizer: Arc<Tokenizer>,
        bytes_limit: usize,
        homes: Homes,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self { owner, tokenizer, bytes_limit, homes, phase }
    }

    /// What the owner refuses, the owner counts.
    async fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        Ok(self.reach(call(reply), answer).await??)
    }

    /// Hands a call to the owner, and waits for its answer.
    async fn reach<T>(&self, call: Call, answer: oneshot::Receiver<T>) -> Result<T, Status> {
        self.counted(self.owner.call(call))?;
        self.counted(answer.await.map_err(|_| faults::stopping()))
    }

    /// What the service itself refuses is counted here.
    fn counted<T>(&self, result: Result<T, Fault>) -> Result<T, Status> {
        Ok(result.inspect_err(|fault| self.owner.stats().fault(fault))?)
    }

    /// New work is taken until the router is drained.
    fn check_phase(&self) -> Result<(), Status> {
        match *self.phase.borrow() {
            Phase::Serving => Ok(()),
            Phase::Draining => self.counted(Err(faults::draining())),
        }
    }

    async fn document(&self, content: Content) -> Result<Document, Fault> {
        let (tokenizer, limit) = (self.tokenizer.clone(), self.bytes_limit);
        let open = move || match content {
            Content::Text(text) => Document::open(tokenizer, &text, limit),
            Content::Tokens(tokens) => Document::open_tokens(tokenizer, tokens),
        };
        // Tokenizing a whole document takes milliseconds to seconds: not on a thread that serves others.
        let opened = tokio::task::spawn_blocking(open).await;
        opened
            .map_err(|error| Fault::new(Reason::TokenizerFailed, error.to_string()))?
            .map_err(|error| faults::text(&error))
    }
}

/// Whose call it is.
fn tenant<T>(request: &Request<T>) -> Result<Tenant, Fault> {
    match request.metadata().get(TENANT) {
        None => Ok(Tenant::default()),
        Some(name) => Tenant::new(name.to_str().unwrap_or_default()),
    }
}

/// A completion's messages, counted as an open stream until all are sent or nobody reads them.
pub struct CompletionStream {
    messages: ReceiverStream<Result<v1::CompleteResponse, Status>>,
    _counted: Streaming,
}

impl tokio_stream::Stream for CompletionStream {
    type Item = Result<v1::CompleteResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.messages).poll_next(context)
    }
}

#[tonic::async_trait]
impl Pool for PoolService {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        calls::about(&request.get_ref().session);
        self.check_phase()?;
        let tenant = self.counted(tenant(&request))?;
        let request = self.counted(OpenSession::try_from(request.into_inner()))?;
        let document = Box::new(self.counted(self.document(request.content).await)?);
        let (name, strategy) = (request.name, request.strategy);
        let wanted = name.as_ref().map(|name| name.as_str().to_owned());
        let placed = match &wanted {
            Some(name) => Some(self.counted(self.homes.place(name).await)?),
            None => None,
        };
        let opened = self.ask(|reply| Call::Open { tenant, name, document, strategy, reply }).await;
        match (&opened, wanted, placed) {
            (Ok(opened), None, _) => drop(self.counted(self.homes.place(&opened.session).await)?),
            // Nobody lives in a home that was claimed in vain.
            (Err(_), Some(name), Some(Placed::Claimed(_))) => self.counted(self.homes.forget(&name).await)?,
            _ => {}
        }
        let opened = opened?;
        calls::opened(&opened);
        Ok(Response::new(opened))
    }

    async fn apply_edits(
        &self,
        request: Request<v1::ApplyEditsRequest>,
    ) -> Result<Response<v1::ApplyEditsResponse>, Status> {
        let arrived = Instant::now();
        calls::about(&request.get_ref().session);
        let request = self.counted(ApplyEdits::try_from(request.into_inner()))?;
        tracing::debug!(target: calls::TEXT, edits = ?request.edits, "edits");
        let edited = self.ask(|reply| Call::Edit { request, arrived, reply }).await?;
        calls::edited(&edited);
        Ok(Response::new(edited))
    }

    type CompleteStream = CompletionStream;

    async fn complete(
        &self,
        request: Request<v1::CompleteRequest>,
    ) -> Result<Response<Self::CompleteStream>, Status> {
        let arrived = Instant::now();
        calls::about(&request.get_ref().session);
        // Counted before the phase is looked at: whoever drains waits for it, or it is refused.
        let counted = Streaming::new(self.owner.stats());
        self.check_phase()?;
        let request = self.counted(Complete::try_from(request.into_inner()))?;
        let stream = self.ask(|reply| Call::Complete { request, arrived, reply }).await?;
        Ok(Response::new(CompletionStream { messages: ReceiverStream::new(stream), _counted: counted }))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        calls::about(&request.get_ref().session);
        let request = request.into_inner();
        let (session, content) = (self.counted(SessionName::new(request.session))?, request.content);
        self.ask(|reply| Call::Get { session, content, reply }).await.map(Response::new)
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        calls::about(&request.get_ref().session);
        let session = self.counted(SessionName::new(request.into_inner().session))?;
        let name = session.as_str().to_owned();
        self.ask(|reply| Call::Close { session, reply }).await?;
        self.counted(self.homes.forget(&name).await)?;
        Ok(Response::new(v1::CloseSessionResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let request = request.into_inner();
        let limit = match request.page_size as usize {
            0 => PAGE,
            size => size.min(PAGE_LIMIT),
        };
        let after = match request.page_token.strip_prefix(PAGE_TOKEN) {
            Some(name) => Some(name.to_owned()),
            None if request.page_token.is_empty() => None,
            None => {
                let fault = Fault::new(Reason::BadPageToken, "the page token is not one of this pool's");
                return self.counted(Err(fault));
            }
        };
        let (reply, answer) = oneshot::channel();
        let (sessions, more) = self.reach(Call::List { after, limit, reply }, answer).await?;
        let last = sessions.last().map(|session| format!("{PAGE_TOKEN}{}", session.session));
        let next_page_token = if more == More::Yes { last.unwrap_or_default() } else { String::new() };
        Ok(Response::new(v1::ListSessionsResponse { sessions, next_page_token }))
    }

    async fn describe_pool(
        &self,
        _request: Request<v1::DescribePoolRequest>,
    ) -> Result<Response<v1::DescribePoolResponse>, Status> {
        let (reply, answer) = oneshot::channel();
        Ok(Response::new(self.reach(Call::Describe { reply }, answer).await?))
    }
}
