//! The streams that completions are answered by: what the core says of a completion, as its client is told.

use crate::core::UnreadCompletions;
use crate::core::completion::{CompletionId, CompletionUpdate, Finish, FirstToken, News, Token, Took};
use crate::messages::{MessageStream, MessageWriter, Watch, messages};
use crate::spans::CompletionSpan;
use crate::tenants::Tenant;
use opentelemetry::Context;
use pie_proto::plan::SampledToken;
use pie_proto::v1;
use pie_words::Revision;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tonic::Status;

/// All streams of an owner.
#[derive(Default)]
pub(super) struct CompletionStreams {
    open: BTreeMap<CompletionId, OpenCompletion>,
    /// All that are not read to their end, those of completions that are over too.
    unread: Vec<(Tenant, Watch)>,
}

/// A completion that runs or waits. The call's span has its end before the stream has.
struct OpenCompletion {
    span: CompletionSpan,
    writer: MessageWriter,
}

impl CompletionStreams {
    /// The stream of a completion that was accepted, in the span of the present call.
    pub fn open(
        &mut self,
        (id, revision): (CompletionId, Revision),
        tenant: Tenant,
        arrived: Instant,
    ) -> MessageStream {
        let (writer, stream) = messages(revision);
        self.unread.push((tenant, writer.watch()));
        self.open.insert(id, OpenCompletion { span: CompletionSpan::of_call(arrived), writer });
        stream
    }

    /// How many are not read to their end.
    pub fn unread(&mut self, tenant: &Tenant) -> UnreadCompletions {
        let now = Instant::now();
        self.unread.retain(|(_, stream)| !stream.is_over(now));
        let own = self.unread.iter().filter(|(whose, _)| whose == tenant).count();
        UnreadCompletions { all: self.unread.len(), own }
    }

    /// Completions whose readers went away.
    pub fn abandoned(&self) -> Vec<CompletionId> {
        self.open.iter().filter(|(_, open)| open.writer.is_abandoned()).map(|(id, _)| *id).collect()
    }

    /// The trace that a completion's call is in, if it is recorded.
    pub fn recorded(&self, id: CompletionId) -> Option<&Context> {
        self.open.get(&id)?.span.recorded()
    }

    /// Something happened to a completion. Its span hears of it first: whoever writes the call's line has it then.
    pub fn tell(&mut self, id: CompletionId, news: News) {
        let Some(OpenCompletion { span, writer }) = self.open.get_mut(&id) else { return };
        let is_last = news.is_last();
        match news {
            News::Began | News::Abandoned => {}
            News::Planned(began) => span.planned(began),
            News::Message(message) => {
                let (finish, revision, produced) = (message.finish, message.revision, message.produced);
                let message = response(message);
                if let Some(timings) = &message.timings {
                    span.first_token(timings, Instant::now());
                }
                finish.into_iter().for_each(|finish| span.over(name(finish), revision.0, produced));
                writer.send(Ok(message));
            }
            News::Failed { fault, revision, produced } => {
                span.over("failed", revision.0, produced);
                writer.send(Err(Status::from(fault)));
            }
        }
        if is_last {
            self.open.remove(&id);
        }
    }
}

fn name(finish: Finish) -> &'static str {
    match finish {
        Finish::StopToken | Finish::StopString => "stop",
        Finish::Length => "length",
        Finish::Edited => "edited",
    }
}

fn response(message: CompletionUpdate) -> v1::CompleteResponse {
    let finish = match message.finish {
        None => v1::FinishReason::Unspecified,
        Some(Finish::StopToken | Finish::StopString) => v1::FinishReason::Stop,
        Some(Finish::Length) => v1::FinishReason::Length,
        Some(Finish::Edited) => v1::FinishReason::Edited,
    };
    let first = message.token.as_ref().and_then(|token| match &token.took {
        Took::First(first) => Some(first),
        Took::Next(_) => None,
    });
    v1::CompleteResponse {
        revision: message.revision.0,
        text_delta: message.text,
        finish_reason: finish.into(),
        timings: first.map(timings),
        seed: first.and_then(|first| first.seed),
        tokens: message.token.map(|Token { sampled, .. }| completed(sampled)).into_iter().collect(),
        ..Default::default()
    }
}

fn timings(first: &FirstToken) -> v1::Timings {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    v1::Timings {
        queue_us: micros(first.queue),
        first_token_us: micros(first.since_call),
        compute_us: first.cost.compute_us,
        tokens_encoded: first.cost.encoded,
        tokens_rotated: first.cost.rotated,
        tokens_encoded_ahead: first.before.encoded,
        tokens_reused: first.reused,
        edit_to_first_token_us: first.since_edit.map_or(0, micros),
        tokens_adopted: first.before.adopted,
        tokens_repaired: first.cost.repaired,
        tokens_stale: first.cost.stale,
    }
}

fn completed(sampled: SampledToken) -> v1::CompletedToken {
    let top = sampled.top.into_iter().map(|(token, logprob)| v1::TokenLogprob { id: token.0, logprob });
    v1::CompletedToken { id: sampled.token.0, logprob: sampled.logprob, top: top.collect() }
}
