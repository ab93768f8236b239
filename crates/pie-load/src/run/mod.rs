//! A run: sessions that play streams at their own times, whatever the server does.

mod flight;
mod player;
mod process;
mod source;
mod stop;

pub use process::ProcessUse;
pub use source::EditStreamSource;
pub use stop::{Stop, Stopper};

use crate::error::LoadError;
use crate::measure::{Metric, Recorder};
use crate::report::{LoadReport, PoolFacts, RunFacts};
use crate::script::{Caret, CompletionMode};
use crate::target::{CallError, LoadTarget};
use pie_proto::v1;
use player::{Clock, Player};
use process::ProcessWatch;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Documents that are opened at the same time before a run.
const OPENING: usize = 16;
/// Figures of less are none.
const LEAST: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(500);
/// Documents that are read back and closed at the same time: a pool's queue is not endless.
const LEAVING: usize = 64;
/// How long a pool may take to encode the documents that were opened, and how long it must be quiet.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);
const QUIET: Duration = Duration::from_millis(400);
/// A pool frees slots when its next step ends.
const FREED_WITHIN: Duration = Duration::from_secs(10);

/// How fast streams are played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tempo {
    /// So many times as fast as written.
    Speed(f64),
    /// So that all sessions together offer so many edits a second.
    Rate(f64),
}

/// When completions are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionTrigger {
    /// As the stream says; a newer edit ends them.
    AsWritten,
    /// With every keystroke; the one before is dropped by the client.
    EveryKeystroke,
}

/// How to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Documents that are open at any time.
    pub sessions: usize,
    /// How fast streams are played.
    pub tempo: Tempo,
    /// Played, but not measured, before the measured time.
    pub warmup: Duration,
    /// The measured time.
    pub duration: Duration,
    /// How long what was due by then may still take.
    pub drain: Duration,
    /// The most tokens of a completion, where its script does not say.
    pub tokens: u32,
    /// A first token that comes later is of no use to anybody.
    pub limit: Duration,
    /// When completions are asked for.
    pub asking: CompletionTrigger,
    /// Where they are asked for, whatever the stream says.
    pub place: Option<Caret>,
    /// What they see, whatever the stream says.
    pub mode: Option<CompletionMode>,
    /// How caches follow edits.
    pub strategy: v1::Strategy,
    /// Compare every document when it is closed.
    pub compare: bool,
    /// A process on this machine whose processor time and memory are reported.
    pub process: Option<u32>,
}

/// What somebody who watches sees.
#[derive(Clone, Debug, Default)]
pub struct RunSnapshot {
    /// Since the start, warm-up included.
    pub elapsed: Duration,
    /// Until nothing more is due.
    pub total: Duration,
    /// Edits that were answered.
    pub edits: u64,
    /// Completions whose first token came.
    pub answers: u64,
    /// Median of the time from an edit to the first token.
    pub p50: Option<Duration>,
    /// 99 % are faster.
    pub p99: Option<Duration>,
    /// Calls that failed.
    pub errors: u64,
}

/// What all sessions of a run share.
pub(crate) struct RunState {
    /// How to run.
    pub options: Options,
    /// What is played.
    pub source: EditStreamSource,
    /// Where to.
    pub target: LoadTarget,
    /// Names of sessions begin with it: two runs at one pool do not meet.
    pub name: String,
    /// Times as fast as the streams are written.
    pub speed: f64,
    /// Places for sessions that read their document back and close it.
    pub leaving: Semaphore,
    /// Whether the run is cut short.
    pub stop: Stop,
}

/// Plays streams and measures.
///
/// # Errors
/// No session can be opened, or the rate cannot be reached.
pub async fn run(
    options: &Options,
    source: &EditStreamSource,
    target: &LoadTarget,
    watch: &mut (dyn FnMut(&RunSnapshot) + Send),
) -> Result<LoadReport, LoadError> {
    run_until(options, source, target, watch, Stop::never()).await
}

