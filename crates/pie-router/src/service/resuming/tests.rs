use super::*;
use crate::faults;
use pie_proto::Fault;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio_stream::StreamExt;

const REVISION: u64 = 7;

/// What becomes of an attempt.
#[derive(Clone)]
enum AttemptOutcome {
    Refused(Fault),
    /// So many tokens, and how they end.
    Gives(u32, End),
    /// Nobody answers.
    Hangs,
}

#[derive(Clone)]
enum End {
    Finished,
    Breaks(Fault),
}

fn lost() -> Fault {
    faults::group_lost("a test")
}

fn nobody() -> Fault {
    Fault::new(Reason::NoGroup, "a test")
}

fn message(token: u32) -> v1::CompleteResponse {
    v1::CompleteResponse {
        revision: REVISION,
        text_delta: format!("{token} "),
        tokens: vec![v1::CompletedToken { id: token, ..Default::default() }],
        ..Default::default()
    }
}

/// The stream of a completion that has given tokens before.
fn stream(given: u32, tokens: u32, end: &End) -> AcceptedCompletion {
    let mut messages: Vec<_> = (given..given + tokens).map(message).collect();
    if let Some(first) = messages.first_mut() {
        (first.timings, first.seed) = (Some(v1::Timings::default()), Some(5));
    }
    let mut messages: Vec<_> = messages.into_iter().map(Ok).collect();
    messages.push(match end {
        End::Finished => Ok(v1::CompleteResponse {
            revision: REVISION,
            finish_reason: v1::FinishReason::Length.into(),
            ..Default::default()
        }),
        End::Breaks(fault) => Err(Status::from(fault.clone())),
    });
    AcceptedCompletion { revision: Some(REVISION), messages: Box::pin(tokio_stream::iter(messages)) }
}

/// What a client reads.
#[derive(Default)]
struct ClientTranscript {
    text: String,
    finish: v1::FinishReason,
    timings: usize,
    seeds: usize,
    failed: Option<Reason>,
    took: Duration,
    resumed: u64,
    asked: usize,
}

/// A completion whose attempts end so; behind the last, each as that.
async fn read(first: AttemptOutcome, then: &[AttemptOutcome], phase: Phase) -> ClientTranscript {
    let script: Arc<Mutex<VecDeque<AttemptOutcome>>> = Arc::new(Mutex::new(then.iter().cloned().collect()));
    let asked = Arc::new(Mutex::new(0));
    let counted = asked.clone();
    let ask = move |request: v1::CompleteRequest| -> CompletionAttempt {
        *counted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
        let given = request.generated.len() as u32;
        assert!(request.generated.iter().copied().eq(0..given), "all that was told, in order");
        assert_eq!((request.revision, request.seed), (Some(REVISION), Some(5)));
        Box::pin(async move {
            match answer.expect("there is one") {
                AttemptOutcome::Refused(fault) => Err(fault.into()),
                AttemptOutcome::Gives(tokens, end) => Ok(stream(given, tokens, &end)),
                AttemptOutcome::Hangs => std::future::pending().await,
            }
        })
    };
    let AttemptOutcome::Gives(tokens, end) = first else { panic!("the first is accepted") };
    let (phase, stats) = (watch::channel(phase).1, Arc::<Stats>::default());
    let request = v1::CompleteRequest { seed: Some(5), ..Default::default() };
    let way = ResumeContext { ask: Arc::new(ask), phase, stats: stats.clone() };
    let mut resuming = Resuming::new(request, stream(0, tokens, &end), way);
    let (began, mut read) = (Instant::now(), ClientTranscript::default());
    while let Some(message) = resuming.next().await {
        assert!(
            read.failed.is_none() && read.finish == v1::FinishReason::Unspecified,
            "nothing follows the last"
        );
        match message {
            Ok(message) => {
                assert_eq!(message.revision, REVISION);
                read.text.push_str(&message.text_delta);
                read.finish = message.finish_reason();
                read.timings += usize::from(message.timings.is_some());
                read.seeds += usize::from(message.seed.is_some());
            }
            Err(status) => read.failed = reason_of(&status),
        }
    }
    read.took = began.elapsed();
    read.resumed = stats.completions.resumed.get();
    read.asked = *asked.lock().unwrap_or_else(PoisonError::into_inner);
    read
}

