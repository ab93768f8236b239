//! The engine thread: it owns the model and the cache, and runs one command at a time, so that every collective of a
//! rank is called from one place in one order (C1).

use crate::error::WorkerError;
use crate::rank::{Observer, RankExecutor, StepReport};
use crate::spill::{BlockCounts, Spill};
use crate::stats::RankStats;
use pie_comm::{Collective, CommError};
use pie_model::Compute;
use pie_plan::Group;
use pie_plan::image::TableImage;
use pie_plan::takeover::{Activity, TablesAt};
use pie_proto::plan::{SampledToken, Step};
use pie_words::{Epoch, Seq, SessionId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the engine.
const QUEUE: usize = 16;

/// What a rank is, for those who form groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankFacts {
    /// Slots of the cache.
    pub slots: u32,
    /// Bytes of this rank's weights.
    pub weight_bytes: u64,
    /// Bytes of the cache.
    pub kv_bytes: u64,
    /// For example `cpu`.
    pub device: String,
    /// The model's name.
    pub model: String,
    /// Parameters of the whole model.
    pub parameters: u64,
    /// Digest of the configuration; equal on all ranks of a group.
    pub fingerprint: String,
    /// Positions that the model knows.
    pub context_limit: u32,
    /// Size of the vocabulary.
    pub vocabulary: u32,
    /// Tokens that end a text.
    pub end_of_text: Vec<u32>,
}

/// Connects a rank to its peers.
pub trait FormGroup: Send {
    /// Forms the group of an epoch; `peers` are the collective addresses in rank order.
    ///
    /// # Errors
    /// A peer that does not answer within the deadline, or is of another epoch.
    fn form(
        &mut self,
        epoch: Epoch,
        peers: &[String],
        deadline: Duration,
    ) -> Result<Box<dyn Collective>, CommError>;
}

/// How to form a group.
#[derive(Clone, Debug)]
pub struct Formation {
    /// The owner's fencing token.
    pub epoch: Epoch,
    /// Collective addresses in rank order.
    pub peers: Vec<String>,
    /// C2: of every collective.
    pub deadline: Duration,
    /// Slots of the group: the fewest of any rank.
    pub slots: u32,
    /// The tables and rows that the rank has in this epoch stay, and so do its connections to its peers.
    pub goes_on_from: Option<Epoch>,
}

/// Cached rows of a session, read back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionRows {
    /// [tokens, kv heads of this rank, head dimension], row major, as rotated now.
    pub keys: Vec<f32>,
    /// Likewise.
    pub values: Vec<f32>,
    /// For each token the position that its key is rotated for; `None` while it waits to be encoded.
    pub rotated_for: Vec<Option<u32>>,
}

type ReplySender<T> = oneshot::Sender<Result<T, WorkerError>>;

enum EngineCommand {
    Form {
        formation: Formation,
        reply: ReplySender<()>,
    },
    Step {
        order: Box<StepOrder>,
        reply: ReplySender<StepReport>,
    },
    /// Where the rank stands, between two plans.
    Stand {
        reply: ReplySender<Option<TablesAt>>,
    },
    /// Its tables.
    Tables {
        reply: ReplySender<Vec<TableImage>>,
    },
    Read {
        session: SessionId,
        layer: usize,
        reply: ReplySender<SessionRows>,
    },
    Leave {
        epoch: Epoch,
    },
}

/// A step, and who wants it.
struct StepOrder {
    step: Step,
    /// The epoch of whoever sends it: the plan's own, or that of a new owner who levels the ranks.
    sender: Epoch,
    passes: mpsc::Sender<Vec<SampledToken>>,
}

/// A handle of the engine thread. The thread ends when all handles are gone.
#[derive(Clone)]
pub struct Engine {
    commands: mpsc::Sender<EngineCommand>,
    interrupted: Arc<AtomicU64>,
    fence: Arc<AtomicU64>,
    stats: Arc<RankStats>,
    blocks: Option<Arc<BlockCounts>>,
}

