//! A router's metrics.

use super::out::{Out, seconds};
use pie_group::call::Why;
use pie_group::stats::{Counter, Gauge, GroupEvent, Histogram, Outcome, RankTimes, Stats};
use pie_group::{GroupState, Watched};
use pie_proto::Reason;
use pie_router::{Phase, Readiness, RunningRouter};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt::Error;
use std::sync::Arc;
use tokio::sync::watch;

/// A router that serves.
#[derive(Clone)]
pub struct RouterSource {
    pub(super) readiness: Readiness,
    phase: watch::Receiver<Phase>,
    groups: Vec<OwnedGroup>,
    /// Of the router itself.
    stats: Arc<Stats>,
    /// Of its HTTP API, where it has one.
    http: Option<Arc<pie_http::RequestStats>>,
}

/// One of its groups.
#[derive(Clone)]
struct OwnedGroup {
    name: String,
    watched: Watched,
}

impl RouterSource {
    /// Looks at a router.
    pub fn of(serving: &RunningRouter, http: Option<&pie_http::HttpServer>) -> Self {
        let groups = serving.groups().into_iter();
        let groups = groups.map(|(group, watched)| OwnedGroup { name: group.to_string(), watched }).collect();
        Self {
            readiness: serving.readiness(),
            phase: serving.phase(),
            groups,
            stats: serving.stats(),
            http: http.map(pie_http::HttpServer::stats),
        }
    }

    /// A number of each group.
    fn each<'a, N>(&'a self, number: impl Fn(&'a OwnedGroup) -> N) -> Vec<([(&'static str, &'a str); 1], N)> {
        self.groups.iter().map(|group| ([("group", group.name.as_str())], number(group))).collect()
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
        self.work(&mut out)?;
        self.sets(&mut out)?;
        self.times(&mut out)?;
        self.ranks(&mut out)?;
        self.now(&mut out)?;
        self.own(&mut out)?;
        self.http.iter().try_for_each(|http| super::front::encode(http, &mut out))
    }
}

type StatsAccessor<T> = fn(&Stats) -> &T;

/// Counters of a group's work: name, help, and where to read it.
const WORK: &[(&str, &str, StatsAccessor<Counter>)] = &[
    ("pie_steps", "Plans sent to the ranks.", |stats| &stats.steps.steps),
    ("pie_passes", "Forward passes in them.", |stats| &stats.steps.passes),
    ("pie_interrupts", "Plans that were cut short because something else waited.", |stats| {
        &stats.steps.interrupts
    }),
    ("pie_tokens_encoded", "Tokens of documents and cursors that were encoded.", |stats| {
        &stats.tokens.encoded
    }),
    (
        "pie_tokens_repaired",
        "Tokens encoded again because what they said was older than what stands on their left.",
        |stats| &stats.tokens.repaired,
    ),
    ("pie_tokens_rotated", "Cached keys that were turned.", |stats| &stats.tokens.rotated),
    ("pie_tokens_reused", "Context tokens of completions that were in the cache when asked for.", |stats| {
        &stats.tokens.reused
    }),
    ("pie_tokens_adopted", "Tokens of documents whose cache was taken over from a completion.", |stats| {
        &stats.tokens.adopted
    }),
    ("pie_tokens_shared", "Tokens whose cache was shared with another session.", |stats| {
        &stats.tokens.shared
    }),
    ("pie_tokens_generated", "Tokens generated.", |stats| &stats.tokens.generated),
    ("pie_tokens_reloaded", "Tokens of documents whose cache the ranks read from disk.", |stats| {
        &stats.tokens.reloaded
    }),
    ("pie_tokens_drafted", "Tokens that were looked up ahead for completions.", |stats| {
        &stats.tokens.drafted
    }),
    ("pie_tokens_accepted", "Tokens that were looked up ahead and then drawn.", |stats| {
        &stats.tokens.accepted
    }),
    ("pie_edits", "Calls of ApplyEdits that were applied.", |stats| &stats.sessions.edits),
    ("pie_sessions_opened", "Sessions opened.", |stats| &stats.sessions.opened),
    ("pie_sessions_recalled", "Sessions that the ranks had kept when their router was gone.", |stats| {
        &stats.sessions.recalled
    }),
    ("pie_sessions_taken", "Sessions that came from another group or router.", |stats| &stats.sessions.taken),
    ("pie_sessions_given", "Sessions that went to another group or router.", |stats| &stats.sessions.given),
    ("pie_sessions_dropped", "Sessions whose cache was dropped to make room.", |stats| {
        &stats.sessions.dropped
    }),
    (
        "pie_repairs_given_up",
        "Repairs that were given up in the middle because somebody wanted something.",
        |stats| &stats.steps.given_up,
    ),
];

const TIMES: &[(&str, &str, StatsAccessor<Histogram>)] = &[
    ("pie_step_seconds", "A plan on rank 0, from its begin to its end.", |stats| &stats.steps.time),
    ("pie_step_collective_seconds", "Of that, in collectives, waiting included.", |stats| {
        &stats.steps.collective
    }),
    (
        "pie_step_skew_seconds",
        "By how much the slowest rank's own work in a plan was longer than the fastest's.",
        |stats| &stats.steps.skew,
    ),
    ("pie_time_to_first_token_seconds", "From the call of a completion to its first token.", |stats| {
        &stats.completions.first_token
    }),
    ("pie_inter_token_latency_seconds", "From a completion's token to its next.", |stats| {
        &stats.completions.inter_token
    }),
    (
        "pie_edit_to_first_token_seconds",
        "From an edit's arrival to the first token of the completion behind it.",
        |stats| &stats.completions.edit_to_first_token,
    ),
];

