//! What tonic refuses by itself gets a reason here: requests whose bytes are no message, which it calls the server's fault, and calls
//! whose deadline passed, which it calls cancelled.

use pie_group::stats::Stats;
use pie_proto::reason::reason_of;
use pie_proto::{Fault, Reason};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

/// See [`patience`].
const MOMENT: Duration = Duration::from_millis(2);

/// A service whose every refusal has a reason.
#[derive(Clone, Debug)]
pub(crate) struct Reasoned<S> {
    inner: S,
    stats: Arc<Stats>,
}

impl<S> Reasoned<S> {
    /// Gives a service's refusals reasons, and counts them.
    pub fn new(inner: S, stats: Arc<Stats>) -> Self {
        Self { inner, stats }
    }
}

impl<S: NamedService> NamedService for Reasoned<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Reasoned<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let patience = request.headers().get("grpc-timeout").and_then(|value| patience(value.as_bytes()));
        let (answering, stats) = (self.inner.call(request), self.stats.clone());
        Box::pin(async move {
            let answered = match patience {
                Some(patience) => tokio::time::timeout(patience, answering).await,
                None => Ok(answering.await),
            };
            let Ok(answer) = answered else {
                let fault =
                    Fault::new(Reason::DeadlinePassed, "the call's deadline passed before it was answered");
                stats.fault(&fault);
                return Ok(Status::from(fault).into_http());
            };
            let answer = answer?;
            // Calls that were taken end their stream with a status; those that were refused have it in front.
            let Some(fault) = Status::from_header_map(answer.headers()).as_ref().and_then(fault) else {
                return Ok(answer);
            };
            stats.fault(&fault);
            Ok(Status::from(fault).into_http())
        })
    }
}

/// How long the caller waits, less a moment: by then tonic, which looks at the same clock, would answer in its own way.
fn patience(header: &[u8]) -> Option<Duration> {
    let (unit, digits) = header.split_last()?;
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let patience = match unit {
        b'H' => Duration::from_secs(number.checked_mul(3600)?),
        b'M' => Duration::from_secs(number.checked_mul(60)?),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(patience.saturating_sub(MOMENT))
}

/// What the service refuses has a reason; what tonic refuses before it has none.
fn fault(status: &Status) -> Option<Fault> {
    let reason = match status.code() {
        Code::Internal => Reason::Malformed,
        Code::OutOfRange | Code::ResourceExhausted => Reason::MessageTooLarge,
        _ => return None,
    };
    let known = reason_of(status).is_some();
    (!known).then(|| Fault::new(reason, format!("the request cannot be read: {}", status.message())))
}