/// Follows a step on behalf of the engine's handles.
struct Follower<'a> {
    passes: mpsc::Sender<Vec<SampledToken>>,
    interrupted: &'a AtomicU64,
}

impl Observer for Follower<'_> {
    fn sampled(&mut self, tokens: &[SampledToken]) {
        // It holds a message for each pass; one who does not listen misses nothing, for the report has them all.
        let _ = self.passes.try_send(tokens.to_vec());
    }

    fn interrupted(&self, seq: Seq) -> bool {
        self.interrupted.load(Ordering::Relaxed) == seq.0
    }
}

impl Engine {
    /// Starts the thread. Rows go to disk and come back where there is one for it.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(
        compute: Box<dyn Compute>,
        peers: Box<dyn FormGroup>,
        spill: Option<Spill>,
    ) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (interrupted, fence) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stats: Arc<RankStats> = Arc::default();
        let blocks = spill.as_ref().map(Spill::counts);
        let engine = Loop {
            compute,
            peers,
            spill,
            interrupted: interrupted.clone(),
            fence: fence.clone(),
            served: Epoch(0),
            stats: stats.clone(),
        };
        std::thread::Builder::new().name("engine".into()).spawn(move || engine.run(receiver))?;
        Ok(Self { commands, interrupted, fence, stats, blocks })
    }

    /// What the rank counts. Does not keep the engine alive.
    pub fn stats(&self) -> Arc<RankStats> {
        self.stats.clone()
    }

    /// What became of rows on disk, if they go there.
    pub fn blocks(&self) -> Option<Arc<BlockCounts>> {
        self.blocks.clone()
    }

    /// Forms a group; the rank leaves the one before.
    ///
    /// # Errors
    /// [`WorkerError::Fenced`] for an epoch that is not newer, or [`WorkerError::Comm`].
    pub async fn form(&self, formation: Formation) -> Result<(), WorkerError> {
        self.call(|reply| EngineCommand::Form { formation, reply }).await
    }

    /// Runs a step. After an error of its own the rank is in no group; a step of another epoch than the one that is served is
    /// refused, and nothing else happens. The tokens of each pass but the last go to `passes` as they come, if it has room.
    ///
    /// # Errors
    /// [`WorkerError::Fenced`], [`WorkerError::NotFormed`], and see [`RankExecutor::step`].
    pub async fn step(
        &self,
        step: Step,
        passes: mpsc::Sender<Vec<SampledToken>>,
    ) -> Result<StepReport, WorkerError> {
        let sender = step.plan.epoch;
        self.call(|reply| EngineCommand::Step { order: Box::new(StepOrder { step, sender, passes }), reply })
            .await
    }

    /// Runs a step of the present epoch for who has fenced it: other ranks have it, and this one lacks it.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub async fn level(&self, step: Step, sender: Epoch) -> Result<StepReport, WorkerError> {
        let (passes, _) = mpsc::channel(1);
        self.call(|reply| EngineCommand::Step { order: Box::new(StepOrder { step, sender, passes }), reply })
            .await
    }

    /// Plans and formations of older epochs are refused from here on, also while a plan runs.
    pub fn fence(&self, epoch: Epoch) {
        self.fence.fetch_max(epoch.0, Ordering::SeqCst);
        self.stats.heard_of(epoch);
    }

    /// Where the rank stands, as soon as no plan runs; `None` if it is in no group.
    ///
    /// # Errors
    /// [`WorkerError::Stopped`].
    pub async fn stand(&self) -> Result<Option<TablesAt>, WorkerError> {
        self.call(|reply| EngineCommand::Stand { reply }).await
    }

    /// The rank's tables.
    ///
    /// # Errors
    /// [`WorkerError::NotFormed`].
    pub async fn tables(&self) -> Result<Vec<TableImage>, WorkerError> {
        self.call(|reply| EngineCommand::Tables { reply }).await
    }

    /// Ends a plan that runs after the pass in hand. One of an epoch that is over is left alone: plans of every epoch are
    /// numbered from 1, and the number would be another plan's by now.
    pub fn interrupt(&self, epoch: Epoch, seq: Seq) {
        if self.stats.epoch() == epoch.0 {
            self.interrupted.store(seq.0, Ordering::Relaxed);
        }
    }

    /// Reads a session's rows of one layer.
    ///
    /// # Errors
    /// See [`RankExecutor::read`].
    pub async fn read(&self, session: SessionId, layer: usize) -> Result<SessionRows, WorkerError> {
        self.call(|reply| EngineCommand::Read { session, layer, reply }).await
    }

    /// The owner of an epoch is gone. The rank stays in its group, with all that it holds, for the next one.
    pub async fn leave(&self, epoch: Epoch) {
        // A stopped engine is in no group.
        let _ = self.commands.send(EngineCommand::Leave { epoch }).await;
    }

    async fn call<T>(&self, command: impl FnOnce(ReplySender<T>) -> EngineCommand) -> Result<T, WorkerError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| WorkerError::Stopped)?;
        answer.await.map_err(|_| WorkerError::Stopped)?
    }
}

