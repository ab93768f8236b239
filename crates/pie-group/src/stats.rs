//! What the router counts: plain atomics, so that counting costs an addition, and whoever reads holds nobody up. This is the
//! only place where it is counted: DescribePool and `/metrics` read the same numbers.

use crate::call::Why;
use pie_proto::{Fault, Reason, v1};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is what it is now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces it.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// As it was set last.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets, microseconds: from a step of a tiny model to what nobody waits for; 100, 300 and 700 ms, which
/// people feel, are among them.
pub const BOUNDS_US: [u64; 18] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 50_000, 75_000, 100_000, 200_000, 300_000, 500_000,
    700_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Behind the last bound, one more.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// It took so many microseconds once more.
    pub fn observe_us(&self, microseconds: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < microseconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// It took so long once more.
    pub fn observe(&self, time: Duration) {
        self.observe_us(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// All that was observed, microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }

    /// How many in each bucket, not added up; the last is behind the last of [`BOUNDS_US`].
    pub fn buckets(&self) -> [u64; BOUNDS_US.len() + 1] {
        std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed))
    }
}

/// How a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By its own end: length, stop string, stop token.
    Finished,
    /// By a newer edit.
    Edited,
    /// By an error.
    Failed,
    /// Its client went away.
    Abandoned,
}

impl Outcome {
    /// All, and what they are called.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Finished, "finished"),
        (Self::Edited, "edited"),
        (Self::Failed, "failed"),
        (Self::Abandoned, "abandoned"),
    ];
}

/// What happened to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// It was formed, and serves.
    Formed,
    /// An attempt to form it failed; the next follows.
    NotFormed,
    /// A rank's stream ended.
    RankFailed,
    /// The lease of the ownership ran out.
    OwnershipLost,
    /// It was lost, whatever the cause.
    Lost,
    /// Its owner panicked, and went on.
    OwnerPanicked,
}

impl GroupEvent {
    /// All, and what they are called.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Formed, "formed"),
        (Self::NotFormed, "not_formed"),
        (Self::RankFailed, "rank_failed"),
        (Self::OwnershipLost, "ownership_lost"),
        (Self::Lost, "lost"),
        (Self::OwnerPanicked, "owner_panicked"),
    ];
}

/// A counter for each of a closed set.
#[derive(Debug)]
struct CounterTable<const N: usize>([Counter; N]);

impl<const N: usize> Default for CounterTable<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// What one rank of the group reported.
#[derive(Debug, Default)]
pub struct RankTimes {
    /// Its own work, without waiting for others, microseconds.
    pub compute_us: Counter,
    /// In collectives, waiting included, microseconds.
    pub collective_us: Counter,
}

/// Plans and their passes.
#[derive(Debug, Default)]
pub struct StepStats {
    /// Plans sent to the ranks.
    pub steps: Counter,
    /// Forward passes in them.
    pub passes: Counter,
    /// Plans that were cut short because something else waited.
    pub interrupts: Counter,
    /// Repairs that were given up in the middle because somebody wanted something.
    pub given_up: Counter,
    /// Rank 0's whole steps.
    pub time: Histogram,
    /// Of those, in collectives.
    pub collective: Histogram,
    /// By how much the slowest rank's own work in a step was longer than the fastest's.
    pub skew: Histogram,
}

/// What became of tokens.
#[derive(Debug, Default)]
pub struct TokenStats {
    /// Tokens of documents and cursors that were encoded.
    pub encoded: Counter,
    /// Tokens encoded again because what they said was older than what stands on their left.
    pub repaired: Counter,
    /// Keys that were turned.
    pub rotated: Counter,
    /// Context tokens of completions that were in the cache when asked for.
    pub reused: Counter,
    /// Tokens of documents whose rows were taken over from a completion.
    pub adopted: Counter,
    /// Tokens whose rows were shared with another session.
    pub shared: Counter,
    /// Tokens whose rows the ranks read from disk.
    pub reloaded: Counter,
    /// Tokens that were looked up ahead for completions.
    pub drafted: Counter,
    /// Of those, that were drawn then.
    pub accepted: Counter,
    /// Tokens that completions wrote.
    pub generated: Counter,
}

/// What became of sessions.
#[derive(Debug, Default)]
pub struct SessionStats {
    /// Opened for the first time.
    pub opened: Counter,
    /// That came from another group or router.
    pub taken: Counter,
    /// Documents that a new owner had from the ranks.
    pub recalled: Counter,
    /// That went to one.
    pub given: Counter,
    /// Whose rows were dropped to make room.
    pub dropped: Counter,
    /// Edits that were applied.
    pub edits: Counter,
    closed: CounterTable<{ Why::ALL.len() }>,
}

/// How completions went.
#[derive(Debug, Default)]
pub struct CompletionStats {
    /// From the call to the first token.
    pub first_token: Histogram,
    /// From each token to the next.
    pub inter_token: Histogram,
    /// From an edit to the first token behind it.
    pub edit_to_first_token: Histogram,
    /// Whose stream broke, and which were asked for again and taken: by the router that the client called.
    pub resumed: Counter,
    outcomes: CounterTable<{ Outcome::ALL.len() }>,
}

