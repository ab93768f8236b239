//! The owner's replica of a group, without input or output: calls and reports go in, plans come out. Time is an
//! argument, so that every case can be tested without sleeping.

mod editing;
mod leaving;
mod limits;
mod moving;
mod names;
mod opening;
mod pace;
mod reading;
mod room;
mod stepping;
mod tables;
mod waking;

use crate::call::{Call, ModelFacts, Prepared, Stream, Taken};
use crate::completion::{Completion, Place};
use crate::faults;
use crate::layout::Layout;
use crate::messages::Watch;
use crate::session::{Residence, Session, count};
use crate::stats::{Outcome, Stats};
use crate::tenants::{Quotas, Sharing, Tenant, TenantLimits, Tenants};
pub use leaving::Idle;
pub(crate) use moving::Standing;
use names::Names;
use pace::Pace;
use pie_plan::schedule::{Limits, Ticket};
use pie_plan::{Epoch, Group, SessionId};
use pie_proto::Fault;
use pie_proto::request::{Complete, Identity, Mode, SessionName};
use pie_text::{FimMarkers, Tokenizer};
use pie_words::{Cursor, Revision};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stepping::InFlight;
use tables::Op;

/// Completions that may wait in one session.
const WAITING_LIMIT: usize = 8;

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
    /// How often a key may be turned before its session is encoded anew, when nobody wants anything.
    pub rotations: u16,
}

/// The owner's state.
pub struct Core {
    tokenizer: Arc<Tokenizer>,
    markers: Option<FimMarkers>,
    model: ModelFacts,
    settings: Settings,
    group_name: String,
    sessions: BTreeMap<SessionId, Session>,
    names: Names,
    /// Whether this group is given up.
    standing: Standing,
    /// What the next owner was given, at which revision, until it says that it has it.
    given: BTreeMap<SessionId, Revision>,
    tenants: Tenants,
    /// The time of what happens.
    now: Instant,
    /// Sessions that want something: the others cost a step nothing.
    active: BTreeSet<SessionId>,
    /// Sessions past their rotation budget.
    worn: BTreeSet<SessionId>,
    /// Sessions of which the ranks have held nothing yet, the next to be encoded last: until they are used, or nobody wants
    /// anything.
    asleep: Vec<SessionId>,
    /// Sessions that are encoded though nobody has used them yet.
    quiet: BTreeSet<SessionId>,
    replica: Replica,
    /// What calls want of the tables, in order, while a plan is on its way.
    queued: VecDeque<Op>,
    /// Changes that the replica has and the ranks have not: they go with the next plan.
    staged: Vec<pie_plan::Change>,
    in_flight: Option<InFlight>,
    stats: Arc<Stats>,
    /// What a row of a large step takes.
    pace: Pace,
    /// Completions that run or wait.
    completions: usize,
    /// Completions that run, wait, or are not read to their end: what they hold is bounded by their number.
    streams: Vec<(Tenant, Watch)>,
    /// Of all documents.
    tokens: usize,
    next_session: u64,
    next_ticket: u64,
    next_completion: u64,
}

/// The group's tables, or why there are none.
enum Replica {
    Serving(Box<Group>),
    Lost(String),
}

impl Core {
    /// An owner without a group.
    pub fn new(tokenizer: Arc<Tokenizer>, settings: Settings, group_name: String) -> Self {
        Self {
            markers: tokenizer.fim_markers(),
            tokenizer,
            model: ModelFacts::default(),
            settings,
            group_name,
            sessions: BTreeMap::new(),
            names: Names::default(),
            standing: Standing::Here,
            given: BTreeMap::new(),
            tenants: Tenants::new(settings.tenant),
            now: Instant::now(),
            active: BTreeSet::new(),
            worn: BTreeSet::new(),
            asleep: Vec::new(),
            quiet: BTreeSet::new(),
            replica: Replica::Lost("the group is forming for the first time".to_owned()),
            queued: VecDeque::new(),
            staged: Vec::new(),
            in_flight: None,
            stats: Arc::default(),
            pace: Pace::default(),
            completions: 0,
            streams: Vec::new(),
            tokens: 0,
            next_session: 1,
            next_ticket: 1,
            next_completion: 1,
        }
    }

    /// It counts where another one did.
    #[must_use]
    pub fn with_stats(self, stats: Arc<Stats>) -> Self {
        Self { stats, ..self }
    }

