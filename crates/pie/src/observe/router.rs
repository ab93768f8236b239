//! A router's metrics.

use super::out::{Out, seconds};
use pie_proto::Reason;
use pie_router::stats::{GroupEvent, Outcome, Stats};
use pie_router::{Phase, Serving, State, Watched};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt::Error;
use tokio::sync::watch;

/// A router that serves.
#[derive(Clone)]
pub struct RouterSource {
    watched: Watched,
    state: watch::Receiver<State>,
    phase: watch::Receiver<Phase>,
}

impl RouterSource {
    /// Looks at a router.
    pub fn of(serving: &Serving) -> Self {
        Self { watched: serving.watch(), state: serving.state(), phase: serving.phase() }
    }

    pub(super) fn readiness(&self) -> Result<(), String> {
        pie_router::readiness(&self.state.borrow(), *self.phase.borrow())
    }
}

impl std::fmt::Debug for RouterSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouterSource").finish_non_exhaustive()
    }
}

impl Collector for RouterSource {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Out(encoder);
        let stats = self.watched.stats();
        work(&mut out, stats)?;
        sets(&mut out, stats)?;
        times(&mut out, stats)?;
        self.ranks(&mut out)?;
        now(&mut out, stats)?;
        self.own(&mut out)
    }
}

/// What was done.
fn work(out: &mut Out<'_>, stats: &Stats) -> Result<(), Error> {
    let counters = [
        ("pie_steps", "Plans sent to the ranks.", &stats.steps),
        ("pie_passes", "Forward passes in them.", &stats.passes),
        ("pie_interrupts", "Plans that were cut short because something else waited.", &stats.interrupts),
        ("pie_tokens_encoded", "Tokens of documents and cursors that were encoded.", &stats.tokens_encoded),
        (
            "pie_tokens_refreshed",
            "Tokens encoded anew in sessions past their rotation budget.",
            &stats.tokens_refreshed,
        ),
        ("pie_tokens_rotated", "Cached keys that were turned.", &stats.tokens_rotated),
        (
            "pie_tokens_reused",
            "Context tokens of completions that were in the cache when asked for.",
            &stats.tokens_reused,
        ),
        (
            "pie_tokens_adopted",
            "Tokens of documents whose cache was taken over from a completion.",
            &stats.tokens_adopted,
        ),
        ("pie_tokens_shared", "Tokens whose cache was shared with another session.", &stats.tokens_shared),
        ("pie_tokens_generated", "Tokens generated.", &stats.tokens_generated),
        ("pie_edits", "Calls of ApplyEdits that were applied.", &stats.edits),
        ("pie_sessions_opened", "Sessions opened.", &stats.sessions_opened),
        ("pie_sessions_dropped", "Sessions whose cache was dropped to make room.", &stats.sessions_dropped),
        (
            "pie_sessions_refreshed",
            "Sessions encoded anew past their rotation budget.",
            &stats.sessions_refreshed,
        ),
    ];
    counters.into_iter().try_for_each(|(name, help, counter)| out.counter(name, help, counter.get()))
}

/// Counters of closed sets: each member is there from the first scrape on, so that a rate sees its first event.
fn sets(out: &mut Out<'_>, stats: &Stats) -> Result<(), Error> {
    let outcomes = Outcome::ALL.map(|(outcome, name)| ([("outcome", name)], stats.outcomes(outcome)));
    out.counters("pie_completions", "Completions that ended, by how.", outcomes)?;
    let reasons = Reason::ALL.iter().map(|reason| {
        let code = code(*reason);
        ([("reason", reason.as_str()), ("code", code)], stats.faults(*reason))
    });
    out.counters("pie_errors", "Calls and completions that were refused or failed, by reason.", reasons)?;
    let events = GroupEvent::ALL.map(|(event, name)| ([("event", name)], stats.events(event)));
    out.counters("pie_group_events", "What happened to the group of ranks.", events)
}

/// The gRPC code as its specification spells it.
fn code(reason: Reason) -> &'static str {
    use tonic::Code;
    match reason.code() {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::Internal => "INTERNAL",
        _ => "UNKNOWN",
    }
}

fn times(out: &mut Out<'_>, stats: &Stats) -> Result<(), Error> {
    let histograms = [
        ("pie_step_seconds", "A plan on rank 0, from its begin to its end.", &stats.step),
        ("pie_step_collective_seconds", "Of that, in collectives, waiting included.", &stats.collective),
        (
            "pie_step_skew_seconds",
            "By how much the slowest rank's own work in a plan was longer than the fastest's.",
            &stats.skew,
        ),
        (
            "pie_time_to_first_token_seconds",
            "From the call of a completion to its first token.",
            &stats.first_token,
        ),
        ("pie_inter_token_latency_seconds", "From a completion's token to its next.", &stats.inter_token),
        (
            "pie_edit_to_first_token_seconds",
            "From an edit's arrival to the first token of the completion behind it.",
            &stats.edit_to_first_token,
        ),
    ];
    histograms.into_iter().try_for_each(|(name, help, histogram)| out.histogram(name, help, histogram))
}

/// What is so now.
fn now(out: &mut Out<'_>, stats: &Stats) -> Result<(), Error> {
    out.gauge("pie_sessions", "Open sessions.", stats.sessions.get())?;
    let completions =
        [([("state", "running")], stats.running.get()), ([("state", "waiting")], stats.waiting.get())];
    out.gauges(
        "pie_completions_in_progress",
        "Completions in the step in flight, or before it.",
        completions,
    )?;
    out.gauge("pie_streams", "Streams of completions that are open.", stats.streams.get())?;
    out.gauge(
        "pie_changes_waiting",
        "Changes of tables that wait for the step to end.",
        stats.changes_waiting.get(),
    )?;
    out.gauge("pie_kv_slots", "KV slots of the group; 0 without one.", stats.slots.get())?;
    let help = "KV slots that are not free, with what ended completions left until somebody needs it.";
    out.gauge("pie_kv_slots_used", help, stats.slots_used.get())?;
    out.gauge("pie_group_epoch", "The epoch that is served; 0 without a group.", stats.epoch.get())
}

impl RouterSource {
    fn ranks(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let names: Vec<String> = (0..self.watched.ranks().len()).map(|rank| rank.to_string()).collect();
        let ranks = || names.iter().map(|name| [("rank", name.as_str())]).zip(self.watched.ranks());
        let compute = ranks().map(|(labels, rank)| (labels, seconds(rank.compute_us.get())));
        let help = "Each rank's own work in plans, without collectives, as it reported it.";
        out.counters("pie_group_rank_compute_seconds", help, compute)?;
        let collective = ranks().map(|(labels, rank)| (labels, seconds(rank.collective_us.get())));
        let help = "Each rank's time in collectives, waiting for slower ranks included, as it reported it.";
        out.counters("pie_group_rank_collective_seconds", help, collective)
    }

    /// Of the router rather than the group.
    fn own(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let queue = self.watched.queue_length() as u64;
        out.gauge("pie_owner_queue_length", "Calls and reports that wait for the group's owner.", queue)?;
        let serving = u64::from(*self.state.borrow() == State::Serving);
        out.gauge("pie_group_serving", "1 if this router serves a formed group.", serving)?;
        let draining = u64::from(*self.phase.borrow() == Phase::Draining);
        out.gauge("pie_draining", "1 while the router is drained.", draining)
    }
}
