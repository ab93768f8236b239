//! A running completion: turns sampled tokens into messages, and knows when it is over.

use crate::messages::{Stream, Watch, Writer, messages};
use crate::spans::CompletionSpan;
use pie_plan::TokenId;
use pie_proto::plan::Sampling;
use pie_proto::request::{Complete, Mode, OnEdit};
use pie_proto::{Fault, v1, worker_v1};
use pie_text::{Cut, StopStrings, TokenDecoder};
use std::time::{Duration, Instant};

/// What the first token of a completion cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstTokenCost {
    /// Context tokens encoded since the completion was asked for.
    pub encoded: u32,
    /// Context tokens turned since the edit before it.
    pub rotated: u32,
    /// Rank 0's time in the steps since then.
    pub compute_us: u64,
}

/// Whether a completion goes on after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It wants more.
    GoesOn,
    /// It is over, as the ranks know; its last message is sent.
    Over,
    /// It is over by a stop string, which the ranks do not know.
    Stopped,
}

/// The time that a token took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The first: from the call, and from the latest edit, if there was one since the completion before.
    Call {
        /// From the call.
        call: Duration,
        /// From the edit.
        edit: Option<Duration>,
    },
    /// From the token before.
    Token(Duration),
}

/// Where a completion writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the document's end, wherever that is when it begins.
    End,
    /// At a cursor in the document's present revision.
    Cursor(Cut),
}

/// A completion that runs or waits for its turn.
pub struct Completion {
    /// Names it within its owner.
    pub id: u64,
    /// D1: the revision that it continues.
    pub revision: u64,
    /// Its part in the call's trace.
    pub span: CompletionSpan,
    /// What the first token costs; the owner counts.
    pub cost: FirstTokenCost,
    /// Where it writes.
    pub place: Place,
    request: Complete,
    stop_tokens: Vec<TokenId>,
    /// Tokens that it sees; none before it begins.
    context: Option<u32>,
    produced: u32,
    decoder: TokenDecoder,
    stop: StopStrings,
    messages: Writer,
    arrived: Instant,
    before: Before,
    started: Option<Instant>,
    /// When the latest token came.
    latest: Option<Instant>,
}

/// What happened before a completion began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    /// The latest edit since the completion before came in.
    pub edited: Option<Instant>,
    /// Tokens encoded since that edit, ahead of the call.
    pub encoded: u32,
    /// Tokens adopted.
    pub adopted: u32,
}

impl Completion {
    /// A completion of a document at a revision, and the stream of its messages, whose reader never holds up the group.
    pub fn new(
        id: u64,
        request: Complete,
        (revision, place): (u64, Place),
        end_of_text: &[TokenId],
        decoder: TokenDecoder,
        arrived: Instant,
    ) -> (Self, Stream) {
        let (messages, stream) = messages();
        let stop = StopStrings::new(request.stop.clone());
        let stop_tokens = end_of_text.iter().chain(&request.stop_tokens).copied().collect();
        let completion = Self {
            id,
            revision,
            span: CompletionSpan::of_call(arrived),
            cost: FirstTokenCost::default(),
            place,
            request,
            stop_tokens,
            context: None,
            produced: 0,
            decoder,
            stop,
            messages,
            arrived,
            before: Before::default(),
            started: None,
            latest: None,
        };
        (completion, stream)
    }

    /// The client went away.
    pub fn is_abandoned(&self) -> bool {
        self.messages.is_left()
    }

    /// Tells whether its messages are read, when it is over.
    pub(crate) fn watch(&self) -> Watch {
        self.messages.watch()
    }

    /// True until the first token is there.
    pub fn waits_for_first_token(&self) -> bool {
        self.produced == 0
    }

    /// What it sees.
    pub fn mode(&self) -> Mode {
        self.request.mode
    }

    /// Its branch is there, or about to be.
    pub fn has_begun(&self) -> bool {
        self.context.is_some()
    }

    /// It begins, on `context` tokens, with room for `room` more; some keys were turned for it already.
    pub fn begin(&mut self, (context, room): (u32, u32), before: Before, rotated: u32) {
        self.context = Some(context);
        self.request.max_tokens = self.request.max_tokens.min(room);
        (self.before, self.cost.rotated) = (before, rotated);
    }

    /// So many tokens may follow those that it wrote; false when it has none left, and is over.
    pub fn fits_in(&mut self, room: usize) -> bool {
        let most = self.produced.saturating_add(u32::try_from(room).unwrap_or(u32::MAX));
        self.request.max_tokens = self.request.max_tokens.min(most);
        self.produced < self.request.max_tokens
    }

    /// Whether it outlives an edit: one that has a cursor and waits does not, since nobody says where the cursor is then.
    /// Markers for filling in the middle are placed anew after an edit, so such a completion ends too.
    pub fn outlives_edits(&self) -> bool {
        let anchored = self.has_begun() || self.place == Place::End;
        self.request.on_edit == OnEdit::GoOn && self.request.mode == Mode::Continue && anchored
    }

