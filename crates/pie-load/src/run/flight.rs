//! A completion on its way, beside its session.

use crate::measure::{Metric, Recorder, Tally};
use crate::target::{CallError, CompletionDelta, CompletionEnd, StreamingCompletion};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Refusals of a completion that an edit overtook on its way.
const OVERTAKEN: [&str; 1] = ["REVISION_MISMATCH"];

/// What a session and its completion share.
#[derive(Default)]
pub(super) struct Flight {
    shown: Mutex<String>,
    edited: AtomicBool,
    cancel: Notify,
}

impl Flight {
    /// The text that has come.
    pub fn shown(&self) -> String {
        self.text().clone()
    }

    /// A newer edit is on its way: the server will end the completion.
    pub fn edit(&self) {
        self.edited.store(true, Ordering::Relaxed);
    }

    /// The client wants no more of it.
    pub fn cancel(&self) {
        self.cancel.notify_one();
    }

    fn text(&self) -> std::sync::MutexGuard<'_, String> {
        // Text that was cut off by a panic is still text.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When and behind what a completion was asked for.
#[derive(Clone, Copy)]
pub(super) struct CompletionTiming {
    /// When the stream wanted it.
    pub due: Instant,
    /// An edit came since the completion before.
    pub behind_edit: bool,
}

/// How a completion ends.
enum FlightEnd {
    Finished,
    Superseded,
    Cancelled,
    Failed(CallError),
}

/// Follows a completion to its end, and records it.
pub(super) async fn follow(
    flight: Arc<Flight>,
    asked: CompletionTiming,
    starting: impl Future<Output = Result<StreamingCompletion, CallError>>,
    recorder: Arc<Recorder>,
) {
    let mut pace = TypingPace { sent: Instant::now(), first: None, latest: Instant::now() };
    recorder.record(asked.due, |tally| {
        tally.completions.asked += 1;
        tally.latency(Metric::SendDelay, pace.sent - asked.due);
    });
    let outcome = tokio::select! {
        biased;
        () = flight.cancel.notified() => FlightEnd::Cancelled,
        outcome = listen(&flight, asked, starting, &recorder, &mut pace) => outcome,
    };
    if let FlightEnd::Failed(error) = &outcome {
        recorder.error(asked.due, error);
    }
    let answered = pace.first.is_some();
    recorder.record(asked.due, |tally| ended(tally, &outcome, answered, asked.due.elapsed()));
}

struct TypingPace {
    sent: Instant,
    first: Option<Instant>,
    latest: Instant,
}

async fn listen(
    flight: &Flight,
    asked: CompletionTiming,
    starting: impl Future<Output = Result<StreamingCompletion, CallError>>,
    recorder: &Recorder,
    pace: &mut TypingPace,
) -> FlightEnd {
    let overtaken = |error: CallError| {
        let edited = flight.edited.load(Ordering::Relaxed);
        if edited && OVERTAKEN.contains(&error.code.as_str()) {
            FlightEnd::Superseded
        } else {
            FlightEnd::Failed(error)
        }
    };
    let mut answer = match starting.await {
        Ok(answer) => answer,
        Err(error) => return overtaken(error),
    };
    loop {
        match answer.next().await {
            Ok(Some(piece)) => {
                heard(flight, asked, &piece, recorder, pace);
                match piece.end {
                    Some(CompletionEnd::Finished) => return FlightEnd::Finished,
                    Some(CompletionEnd::Edited) => return FlightEnd::Superseded,
                    None => {}
                }
            }
            // The end without a last piece: `[DONE]`.
            Ok(None) => return FlightEnd::Finished,
            Err(error) => return overtaken(error),
        }
    }
}

fn heard(
    flight: &Flight,
    asked: CompletionTiming,
    piece: &CompletionDelta,
    recorder: &Recorder,
    pace: &mut TypingPace,
) {
    let now = Instant::now();
    flight.text().push_str(&piece.text);
    if piece.tokens > 0 {
        if pace.first.is_none() {
            pace.first = Some(now);
            let waited = now - asked.due;
            recorder.first_token(asked.due, waited);
            if asked.behind_edit {
                recorder.record(asked.due, |tally| tally.latency(Metric::EditToFirstToken, waited));
            }
        } else {
            let gap = (now - pace.latest) / piece.tokens;
            recorder.record(asked.due, |tally| {
                tally.latency_of(Metric::InterToken, gap, u64::from(piece.tokens));
            });
        }
        pace.latest = now;
    }
    recorder.record(asked.due, |tally| {
        tally.tokens.generated += u64::from(piece.tokens);
        if let Some(timings) = &piece.timings {
            tally.timings(timings, now - pace.sent);
        }
    });
}

fn ended(tally: &mut Tally, outcome: &FlightEnd, answered: bool, waited: std::time::Duration) {
    let counts = &mut tally.completions;
    match (outcome, answered) {
        (FlightEnd::Finished, _) => {
            counts.finished += 1;
            tally.latency(Metric::EndToEnd, waited);
        }
        (FlightEnd::Superseded, true) => counts.superseded_answered += 1,
        (FlightEnd::Cancelled, true) => counts.cancelled_answered += 1,
        (FlightEnd::Superseded, false) => {
            counts.superseded_unanswered += 1;
            tally.given_up(waited);
        }
        (FlightEnd::Cancelled, false) => {
            counts.cancelled_unanswered += 1;
            tally.given_up(waited);
        }
        (FlightEnd::Failed(_), _) => counts.failed += 1,
    }
}
