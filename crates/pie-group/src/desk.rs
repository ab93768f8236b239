//! The owner's desk: calls come in, the core does what they ask, and whoever asked is answered. Completions are answered by
//! streams, which tell the core when nobody reads them.

mod answers;
mod holding;
mod streams;

use crate::call::{Call, EditReply, MessageStream, More, Reply, WorkedOut};
use crate::core::session::Session;
use crate::core::{Copy, Core, JournalBatch, stuck};
use crate::faults;
use crate::spans::{AwaitedToken, Recorded};
use crate::stats::Stats;
use crate::tenants::Tenant;
use holding::Holding;
pub use holding::Witnesses;
use pie_plan::{Plan, PlanError};
use pie_proto::carried::Carried;
use pie_proto::plan::Step;
use pie_proto::request::{Complete, Identity, SessionName};
use pie_proto::{Fault, v1};
use pie_words::{Seq, SessionId};
use std::sync::Arc;
use std::time::Instant;
use streams::CompletionStreams;

/// The core, and those who wait for it.
pub struct Desk {
    core: Core,
    streams: CompletionStreams,
    /// Answers that wait for the ranks.
    holding: Holding,
    group: String,
    stats: Arc<Stats>,
}

impl Desk {
    /// Of the owner of a group.
    pub fn new(core: Core, group: String) -> Self {
        let (stats, holding) = (core.stats.clone(), Holding::new(core.settings.ack));
        Self { stats, core, streams: CompletionStreams::default(), holding, group }
    }

    /// What is counted here.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// To look at.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Does something to the core. Whom it concerns is told.
    pub fn act<T>(&mut self, what: impl FnOnce(&mut Core) -> T) -> T {
        let done = what(&mut self.core);
        self.tell();
        done
    }

    fn tell(&mut self) {
        for (id, news) in self.core.take_news() {
            self.streams.tell(id, news);
        }
    }

    /// The core begins anew: all that it had is gone.
    pub fn replace(&mut self, core: Core) {
        self.holding = Holding::new(core.settings.ack);
        (self.core, self.streams) = (core, CompletionStreams::default());
    }

    /// What happened to the documents since the last time.
    pub fn written(&mut self) -> Option<JournalBatch> {
        self.core.sessions.journal.take()
    }

    /// See [`Holding::confirm`].
    pub fn confirm(&mut self, number: u64) {
        self.holding.confirm(number);
    }

    /// Whether answers wait for the ranks.
    pub fn holds_answers(&self) -> bool {
        self.holding.holds()
    }

    /// Who keeps the documents.
    pub fn witnesses(&self) -> Witnesses {
        self.holding.witnesses()
    }

    /// See [`Holding::witnessed`].
    pub fn witnessed(&mut self, witnesses: Witnesses) {
        self.holding.witnessed(witnesses);
    }

    /// The next step of the group, without what nobody waits for any more.
    ///
    /// # Errors
    /// See [`Core::next_step`].
    pub fn next_step(&mut self, now: Instant) -> Result<Option<Step>, PlanError> {
        let abandoned = self.streams.abandoned();
        self.act(|core| {
            if let Ok(planner) = &mut core.planner {
                abandoned.into_iter().for_each(|id| planner.abandon(id));
            }
            core.next_step(now)
        })
        .inspect(|step| step.iter().for_each(|step| self.log(&step.plan)))
    }

    fn log(&self, plan: &Plan) {
        let (group, epoch, seq) = (&self.group, plan.epoch.0, plan.seq.0);
        let (passes, sessions) = (plan.passes, plan.runs.len());
        let rows = self.core.planner.as_ref().map_or(0, |planner| planner.rows_in_flight());
        tracing::debug!(group, epoch, seq, rows, sessions, passes, "a step");
    }

    /// The plan that should end after its present pass.
    pub fn plan_to_interrupt(&mut self) -> Option<Seq> {
        self.core.planner.as_mut().ok()?.plan_to_interrupt()
    }

    /// The plan in flight, if it only repairs.
    pub fn repair_to_give_up(&self) -> Option<Seq> {
        self.core.planner.as_ref().ok()?.repair_in_flight()
    }

    /// Whether the ranks repair.
    pub fn is_repairing(&self) -> bool {
        self.repair_to_give_up().is_some()
    }

    /// All documents, for the next owner.
    ///
    /// # Errors
    /// The group is served here.
    pub fn give_all(&mut self) -> Result<Vec<Carried>, Fault> {
        let is_served = self.core.planner.is_ok();
        if is_served { Err(faults::owned(&self.group)) } else { Ok(self.core.sessions.give_all()) }
    }

    /// What the step in flight has to do with traces that are recorded; nothing, in most steps.
    pub(crate) fn recorded(&self) -> Option<Recorded> {
        let planner = self.core.planner.as_ref().ok()?;
        let calls = planner.running().filter_map(|completion| {
            let waits =
                if completion.waits_for_first_token() { AwaitedToken::First } else { AwaitedToken::Later };
            Some((self.streams.recorded(completion.id)?.clone(), waits))
        });
        let calls: Vec<_> = calls.collect();
        let (rows, completions) = (planner.rows_in_flight(), planner.running().count());
        (!calls.is_empty()).then_some(Recorded { rows, completions, calls })
    }

    /// Takes a call. Whoever asked may be gone; that is no matter here.
    pub fn call(&mut self, call: Call) {
        self.answer(call);
        self.tell();
    }

