//! Makes the plans of one epoch: from what calls changed, from the completions, and from what the tables have room for.
//!
//! **Invariant.** Everything here dies with the epoch, and no plan is made while one is on its way. Documents are read, and
//! never changed.

use super::Settings;
use super::allotment::Allotment;
use super::completion::{ActiveCompletion, CompletionId};
use super::completions::Completions;
use super::encoding::EncodingBacklog;
use super::flight::InFlight;
use super::healing::Healer;
use super::healing::UnderRepair;
use super::model::ServedModel;
use super::pace::Pace;
use super::session::Session;
use super::spilling::Spilling;
use super::tables::Tables;
use crate::faults;
use crate::stats::Stats;
use pie_plan::{Change, Group, Table};
use pie_proto::Fault;
use pie_words::{Epoch, Following, Seq, SessionId, Splices, Strategy};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// See the module.
pub(crate) struct Planner {
    pub(super) allotment: Allotment,
    /// What calls changed, in order, while a plan is on its way.
    pub(super) changes: VecDeque<Change>,
    /// Sessions whose rows the ranks did not take, or from which they drew no token.
    pub(super) refused: Vec<(SessionId, Fault)>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) healer: Healer,
    /// Whether the latest step was for first tokens alone.
    pub(super) was_short: bool,
    pub(super) settings: Settings,
    pub(super) pace: Pace,
    pub(super) stats: Arc<Stats>,
}

/// What the ranks hold of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Residence {
    /// Tokens that are encoded.
    pub encoded: usize,
    /// Slots that other sessions hold too.
    pub shared: usize,
    /// Tokens whose rows are older than something on their left.
    pub stale: usize,
    /// Leading tokens whose rows are what a fresh encoding gives.
    pub exact: usize,
    /// Rows that were encoded again since the group was formed.
    pub repaired: u64,
    /// In slots, encoded or to be.
    pub is_resident: bool,
}

