//! The group's owner: one task, a closed set of events, and the only writer of the group.

mod background;
mod following;
mod forming;
mod handle;
mod homes;
mod inbox;
mod keepers;
mod obstacle;
mod reports;
mod state;
mod supervised;
mod tenure;
#[cfg(test)]
mod tests;
mod watched;

use crate::call::{Call, ImportedSession};
use crate::core::{Core, Settings, telling};
use crate::desk::Desk;
use crate::faults;
use crate::peers::Peers;
use crate::ranks::{Events, FailureKind, Formed, RankFailure, TableRetention};
use crate::stats::{GroupEvent, RankTimes, Stats};
use crate::tenants::Quotas;
use background::{Background, Common, Knowledge};
use forming::OwnershipClaim;
pub use handle::OwnerHandle;
use inbox::Inbox;
pub use keepers::KeeperCandidate;
use keepers::{KeeperNews, Keepers};
use obstacle::Obstacle;
use pie_placement::{GroupId, Placement, RouterRecord, Ttl};
use pie_plan::Group;
use pie_proto::plan::Report;
use pie_text::Tokenizer;
use pie_transport::Connector;
use pie_words::Epoch;
use reports::Reports;
pub use state::{Concern, GroupState, Holdings, Owned};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenure::Tenure;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;
pub use watched::Watched;

/// What is said of a group that serves while its ownership is in doubt.
const UNSURE: &str = "the placement has not confirmed lately that this router owns it";
/// Events that may wait, beside the calls of the [`inbox`].
const QUEUE: usize = 1024;
/// What is handled before the ranks are looked at again: calls that come together share a plan, but whoever waits for a token
/// must not wait until nobody calls any more.
const BATCH: usize = 64;
/// The same in time.
const BATCH_TIME: Duration = Duration::from_millis(2);
/// When ranks fail, the others fail within this time too; then the culprit is known.
const BLAME_WINDOW: Duration = Duration::from_millis(300);
/// What is due of itself is looked at no sooner than this.
const LEAST_WAIT: Duration = Duration::from_millis(50);
/// The ownership is given up in this time, or left to its lease.
const RELEASE: Duration = Duration::from_secs(1);
/// A repair that is given up has ended in this time, since its ranks look for that in each layer, and ranks have what they are to keep.
const SETTLES: Duration = Duration::from_secs(1);

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
    /// A rank says how much it keeps of the documents.
    Kept(KeeperNews),
    /// All ranks that kept the documents were lost a while ago.
    NobodyKeeps,
    /// The owner before gave these documents.
    Inherited(Vec<ImportedSession>),
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
pub fn spawn_owner(
    options: OwnerOptions,
    placement: Arc<dyn Placement>,
    tokenizer: Arc<Tokenizer>,
) -> OwnerHandle {
    let (events, receiver) = mpsc::channel(QUEUE);
    let inbox = Inbox::new();
    let (state_sender, state) = watch::channel(GroupState::Waiting("the group is forming".to_owned()));
    let stats = Arc::<Stats>::default();
    let desk = Desk::new(new_core(&tokenizer, &options, &stats), options.group.to_string());
    let (holdings_sender, holdings) = watch::channel(Holdings::default());
    let ranks: Arc<[RankTimes]> = (0..options.world_size).map(|_| RankTimes::default()).collect();
    let tenure = Tenure::none();
    let common = Common {
        options,
        placement,
        tokenizer,
        events: Events(events.downgrade()),
        tenure: tenure.clone(),
        knowledge: Knowledge::default(),
    };
    let task = Task {
        desk,
        common: Arc::new(common),
        shown: PublicState { state: state_sender, holdings: holdings_sender },
        formed: None,
        served: Epoch(0),
        tables: TableRetention::default(),
        background: Background::default(),
        failures: Vec::new(),
        reports: Reports::new(ranks.clone()),
        keepers: Keepers::default(),
        obstacle: Obstacle::default(),
        stats: stats.clone(),
    };
    tokio::spawn(task.supervised(receiver, inbox.clone()));
    OwnerHandle { events, inbox, tenure, state, holdings, stats, ranks }
}