    /// Its first step is on its way.
    pub fn start(&mut self, now: Instant) {
        if self.started.is_none() {
            self.started = Some(now);
            self.span.planned(now);
        }
    }

    /// How the ranks draw its next tokens.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            parameters: self.request.sampling.clone(),
            step: u64::from(self.produced),
            stop_tokens: self.stop_tokens.clone(),
            max_tokens: self.request.max_tokens - self.produced,
        }
    }

    /// What a token that comes now has taken.
    pub fn since(&self, now: Instant) -> Since {
        let since = |from: Instant| now.saturating_duration_since(from);
        match self.latest {
            Some(latest) => Since::Token(since(latest)),
            None => Since::Call { call: since(self.arrived), edit: self.before.edited.map(since) },
        }
    }

    /// Takes a sampled token and sends what it adds to the text.
    pub fn take(&mut self, sampled: worker_v1::Sampled, now: Instant) -> After {
        let token = TokenId(sampled.token);
        let first = self.produced == 0;
        self.produced += 1;
        self.latest = Some(now);
        let stops_here = self.stop_tokens.contains(&token);
        let delta = if stops_here { String::new() } else { self.decoder.push(token) };
        let (mut text, stopped) = self.stop.push(&delta);
        let finish = if stops_here || stopped {
            v1::FinishReason::Stop
        } else if self.produced >= self.request.max_tokens {
            v1::FinishReason::Length
        } else {
            v1::FinishReason::Unspecified
        };
        if finish != v1::FinishReason::Unspecified && !stopped {
            text.push_str(&self.flush());
        }
        let timings = first.then(|| self.timings(now));
        if let Some(timings) = &timings {
            self.span.first_token(timings, now);
        }
        match finish {
            v1::FinishReason::Unspecified => {}
            v1::FinishReason::Length => self.over("length"),
            _ => self.over("stop"),
        }
        self.send(v1::CompleteResponse {
            revision: self.revision,
            text_delta: text,
            tokens: vec![completed(sampled)],
            finish_reason: finish.into(),
            timings,
            seed: Some(self.request.sampling.seed)
                .filter(|_| first && self.request.sampling.temperature > 0.0),
        });
        match finish {
            v1::FinishReason::Unspecified => After::GoesOn,
            v1::FinishReason::Stop if stopped => After::Stopped,
            _ => After::Over,
        }
    }

    /// A newer edit ends it.
    pub fn end_by_edit(self) {
        self.end_by(v1::FinishReason::Edited, "edited");
    }

    /// It has no room left.
    pub fn end_by_length(self) {
        self.end_by(v1::FinishReason::Length, "length");
    }

    fn end_by(mut self, finish: v1::FinishReason, name: &'static str) {
        let text_delta = self.flush();
        self.over(name);
        self.send(v1::CompleteResponse {
            revision: self.revision,
            text_delta,
            finish_reason: finish.into(),
            ..Default::default()
        });
    }

    /// It fails.
    pub fn fail(self, fault: Fault) {
        self.over("failed");
        self.messages.send(Err(fault.into()));
    }

    /// Said before the last message: whoever writes the call's line has it then.
    fn over(&self, finish: &'static str) {
        self.span.over(finish, self.revision, self.produced);
    }

    /// What decoder and stop strings still hold back.
    fn flush(&mut self) -> String {
        let rest = self.decoder.finish();
        let (mut text, stopped) = self.stop.push(&rest);
        if !stopped {
            text.push_str(&self.stop.finish());
        }
        text
    }

    fn send(&self, message: v1::CompleteResponse) {
        self.messages.send(Ok(message));
    }

    /// N1: encoded + reused = length.
    pub fn reused(&self) -> u32 {
        self.context.unwrap_or(0).saturating_sub(self.cost.encoded)
    }

    fn timings(&self, now: Instant) -> v1::Timings {
        let micros = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
        };
        v1::Timings {
            queue_us: micros(self.arrived, self.started.unwrap_or(now)),
            first_token_us: micros(self.arrived, now),
            compute_us: self.cost.compute_us,
            tokens_encoded: self.cost.encoded,
            tokens_rotated: self.cost.rotated,
            tokens_encoded_ahead: self.before.encoded,
            tokens_reused: self.reused(),
            edit_to_first_token_us: self.before.edited.map_or(0, |edited| micros(edited, now)),
            tokens_adopted: self.before.adopted,
        }
    }
}

fn completed(sampled: worker_v1::Sampled) -> v1::CompletedToken {
    let candidate = |candidate: worker_v1::Candidate| v1::TokenLogprob {
        id: candidate.token,
        logprob: candidate.logprob,
    };
    v1::CompletedToken {
        id: sampled.token,
        logprob: sampled.logprob,
        top: sampled.top.into_iter().map(candidate).collect(),
    }
}
