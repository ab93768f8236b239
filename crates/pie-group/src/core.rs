//! The owner of a group, without input or output: calls and reports go in, plans and news come out. Time is an argument, so
//! that every case can be tested without sleeping. Nothing here knows of tasks, channels, or messages on the wire.
//!
//! [`sessions`] has the documents, which live on whatever happens to the group; [`planner`] what dies with its epoch: the
//! [`tables`], the [`completions`], and who wants tokens encoded. [`Core`] tells the one what happened to the other.

mod allotment;
mod completing;
pub mod completion;
mod completions;
mod demands;
mod drafting;
mod editing;
mod encoding;
mod flight;
mod healing;
mod journal;
mod layout;
mod leaving;
mod model;
mod moving;
mod names;
mod opening;
mod pace;
mod places;
mod planner;
mod recalling;
mod room;
mod rows;
pub(crate) mod session;
mod sessions;
mod spilling;
mod stepping;
mod tables;
pub(crate) mod telling;
mod text;
mod turned;

use crate::call::ModelFacts;
use crate::faults;
use crate::stats::Stats;
use crate::tenants::{Quotas, Sharing, TenantLimits};
use completion::{CompletionId, News};
pub(crate) use editing::{Copy, EditSummary};
pub use healing::{Healing, RepairPolicy};
pub use journal::JournalBatch;
pub use leaving::Idle;
pub(crate) use leaving::stuck;
use model::ServedModel;
pub(crate) use opening::Opened;
use pace::Pace;
use pie_plan::schedule::Limits;
use pie_plan::{Group, PlanError};
use pie_proto::Fault;
use pie_proto::plan::{Report, Step};
use pie_text::Tokenizer;
use pie_words::{Epoch, SessionId};
pub(crate) use planner::Planner;
pub use recalling::{Recalled, Recollection};
use session::Session;
pub(crate) use sessions::Sessions;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an owner allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Of a step. `prefill_rows` holds until the ranks' speed is known.
    pub limits: Limits,
    /// How long prefills may hold up a step in which others get tokens; those that meet nobody, four times as long.
    pub prefill: Duration,
    /// Of each tenant.
    pub tenant: TenantLimits,
    /// Whose rows a document may begin with.
    pub sharing: Sharing,
    /// Sessions that the group may have.
    pub sessions: usize,
    /// When those that nobody uses are closed.
    pub idle: Idle,
    /// Completions that run or wait in the whole group.
    pub completions: usize,
    /// How rows are repaired that say what was true before an edit.
    pub healing: Healing,
    /// The most tokens that a pass looks up ahead for a completion; 0 for none.
    pub draft_tokens: u32,
    /// Who has an edit when its caller is told that it is made.
    pub ack: Ack,
}

/// Who has an edit when its caller is told that it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// The ranks of the group: it outlives its router.
    #[default]
    Replicated,
    /// The router that owns the group. The ranks get it a moment later.
    Owner,
}

/// Completions that run, wait, or are not read to their end: what they hold is bounded by their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnreadCompletions {
    /// Of all tenants.
    pub all: usize,
    /// Of the one who asks.
    pub own: usize,
}

/// The owner's state.
pub struct Core {
    tokenizer: Arc<Tokenizer>,
    pub(crate) settings: Settings,
    pub(crate) model: Arc<ServedModel>,
    pub(crate) sessions: Sessions,
    /// If a group serves; else why not.
    pub(crate) planner: Result<Box<Planner>, String>,
    /// How fast the ranks were when there were any.
    pace: Pace,
    /// The ranks had kept all that was told up to this epoch.
    recalled: Epoch,
    /// Of completions that were lost with their group.
    news: Vec<(CompletionId, News)>,
    accepted: u64,
    pub(crate) stats: Arc<Stats>,
}

impl Core {
    /// An owner without a group. Tenants with quotas have limits of their own.
    pub fn new(tokenizer: Arc<Tokenizer>, settings: Settings, quotas: Quotas, stats: Arc<Stats>) -> Self {
        Self {
            model: Arc::new(ServedModel::new(ModelFacts::default(), &tokenizer)),
            tokenizer,
            settings,
            sessions: Sessions::new(&settings, quotas),
            planner: Err("the group is forming for the first time".to_owned()),
            pace: Pace::default(),
            recalled: Epoch(0),
            news: Vec::new(),
            accepted: 0,
            stats,
        }
    }