/// What is so now.
const NOW: &[(&str, &str, StatsAccessor<Gauge>)] = &[
    ("pie_sessions", "Open sessions.", |stats| &stats.published.sessions),
    ("pie_document_tokens", "Tokens of all documents, in the cache or not.", |stats| &stats.published.tokens),
    (
        "pie_tokens_stale",
        "Tokens in the cache that were encoded before an edit on their left, and not since.",
        |stats| &stats.published.stale,
    ),
    (
        "pie_free_rows",
        "Tokens that a pass takes along for next to nothing; 0 until the ranks' times show any.",
        |stats| &stats.published.free_rows,
    ),
    ("pie_changes_waiting", "Changes of tables that wait for the step to end.", |stats| {
        &stats.published.changes_waiting
    }),
    ("pie_kv_slots", "KV slots of the group; 0 without one.", |stats| &stats.published.slots),
    (
        "pie_kv_slots_used",
        "KV slots that are not free, with what ended completions left until somebody needs it.",
        |stats| &stats.published.slots_used,
    ),
    ("pie_group_epoch", "The epoch that is served; 0 without a group.", |stats| &stats.published.epoch),
];

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

impl RouterSource {
    fn work(&self, out: &mut Out<'_>) -> Result<(), Error> {
        for (name, help, read) in WORK {
            out.counters(name, help, self.each(|group| read(group.watched.stats()).get()))?;
        }
        Ok(())
    }

    /// Counters of closed sets: each member is there from the first scrape on, so that a rate sees its first event.
    fn sets(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let outcomes = self.groups.iter().flat_map(|group| {
            let stats = group.watched.stats();
            let outcome = move |(outcome, name)| {
                ([("group", group.name.as_str()), ("outcome", name)], stats.outcomes(outcome))
            };
            Outcome::ALL.into_iter().map(outcome)
        });
        out.counters("pie_completions", "Completions that ended, by how.", outcomes)?;
        let closed = self.groups.iter().flat_map(|group| {
            let stats = group.watched.stats();
            let closed =
                move |(why, name)| ([("group", group.name.as_str()), ("why", name)], stats.closings(why));
            Why::ALL.into_iter().map(closed)
        });
        out.counters("pie_sessions_closed", "Sessions that were closed, by why.", closed)?;
        // What no owner saw has no group.
        let owners = self.groups.iter().map(|group| (group.name.as_str(), group.watched.stats()));
        let errors = owners.chain([("", self.stats.as_ref())]).flat_map(|(group, stats)| {
            let error = move |reason: &Reason| {
                let labels = [("group", group), ("reason", reason.as_str()), ("code", code(*reason))];
                (labels, stats.faults(*reason))
            };
            Reason::ALL.iter().map(error)
        });
        out.counters("pie_errors", "Calls and completions that were refused or failed, by reason.", errors)?;
        let events = self.groups.iter().flat_map(|group| {
            let stats = group.watched.stats();
            let event =
                move |(event, name)| ([("group", group.name.as_str()), ("event", name)], stats.events(event));
            GroupEvent::ALL.into_iter().map(event)
        });
        out.counters("pie_group_events", "What happened to the group of ranks.", events)
    }

    fn times(&self, out: &mut Out<'_>) -> Result<(), Error> {
        for (name, help, read) in TIMES {
            out.histograms(name, help, self.each(|group| read(group.watched.stats())))?;
        }
        Ok(())
    }

    fn now(&self, out: &mut Out<'_>) -> Result<(), Error> {
        for (name, help, read) in NOW {
            out.gauges(name, help, self.each(|group| read(group.watched.stats()).get()))?;
        }
        let completions = self.groups.iter().flat_map(|group| {
            let stats = group.watched.stats();
            let states =
                [("running", stats.published.running.get()), ("waiting", stats.published.waiting.get())];
            states.map(|(state, number)| ([("group", group.name.as_str()), ("state", state)], number))
        });
        let help = "Completions in the step in flight, or before it.";
        out.gauges("pie_completions_in_progress", help, completions)
    }

    fn ranks(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let names: Vec<String> = (0..64).map(|rank| rank.to_string()).collect();
        let each = |read: fn(&RankTimes) -> f64| -> Vec<_> {
            let ranks = self.groups.iter().flat_map(|group| {
                let ranks = names.iter().zip(group.watched.ranks());
                ranks.map(|(rank, times)| {
                    ([("group", group.name.as_str()), ("rank", rank.as_str())], read(times))
                })
            });
            ranks.collect()
        };
        let help = "Each rank's own work in plans, without collectives, as it reported it.";
        out.counters("pie_group_rank_compute_seconds", help, each(|rank| seconds(rank.compute_us.get())))?;
        let help = "Each rank's time in collectives, waiting for slower ranks included, as it reported it.";
        out.counters(
            "pie_group_rank_collective_seconds",
            help,
            each(|rank| seconds(rank.collective_us.get())),
        )
    }

    /// Of owners as tasks, and of the router itself.
    fn own(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let queues = self.each(|group| group.watched.queue_length() as u64);
        out.gauges("pie_owner_queue_length", "Calls and reports that wait for the group's owner.", queues)?;
        let serving = self.each(|group| u64::from(*group.watched.state().borrow() == GroupState::Serving));
        out.gauges("pie_group_serving", "1 if this router serves the formed group.", serving)?;
        let help = "Streams of completions that are open, forwarded ones too.";
        out.gauge("pie_streams", help, self.stats.published.streams.get())?;
        let help = "Completions whose stream broke, and that went on.";
        out.counter("pie_completions_resumed", help, self.stats.completions.resumed.get())?;
        let draining = u64::from(*self.phase.borrow() == Phase::Draining);
        out.gauge("pie_draining", "1 while the router is drained.", draining)
    }
}
