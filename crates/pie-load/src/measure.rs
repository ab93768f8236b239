//! What a run measures: histograms by metric, counts, and what happened in each second.

use crate::error::LoadError;
use hdrhistogram::Histogram;
use pie_proto::v1;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// A completion behind an edit: from when it was due to the first token.
    EditToFirstToken,
    /// Any completion: from when it was due to the first token.
    FirstToken,
    /// An edit: from when it was due to the pool's answer.
    EditAck,
    /// From token to token.
    InterToken,
    /// A completion: from when it was due to its end.
    EndToEnd,
    /// A document that was opened during the run: from when it was due to the answer.
    Open,
    /// From when an edit or completion was due to when it was sent: what waiting for earlier edits cost.
    SendDelay,
    /// The server's own time to the first token, from the call.
    ServerFirstToken,
    /// The server's own time to the first token, from the latest edit's arrival.
    ServerEditToFirstToken,
    /// The server's time to the first token without the steps of the ranks: queue and router.
    ServerBesideSteps,
    /// From sending to the first token, without the server's own time: network, gRPC, this program.
    OutsideServer,
}

impl Metric {
    /// All, in the order of reports.
    pub const ALL: [Self; 11] = [
        Self::EditToFirstToken,
        Self::FirstToken,
        Self::EditAck,
        Self::InterToken,
        Self::EndToEnd,
        Self::Open,
        Self::SendDelay,
        Self::ServerFirstToken,
        Self::ServerEditToFirstToken,
        Self::ServerBesideSteps,
        Self::OutsideServer,
    ];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::EditToFirstToken => "edit_to_first_token",
            Self::FirstToken => "first_token",
            Self::EditAck => "edit_acknowledged",
            Self::InterToken => "inter_token",
            Self::EndToEnd => "end_to_end",
            Self::Open => "open",
            Self::SendDelay => "send_delay",
            Self::ServerFirstToken => "server_first_token",
            Self::ServerEditToFirstToken => "server_edit_to_first_token",
            Self::ServerBesideSteps => "server_beside_steps",
            Self::OutsideServer => "outside_server",
        }
    }
}

/// Counts of edits. All are requests of the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EditCounts {
    /// Sent to the server.
    pub sent: u64,
    /// The server answered.
    pub acknowledged: u64,
    /// Answered by taking the whole text, since pool and client had parted.
    pub resynced: u64,
    /// Steps that were due, and for which no time was left when the run had to end.
    pub unsent: u64,
    /// Tokens that edits inserted.
    pub tokens_inserted: u64,
    /// Tokens that edits deleted.
    pub tokens_deleted: u64,
    /// Tokens that were tokenized again.
    pub tokens_retokenized: u64,
}

/// Counts of completions. Each that was asked for ends in one of finished, superseded, cancelled, failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionCounts {
    /// Sent to the server.
    pub asked: u64,
    /// With a first token.
    pub answered: u64,
    /// Came to their end, by the model or the limit of tokens.
    pub finished: u64,
    /// Ended by a newer edit, before their first token.
    pub superseded_unanswered: u64,
    /// Ended by a newer edit, after it.
    pub superseded_answered: u64,
    /// Dropped by the client, before their first token.
    pub cancelled_unanswered: u64,
    /// Dropped by the client, after it.
    pub cancelled_answered: u64,
    /// Of the superseded and cancelled without a token: those that had waited longer than the limit.
    pub given_up_late: u64,
    /// Ended with an error.
    pub failed: u64,
    /// First token within the limit.
    pub within_limit: u64,
    /// Taken over, whole or in part.
    pub accepted: u64,
    /// Not taken over, since nothing had come.
    pub nothing_to_accept: u64,
}

/// Tokens, as the server counts them for completions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Tokens of completions.
    pub generated: u64,
    /// Of contexts, encoded between call and first token.
    pub encoded: u64,
    /// Of contexts, encoded before the call.
    pub encoded_ahead: u64,
    /// Of contexts, keys turned.
    pub rotated: u64,
    /// Of contexts, taken from the cache.
    pub reused: u64,
    /// Of contexts, taken over from an earlier completion.
    pub adopted: u64,
}

/// How often something failed, and what it said first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// Times that it happened.
    pub count: u64,
    /// The first message.
    pub example: String,
}

/// Documents compared at their end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Equal here and there.
    pub equal: u64,
    /// Those that are not, and how.
    pub different: Vec<String>,
}

/// What happened in a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Second {
    /// Edits that were acknowledged.
    pub edits: u32,
    /// Completions whose first token came.
    pub answers: u32,
    /// Calls that failed.
    pub errors: u32,
}

/// Everything that was measured.
pub(crate) struct Tally {
    /// Edits that were due in the measured time.
    pub edits: EditCounts,
    /// Completions that were due in it.
    pub completions: CompletionCounts,
    /// What the server says of their tokens.
    pub tokens: TokenCounts,
    /// Failed calls by their code, whenever they were due.
    pub errors: BTreeMap<String, ErrorCount>,
    /// Documents compared when they were closed.
    pub compared: Compared,
    /// Microseconds, of every metric.
    pub latencies: BTreeMap<Metric, Histogram<u64>>,
    /// The measured time, second by second.
    pub seconds: Vec<Second>,
    /// (second, microseconds) of first tokens, by when they were due.
    pub first_tokens: Vec<(f32, u32)>,
    /// Edits that were answered, at any time.
    pub acknowledged_ever: u64,
    limit: Duration,
}

