//! A completion whose stream breaks goes on: whoever reads it gets everything, once.

use pie_client::{CompletionOptions, Pool, SessionHandle};
use pie_proto::v1::pool_server::{Pool as Service, PoolServer};
use pie_proto::v1::{self, FinishReason};
use pie_proto::{Fault, REVISION_METADATA, Reason};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

type RpcResult<T> = Result<Response<T>, Status>;

const TOKENS: u32 = 12;
/// Of a stream that breaks.
const FEW: u32 = 3;
const SEED: u64 = 5;

/// How a call of Complete ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With all tokens that are left.
    Finishes,
    /// With an error, behind some tokens.
    Breaks,
    /// Without a word, behind some.
    IsCutOff,
    /// Never, behind some.
    Hangs,
    /// With an error, before any.
    BreaksAtOnce,
    Refused(Reason),
    /// As [`End::Finishes`], by a router that does not know of `generated`.
    BeginsAnew,
}

/// What all routers of a pool know.
#[derive(Default)]
struct FakePoolState {
    /// Lives of the session; each has a revision of its own.
    lives: u64,
    ends: VecDeque<End>,
    asked: Vec<v1::CompleteRequest>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<FakePoolState>>);

impl Fake {
    fn with<T>(&self, what: impl FnOnce(&mut FakePoolState) -> T) -> T {
        what(&mut self.0.lock().expect("no panic"))
    }

    fn asked(&self) -> Vec<v1::CompleteRequest> {
        self.with(|known| known.asked.clone())
    }

    fn of_ends(ends: &[End]) -> Self {
        let fake = Self::default();
        fake.with(|known| known.ends.extend(ends));
        fake
    }
}

#[tonic::async_trait]
impl Service for Fake {
    type CompleteStream = Pin<Box<dyn Stream<Item = Result<v1::CompleteResponse, Status>> + Send>>;

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> RpcResult<v1::OpenSessionResponse> {
        let lives = self.with(|known| {
            known.lives += 1;
            known.lives
        });
        let (session, identity, revision) = (request.into_inner().session, lives.to_string(), 10 * lives);
        Ok(Response::new(v1::OpenSessionResponse { session, identity, revision, ..Default::default() }))
    }

    async fn complete(&self, request: Request<v1::CompleteRequest>) -> RpcResult<Self::CompleteStream> {
        let request = request.into_inner();
        let (end, lives) = self.with(|known| {
            known.asked.push(request.clone());
            (known.ends.pop_front().expect("not asked too often"), known.lives)
        });
        if let End::Refused(reason) = end {
            return Err(Fault::new(reason, "a test").into());
        }
        let revision = 10 * lives;
        assert_eq!(request.revision, Some(revision));
        let given = if end == End::BeginsAnew { 0 } else { request.generated.len() as u32 };
        let until = match end {
            End::Finishes | End::BeginsAnew => TOKENS,
            End::BreaksAtOnce => given,
            _ => given + FEW,
        };
        let message = move |token: u32| v1::CompleteResponse {
            revision,
            text_delta: format!("{token} "),
            tokens: vec![v1::CompletedToken { id: token, ..Default::default() }],
            timings: (token == given)
                .then(|| v1::Timings { queue_us: 1 + u64::from(given), ..Default::default() }),
            seed: (token == given).then_some(SEED),
            finish_reason: if token + 1 == TOKENS { FinishReason::Length.into() } else { 0 },
            ..Default::default()
        };
        let messages = tokio_stream::iter((given..until).map(message).map(Ok));
        let stream: Self::CompleteStream = match end {
            End::Breaks | End::BreaksAtOnce => {
                let broken = Err(Fault::new(Reason::GroupLost, "a test").into());
                Box::pin(messages.chain(tokio_stream::once(broken)))
            }
            End::Hangs => Box::pin(messages.chain(tokio_stream::pending())),
            _ => Box::pin(messages),
        };
        let mut answer = Response::new(stream);
        if end != End::BeginsAnew {
            answer.metadata_mut().insert(REVISION_METADATA, revision.into());
        }
        Ok(answer)
    }

    async fn apply_edits(&self, _: Request<v1::ApplyEditsRequest>) -> RpcResult<v1::ApplyEditsResponse> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn get_session(&self, _: Request<v1::GetSessionRequest>) -> RpcResult<v1::GetSessionResponse> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn close_session(
        &self,
        _: Request<v1::CloseSessionRequest>,
    ) -> RpcResult<v1::CloseSessionResponse> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn list_sessions(
        &self,
        _: Request<v1::ListSessionsRequest>,
    ) -> RpcResult<v1::ListSessionsResponse> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn describe_pool(
        &self,
        _: Request<v1::DescribePoolRequest>,
    ) -> RpcResult<v1::DescribePoolResponse> {
        Err(Status::unimplemented("nobody asks"))
    }
}

/// A router that can die: with its connections, as a process does.
struct Router {
    runtime: Option<Runtime>,
    url: String,
}

impl Router {
    fn start(fake: &Fake) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let fake = fake.clone();
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).expect("a socket"));
            Server::builder().add_service(PoolServer::new(fake)).serve_with_incoming(incoming).await
        });
        Self { runtime: Some(runtime), url }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