/// What is so now, as an owner publishes it: for those who do not ask the owner, to go by and to show.
#[derive(Debug, Default)]
pub struct OwnerGauges {
    /// Open sessions.
    pub sessions: Gauge,
    /// Tokens of all documents.
    pub tokens: Gauge,
    /// Completions that are in the step in flight.
    pub running: Gauge,
    /// Completions that wait for a step.
    pub waiting: Gauge,
    /// Changes of tables that wait for the step in flight to end.
    pub changes_waiting: Gauge,
    /// Slots of the group; 0 without one.
    pub slots: Gauge,
    /// Slots that are not free.
    pub slots_used: Gauge,
    /// Stale rows of all documents.
    pub stale: Gauge,
    /// Rows that a pass takes along for next to nothing.
    pub free_rows: Gauge,
    /// The epoch that is served; 0 without a group.
    pub epoch: Gauge,
    /// Positions of the model that was served last; 0 before the first.
    pub context_limit: Gauge,
    /// Streams of completions that are open.
    pub streams: Gauge,
}

/// Everything that a router counts. Nobody decides by it; what is decided by is [`OwnerGauges`].
#[derive(Debug, Default)]
pub struct Stats {
    /// Of plans and passes.
    pub steps: StepStats,
    /// Of tokens, by what became of them.
    pub tokens: TokenStats,
    /// Of sessions that came and went.
    pub sessions: SessionStats,
    /// Of completions, and how long they waited.
    pub completions: CompletionStats,
    /// What is so now, published by the owner after each turn.
    pub published: OwnerGauges,
    events: CounterTable<{ GroupEvent::ALL.len() }>,
    faults: CounterTable<{ Reason::ALL.len() }>,
}

impl Stats {
    /// A call, or a completion that had begun, is told no.
    pub fn fault(&self, fault: &Fault) {
        self.faults.0[fault.reason as usize].add(1);
    }

    /// How often that was for a reason.
    pub fn faults(&self, reason: Reason) -> u64 {
        self.faults.0[reason as usize].get()
    }

    /// A session was closed.
    pub fn closed(&self, why: Why) {
        self.sessions.closed.0[why as usize].add(1);
    }

    /// How many were closed so.
    pub fn closings(&self, why: Why) -> u64 {
        self.sessions.closed.0[why as usize].get()
    }

    /// A completion ended.
    pub fn ended(&self, outcome: Outcome) {
        self.completions.outcomes.0[outcome as usize].add(1);
    }

    /// How many ended so.
    pub fn outcomes(&self, outcome: Outcome) -> u64 {
        self.completions.outcomes.0[outcome as usize].get()
    }

    /// Something happened to the group.
    pub fn event(&self, event: GroupEvent) {
        self.events.0[event as usize].add(1);
    }

    /// How often it did.
    pub fn events(&self, event: GroupEvent) -> u64 {
        self.events.0[event as usize].get()
    }

    /// As DescribePool tells them.
    pub fn counters(&self) -> v1::Counters {
        let limits = Reason::ALL.iter().filter(|reason| reason.code() == tonic::Code::ResourceExhausted);
        v1::Counters {
            steps: self.steps.steps.get(),
            passes: self.steps.passes.get(),
            interrupts: self.steps.interrupts.get(),
            tokens_encoded: self.tokens.encoded.get(),
            tokens_repaired: self.tokens.repaired.get(),
            tokens_rotated: self.tokens.rotated.get(),
            tokens_reused: self.tokens.reused.get(),
            tokens_adopted: self.tokens.adopted.get(),
            tokens_shared: self.tokens.shared.get(),
            tokens_generated: self.tokens.generated.get(),
            tokens_drafted: self.tokens.drafted.get(),
            tokens_accepted: self.tokens.accepted.get(),
            tokens_reloaded: self.tokens.reloaded.get(),
            sessions_dropped: self.sessions.dropped.get(),
            refused: limits.map(|reason| self.faults(*reason)).sum(),
            compute_us: self.steps.time.sum_us(),
            collective_us: self.steps.collective.sum_us(),
            repairs_given_up: self.steps.given_up.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        let times = [0, 500, 501, 700_000, 700_001, u64::from(u32::MAX)];
        times.iter().for_each(|time| histogram.observe_us(*time));
        let buckets = histogram.buckets();
        let at = |bound: u64| buckets[BOUNDS_US.iter().position(|other| *other == bound).expect("a bound")];
        assert_eq!([at(500), at(1_000), at(700_000), at(1_000_000)], [2, 1, 1, 1]);
        assert_eq!((buckets[BOUNDS_US.len()], buckets.iter().sum::<u64>()), (1, 6));
        assert_eq!(histogram.sum_us(), 500 + 501 + 700_000 + 700_001 + u64::from(u32::MAX));
        assert!(BOUNDS_US.is_sorted());
    }

    #[test]
    fn closed_sets_are_counted_each_for_itself() {
        let stats = Stats::default();
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{reason}");
            (0..index).for_each(|_| stats.fault(&Fault::new(*reason, "")));
        }
        assert!(Reason::ALL.iter().enumerate().all(|(index, reason)| stats.faults(*reason) == index as u64));
        let refused = [Reason::KvExhausted, Reason::TenantLimit, Reason::Overloaded];
        assert_eq!(stats.counters().refused, refused.iter().map(|reason| *reason as u64).sum::<u64>());
        assert!(Outcome::ALL.iter().enumerate().all(|(index, (outcome, _))| *outcome as usize == index));
        assert!(GroupEvent::ALL.iter().enumerate().all(|(index, (event, _))| *event as usize == index));
    }
}