/// The same, until it is cut short: then what was opened is closed, and the report is of the time until then.
///
/// # Errors
/// As [`run`], and [`LoadError::Interrupted`] if nothing was measured yet.
pub async fn run_until(
    options: &Options,
    source: &EditStreamSource,
    target: &LoadTarget,
    watch: &mut (dyn FnMut(&RunSnapshot) + Send),
    stop: Stop,
) -> Result<LoadReport, LoadError> {
    let speed = speed(options, source)?;
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let name = format!("load-{:x}-{:x}", std::process::id(), nanos & 0xffff_ffff);
    let (source, target) = (source.clone(), target.clone());
    let leaving = Semaphore::new(LEAVING);
    let shared = Arc::new(RunState {
        options: options.clone(),
        source,
        target,
        name,
        speed,
        leaving,
        stop: stop.clone(),
    });
    let target = &shared.target;
    let before = target.describe().await;
    let (players, failures) = open(&shared).await?;
    tokio::select! {
        () = settle(target) => {}
        () = stop.set() => {}
    }
    let start = Instant::now();
    let from = start + options.warmup;
    let end = from + options.duration;
    let recorder = Arc::new(Recorder::new(from, options.limit)?);
    failures.iter().for_each(|error| recorder.error(start, error));
    let clock = Clock { start, end, hard: end + options.drain };
    let mut playing = JoinSet::new();
    for player in players {
        playing.spawn(player.play(clock, recorder.clone()));
    }
    let mut process = options.process.map(ProcessWatch::new);
    observe(&mut playing, &recorder, clock, &mut process, watch).await;
    let after = after(target, before.as_ref()).await;
    let cut = stop.since().filter(|since| *since < end);
    let measured = cut.map_or(options.duration, |since| since.saturating_duration_since(from));
    if measured < LEAST {
        return Err(LoadError::Interrupted);
    }
    let facts = RunFacts {
        interrupted: cut.is_some(),
        ..RunFacts::of(&shared, measured, recorder.always(|tally| tally.edits.clone()), before.as_ref())
    };
    let pool = PoolFacts::of(before.as_ref(), after.as_ref());
    let process = process.and_then(ProcessWatch::finish);
    let repeats = target.repeats();
    Ok(recorder.always(|tally| LoadReport { repeats, ..LoadReport::of(facts, tally, pool, process) }))
}

fn speed(options: &Options, source: &EditStreamSource) -> Result<f64, LoadError> {
    match options.tempo {
        Tempo::Speed(speed) => Ok(speed),
        Tempo::Rate(rate) => {
            let natural = source.edits_per_second();
            if natural > 0.0 {
                Ok(rate / (natural * options.sessions as f64))
            } else {
                Err(LoadError::NoEdits)
            }
        }
    }
}

/// Opens every session's first document. Those that cannot be opened are tried again with their first edit.
async fn open(shared: &Arc<RunState>) -> Result<(Vec<Player>, Vec<CallError>), LoadError> {
    let turns = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for index in 0..shared.options.sessions {
        let (shared, turns) = (shared.clone(), turns.clone());
        opening.spawn(async move {
            // Closed never; were it, all would open at once, which is no harm.
            let _turn = turns.acquire_owned().await;
            Player::open(shared, index).await
        });
    }
    let (mut players, mut failures) = (Vec::new(), Vec::new());
    while let Some(opened) = opening.join_next().await {
        // A player that panicked is a bug of this crate, and said so already.
        let Ok((player, failure)) = opened else { continue };
        players.push(player);
        failures.extend(failure);
    }
    match failures.first() {
        Some(first) if failures.len() == players.len() => {
            Err(LoadError::NothingOpened(format!("{}: {}", first.code, first.message)))
        }
        _ => Ok((players, failures)),
    }
}

/// Waits until a pool that counts its steps makes none: it has encoded what was opened. Others are taken as they are.
async fn settle(target: &LoadTarget) {
    let until = Instant::now() + SETTLED_WITHIN;
    let mut steps = None;
    while let Some(about) = target.describe().await {
        let counters = about.groups.iter().map(|group| group.counters.as_ref());
        let Some(counted) = counters.map(|counters| Some(counters?.steps)).sum::<Option<u64>>() else {
            return;
        };
        if steps.replace(counted) == Some(counted) || Instant::now() >= until {
            return;
        }
        tokio::time::sleep(QUIET).await;
    }
}

/// Waits for all sessions, and tells how it goes.
async fn observe(
    playing: &mut JoinSet<()>,
    recorder: &Recorder,
    clock: Clock,
    process: &mut Option<ProcessWatch>,
    watch: &mut (dyn FnMut(&RunSnapshot) + Send),
) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            done = playing.join_next() => if done.is_none() { break },
            _ = ticks.tick() => {
                // Reading documents back and closing them is no part of it.
                if let Some(process) = process.as_mut().filter(|_| Instant::now() < clock.end) {
                    process.look();
                }
                watch(&snapshot(recorder, clock));
            }
        }
    }
}

fn snapshot(recorder: &Recorder, clock: Clock) -> RunSnapshot {
    recorder.always(|tally| RunSnapshot {
        elapsed: clock.start.elapsed(),
        total: clock.end - clock.start,
        edits: tally.edits.acknowledged,
        answers: tally.completions.answered,
        p50: tally.quantile(Metric::EditToFirstToken, 0.5),
        p99: tally.quantile(Metric::EditToFirstToken, 0.99),
        errors: tally.errors.values().map(|error| error.count).sum(),
    })
}

/// The pool when all is closed; it is given time to free what it held.
async fn after(
    target: &LoadTarget,
    before: Option<&v1::DescribePoolResponse>,
) -> Option<v1::DescribePoolResponse> {
    let until = Instant::now() + FREED_WITHIN;
    loop {
        let after = target.describe().await;
        let freed = PoolFacts::of(before, after.as_ref()).is_none_or(|facts| facts.leaked() == 0);
        if freed || Instant::now() >= until {
            return after;
        }
        tokio::time::sleep(TICK / 5).await;
    }
}