async fn opened(ends: &[End]) -> (Fake, Router, Pool, SessionHandle) {
    let fake = Fake::of_ends(ends);
    let router = Router::start(&fake);
    let pool = Pool::connect(&router.url).await.expect("it listens");
    let session = pool.open("s", "text".to_owned(), v1::Strategy::Pie).await.expect("it answers");
    (fake, router, pool, session)
}

fn all() -> String {
    (0..TOKENS).map(|token| format!("{token} ")).collect()
}

/// Each time with what is here already, and with the seed that the pool chose.
fn assert_asked_for_the_rest(fake: &Fake, given: &[u32]) {
    let asked = fake.asked();
    assert_eq!(asked.len(), given.len());
    for (request, given) in asked.iter().zip(given) {
        assert!(request.generated.iter().copied().eq(0..*given), "{:?}", request.generated);
        assert_eq!(request.seed, (*given > 0).then_some(SEED));
    }
}

#[tokio::test]
async fn whoever_reads_a_stream_that_breaks_sees_a_pause() {
    let ends = [
        End::BreaksAtOnce,
        End::Breaks,
        End::Refused(Reason::GroupLost),
        End::Refused(Reason::Overloaded),
        End::BeginsAnew,
        End::IsCutOff,
        End::BreaksAtOnce,
        End::Finishes,
    ];
    let given = [0, 0, 3, 3, 3, 3, 6, 6];
    let options = CompletionOptions { max_tokens: TOKENS, temperature: 1.0, ..Default::default() };
    let (fake, _router, pool, session) = opened(&ends).await;
    let completed = session.start(&options).await.expect("taken").finished().await.expect("all of it");
    assert_eq!((completed.text, completed.finish), (all(), FinishReason::Length));
    assert_eq!(completed.timings.queue_us, 1, "those of the first token");
    assert_asked_for_the_rest(&fake, &given);
    assert_eq!(pool.repeats(), 7);

    let (fake, _router, _, mut session) = opened(&ends).await;
    let completed = session.complete(&options).await.expect("all of it");
    assert_eq!((completed.text, completed.finish), (all(), FinishReason::Length));
    assert_asked_for_the_rest(&fake, &given);
}

/// The connections of one router end without a word, and nobody listens there any more.
#[tokio::test]
async fn the_next_router_goes_on_when_one_dies() {
    let fake = Fake::of_ends(&[End::Hangs, End::Finishes]);
    let routers = [Router::start(&fake), Router::start(&fake)];
    let urls = routers.each_ref().map(|router| router.url.clone()).join(",");
    let pool = Pool::connect(&urls).await.expect("they are URLs");
    // The first router opens it, the second completes it.
    let session = pool.open("s", "text".to_owned(), v1::Strategy::Pie).await.expect("it answers");
    let options = CompletionOptions { max_tokens: TOKENS, ..Default::default() };
    let mut completion = session.start(&options).await.expect("taken");
    let mut text = String::new();
    for _ in 0..FEW {
        text.push_str(&completion.next().await.expect("no failure").expect("a message").text_delta);
    }
    let [_living, dying] = routers;
    drop(dying);
    let rest = completion.finished().await.expect("the other one goes on");
    assert_eq!((text + &rest.text, rest.finish), (all(), FinishReason::Length));
    assert_eq!(fake.asked()[1].generated, [0, 1, 2]);
}

/// Whoever has the text can open the session again; a completion by itself cannot.
#[tokio::test]
async fn a_session_that_was_lost_meanwhile_is_opened_again() {
    let ends = [End::Breaks, End::Refused(Reason::SessionUnknown), End::Finishes];
    let options = CompletionOptions { max_tokens: TOKENS, ..Default::default() };
    let (fake, _router, _, mut session) = opened(&ends).await;
    let completed = session.complete(&options).await.expect("all of it");
    assert_eq!((completed.text, completed.finish), (all(), FinishReason::Length));
    let asked: Vec<_> = fake.asked().iter().map(|asked| (asked.identity.clone(), asked.revision)).collect();
    let of = |life: u64| (life.to_string(), Some(10 * life));
    assert_eq!((asked, session.revision()), (vec![of(1), of(1), of(2)], 20));

    let (_fake, _router, _, session) = opened(&ends).await;
    let mut completion = session.start(&options).await.expect("taken");
    let mut read = 0;
    let error = loop {
        match completion.next().await {
            Ok(message) => read += message.expect("it is not over").tokens.len(),
            Err(error) => break error,
        }
    };
    assert_eq!((read, error.reason()), (FEW as usize, Some(Reason::SessionUnknown)));
}

/// What was taken, and edited before its first token, has met an edit; what was never taken is refused.
#[tokio::test]
async fn what_was_edited_meanwhile_ends_so() {
    let options = CompletionOptions { max_tokens: TOKENS, ..Default::default() };
    let refused = End::Refused(Reason::RevisionMismatch);
    let (_fake, _router, _, session) = opened(&[End::BreaksAtOnce, refused]).await;
    let completed = session.start(&options).await.expect("taken").finished().await.expect("it is no failure");
    assert_eq!((completed.text.as_str(), completed.finish), ("", FinishReason::Edited));
    let (_fake, _router, _, session) = opened(&[refused]).await;
    let error = session.start(&options).await.err().expect("refused");
    assert_eq!(error.reason(), Some(Reason::RevisionMismatch));
}
