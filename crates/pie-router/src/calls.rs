//! Each call of the public plane: one span, which takes part in the caller's trace, and one log line when it is over.
//!
//! What only those inside know (session, revision, what a completion cost) they write into the present span: the line and the
//! trace have it from there. Nothing of a document or of a completion's text belongs in it.

use http_body::Frame;
use pie_group::spans::number;
use pie_proto::reason::reason_of;
use pie_proto::{trace, v1};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Log lines with what people write have this target: the log has none of them unless asked to.
pub const TEXT: &str = "pie_router::text";

/// Names come in before they are checked.
const NAME_LENGTH: usize = 128;

/// A service whose calls are watched.
#[derive(Clone, Debug)]
pub struct Calls<S> {
    inner: S,
}

impl<S> Calls<S> {
    /// Watches the calls of a service.
    pub fn of(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for Calls<S> {
    const NAME: &'static str = S::NAME;
}

type ResponseFuture<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watch = CallWatch::begin(&request);
        let answering = self.inner.call(request);
        match watch {
            None => Box::pin(answering),
            Some(watch) => Box::pin(async move {
                let answer = answering.instrument(watch.span.clone()).await?;
                Ok(watch.over(answer))
            }),
        }
    }
}

/// A call that is not over. Dropping it says that the client went away.
struct CallWatch {
    span: Span,
    method: String,
    began: Instant,
    over: bool,
}

impl CallWatch {
    /// `None` for calls that nobody wants to see.
    fn begin(request: &Request<Body>) -> Option<Self> {
        let path = request.uri().path().trim_start_matches('/');
        let (service, method) = path.split_once('/')?;
        // Dotted fields are for traces alone.
        let span = tracing::info_span!(
            "call",
            otel.name = path,
            otel.kind = "server",
            tenant = Empty,
            session = Empty,
            revision = Empty,
            tokens = Empty,
            tokens_inserted = Empty,
            tokens_deleted = Empty,
            tokens_generated = Empty,
            tokens_encoded = Empty,
            tokens_encoded_ahead = Empty,
            tokens_rotated = Empty,
            tokens_reused = Empty,
            tokens_adopted = Empty,
            queue_us = Empty,
            first_token_us = Empty,
            edit_to_first_token_us = Empty,
            compute_us = Empty,
            finish = Empty,
            code = Empty,
            reason = Empty,
        );
        if span.is_disabled() {
            return None;
        }
        // Fails where there are no traces.
        let _ = span.set_parent(trace::extract(request.headers()));
        let watch = Self { span, method: method.to_owned(), began: Instant::now(), over: false };
        if watch.is_recorded() {
            for (key, value) in [("rpc.system", "grpc"), ("rpc.service", service), ("rpc.method", method)] {
                watch.span.set_attribute(key, value.to_owned());
            }
        }
        if let Some(tenant) = request.headers().get("pie-tenant").and_then(|name| name.to_str().ok()) {
            watch.span.record("tenant", shortened(tenant));
        }
        tracing::debug!(parent: &watch.span, method, "called");
        Some(watch)
    }

    fn is_recorded(&self) -> bool {
        trace::is_recorded(&self.span.context())
    }

    /// The call is over with its answer's last message; at once, if it was refused.
    fn over(mut self, answer: Response<Body>) -> Response<Body> {
        match Status::from_header_map(answer.headers()) {
            Some(status) => {
                self.end(&status);
                answer
            }
            None => answer.map(|body| Body::new(WatchedMessages { body, watch: self })),
        }
    }

    fn end_by(&mut self, trailers: &HeaderMap) {
        self.end(&Status::from_header_map(trailers).unwrap_or_else(|| Status::ok("")));
    }

    fn end(&mut self, status: &Status) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let (span, code) = (&self.span, status.code());
        span.record("code", tracing::field::debug(code));
        let reason = reason_of(status).map(|reason| reason.as_str());
        if let Some(reason) = reason {
            span.record("reason", reason);
        }
        let context = span.context();
        let recorded = trace::is_recorded(&context);
        if recorded {
            span.set_attribute("rpc.grpc.status_code", i64::from(code as i32));
            if is_the_servers_fault(code) {
                let why = reason.map_or_else(|| format!("{code:?}"), str::to_owned);
                span.set_status(opentelemetry::trace::Status::error(why));
            }
        }
        let trace = opentelemetry::trace::TraceContextExt::span(&context).span_context().trace_id();
        let trace_id = recorded.then(|| tracing::field::display(trace));
        let duration_ms = self.began.elapsed().as_micros() as f64 / 1e3;
        // In the span: it ends, in the trace, when it was left last.
        span.in_scope(|| tracing::info!(method = self.method, trace_id, duration_ms, "answered"));
    }
}

impl Drop for CallWatch {
    fn drop(&mut self) {
        self.end(&Status::cancelled("the client went away"));
    }
}

/// By the conventions, what a client did wrong is no error of the server's span.
fn is_the_servers_fault(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

/// An answer's messages, until the last.
struct WatchedMessages {
    body: Body,
    watch: CallWatch,
}

impl http_body::Body for WatchedMessages {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.watch.end_by(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn shortened(name: &str) -> &str {
    name.char_indices().nth(NAME_LENGTH).map_or(name, |(end, _)| &name[..end])
}

/// The present call is about this session.
pub fn about(session: &str) {
    Span::current().record("session", shortened(session));
}

/// The present call opened a session.
pub fn opened(answer: &v1::OpenSessionResponse) {
    let span = Span::current();
    span.record("session", &answer.session).record("revision", number(answer.revision));
    span.record("tokens", number(answer.tokens)).record("tokens_reused", number(answer.reused));
}

/// The present call edited a session.
pub fn edited(answer: &v1::ApplyEditsResponse) {
    let span = Span::current();
    span.record("revision", number(answer.revision)).record("tokens", number(answer.tokens));
    span.record("tokens_inserted", number(answer.tokens_inserted));
    span.record("tokens_deleted", number(answer.tokens_deleted));
}