    /// Some tenants have limits of their own.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.tenants.follow(quotas);
        self
    }

    /// A group is there, empty: sessions are encoded again from their documents as they are used, and else, the latest used
    /// first, when nobody wants anything. What a document holds may be more than the model of this group can see.
    pub fn formed(&mut self, epoch: Epoch, slots: u32, model: ModelFacts) {
        self.stats.context_limit.set(model.context_limit.into());
        self.model = model;
        // What the configuration calls the end of a text, and control tokens: they never stand in one.
        self.model.end_of_text.extend(self.tokenizer.ends());
        self.replica = Replica::Serving(Box::new(Group::new(epoch, slots)));
        let mut sessions: Vec<_> =
            self.sessions.values().map(|session| (session.ticket, session.id)).collect();
        sessions.sort_unstable();
        sessions.into_iter().for_each(|(_, session)| self.lay_by(session));
    }

    /// The group is gone: completions fail, documents stay.
    pub fn lost(&mut self, why: &str) {
        self.replica = Replica::Lost(why.to_owned());
        self.queued.clear();
        self.staged.clear();
        self.in_flight = None;
        self.active.clear();
        self.worn.clear();
        self.asleep.clear();
        self.quiet.clear();
        for session in self.sessions.values_mut() {
            (session.residence, session.layout, session.shadow) = (Residence::Dropped, Layout::Plain, None);
        }
        self.fail_all(&faults::group_lost(why));
    }

    /// After a panic in the middle of anything: the group is lost, and all books are made anew from the sessions. A document
    /// that was being changed and is not whole goes: its client opens it again.
    pub fn recover(&mut self, why: &str) {
        self.lost(why);
        self.sessions.retain(|id, session| {
            let whole = session.id == *id && session.document.is_whole();
            if !whole {
                tracing::error!(session = session.name.as_str(), "a document was half changed: it is closed");
            }
            whole
        });
        (self.names, self.tokens) = (Names::default(), 0);
        self.tenants.forget();
        for session in self.sessions.values() {
            self.names.insert(session.tenant.clone(), session.name.clone(), session.id);
            self.tenants.opened(&session.tenant, session.tokens());
            self.tokens += session.tokens();
        }
    }

    /// Ends all completions.
    pub fn fail_all(&mut self, fault: &Fault) {
        for session in self.sessions.values_mut() {
            session.completions.drain(..).for_each(|completion| fail(&self.stats, completion, fault));
        }
        self.completions = 0;
    }

    /// What is counted here.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// The epoch that is served.
    pub fn epoch(&self) -> Option<Epoch> {
        match &self.replica {
            Replica::Serving(group) => Some(group.epoch()),
            Replica::Lost(_) => None,
        }
    }

    /// Takes a call. Whoever asked may be gone; that is no matter here.
    pub fn call(&mut self, call: Call) {
        match call {
            Call::Open { tenant, name, identity, document, change, strategy, reply } => {
                let taken =
                    Taken { tenant, name, identity, strategy: strategy.unwrap_or_default(), document };
                let opened = self.open(taken, change, strategy);
                let _ = reply.send(self.counted(opened));
            }
            Call::Look { tenant, session, reply } => {
                let document = self.look(&tenant, &session);
                let _ = reply.send(self.counted(document));
            }
            Call::Apply { tenant, prepared, arrived, reply } => {
                let Prepared { request, change } = *prepared;
                let edited = self.apply(&tenant, &request, change, arrived);
                let _ = reply.send(self.counted(edited));
            }
            Call::Edit { tenant, request, arrived, reply } => {
                let edited = self.edit(&tenant, request, arrived);
                let _ = reply.send(self.counted(edited));
            }
            Call::Complete { tenant, request, arrived, reply } => {
                let accepted = self.complete(&tenant, request, arrived);
                let _ = reply.send(self.counted(accepted));
            }
            Call::Get { tenant, session, identity, content, reply } => {
                let got = self.get(&tenant, &session, identity.as_ref(), content);
                let _ = reply.send(self.counted(got));
            }
            Call::Close { tenant, session, identity, reply } => {
                let closed = self.close(&tenant, &session, identity.as_ref());
                let _ = reply.send(self.counted(closed));
            }
            Call::List { tenant, after, limit, reply } => {
                let _ = reply.send(self.list(&tenant, after.as_ref(), limit));
            }
            Call::Held { tenant, after, limit, reply } => {
                let _ = reply.send(self.held(tenant.as_ref(), after, limit));
            }
            Call::Take { taken, reply } => {
                let taken = self.take(taken);
                let _ = reply.send(self.counted(taken));
            }
            Call::Give { tenant, session, busy, reply } => {
                let _ = reply.send(self.give(&tenant, &session, busy));
            }
            Call::Vacate { tenant, session, identity, reply } => {
                let vacated = self.vacate(&tenant, &session, identity.as_ref());
                let _ = reply.send(self.counted(vacated));
            }
            Call::Room { tenant, session, reply } => {
                let room = self.make_way(&tenant, &session);
                let _ = reply.send(self.counted(room));
            }
            Call::Idle { reply } => {
                let _ = reply.send(self.idle());
            }
            Call::Stuck { reply } => {
                let _ = reply.send(self.stuck());
            }
            Call::Keep { resident } => self.keep(&resident),
            Call::Depart { resident, departure } => self.depart(&resident, departure),
            Call::Residents { reply } => {
                let _ = reply.send(self.residents());
            }
            Call::GiveAll { reply } => {
                let _ = reply.send(self.give_all());
            }
            Call::Arrived { what } => self.arrived(&what),
            Call::Describe { reply } => {
                let _ = reply.send(self.describe());
            }
        }
    }

    fn counted<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.inspect_err(|fault| self.stats.fault(fault))
    }

    fn complete(&mut self, tenant: &Tenant, request: Complete, arrived: Instant) -> Result<Stream, Fault> {
        let id = self.id_of(tenant, &request.session, request.identity.as_ref())?;
        if let Replica::Lost(why) = &self.replica {
            return Err(faults::group_lost(why));
        }
        let session = self.session(id, &request.session)?;
        faults::check_completion(&request, session, &self.model, WAITING_LIMIT)?;
        self.check_fit(session)?;
        let tenant = session.tenant.clone();
        self.check_load(&tenant)?;
        let session = self.session(id, &request.session)?;
        let place = faults::contained(|| self.place(session, &request))?;
        let context = self.layout(session, &place, request.mode).context(session.tokens());
        self.check_length(context)?;
        self.check_slots(context)?;
        let revision = session.document.revision().0;
        let mut request = request;
        request.max_tokens = request.max_tokens.min(count(self.room(context)));
        self.next_completion += 1;
        let decoder = self.tokenizer.decoder();
        let (completion, stream) = Completion::new(
            self.next_completion,
            request,
            (revision, place),
            &self.model.end_of_text,
            decoder,
            arrived,
        );
        self.streams.push((tenant, completion.watch()));
        let ticket = self.ticket();
        if let Some(session) = self.sessions.get_mut(&id) {
            if session.completions.is_empty() {
                session.ticket = ticket;
            }
            session.used = self.now;
            session.completions.push_back(completion);
            self.completions += 1;
            self.active.insert(id);
            self.quiet.remove(&id);
        }
        Ok(stream)
    }

    /// Where a completion is to write: found now, so that a cursor that is none is refused at once.
    fn place(&self, session: &Session, request: &Complete) -> Result<Place, Fault> {
        let document = &session.document;
        let cut = |cursor| document.cut(cursor).map_err(|error| faults::at_cursor(&error));
        match (request.mode, request.at) {
            (Mode::Continue, None) => Ok(Place::End),
            (Mode::Continue, Some(cursor)) => {
                let cut = cut(cursor)?;
                match (cut.kept == session.tokens(), cut.kept + cut.front.len()) {
                    (true, _) => Ok(Place::End),
                    (_, 0) => Err(faults::nothing_before(&session.name)),
                    _ => Ok(Place::Cursor(cut)),
                }
            }
            (Mode::FillInTheMiddle, at) => {
                if self.markers.is_none() || document.text().is_none() {
                    return Err(faults::no_markers());
                }
                Ok(Place::Cursor(cut(at.unwrap_or(Cursor::Byte(document.len_bytes())))?))
            }
        }
    }

    /// A session that may be used.
    fn id(&self, tenant: &Tenant, name: &SessionName) -> Result<SessionId, Fault> {
        let id = self.names.get(tenant, name).ok_or_else(|| match self.standing {
            Standing::Here => faults::no_session(name.as_str()),
            Standing::Leaving => faults::moving(name.as_str()),
        })?;
        match self.sessions.get(&id).map(|session| session.standing.max(self.standing)) {
            Some(Standing::Leaving) => Err(faults::moving(name.as_str())),
            _ => Ok(id),
        }
    }

    /// The same, of the life of the name that the call is for.
    fn id_of(
        &self,
        tenant: &Tenant,
        name: &SessionName,
        identity: Option<&Identity>,
    ) -> Result<SessionId, Fault> {
        let id = self.id(tenant, name)?;
        let other = |wanted: &Identity| self.sessions.get(&id).is_some_and(|here| here.identity != *wanted);
        if identity.is_some_and(other) { Err(faults::replaced(name.as_str())) } else { Ok(id) }
    }

    fn session(&self, id: SessionId, name: &SessionName) -> Result<&Session, Fault> {
        self.sessions.get(&id).ok_or_else(|| faults::no_session(name.as_str()))
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn new_id(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }
}

/// A completion that had been accepted fails.
fn fail(stats: &Stats, completion: Completion, fault: &Fault) {
    stats.fault(fault);
    stats.ended(Outcome::Failed);
    completion.fail(fault.clone());
}