fn numbers(tokens: u32) -> String {
    (0..tokens).map(|token| format!("{token} ")).collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_sees_a_pause() {
    let (unsure, elsewhere) = (faults::unsure("g0"), faults::not_the_owner("g0"));
    let busy = faults::too_many_completions(1);
    let then = [
        AttemptOutcome::Refused(lost()),
        AttemptOutcome::Refused(unsure.clone()),
        AttemptOutcome::Refused(busy),
        AttemptOutcome::Gives(0, End::Breaks(elsewhere)),
        AttemptOutcome::Refused(faults::no_session("a")),
        AttemptOutcome::Gives(2, End::Breaks(lost())),
        AttemptOutcome::Gives(4, End::Finished),
    ];
    for tokens in [0, 3] {
        let read =
            read(AttemptOutcome::Gives(tokens, End::Breaks(unsure.clone())), &then, Phase::Serving).await;
        assert_eq!((read.text, read.failed), (numbers(tokens + 6), None));
        assert_eq!(read.finish, v1::FinishReason::Length);
        assert_eq!((read.timings, read.seeds, read.resumed, read.asked), (1, 1, 3, 7), "told once");
        assert!(read.took < Duration::from_secs(4), "{:?}", read.took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_has_an_end() {
    let first = || AttemptOutcome::Gives(3, End::Breaks(lost()));
    let breaks = AttemptOutcome::Gives(0, End::Breaks(nobody()));
    for then in [AttemptOutcome::Refused(nobody()), AttemptOutcome::Hangs, breaks] {
        let read = read(first(), &[then], Phase::Serving).await;
        assert_eq!((read.text, read.failed), (numbers(3), Some(Reason::GroupLost)), "as it began");
        let took = read.took.as_secs_f64();
        assert!((9.0..=10.1).contains(&took), "{took} s");
        assert!(read.asked < 250, "{} attempts", read.asked);
    }
    // One that gets on has time again: two tokens at a time, each pause short.
    let slow = vec![AttemptOutcome::Gives(2, End::Breaks(lost())); 300];
    let then = [slow, vec![AttemptOutcome::Gives(1, End::Finished)]].concat();
    let read = read(first(), &then, Phase::Serving).await;
    assert_eq!((read.text, read.failed, read.resumed), (numbers(604), None, 301));
    assert!(read.took > PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_is_told_at_once() {
    let finished = || AttemptOutcome::Gives(1, End::Finished);
    let others = AttemptOutcome::Gives(3, End::Breaks(faults::others_need_slots()));
    let read_others = read(others, &[finished()], Phase::Serving).await;
    assert_eq!((read_others.failed, read_others.asked), (Some(Reason::KvExhausted), 0));
    let first = || AttemptOutcome::Gives(3, End::Breaks(lost()));
    let draining = read(first(), &[finished()], Phase::Draining).await;
    assert_eq!((draining.failed, draining.asked), (Some(Reason::GroupLost), 0), "it waits for nobody");

    let refused = [faults::replaced("a"), faults::no_slots(2, 1), faults::bad_generated(0, "a test")];
    for fault in refused {
        let read = read(first(), &[AttemptOutcome::Refused(fault.clone())], Phase::Serving).await;
        assert_eq!((read.failed, read.asked), (Some(fault.reason), 1));
    }
    let unknown = read(first(), &[AttemptOutcome::Refused(faults::no_session("a"))], Phase::Serving).await;
    assert_eq!(unknown.failed, Some(Reason::SessionUnknown), "its client can open it again");
    let took = unknown.took.as_secs_f64();
    assert!((2.0..3.0).contains(&took), "{took} s");
}

/// With tokens the owner says so itself, and gives what was held back.
#[tokio::test(start_paused = true)]
async fn what_was_edited_before_its_first_token_ends_so() {
    let edited = AttemptOutcome::Refused(Fault::new(Reason::RevisionMismatch, "a test"));
    let read = read(AttemptOutcome::Gives(0, End::Breaks(lost())), &[edited], Phase::Serving).await;
    assert_eq!((read.finish, read.failed, read.text.as_str()), (v1::FinishReason::Edited, None, ""));
}
