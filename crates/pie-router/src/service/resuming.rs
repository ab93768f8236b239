//! A completion whose stream breaks because its group, or the router that owns it, went away is asked for again, behind the tokens that
//! its client has: who reads sees a pause, not an error. Other routers' calls are not: the one that the client called does it.

use super::sessions::{AcceptedCompletion, Messages};
use crate::server::Phase;
use pie_group::stats::Stats;
use pie_proto::reason::reason_of;
use pie_proto::{Reason, v1};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::Stream;
use tonic::Status;
use tonic_types::StatusExt;

/// How long a stream waits for its group to come back: longer than a worker takes that is started again, and than another router to
/// take a group over.
const PATIENCE: Duration = Duration::from_secs(10);
/// For so long a session that its group's new owner does not know may be on its way there.
const ARRIVAL: Duration = Duration::from_secs(2);
/// Before the first attempt, and at most between two.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// An attempt.
pub(super) type CompletionAttempt = Pin<Box<dyn Future<Output = Result<AcceptedCompletion, Status>> + Send>>;
/// Asks wherever the session lives now.
pub(super) type AttemptFunction = Arc<dyn Fn(v1::CompleteRequest) -> CompletionAttempt + Send + Sync>;

/// How a completion is asked for again.
#[derive(Clone)]
pub(super) struct ResumeContext {
    /// Asks once.
    pub ask: AttemptFunction,
    /// A router that is about to end waits for nobody.
    pub phase: watch::Receiver<Phase>,
    /// Where it is counted.
    pub stats: Arc<Stats>,
}

/// One completion, from as many streams as it takes.
pub(super) struct Resuming {
    way: ResumeContext,
    /// The call, with what its client has of the answer.
    request: v1::CompleteRequest,
    state: ResumeState,
    /// Since nothing comes: how it began, and when it is over.
    broken: Option<StreamOutage>,
    /// The client knows what the first token took.
    has_begun: bool,
    /// The last message was told.
    has_ended: bool,
}

enum ResumeState {
    Reads(Messages),
    Asks(Pin<Box<dyn Future<Output = Result<Messages, Verdict>> + Send>>),
    Over,
}

#[derive(Clone)]
struct StreamOutage {
    status: Status,
    until: Instant,
}

/// Why nobody goes on.
enum Verdict {
    /// The document has moved on.
    Edited,
    Failed(Status),
}

impl Resuming {
    /// What was accepted, and how to ask for it again. The call names its seed, if it draws at random.
    pub fn new(mut request: v1::CompleteRequest, accepted: AcceptedCompletion, way: ResumeContext) -> Self {
        // What goes on is of the same document, whatever the client asked for.
        request.revision = request.revision.or(accepted.revision);
        let state = ResumeState::Reads(accepted.messages);
        Self { way, request, state, broken: None, has_begun: false, has_ended: false }
    }

    /// A message on its way to the client. What an earlier stream told once is not told again.
    fn tell(&mut self, mut message: v1::CompleteResponse) -> v1::CompleteResponse {
        if self.has_begun {
            (message.timings, message.seed) = (None, None);
        }
        self.has_begun |= message.timings.is_some();
        self.has_ended = message.finish_reason() != v1::FinishReason::Unspecified;
        self.request.revision.get_or_insert(message.revision);
        self.request.generated.extend(message.tokens.iter().map(|token| token.id));
        if !message.tokens.is_empty() {
            self.broken = None;
        }
        message
    }

    /// The stream has ended before its last message.
    ///
    /// # Errors
    /// The status itself, if it is not one that passes, or did not in time: then the one that it began with.
    fn go_on(&mut self, status: Status) -> Result<(), Status> {
        if !passes(&status) || self.way.is_draining() {
            return Err(status);
        }
        let until = Instant::now() + PATIENCE;
        let broken = self.broken.get_or_insert(StreamOutage { status, until }).clone();
        if Instant::now() >= broken.until {
            return Err(broken.status);
        }
        let (way, request) = (self.way.clone(), self.request.clone());
        self.state = ResumeState::Asks(Box::pin(async move { way.ask_again(request, broken).await }));
        Ok(())
    }