struct Loop {
    compute: Box<dyn Compute>,
    peers: Box<dyn FormGroup>,
    spill: Option<Spill>,
    /// The number of the plan that is to end early.
    interrupted: Arc<AtomicU64>,
    /// Whoever is of an older epoch is refused.
    fence: Arc<AtomicU64>,
    /// The latest epoch that was formed here, or tried to be.
    served: Epoch,
    stats: Arc<RankStats>,
}

impl Loop {
    fn run(mut self, mut commands: mpsc::Receiver<EngineCommand>) {
        let mut next = commands.blocking_recv();
        while let Some(command) = next {
            next = match command {
                EngineCommand::Form { formation, reply } => match self.admits(&formation) {
                    Ok(()) if formation.goes_on_from.is_none() => self.serve(formation, reply, &mut commands),
                    Ok(()) => {
                        send(reply, Err(WorkerError::NotFormed));
                        commands.blocking_recv()
                    }
                    Err(error) => {
                        send(reply, Err(error));
                        commands.blocking_recv()
                    }
                },
                command => {
                    self.refuse(command);
                    commands.blocking_recv()
                }
            };
        }
    }

    fn fence(&self) -> Epoch {
        Epoch(self.fence.load(Ordering::SeqCst))
    }

    /// A rank takes part in an epoch once, and in none that is older than its fence.
    fn admits(&self, formation: &Formation) -> Result<(), WorkerError> {
        let asked = formation.epoch;
        if asked > self.served && asked >= self.fence() {
            return Ok(());
        }
        Err(WorkerError::Fenced { asked, served: self.served.max(self.fence()) })
    }

    fn serves(&mut self, epoch: Epoch) {
        self.served = epoch;
        self.stats.heard_of(epoch);
        // Plans of the new epoch are numbered from 1 again.
        self.interrupted.store(0, Ordering::Relaxed);
    }

