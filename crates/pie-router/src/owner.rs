//! The group's owner: one task, a closed set of events, and the only writer of the group.

mod following;
mod forming;
mod handle;
mod homes;
mod inbox;
mod obstacle;
mod reports;
mod state;
mod supervised;
mod tenure;
#[cfg(test)]
pub(crate) mod tests;
mod watched;

use crate::call::{Call, Taken};
use crate::core::{Core, Settings};
use crate::desk::Desk;
use crate::faults;
use crate::peers::Peers;
use crate::ranks::{Events, FailureKind, Formed, RankFailure};
use crate::spans::StepSpans;
use crate::stats::{GroupEvent, RankTimes, Stats};
use crate::tenants::Quotas;
use forming::Claim;
pub use handle::Owner;
use inbox::Inbox;
use obstacle::Obstacle;
use pie_placement::{GroupId, Placement, RouterRecord, Ttl};
use pie_proto::plan::Report;
use pie_proto::v1;
use pie_text::Tokenizer;
use pie_transport::Connector;
use pie_words::Epoch;
pub use state::{Concern, Owned, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenure::Tenure;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::Span;
pub use watched::Watched;

/// Events that may wait, beside the calls of the [`inbox`].
const QUEUE: usize = 1024;
/// What is handled before the ranks are looked at again: calls that come together share a plan, but whoever waits for a token
/// must not wait until nobody calls any more.
const BATCH: usize = 64;
/// The same in time.
const BATCH_TIME: Duration = Duration::from_millis(2);
/// When ranks fail, the others fail within this time too; then the culprit is known.
const BLAME_WINDOW: Duration = Duration::from_millis(300);
/// The ownership is given up in this time, or left to its lease.
const RELEASE: Duration = Duration::from_secs(1);

/// Everything that an owner reacts to.
pub enum Event {
    /// A client wants something, in the span of its call.
    Call(Call, Span),
    /// The group is there.
    Formed(Box<Formed>),
    /// The group could not be formed; another attempt follows.
    NotFormed {
        /// What is in the way.
        why: String,
        /// Whom that concerns.
        concern: Concern,
    },
    /// A rank did a step.
    Report {
        /// Of which epoch.
        epoch: Epoch,
        /// Who.
        rank: u32,
        /// What.
        report: Report,
    },
    /// A rank's stream ended.
    RankFailed {
        /// Of which epoch.
        epoch: Epoch,
        /// Why.
        failure: RankFailure,
    },
    /// The lease of the ownership ran out: another router may own the group.
    OwnershipLost {
        /// Which lease.
        lease: u64,
    },
    /// The time to find the culprit is over.
    Blame {
        /// Of which epoch.
        epoch: Epoch,
    },
    /// The owner before gave these documents.
    Inherited(Vec<Taken>),
    /// Another router owns the group.
    OwnedBy(RouterRecord),
    /// The group is to go to another router: it is given up, and the documents wait for whoever asks for them.
    Retire {
        /// When it is given up.
        done: oneshot::Sender<()>,
    },
    /// The owner is to end: completions fail, and the group is given up.
    Stop,
    /// The owner is to panic while it handles this.
    #[cfg(test)]
    Panic,
}

/// How an owner works.
#[derive(Clone, Debug)]
pub struct OwnerOptions {
    /// Which group.
    pub group: GroupId,
    /// Who owns it.
    pub router: RouterRecord,
    /// Ranks of the group.
    pub world_size: u32,
    /// C2: of every collective.
    pub deadline: Duration,
    /// What sessions and completions may take.
    pub settings: Settings,
    /// Of the ownership's lease.
    pub lease: Ttl,
    /// Of tenants whose limits are their own.
    pub quotas: Quotas,
    /// The way to the ranks.
    pub ranks: Connector,
    /// Bytes of the largest document.
    pub document_limit: usize,
    /// Other routers.
    pub peers: Peers,
    /// Groups that this router owns.
    pub owned: Owned,
}

/// Starts the owner's task. It ends when the last handle is gone.
pub fn spawn_owner(options: OwnerOptions, placement: Arc<dyn Placement>, tokenizer: Arc<Tokenizer>) -> Owner {
    let (events, receiver) = mpsc::channel(QUEUE);
    let inbox = Inbox::new();
    let (state_sender, state) = watch::channel(State::Waiting("the group is forming".to_owned()));
    let stats = Arc::<Stats>::default();
    let core = Core::new(tokenizer.clone(), options.settings, options.quotas.clone(), stats.clone());
    let rank_times: Arc<[RankTimes]> = (0..options.world_size).map(|_| RankTimes::default()).collect();
    let tenure = Tenure::none();
    let task = Task {
        desk: Desk::new(core, options.group.to_string()),
        tenure: tenure.clone(),
        served: Epoch(0),
        following: None,
        claiming: None,
        tokenizer,
        stats: stats.clone(),
        rank_times: rank_times.clone(),
        options,
        placement,
        events: Events(events.downgrade()),
        state: state_sender,
        formed: None,
        forming: None,
        failures: Vec::new(),
        digests: BTreeMap::new(),
        work: BTreeMap::new(),
        spans: StepSpans::default(),
        ranks: Vec::new(),
        obstacle: Obstacle::default(),
    };
    tokio::spawn(task.supervised(receiver, inbox.clone()));
    Owner { events, inbox, tenure, state, stats, ranks: rank_times }
}

struct Task {
    desk: Desk,
    tokenizer: Arc<Tokenizer>,
    options: OwnerOptions,
    placement: Arc<dyn Placement>,
    events: Events,
    state: watch::Sender<State>,
    formed: Option<Formed>,
    forming: Option<AbortHandle>,
    tenure: Tenure,
    /// The latest epoch that was served here.
    served: Epoch,
    /// Sends documents after a group that another router owns.
    following: Option<AbortHandle>,
    /// Tells the placement where the sessions live.
    claiming: Option<AbortHandle>,
    failures: Vec<RankFailure>,
    /// P3, P4: what the ranks said of each plan, until all have.
    digests: BTreeMap<u64, Vec<(u32, u64, Option<u64>)>>,
    /// The least and the most work of a rank in each plan, until all have reported, microseconds.
    work: BTreeMap<u64, (u64, u64)>,
    spans: StepSpans,
    ranks: Vec<v1::Rank>,
    obstacle: Obstacle,
    stats: Arc<Stats>,
    rank_times: Arc<[RankTimes]>,
}

impl Task {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, inbox: Inbox) {
        self.start_forming(Claim::New, None);
        'serving: loop {
            // What the ranks say first: they wait for it, and callers wait for them.
            let mut next = tokio::select! {
                biased;
                event = events.recv() => event,
                waiting = inbox.next() => Some(Event::Call(waiting.call, waiting.span)),
            };
            if next.is_none() {
                break;
            }
            // Whatever else has come in meanwhile joins the same plan.
            let (begun, mut handled) = (Instant::now(), 0);
            while let Some(event) = next {
                match event {
                    Event::Stop => break 'serving,
                    Event::Retire { done } => {
                        self.retire().await;
                        // Whoever waits for the documents to be fetched reads how many there are.
                        self.desk.core().publish();
                        let _ = done.send(());
                    }
                    // It was on its way when the group was given up: that holds.
                    Event::Formed(formed) if self.is_retired() => {
                        self.options.owned.one_more();
                        self.formed = Some(*formed);
                        self.release().await;
                    }
                    event => self.guarded(|task| task.handle(event)),
                }
                handled += 1;
                next = events.try_recv().ok();
                if next.is_none() && handled < BATCH && begun.elapsed() < BATCH_TIME {
                    next = inbox.take().map(|waiting| Event::Call(waiting.call, waiting.span));
                }
            }
            self.guarded(Self::next_step);
            self.desk.core().publish();
            if handled >= BATCH || begun.elapsed() >= BATCH_TIME {
                // Those who were answered, and all others on this thread, have their turn too.
                tokio::task::yield_now().await;
            }
        }
        // From here on nobody is told anything but that.
        drop(events);
        inbox.close();
        self.desk.act(|core| core.fail_all(&faults::stopping()));
        self.desk.core().publish();
        self.release().await;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Call(Call::Describe { reply }, _) => {
                let mut described = self.desk.describe();
                if let Some(group) = described.groups.first_mut() {
                    group.ranks.clone_from(&self.ranks);
                    if let State::Waiting(why) | State::Lost(why) = &*self.state.borrow() {
                        group.state.clone_from(why);
                    }
                }
                let _ = reply.send(described);
            }
            Event::Call(call, span) => {
                self.desk.act(|core| core.at(Instant::now()));
                span.in_scope(|| self.answer(call));
            }
            Event::Formed(formed) => self.formed(*formed),
            // The attempt was going on when the group was given up.
            Event::NotFormed { .. } if self.is_retired() => {}
            Event::NotFormed { why, concern } => {
                self.stats.event(GroupEvent::NotFormed);
                let group = &self.options.group;
                let waiting = State::Waiting(why.clone());
                let news = *self.state.borrow() != waiting;
                match concern {
                    Concern::Operators if self.obstacle.is_news(&why, Instant::now()) => {
                        tracing::warn!(%group, %why, "the group is not formed: it is tried again and again");
                    }
                    _ if news => tracing::info!(%group, %why, "the group is not formed yet"),
                    _ => {}
                }
                self.state.send_replace(waiting);
            }
            Event::Report { epoch, rank, report } if self.serves(epoch) => self.report(rank, report),
            Event::RankFailed { epoch, failure } if self.serves(epoch) => self.rank_failed(epoch, failure),
            Event::Blame { epoch } if self.serves(epoch) => self.blame(),
            Event::OwnershipLost { lease } if self.is_of(lease) => {
                self.stats.event(GroupEvent::OwnershipLost);
                self.lose("the lease of the group's ownership ran out")
            }
            // Of an epoch that is over.
            Event::Report { .. }
            | Event::RankFailed { .. }
            | Event::Blame { .. }
            | Event::OwnershipLost { .. } => {}
            Event::Inherited(taken) => {
                self.desk.act(|core| taken.into_iter().for_each(|session| core.inherit(session)))
            }
            Event::OwnedBy(router) => self.send_after(router),
            // Whoever reads the events takes these.
            Event::Stop | Event::Retire { .. } => {}
            #[cfg(test)]
            Event::Panic => panic!("a test"),
        }
    }

    fn is_retired(&self) -> bool {
        *self.state.borrow() == State::Retired
    }

    fn serves(&self, epoch: Epoch) -> bool {
        self.formed.as_ref().is_some_and(|formed| formed.epoch == epoch)
    }

    fn formed(&mut self, formed: Formed) {
        self.forming = None;
        tracing::info!(
            group = %self.options.group,
            epoch = formed.epoch.0,
            world_size = formed.world_size(),
            slots = formed.slots,
            "the group serves"
        );
        self.served = formed.epoch;
        self.desk.act(|core| core.formed(formed.epoch, formed.slots, formed.model.clone()));
        self.ranks.clone_from(&formed.ranks);
        self.failures.clear();
        self.digests.clear();
        self.work.clear();
        self.obstacle = Obstacle::default();
        self.stats.event(GroupEvent::Formed);
        self.options.owned.one_more();
        self.formed = Some(formed);
        self.state.send_replace(State::Serving);
        self.claim_homes();
    }

    fn next_step(&mut self) {
        // A failed rank will never answer; the blame comes in a moment.
        if !self.failures.is_empty() {
            return;
        }
        match (self.desk.next_step(Instant::now()), &self.formed) {
            (Ok(Some(step)), Some(formed)) => {
                let recorded = self.desk.recorded();
                let group = self.options.group.as_str();
                let trace = recorded.and_then(|recorded| self.spans.begin(group, &step.plan, &recorded));
                formed.broadcast(&step, trace);
            }
            (Ok(_), _) => {}
            (Err(error), _) => self.lose(&format!("the owner refused its own plan: {error}")),
        }
        if let (Some(seq), Some(formed)) = (self.desk.to_interrupt(), &self.formed) {
            formed.interrupt(seq);
        }
    }

    /// The first failure starts the search for the culprit: the others follow at once, most as mere echoes.
    fn rank_failed(&mut self, epoch: Epoch, failure: RankFailure) {
        let group = &self.options.group;
        tracing::debug!(%group, epoch = epoch.0, rank = failure.rank, %failure, "a rank's stream ended");
        self.stats.event(GroupEvent::RankFailed);
        let first = self.failures.is_empty();
        let certain = failure.kind == FailureKind::Connection;
        self.failures.push(failure);
        if certain {
            return self.blame();
        }
        if first {
            let events = self.events.clone();
            tokio::spawn(async move {
                tokio::time::sleep(BLAME_WINDOW).await;
                let _ = events.send(Event::Blame { epoch }).await;
            });
        }
    }

    fn blame(&mut self) {
        let why = RankFailure::culprit(&self.failures).map(ToString::to_string);
        self.lose(&why.unwrap_or_else(|| "a rank failed".to_owned()));
    }
}