/// An hour; longer ones count as one.
const LONGEST: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

impl Tally {
    fn new(limit: Duration) -> Result<Self, LoadError> {
        let mut latencies = BTreeMap::new();
        for metric in Metric::ALL {
            latencies.insert(metric, Histogram::new_with_bounds(1, LONGEST, DIGITS)?);
        }
        Ok(Self {
            edits: EditCounts::default(),
            completions: CompletionCounts::default(),
            tokens: TokenCounts::default(),
            errors: BTreeMap::new(),
            compared: Compared::default(),
            latencies,
            seconds: Vec::new(),
            first_tokens: Vec::new(),
            acknowledged_ever: 0,
            limit,
        })
    }

    /// Records one time.
    pub fn latency(&mut self, metric: Metric, time: Duration) {
        self.latency_of(metric, time, 1);
    }

    /// Records a time that `count` events took each.
    pub fn latency_of(&mut self, metric: Metric, time: Duration, count: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST).max(1);
        if let Some(histogram) = self.latencies.get_mut(&metric) {
            histogram.saturating_record_n(micros, count);
        }
    }

    /// A quantile from 0 to 1; none where nothing was measured.
    pub fn quantile(&self, metric: Metric, quantile: f64) -> Option<Duration> {
        let histogram = self.latencies.get(&metric).filter(|histogram| !histogram.is_empty())?;
        Some(Duration::from_micros(histogram.value_at_quantile(quantile)))
    }

    /// A completion without a token was given up after so long.
    pub fn given_up(&mut self, waited: Duration) {
        if waited > self.limit {
            self.completions.given_up_late += 1;
        }
    }

    /// A first token came after so long.
    pub fn answered(&mut self, waited: Duration) {
        self.completions.answered += 1;
        if waited <= self.limit {
            self.completions.within_limit += 1;
        }
    }

    /// Adds what the server says of a completion; its first token came so long after the call was sent.
    pub fn timings(&mut self, timings: &v1::Timings, since_sent: Duration) {
        let tokens = &mut self.tokens;
        tokens.encoded += u64::from(timings.tokens_encoded);
        tokens.encoded_ahead += u64::from(timings.tokens_encoded_ahead);
        tokens.rotated += u64::from(timings.tokens_rotated);
        tokens.reused += u64::from(timings.tokens_reused);
        tokens.adopted += u64::from(timings.tokens_adopted);
        let server = Duration::from_micros(timings.first_token_us);
        self.latency(Metric::ServerFirstToken, server);
        let beside = timings.first_token_us.saturating_sub(timings.compute_us);
        self.latency(Metric::ServerBesideSteps, Duration::from_micros(beside));
        self.latency(Metric::OutsideServer, since_sent.saturating_sub(server));
        if timings.edit_to_first_token_us > 0 {
            let since_edit = Duration::from_micros(timings.edit_to_first_token_us);
            self.latency(Metric::ServerEditToFirstToken, since_edit);
        }
    }
}

/// Where sessions put what they measure. What was due before the measured time is not kept, errors excepted.
pub(crate) struct Recorder {
    /// When the measured time begins.
    from: Instant,
    tally: Mutex<Tally>,
}

impl Recorder {
    /// Measures what is due from a moment on; first tokens that come later than `limit` are of no use.
    pub fn new(from: Instant, limit: Duration) -> Result<Self, LoadError> {
        Ok(Self { from, tally: Mutex::new(Tally::new(limit)?) })
    }

    /// What is always kept.
    pub fn always<T>(&self, record: impl FnOnce(&mut Tally) -> T) -> T {
        // A panic in the middle of a count leaves counts that can still be read.
        record(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is kept if it was due in the measured time.
    pub fn record(&self, due: Instant, record: impl FnOnce(&mut Tally)) {
        if due >= self.from {
            self.always(record);
        }
    }

    /// Adds to the second in which something was due.
    pub fn second(&self, due: Instant, add: impl FnOnce(&mut Second)) {
        self.record(due, |tally| {
            let index = (due - self.from).as_secs() as usize;
            if tally.seconds.len() <= index {
                tally.seconds.resize(index + 1, Second::default());
            }
            add(&mut tally.seconds[index]);
        });
    }

    /// The first token of a completion came, so long after it was due.
    pub fn first_token(&self, due: Instant, waited: Duration) {
        self.record(due, |tally| {
            let micros = u32::try_from(waited.as_micros()).unwrap_or(u32::MAX);
            tally.first_tokens.push(((due - self.from).as_secs_f32(), micros));
            tally.latency(Metric::FirstToken, waited);
            tally.answered(waited);
        });
        self.second(due, |second| second.answers += 1);
    }

    /// A call failed.
    pub fn error(&self, due: Instant, error: &crate::target::CallError) {
        self.always(|tally| {
            let count = tally.errors.entry(error.code.clone()).or_default();
            if count.count == 0 {
                count.example.clone_from(&error.message);
            }
            count.count += 1;
        });
        self.second(due, |second| second.errors += 1);
    }
}