    /// Serves one epoch, and those that go on from it. Returns the command that ended it, if that is for the next.
    fn serve(
        &mut self,
        formation: Formation,
        formed: ReplySender<()>,
        commands: &mut mpsc::Receiver<EngineCommand>,
    ) -> Option<EngineCommand> {
        let mut epoch = formation.epoch;
        self.serves(epoch);
        let comm = match self.peers.form(epoch, &formation.peers, formation.deadline) {
            Ok(comm) => comm,
            Err(error) => {
                send(formed, Err(error.into()));
                return commands.blocking_recv();
            }
        };
        let Self { compute, spill, interrupted, fence, served, stats, .. } = self;
        let mut rank =
            RankExecutor::new(compute.as_mut(), comm, epoch, formation.slots).with_spill(spill.as_ref());
        stats.joined(epoch.0);
        send(formed, Ok(()));
        loop {
            let fenced = || Epoch(fence.load(Ordering::SeqCst));
            match commands.blocking_recv()? {
                // Whoever sends it owned the group once, or never: that is its matter alone, and this epoch goes on.
                EngineCommand::Step { order, reply }
                    if order.step.plan.epoch != epoch || order.sender < fenced() =>
                {
                    send(reply, Err(another_epoch(order.sender, epoch.max(fenced()))));
                }
                EngineCommand::Step { order, reply } => {
                    let mut follower = Follower { passes: order.passes, interrupted };
                    let result = guarded(|| rank.step_observed(&order.step, &mut follower));
                    if let Ok(report) = &result {
                        let group = rank.group();
                        stats.done(report, group.capacity() - group.free_slots());
                    } else {
                        stats.failed();
                        stats.left();
                        // The peers must see the connections close before the owner hears of it.
                        drop(rank);
                        send(reply, result);
                        return commands.blocking_recv();
                    }
                    send(reply, result);
                }
                EngineCommand::Stand { reply } => send(reply, Ok(Some(standing(rank.group())))),
                EngineCommand::Tables { reply } => send(reply, Ok(rank.group().images().collect())),
                EngineCommand::Read { session, layer, reply } => send(reply, read(&rank, session, layer)),
                EngineCommand::Leave { epoch: over } if over == epoch => stats.left(),
                EngineCommand::Leave { .. } => {}
                EngineCommand::Form { formation, reply }
                    if formation.epoch <= *served || formation.epoch < fenced() =>
                {
                    let served = epoch.max(fenced());
                    send(reply, Err(WorkerError::Fenced { asked: formation.epoch, served }));
                }
                EngineCommand::Form { formation, reply } if formation.goes_on_from == Some(epoch) => {
                    epoch = formation.epoch;
                    *served = epoch;
                    stats.heard_of(epoch);
                    interrupted.store(0, Ordering::Relaxed);
                    rank.renew(epoch);
                    stats.joined(epoch.0);
                    send(reply, Ok(()));
                }
                EngineCommand::Form { formation, reply } if formation.goes_on_from.is_some() => {
                    send(reply, Err(WorkerError::NotFormed));
                }
                newer @ EngineCommand::Form { .. } => {
                    stats.left();
                    return Some(newer);
                }
            }
        }
    }

    /// What is asked of a rank that is in no group.
    fn refuse(&self, command: EngineCommand) {
        let served = self.served.max(self.fence());
        match command {
            EngineCommand::Form { formation, reply } => {
                send(reply, Err(WorkerError::Fenced { asked: formation.epoch, served }));
            }
            EngineCommand::Step { order, reply } => send(reply, Err(another_epoch(order.sender, served))),
            EngineCommand::Read { reply, .. } => send(reply, Err(WorkerError::NotFormed)),
            EngineCommand::Tables { reply } => send(reply, Err(WorkerError::NotFormed)),
            EngineCommand::Stand { reply } => send(reply, Ok(None)),
            EngineCommand::Leave { .. } => {}
        }
    }
}

fn standing(group: &Group) -> TablesAt {
    TablesAt {
        epoch: group.epoch(),
        applied: group.applied(),
        slots: u32::try_from(group.capacity()).unwrap_or(u32::MAX),
        activity: Activity::Idle { digest: group.digest() },
    }
}

/// Why a plan is refused that is not of the present epoch. One of the latest epoch itself comes late: that epoch has ended here.
fn another_epoch(asked: Epoch, served: Epoch) -> WorkerError {
    if asked < served { WorkerError::Fenced { asked, served } } else { WorkerError::NotFormed }
}

fn read(rank: &RankExecutor<'_>, session: SessionId, layer: usize) -> Result<SessionRows, WorkerError> {
    let pie_model::KvRows { keys, values } = rank.read(session, layer)?;
    let rotated_for =
        rank.group().table(session).map(|table| table.rotations().collect()).unwrap_or_default();
    Ok(SessionRows { keys, values, rotated_for })
}

/// A panic ends the epoch, not the process: the rank is thrown away with it.
fn guarded<T>(step: impl FnOnce() -> Result<T, WorkerError>) -> Result<T, WorkerError> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(WorkerError::Panicked(text.to_owned()))
    })
}

/// A caller that went away needs no answer.
fn send<T>(reply: ReplySender<T>, result: Result<T, WorkerError>) {
    let _ = reply.send(result);
}
