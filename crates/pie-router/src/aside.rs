//! Calls whose messages are large are read, unpacked, checked and answered on threads beside those that serve: these take of a
//! processor what the others leave, so that nobody's short call, nor a rank on the same machine, waits for another one's megabytes.

use crate::faults;
use http_body::{Body as _, Frame, SizeHint};
use pie_proto::{Fault, Reason};
use pie_text::stand_back;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::runtime::{Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::Service;
use tracing::Instrument;

/// A message of more bytes, as it is sent, is large.
const LARGE: u32 = 64 << 10;
/// One that is compressed may be a thousand times as large as it is sent.
const LARGE_COMPRESSED: u32 = 4 << 10;
/// In front of a message: whether it is compressed, and its length.
const HEADER: usize = 5;
/// As many large messages at a time are read.
const THREADS: usize = 2;

/// The threads.
#[derive(Debug)]
pub(crate) struct Aside(Option<Runtime>);

impl Aside {
    /// Starts them.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn new() -> io::Result<Self> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        threads.worker_threads(THREADS).thread_name("aside").on_thread_start(stand_back).enable_all();
        threads.build().map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What runs is not waited for: this may be dropped by a task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A service of calls with one message each, the large ones of which are taken aside.
#[derive(Clone, Debug)]
pub(crate) struct TakenAside<S> {
    inner: S,
    aside: Arc<Aside>,
}

impl<S> TakenAside<S> {
    /// Takes a service's large calls aside.
    pub fn new(inner: S, aside: Arc<Aside>) -> Self {
        Self { inner, aside }
    }
}

impl<S: NamedService> NamedService for TakenAside<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for TakenAside<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let unready = self.inner.clone();
        let (mut inner, aside) = (std::mem::replace(&mut self.inner, unready), self.aside.clone());
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = PeekedBody::read(body).await;
            let is_large = body.is_large();
            let request = Request::from_parts(head, Body::new(body));
            match aside.handle() {
                Some(threads) if is_large => {
                    let answering = async move { inner.call(request).await }.in_current_span();
                    ScopedTask(threads.spawn(answering))
                        .await
                        .unwrap_or_else(|error| Ok(lost(&error).into_http()))
                }
                _ => inner.call(request).await,
            }
        })
    }
}

/// Of a task that panicked, or whose threads have ended.
fn lost(error: &JoinError) -> Status {
    let fault = match error.is_cancelled() {
        true => faults::stopping(),
        false => Fault::new(Reason::Internal, error.to_string()),
    };
    fault.into()
}

/// A task that ends with whoever waits for it.
struct ScopedTask<T>(JoinHandle<T>);

impl<T> Future for ScopedTask<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for ScopedTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type BodyFrame = Result<Frame<Bytes>, Status>;

/// A body of which so much has been read that the length of its message is known.
struct PeekedBody {
    read: VecDeque<BodyFrame>,
    header: Vec<u8>,
    rest: Body,
}

impl PeekedBody {
    async fn read(body: Body) -> Self {
        let mut begun = Self { read: VecDeque::new(), header: Vec::with_capacity(HEADER), rest: body };
        while begun.header.len() < HEADER {
            let next = std::future::poll_fn(|context| Pin::new(&mut begun.rest).poll_frame(context)).await;
            let Some(part) = next else { break };
            let data = part.as_ref().ok().and_then(Frame::data_ref);
            let is_last = data.is_none();
            let missing = HEADER - begun.header.len();
            begun.header.extend(data.into_iter().flatten().take(missing));
            begun.read.push_back(part);
            if is_last {
                break;
            }
        }
        begun
    }

    fn is_large(&self) -> bool {
        let &[compressed, a, b, c, d] = self.header.as_slice() else { return false };
        let limit = if compressed == 0 { LARGE } else { LARGE_COMPRESSED };
        u32::from_be_bytes([a, b, c, d]) > limit
    }
}

impl http_body::Body for PeekedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<BodyFrame>> {
        match self.read.pop_front() {
            Some(part) => Poll::Ready(Some(part)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.read.is_empty() { self.rest.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    #[tokio::test]
    async fn a_message_is_large_by_its_header_and_whole_however_it_comes() {
        let cases = [(0, LARGE, false), (0, LARGE + 1, true), (1, LARGE_COMPRESSED, false)];
        for (compressed, length, is_large) in cases.into_iter().chain([(1, LARGE_COMPRESSED + 1, true)]) {
            let message = [&[compressed], &length.to_be_bytes()[..], b"its beginning"].concat();
            for size in [1, 4, 5, 6, message.len()] {
                let frame = |part: &[u8]| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(part)));
                let frames: Vec<_> = message.chunks(size).map(frame).collect();
                let begun = PeekedBody::read(Body::new(StreamBody::new(tokio_stream::iter(frames)))).await;
                assert_eq!(begun.is_large(), is_large, "{compressed} {length}, {size} bytes at a time");
                let whole = begun.collect().await.expect("no frame fails").to_bytes();
                assert_eq!(whole, message, "{size} bytes at a time");
            }
        }
        assert!(!PeekedBody::read(Body::empty()).await.is_large());
    }
}