    fn over(&mut self, last: Result<v1::CompleteResponse, Status>) -> Poll<Option<<Self as Stream>::Item>> {
        self.state = ResumeState::Over;
        Poll::Ready(Some(last))
    }
}

impl ResumeContext {
    fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    /// Asks until somebody goes on.
    async fn ask_again(
        &self,
        request: v1::CompleteRequest,
        broken: StreamOutage,
    ) -> Result<Messages, Verdict> {
        let [mut pause, longest] = PAUSES;
        let mut unknown_since = None;
        loop {
            sleep(pause).await;
            let asked = timeout_at(broken.until, (self.ask)(request.clone())).await;
            let refusal = match asked {
                // It would begin anew.
                Ok(Ok(accepted)) if accepted.revision.is_none() && !request.generated.is_empty() => {
                    return Err(Verdict::Failed(broken.status));
                }
                Ok(Ok(accepted)) => {
                    self.stats.completions.resumed.add(1);
                    let given = request.generated.len();
                    tracing::info!(given, session = request.session, "a completion goes on");
                    return Ok(accepted.messages);
                }
                Ok(Err(refusal)) => refusal,
                Err(_) => return Err(Verdict::Failed(broken.status)),
            };
            match reason_of(&refusal) {
                Some(Reason::RevisionMismatch) => return Err(Verdict::Edited),
                Some(Reason::SessionUnknown) => {
                    let since = *unknown_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= ARRIVAL {
                        // It is lost: its client can open it again, and waits for nothing here.
                        return Err(Verdict::Failed(refusal));
                    }
                }
                _ if passes(&refusal) || retry_after(&refusal).is_some() => unknown_since = None,
                _ => return Err(Verdict::Failed(refusal)),
            }
            pause = retry_after(&refusal).unwrap_or_default().max(pause * 2).min(longest);
            if self.is_draining() || Instant::now() + pause >= broken.until {
                return Err(Verdict::Failed(broken.status));
            }
        }
    }
}

/// Whether it is the group or its owner that went away, and another may come. (That a session's rows had to make room for others is no
/// such reason: it would take them back.)
fn passes(status: &Status) -> bool {
    let passing = [
        Reason::GroupLost,
        Reason::NoGroup,
        Reason::SessionMoving,
        Reason::SessionElsewhere,
        Reason::OwnershipUnsure,
        Reason::RouterUnreachable,
        Reason::ServerDraining,
        Reason::ShuttingDown,
    ];
    reason_of(status).is_some_and(|reason| passing.contains(&reason))
}

fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

impl Stream for Resuming {
    type Item = Result<v1::CompleteResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                ResumeState::Reads(messages) => match ready!(messages.as_mut().poll_next(context)) {
                    Some(Ok(message)) => return Poll::Ready(Some(Ok(this.tell(message)))),
                    Some(Err(status)) if !this.has_ended => {
                        if let Err(status) = this.go_on(status) {
                            return this.over(Err(status));
                        }
                    }
                    Some(Err(_)) | None => this.state = ResumeState::Over,
                },
                ResumeState::Asks(asking) => match ready!(asking.as_mut().poll(context)) {
                    Ok(messages) => this.state = ResumeState::Reads(messages),
                    Err(Verdict::Failed(status)) => return this.over(Err(status)),
                    Err(Verdict::Edited) => {
                        let finish_reason = v1::FinishReason::Edited.into();
                        let revision = this.request.revision.unwrap_or_default();
                        return this.over(Ok(v1::CompleteResponse {
                            revision,
                            finish_reason,
                            ..Default::default()
                        }));
                    }
                },
                ResumeState::Over => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