impl Planner {
    /// Of a group of which no session is known yet.
    pub fn new(
        group: Group,
        model: Arc<ServedModel>,
        settings: Settings,
        pace: Pace,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            allotment: Allotment {
                tables: Tables::new(group, settings.sharing, stats.clone()),
                completions: Completions::default(),
                encoding: EncodingBacklog::default(),
                model,
                spilling: Spilling::default(),
            },
            changes: VecDeque::new(),
            refused: Vec::new(),
            in_flight: None,
            healer: Healer::new(settings.healing),
            was_short: false,
            settings,
            pace,
            stats,
        }
    }

    /// A session is there, and in use.
    pub fn opened(&mut self, session: &Session) {
        self.allotment.tables.insert(session.id, session.tenant.clone());
        self.changes.push_back(Change::Open { session: session.id });
        self.allotment.encoding.opened.insert(session.id);
    }

    /// A session is there: it is encoded when it is used, or ahead, when nobody wants anything.
    pub fn laid_by(&mut self, session: &Session) {
        self.opened(session);
        self.allotment.encoding.opened.remove(&session.id);
        self.allotment.encoding.asleep.push(session.id);
    }

    /// A document was changed: its older completions end (D1), and its rows follow.
    pub fn edited(&mut self, session: &Session, splices: Splices, following: Following) {
        let (id, Following { strategy, window }) = (session.id, following);
        self.allotment.encoding.unasked.remove(&id);
        self.served_if_idle(id);
        self.allotment.completions.edited(id, session.revision());
        let encoded = match (strategy, splices.iter().next()) {
            (Strategy::Full, Some(first)) => session.tokens() - first.at.usize(),
            _ => splices.inserted(),
        };
        if let Some(rows) = self.allotment.tables.rows_mut(id) {
            rows.ahead.add(encoded);
            rows.window = window;
        }
        self.changes.push_back(Change::Splice { session: id, splices, strategy });
    }

    /// A session is gone; whoever waits for it is told.
    pub fn closed(&mut self, id: SessionId, fault: &Fault) {
        self.allotment.completions.fail_in(id, fault);
        self.allotment.encoding.forget(id);
        self.changes.push_back(self.allotment.tables.remove(id));
    }

    /// A completion waits for its turn.
    pub fn accept(&mut self, completion: ActiveCompletion) {
        let id = completion.id.session;
        self.served_if_idle(id);
        self.allotment.completions.push(completion);
        self.allotment.encoding.asked(id);
    }

    /// A session that nobody completes begins to wait now.
    fn served_if_idle(&mut self, id: SessionId) {
        let ticket = self.allotment.tables.ticket();
        if let Some(rows) =
            self.allotment.tables.rows_mut(id).filter(|_| !self.allotment.completions.are_in(id))
        {
            rows.ticket = ticket;
        }
    }

    /// A completion's reader went away.
    pub fn abandon(&mut self, id: CompletionId) {
        self.allotment.completions.abandon(id);
        if let Some(in_flight) = self.in_flight.as_mut().filter(|in_flight| in_flight.runs(id)) {
            in_flight.is_stray = true;
        }
    }

    /// What the ranks hold of a session, or will when they have heard of all.
    pub fn residence(&self, session: &Session) -> Residence {
        let id = session.id;
        let rows = self.allotment.tables.rows(id).filter(|rows| rows.layout.is_some());
        let table = rows.and_then(|_| self.allotment.tables.table(id));
        let queued = self.changes.iter().map(|change| match change {
            Change::Splice { session, splices, .. } if *session == id => splices.inserted(),
            _ => 0,
        });
        // The tables have them as done, and the ranks may give them up.
        let repairing = self.in_flight.as_ref().and_then(|flight| flight.repairing.as_ref());
        let under_repair = repairing.map_or_else(UnderRepair::default, |repairing| repairing.of(id));
        let pending = table.map_or(session.tokens(), |table| table.pending() + queued.sum::<usize>());
        Residence {
            encoded: session.tokens().saturating_sub(pending),
            shared: table.map_or(0, |_| self.allotment.tables.group().shared_slots(id)),
            stale: table.map_or(0, Table::stale_rows) + under_repair.rows,
            exact: table.map_or(0, |table| {
                table.frontier().min(session.tokens()).min(under_repair.first.unwrap_or(usize::MAX))
            }),
            repaired: rows.map_or(0, |rows| rows.repaired),
            is_resident: rows.is_some() || self.allotment.encoding.opened.contains(&id),
        }
    }

    /// When something is to be done that no event brings about, and no report will.
    pub fn due(&self) -> Option<Instant> {
        if self.in_flight.is_some() { None } else { self.allotment.spill_due() }
    }

    /// The epoch that is served.
    pub fn epoch(&self) -> Epoch {
        self.allotment.tables.group().epoch()
    }

    /// Completions that run or wait in a session.
    pub fn completions(&self, session: SessionId) -> usize {
        self.allotment.completions.in_session(session).count()
    }

    /// Sessions in which completions run or wait.
    pub fn completed(&self) -> BTreeSet<SessionId> {
        self.allotment.completions.sessions().collect()
    }

    /// Slots of the group.
    pub fn slots(&self) -> usize {
        self.allotment.tables.group().capacity()
    }

    /// A document must fit in the cache alone, with a token to generate; for that others make room.
    pub fn check_slots(&self, tokens: usize) -> Result<(), Fault> {
        let capacity = self.slots();
        if tokens >= capacity { Err(faults::no_slots(tokens + 1, capacity)) } else { Ok(()) }
    }

    /// Slots that are free, or held by what ended completions left: that is kept for adoption, and goes as soon as somebody needs
    /// its slots.
    pub fn free_slots(&self) -> usize {
        let ended = self.allotment.tables.all().filter(|(id, _)| !self.allotment.completions.are_in(*id));
        let left: usize = ended.map(|(id, _)| self.allotment.tables.branch_rows(id)).sum();
        self.allotment.tables.group().free_slots() + left
    }

    /// Rows that a pass takes along for next to nothing.
    pub fn free_rows(&self) -> u32 {
        self.healer.free_rows(self.pace)
    }

    /// The plan in flight, if it only repairs.
    pub fn repair_in_flight(&self) -> Option<Seq> {
        let in_flight = self.in_flight.as_ref()?;
        in_flight.repairing.as_ref().map(|_| in_flight.seq)
    }

    /// Stale rows of all documents.
    pub fn stale(&self) -> usize {
        self.allotment.tables.stale().rows()
    }

    /// Rows of the step in flight.
    pub fn rows_in_flight(&self) -> u32 {
        self.in_flight.as_ref().map_or(0, |in_flight| in_flight.load.rows)
    }

    /// The completions that sample in the step in flight, if they still run.
    pub fn running(&self) -> impl Iterator<Item = &ActiveCompletion> {
        let ids = self.in_flight.iter().flat_map(|in_flight| in_flight.completions.values());
        ids.filter_map(|id| self.allotment.completions.front(id.session).filter(|front| front.id == *id))
    }

    /// The plan that should end after its present pass, because something that is not in it waits, or what is in it is not
    /// wanted any more. Each plan is named once.
    pub fn plan_to_interrupt(&mut self) -> Option<Seq> {
        let in_flight = self.in_flight.as_mut()?;
        let waits = |front: &ActiveCompletion| !in_flight.runs(front.id);
        let is_wanted = in_flight.is_stray
            || !self.changes.is_empty()
            || !self.refused.is_empty()
            || self.allotment.completions.fronts().any(waits);
        let interrupted = if is_wanted { in_flight.interrupt() } else { None };
        self.stats.steps.interrupts.add(interrupted.map_or(0, |_| 1));
        interrupted
    }
}