    fn answer(&mut self, call: Call) {
        let call = match self.holding.admits() {
            Ok(()) => call,
            Err(fault) => match call.refuse_changes(|| fault.clone()) {
                Some(call) => call,
                None => return self.stats.fault(&fault),
            },
        };
        let core = &mut self.core;
        match call {
            Call::Open { tenant, name, prepared, following, reply } => {
                let opened = core.open(tenant, name, prepared, following);
                let opened = opened.and_then(|opened| answers::opened(core, &opened));
                self.reply(reply, opened);
            }
            Call::Look { tenant, session, reply } => {
                let document = core.look(&tenant, &session);
                self.reply_at_once(reply, document);
            }
            Call::Edit { tenant, request, prepared, arrived, reply } => {
                let copy = if prepared.is_none() { core.copy_for(&tenant, &request) } else { Ok(None) };
                let edited = copy.and_then(|copy| match copy {
                    Some(Copy { document, bytes }) => {
                        Ok(EditReply::Beside { document, request: Box::new(request), bytes })
                    }
                    None => {
                        let edited = core.edit(&tenant, &request, prepared.map(|change| *change), arrived)?;
                        answers::edited(core, &edited).map(EditReply::Done)
                    }
                });
                self.reply(reply, edited);
            }
            Call::Complete { tenant, request, worked_out, arrived, reply } => {
                let accepted = self.complete(tenant, request, worked_out, arrived);
                self.reply(reply, accepted);
            }
            Call::Get { tenant, session, identity, content, reply } => {
                let found = find(core, &tenant, &session, identity.as_ref());
                // Whoever reads it is there.
                found.iter().for_each(|id| core.sessions.used(*id));
                let got = found.and_then(|id| answers::got(core, &self.group, id, content));
                self.reply(reply, got);
            }
            Call::Vacate { tenant, session, identity, reply } => {
                let found = find(core, &tenant, &session, identity.as_ref());
                let vacated = found.and_then(|id| core.sessions.leaves(id));
                self.reply_at_once(reply, vacated);
            }
            Call::Room { tenant, session, reply } => {
                let completed = core.planner.as_ref().map(|planner| planner.completed());
                let idle = core.sessions.idle;
                let first = idle.makes_way(&core.sessions, &tenant, &session, &completed.unwrap_or_default());
                let room = first.and_then(|first| first.map(|id| core.sessions.leaves(id)).transpose());
                self.reply_at_once(reply, room);
            }
            Call::Take { taken, reply } => {
                let taken = core.take(taken);
                self.reply(reply, taken);
            }
            Call::Give { tenant, session, busy, reply } => {
                let given = core.give(&tenant, &session, busy);
                let _ = reply.send(given);
            }
            Call::GiveAll { reply } => {
                let given = self.give_all();
                let _ = reply.send(given);
            }
            Call::List { tenant, after, limit, reply } => {
                let after = after.map(|name| (tenant.clone(), name));
                let sessions = core.sessions.behind(Some(&tenant), after.as_ref());
                let _ = reply.send(page(sessions, limit, |one| answers::session(core, &self.group, one)));
            }
            Call::Held { tenant, after, limit, reply } => {
                let sessions = core.sessions.behind(tenant.as_ref(), after.as_ref());
                let _ = reply.send(page(sessions, limit, |one| answers::held(core, &self.group, one)));
            }
            Call::Idle { reply } => {
                let completed = core.planner.as_ref().map(|planner| planner.completed());
                let unused =
                    core.sessions.idle.unused_for_long(&core.sessions, &completed.unwrap_or_default());
                let leaving = unused.into_iter().filter_map(|id| core.sessions.leaves(id).ok());
                let _ = reply.send(leaving.collect());
            }
            Call::Stuck { reply } => {
                let _ = reply.send(stuck(&core.sessions));
            }
            Call::Keep { resident } => core.sessions.keep(&resident),
            Call::Depart { resident, departure } => core.depart(&resident, departure),
            Call::Settled { reply } => self.reply(reply, Ok(())),
            Call::Residents { reply } => {
                let _ = reply.send(core.sessions.residents());
            }
            Call::Arrived { what } => core.arrived(&what),
            Call::Describe { reply } => {
                let _ = reply.send(self.describe());
            }
        }
    }

    /// Answers what tells a caller nothing yet.
    fn reply_at_once<T>(&self, reply: Reply<T>, answer: Result<T, Fault>) {
        let _ = reply.send(answer.inspect_err(|fault| self.stats.fault(fault)));
    }

    /// Answers a call that may be refused. A refusal is counted. What is told of a document waits until the ranks have that.
    fn reply<T: Send + 'static>(&mut self, reply: Reply<T>, answer: Result<T, Fault>) {
        let answer = answer.inspect_err(|fault| self.stats.fault(fault));
        self.holding.answer(self.core.sessions.journal.latest(), reply, answer);
    }

    fn complete(
        &mut self,
        tenant: Tenant,
        request: Complete,
        worked_out: WorkedOut,
        arrived: Instant,
    ) -> Result<MessageStream, Fault> {
        let unread = self.streams.unread(&tenant);
        let accepted = self.core.complete(&tenant, request, worked_out, arrived, unread)?;
        Ok(self.streams.open(accepted, tenant, arrived))
    }

    /// The pool as the API describes it; who the ranks are is the owner's to add.
    pub fn describe(&self) -> v1::DescribePoolResponse {
        answers::described(&self.core, &self.group)
    }
}

fn find(
    core: &Core,
    tenant: &Tenant,
    name: &SessionName,
    identity: Option<&Identity>,
) -> Result<SessionId, Fault> {
    core.sessions.find(tenant, name, identity).map(|session| session.id)
}

/// So many sessions, and whether there are more.
fn page<'a, T>(
    mut sessions: impl Iterator<Item = &'a Session>,
    limit: usize,
    answer: impl Fn(&Session) -> T,
) -> (Vec<T>, More) {
    let page = sessions.by_ref().take(limit).map(answer).collect();
    (page, if sessions.next().is_some() { More::Yes } else { More::No })
}