    /// What happens from here on happens at this time. It does not go back.
    pub fn at(&mut self, now: Instant) {
        self.sessions.at(now);
    }

    /// A group is there: empty, or with what its ranks held for the owner before, which goes on. Other sessions are encoded again from
    /// their documents as they are used, and else, the latest used first, when nobody wants anything. What a document holds may be
    /// more than the model of this group can see.
    pub fn serve(&mut self, group: Group, facts: ModelFacts) {
        self.stats.published.context_limit.set(facts.context_limit.into());
        self.model = Arc::new(ServedModel::new(facts, &self.tokenizer));
        let held: BTreeSet<SessionId> = group.sessions().map(|(id, _)| id).collect();
        self.sessions.reserve(held.last().copied().unwrap_or_default());
        let (model, stats) = (self.model.clone(), self.stats.clone());
        let mut planner = Planner::new(group, model, self.settings, self.pace, stats);
        planner.drops(held.iter().copied().filter(|id| self.sessions.get(*id).is_none()).collect());
        let mut sessions: Vec<&Session> = self.sessions.iter().collect();
        sessions.sort_by_key(|session| (session.used, session.id));
        for session in sessions {
            if held.contains(&session.id) { planner.goes_on(session) } else { planner.laid_by(session) }
        }
        self.planner = Ok(Box::new(planner));
    }

    /// The group is gone: completions fail, documents stay.
    pub fn lost(&mut self, why: &str) {
        self.fail_all(&faults::group_lost(why));
        self.news = self.take_news();
        if let Ok(planner) = std::mem::replace(&mut self.planner, Err(why.to_owned())) {
            self.pace = planner.pace;
        }
    }

    /// After a panic in the middle of anything: the group is lost, and all books are made anew from the sessions.
    pub fn recover(&mut self, why: &str) {
        self.lost(why);
        self.sessions.recover();
    }

    /// The whole group goes to another router: nothing is answered any more but that.
    pub fn retire(&mut self) {
        self.lost("another router takes the group over");
        self.sessions.is_given_up = true;
    }

    /// Ends all completions.
    pub fn fail_all(&mut self, fault: &Fault) {
        if let Ok(planner) = &mut self.planner {
            planner.allotment.completions.fail_all(fault);
        }
    }

    /// The digest of the owner's tables, to compare with the ranks' (P4). Valid between a report and the next step.
    pub fn digest(&self) -> Option<u64> {
        Some(self.planner.as_ref().ok()?.allotment.tables.group().digest())
    }

    /// See [`Planner::next_step`].
    ///
    /// # Errors
    /// A plan that the owner's own tables refuse is a bug; the group must be formed again.
    pub fn next_step(&mut self, now: Instant) -> Result<Option<Step>, PlanError> {
        self.at(now);
        let Ok(planner) = &mut self.planner else { return Ok(None) };
        planner.next_step(&self.sessions, now)
    }

    /// When something is to be done that no event brings about.
    pub fn due(&self) -> Option<Instant> {
        self.planner.as_ref().ok()?.due()
    }

    /// See [`Planner::report`].
    ///
    /// # Errors
    /// A report that the owner's tables refuse: the replicas differ, and the group must be formed again.
    pub fn report(&mut self, report: Report, now: Instant) -> Result<(), PlanError> {
        match &mut self.planner {
            Ok(planner) => planner.report(report, now),
            Err(_) => Ok(()),
        }
    }

    /// What the readers of completions have not been told yet, counted.
    pub fn take_news(&mut self) -> Vec<(CompletionId, News)> {
        let mut all = std::mem::take(&mut self.news);
        if let Ok(planner) = &mut self.planner {
            let news = planner.allotment.completions.take_news();
            news.iter().for_each(|(id, news)| self.heard(*id, news));
            all.extend(news);
        }
        all
    }

    /// Whoever read a completion was there until now, and his edit was answered when it began.
    fn heard(&mut self, id: CompletionId, news: &News) {
        telling::count_news(&self.stats, news);
        if matches!(news, News::Began)
            && let Some(session) = self.sessions.get_mut(id.session)
        {
            session.edited = None;
        }
        if news.is_last() {
            self.sessions.used(id.session);
        }
    }
}