fn new_core(tokenizer: &Arc<Tokenizer>, options: &OwnerOptions, stats: &Arc<Stats>) -> Core {
    Core::new(tokenizer.clone(), options.settings, options.quotas.clone(), stats.clone())
}

/// What everybody may see of the group at any time.
struct PublicState {
    state: watch::Sender<GroupState>,
    holdings: watch::Sender<Holdings>,
}

/// The group's owner at work.
struct Task {
    desk: Desk,
    common: Arc<Common>,
    shown: PublicState,
    /// The group that is served.
    formed: Option<Formed>,
    /// The latest epoch that was served here.
    served: Epoch,
    /// What becomes of the tables that the ranks hold when the group is formed next.
    tables: TableRetention,
    background: Background,
    /// Of the epoch that is served, until somebody is blamed.
    failures: Vec<RankFailure>,
    reports: Reports,
    keepers: Keepers,
    obstacle: Obstacle,
    stats: Arc<Stats>,
}

impl Task {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, inbox: Inbox) {
        self.start_forming(OwnershipClaim::New, None);
        'serving: loop {
            // What the ranks say first: they wait for it, and callers wait for them.
            let due = self
                .desk
                .core()
                .due()
                .map(|due| tokio::time::Instant::from_std(due.max(Instant::now() + LEAST_WAIT)));
            let mut next = tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => Some(event),
                    None => break,
                },
                waiting = inbox.next() => Some(Event::Call(waiting.call, waiting.span)),
                () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => None,
            };
            // Whatever else has come in meanwhile joins the same plan.
            let (begun, mut handled, mut came) = (Instant::now(), 0, None);
            while let Some(event) = next {
                match event {
                    Event::Stop => break 'serving,
                    Event::Retire { done } => {
                        came = self.settle(&mut events).await;
                        self.retire().await;
                        // Whoever waits for the documents to be fetched reads how many there are.
                        self.publish();
                        let _ = done.send(());
                    }
                    // It was on its way when the group was given up: that holds.
                    Event::Formed(formed) if self.is_retired() => {
                        self.common.options.owned.one_more();
                        self.formed = Some(*formed);
                        self.release().await;
                    }
                    event => self.guarded(|task| task.handle(event)),
                }
                handled += 1;
                next = came.take().or_else(|| events.try_recv().ok());
                if next.is_none() && handled < BATCH && begun.elapsed() < BATCH_TIME {
                    next = inbox.take().map(|waiting| Event::Call(waiting.call, waiting.span));
                }
            }
            self.write_down();
            self.guarded(Self::next_step);
            self.publish();
            if handled >= BATCH || begun.elapsed() >= BATCH_TIME {
                // Those who were answered, and all others on this thread, have their turn too.
                tokio::task::yield_now().await;
            }
        }
        self.settle(&mut events).await;
        // From here on nobody is told anything but that.
        drop(events);
        inbox.close();
        self.desk.act(|core| core.fail_all(&faults::stopping()));
        self.publish();
        self.release().await;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Call(Call::Describe { reply }, _) => {
                let mut described = self.desk.describe();
                if let Some(group) = described.groups.first_mut() {
                    group.ranks.clone_from(&self.reports.ranks);
                    match &*self.shown.state.borrow() {
                        GroupState::Waiting(why) | GroupState::Lost(why) => group.state.clone_from(why),
                        GroupState::Serving if !self.common.tenure.is_sure() => {
                            group.state = UNSURE.to_owned()
                        }
                        GroupState::Serving | GroupState::Retired => {}
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
                let group = &self.common.options.group;
                let waiting = GroupState::Waiting(why.clone());
                let news = *self.shown.state.borrow() != waiting;
                match concern {
                    Concern::Operators if self.obstacle.is_news(&why, Instant::now()) => {
                        tracing::warn!(%group, %why, "the group is not formed: it is tried again and again");
                    }
                    _ if news => tracing::info!(%group, %why, "the group is not formed yet"),
                    _ => {}
                }
                self.shown.state.send_replace(waiting);
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
            Event::Kept(news) => self.kept(news),
            Event::NobodyKeeps => self.give_up_waiting(),
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

    /// Before the group is given up, a repair that is going on is, so that its ranks do not miss each other in the middle of it; and what
    /// was changed is confirmed to who changed it. What is to end the owner meanwhile is returned.
    async fn settle(&mut self, events: &mut mpsc::Receiver<Event>) -> Option<Event> {
        self.write_down();
        if let (Some(seq), Some(formed)) = (self.desk.repair_to_give_up(), &self.formed) {
            formed.interrupt(seq);
        }
        let end = tokio::time::Instant::now() + SETTLES;
        while self.desk.is_repairing() || self.desk.holds_answers() {
            match tokio::time::timeout_at(end, events.recv()).await {
                Ok(Some(event @ (Event::Stop | Event::Retire { .. }))) => return Some(event),
                Ok(Some(event)) => self.guarded(|task| task.handle(event)),
                Ok(None) | Err(_) => break,
            }
        }
        None
    }

    /// Tells all that look on what is so now.
    fn publish(&self) {
        telling::publish(self.desk.core());
        self.shown.holdings.send_replace(telling::holdings(self.desk.core()));
    }

    fn is_retired(&self) -> bool {
        *self.shown.state.borrow() == GroupState::Retired
    }

    fn serves(&self, epoch: Epoch) -> bool {
        self.formed.as_ref().is_some_and(|formed| formed.epoch == epoch)
    }

    fn formed(&mut self, mut formed: Formed) {
        self.background.forming = None;
        tracing::info!(
            group = %self.common.options.group,
            epoch = formed.epoch.0,
            world_size = formed.world_size(),
            slots = formed.slots,
            caches = if formed.found.group.is_some() { "go on" } else { "are empty" },
            "the group serves"
        );
        let (epoch, found) = (formed.epoch, std::mem::take(&mut formed.found));
        if let Some(recollection) = found.recollection {
            self.desk.act(|core| core.recall(recollection));
        }
        self.keep_with(epoch, std::mem::take(&mut formed.keepers));
        self.common.knowledge.writes(epoch);
        (self.served, self.tables) = (epoch, TableRetention::GoOn);
        let group = found.group.unwrap_or_else(|| Group::new(epoch, formed.slots));
        self.desk.act(|core| core.serve(group, formed.model.clone()));
        self.failures.clear();
        self.reports.begin(formed.ranks.clone());
        self.obstacle = Obstacle::default();
        self.stats.event(GroupEvent::Formed);
        self.common.options.owned.one_more();
        self.formed = Some(formed);
        self.shown.state.send_replace(GroupState::Serving);
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
                let group = self.common.options.group.as_str();
                let trace =
                    recorded.and_then(|recorded| self.reports.spans.begin(group, &step.plan, &recorded));
                formed.broadcast(&step, trace);
            }
            (Ok(_), _) => {}
            (Err(error), _) => self.lose(&format!("the owner refused its own plan: {error}")),
        }
        if let (Some(seq), Some(formed)) = (self.desk.plan_to_interrupt(), &self.formed) {
            formed.interrupt(seq);
        }
    }

    /// The first failure starts the search for the culprit: the others follow at once, most as mere echoes.
    fn rank_failed(&mut self, epoch: Epoch, failure: RankFailure) {
        let group = &self.common.options.group;
        tracing::debug!(%group, epoch = epoch.0, rank = failure.rank, %failure, "a rank's stream ended");
        self.stats.event(GroupEvent::RankFailed);
        let first = self.failures.is_empty();
        let certain = failure.kind == FailureKind::Connection;
        self.failures.push(failure);
        if certain {
            return self.blame();
        }
        if first {
            let events = self.common.events.clone();
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
