//! The owner's replica of a group, without input or output: calls and reports go in, plans come out. Time is an
//! argument, so that every case can be tested without sleeping.

mod stepping;

use crate::call::{Call, ModelFacts, More, Stream};
use crate::completion::{Before, Completion};
use crate::faults;
use crate::session::{Ahead, Session, count, difference};
use pie_plan::schedule::{Limits, Ticket};
use pie_plan::{Change, Epoch, Group, SessionId, Splices, Strategy, TokenId};
use pie_proto::request::{ApplyEdits, Complete, SessionName};
use pie_proto::{Fault, v1};
use pie_text::{Document, Tokenizer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Queued changes that are sent even if nobody wants a forward pass.
const CHANGES_LIMIT: usize = 64;
/// Completions that may wait in one session.
const WAITING_LIMIT: usize = 8;
/// Plans between two comparisons of the ranks' digests (P4).
const DIGEST_EVERY: u64 = 64;

/// The owner's state.
pub struct Core {
    tokenizer: Arc<Tokenizer>,
    model: ModelFacts,
    limits: Limits,
    group_name: String,
    sessions: BTreeMap<SessionId, Session>,
    names: BTreeMap<SessionName, SessionId>,
    replica: Replica,
    queued: Vec<Change>,
    /// Slots that will be free when the queued changes are applied.
    projected_free: usize,
    /// Completions of the plan that the ranks are working on.
    in_flight: Option<BTreeMap<SessionId, u64>>,
    next_session: u64,
    next_ticket: u64,
    next_completion: u64,
    next_name: u64,
}

/// The group's tables, or why there are none.
enum Replica {
    Serving(Box<Group>),
    Lost(String),
}

impl Core {
    /// An owner without a group.
    pub fn new(tokenizer: Arc<Tokenizer>, limits: Limits, group_name: String) -> Self {
        Self {
            tokenizer,
            model: ModelFacts::default(),
            limits,
            group_name,
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            replica: Replica::Lost("the group is forming for the first time".to_owned()),
            queued: Vec::new(),
            projected_free: 0,
            in_flight: None,
            next_session: 1,
            next_ticket: 1,
            next_completion: 1,
            next_name: 1,
        }
    }

    /// A group is there, empty: every session is encoded again from its document.
    pub fn formed(&mut self, epoch: Epoch, slots: u32, model: ModelFacts) {
        self.model = model;
        self.replica = Replica::Serving(Box::new(Group::new(epoch, slots)));
        self.projected_free = slots as usize;
        let documents: Vec<_> = self
            .sessions
            .values()
            .map(|session| (session.id, session.strategy, session.document.tokens().collect::<Vec<_>>()))
            .collect();
        for (session, strategy, tokens) in documents {
            let held = tokens.len();
            self.queue_open(session, tokens, strategy);
            if let Some(session) = self.sessions.get_mut(&session) {
                (session.pending, session.ahead) = (held, Ahead::of(held));
            }
        }
    }

    /// The group is gone: completions fail, documents stay.
    pub fn lost(&mut self, why: &str) {
        self.replica = Replica::Lost(why.to_owned());
        self.queued.clear();
        self.in_flight = None;
        for session in self.sessions.values_mut() {
            for completion in session.completions.drain(..) {
                completion.fail(faults::group_lost(why));
            }
        }
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
            Call::Open { name, document, strategy, reply } => {
                let _ = reply.send(self.open(name, *document, strategy));
            }
            Call::Edit { request, arrived, reply } => {
                let _ = reply.send(self.edit(request, arrived));
            }
            Call::Complete { request, arrived, reply } => {
                let _ = reply.send(self.complete(request, arrived));
            }
            Call::Get { session, content, reply } => {
                let _ = reply.send(self.get(&session, content));
            }
            Call::Close { session, reply } => {
                let _ = reply.send(self.close(&session));
            }
            Call::List { after, limit, reply } => {
                let _ = reply.send(self.list(after, limit));
            }
            Call::Describe { reply } => {
                let _ = reply.send(self.describe());
            }
        }
    }

    fn open(
        &mut self,
        name: Option<SessionName>,
        document: Document,
        strategy: Strategy,
    ) -> Result<v1::OpenSessionResponse, Fault> {
        self.check_length(document.token_count())?;
        faults::check_tokens(&document, self.vocabulary())?;
        let name = match name {
            Some(name) => name,
            None => self.new_name()?,
        };
        if let Some(id) = self.names.get(&name).copied() {
            return self.reopen(id, document, strategy);
        }
        let tokens: Vec<TokenId> = document.tokens().collect();
        self.check_slots(self.kept_for_generation(), 0, tokens.len())?;
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let revision = document.revision().0;
        let held = tokens.len();
        self.queue_open(id, tokens, strategy);
        let session = Session {
            name: name.clone(),
            id,
            document,
            strategy,
            completions: VecDeque::new(),
            ticket: self.ticket(),
            pending: held,
            ahead: Ahead::of(held),
            edited: None,
        };
        self.sessions.insert(id, session);
        self.names.insert(name.clone(), id);
        let session = name.as_str().to_owned();
        Ok(v1::OpenSessionResponse { session, revision, tokens: count(held), reused: 0 })
    }

    /// The client's text is the truth; what the pool holds already is kept.
    fn reopen(
        &mut self,
        id: SessionId,
        document: Document,
        strategy: Strategy,
    ) -> Result<v1::OpenSessionResponse, Fault> {
        let session = self.sessions.get(&id).ok_or_else(|| faults::no_session("the name's session"))?;
        let change = difference(&session.document, &document).map_err(|error| faults::text(&error))?;
        let inserted = change.splices().inserted();
        let name = session.name.as_str().to_owned();
        if !change.splices().is_empty() || session.document.text() != document.text() {
            self.check_slots(0, change.splices().deleted(), inserted)?;
            self.commit(id, change, strategy, None)?;
        }
        let session = self.sessions.get_mut(&id).ok_or_else(|| faults::no_session(&name))?;
        session.strategy = strategy;
        let (revision, tokens) = (session.document.revision().0, session.tokens());
        Ok(v1::OpenSessionResponse {
            session: name,
            revision,
            tokens: count(tokens),
            reused: count(tokens.saturating_sub(inserted)),
        })
    }

    fn edit(&mut self, request: ApplyEdits, arrived: Instant) -> Result<v1::ApplyEditsResponse, Fault> {
        let id = self.id(&request.session)?;
        let session = self.session(id, &request.session)?;
        let strategy = request.strategy.unwrap_or(session.strategy);
        let change = faults::prepare(&session.document, &request, self.vocabulary())?;
        let (inserted, deleted) = (change.splices().inserted(), change.splices().deleted());
        self.check_length(session.tokens() - deleted + inserted)?;
        self.check_slots(0, deleted, inserted)?;
        let tokens_retokenized = count(change.stats().tokens_retokenized);
        self.commit(id, change, strategy, Some(arrived))?;
        let session = self.session(id, &request.session)?;
        Ok(v1::ApplyEditsResponse {
            revision: session.document.revision().0,
            tokens: count(session.tokens()),
            tokens_inserted: count(inserted),
            tokens_deleted: count(deleted),
            tokens_retokenized,
        })
    }

    /// Changes a document, ends its older completions (D1), and queues the splices. Everything was checked before.
    fn commit(
        &mut self,
        id: SessionId,
        change: pie_text::Change,
        strategy: Strategy,
        arrived: Option<Instant>,
    ) -> Result<(), Fault> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let splices = change.splices().clone();
        let revision = session.document.revision();
        session.document.commit(change).map_err(|error| faults::text(&error))?;
        if session.document.revision() == revision {
            return Ok(());
        }
        session.edited = arrived.or(session.edited);
        let ran = session.completions.front().is_some_and(Completion::has_started);
        for completion in session.completions.drain(..) {
            completion.end_by_edit();
        }
        let tokens = session.tokens();
        session.pending = match (strategy, splices.iter().next()) {
            (Strategy::Full, Some(first)) => (session.pending + tokens - first.at.usize()).min(tokens),
            _ => (session.pending + splices.inserted()).min(tokens),
        };
        session.ahead = Ahead::of(session.pending);
        if ran {
            self.end_branch(id);
        }
        self.projected_free = (self.projected_free + splices.deleted()).saturating_sub(splices.inserted());
        self.queue(Change::Splice { session: id, splices, strategy });
        Ok(())
    }

    fn complete(&mut self, request: Complete, arrived: Instant) -> Result<Stream, Fault> {
        if let Replica::Lost(why) = &self.replica {
            return Err(faults::group_lost(why));
        }
        let id = self.id(&request.session)?;
        let session = self.session(id, &request.session)?;
        faults::check_completion(&request, session, &self.model, WAITING_LIMIT)?;
        let context = count(session.tokens());
        let mut request = request;
        request.max_tokens = request.max_tokens.min(self.model.context_limit - context);
        let state = (session.document.revision().0, context);
        let completion_id = self.next_completion;
        self.next_completion += 1;
        let decoder = self.tokenizer.decoder();
        let ticket = self.ticket();
        let end_of_text = self.model.end_of_text.clone();
        let session =
            self.sessions.get_mut(&id).ok_or_else(|| faults::no_session(request.session.as_str()))?;
        let (ahead, edited) = (session.ahead, session.edited.take());
        session.ahead = Ahead { wanted: ahead.wanted, ..Ahead::default() };
        let before = Before { arrived, edited, encoded: ahead.encoded, rotated: ahead.rotated };
        let (completion, stream) =
            Completion::new(completion_id, request, state, &end_of_text, decoder, before);
        if session.completions.is_empty() {
            session.ticket = ticket;
        }
        session.completions.push_back(completion);
        Ok(stream)
    }

    fn get(&self, name: &SessionName, content: bool) -> Result<v1::GetSessionResponse, Fault> {
        let session = self.session(self.id(name)?, name)?;
        let ids = || v1::Tokens { ids: session.document.tokens().map(|token| token.0).collect() };
        Ok(v1::GetSessionResponse {
            session: Some(session.describe(&self.group_name)),
            text: if content { session.document.text() } else { None },
            tokens: content.then(ids),
        })
    }

    fn close(&mut self, name: &SessionName) -> Result<(), Fault> {
        let id = self.id(name)?;
        self.names.remove(name);
        if let Some(session) = self.sessions.remove(&id) {
            if session.completions.front().is_some_and(Completion::has_started) {
                self.end_branch(id);
            }
            for completion in session.completions {
                completion.fail(faults::no_session(name.as_str()));
            }
            self.projected_free += session.document.token_count();
            self.queue(Change::Close { session: id });
        }
        Ok(())
    }

    fn list(&self, after: Option<String>, limit: usize) -> (Vec<v1::Session>, More) {
        let behind = |name: &&SessionName| after.as_deref().is_none_or(|after| name.as_str() > after);
        let mut ids = self.names.iter().filter(|(name, _)| behind(name)).map(|(_, id)| id);
        let page = ids.by_ref().take(limit).filter_map(|id| self.sessions.get(id));
        let page = page.map(|session| session.describe(&self.group_name)).collect();
        (page, if ids.next().is_some() { More::Yes } else { More::No })
    }

    /// The pool as the API describes it; who the ranks are is the owner's to add.
    pub fn describe(&self) -> v1::DescribePoolResponse {
        let (epoch, slots_total, slots_free, state) = match &self.replica {
            Replica::Serving(group) => {
                (group.epoch().0, group.capacity(), self.projected_free, "serving".to_owned())
            }
            Replica::Lost(why) => (0, 0, 0, why.clone()),
        };
        let group = v1::Group {
            group: self.group_name.clone(),
            epoch,
            ranks: Vec::new(),
            slots_total: count(slots_total),
            slots_free: count(slots_free),
            sessions: count(self.sessions.len()),
            state,
            counters: None,
        };
        v1::DescribePoolResponse {
            model: self.model.name.clone(),
            parameters: self.model.parameters,
            context_limit: self.model.context_limit,
            vocabulary: self.model.vocabulary,
            groups: vec![group],
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn queue_open(&mut self, session: SessionId, tokens: Vec<TokenId>, strategy: Strategy) {
        self.projected_free = self.projected_free.saturating_sub(tokens.len());
        self.queue(Change::Open { session });
        if let Ok(splices) = Splices::append(0, tokens)
            && !splices.is_empty()
        {
            self.queue(Change::Splice { session, splices, strategy });
        }
    }

    /// The generated tokens of a completion that ran go with the next plan; their slots can be promised at once.
    fn end_branch(&mut self, session: SessionId) {
        if let Replica::Serving(group) = &self.replica {
            self.projected_free += group.table(session).map_or(0, pie_plan::Table::branch_length);
        }
        self.queue(Change::EndBranch { session });
    }

    /// Changes wait for the next plan; without a group there is nothing to change, and the documents say it all.
    fn queue(&mut self, change: Change) {
        if matches!(self.replica, Replica::Serving(_)) {
            self.queued.push(change);
        }
    }

    fn check_length(&self, tokens: usize) -> Result<(), Fault> {
        let limit = self.model.context_limit as usize;
        if limit > 0 && tokens >= limit {
            return Err(faults::too_long(tokens, limit));
        }
        Ok(())
    }

    fn check_slots(&self, kept: usize, deleted: usize, inserted: usize) -> Result<(), Fault> {
        let free = (self.projected_free + deleted).saturating_sub(kept);
        if matches!(self.replica, Replica::Serving(_)) && inserted > free {
            return Err(faults::no_slots(inserted, free));
        }
        Ok(())
    }

    /// New documents leave one slot of sixteen to generated tokens and edits of those that are in: a cache full of
    /// documents could answer nobody.
    fn kept_for_generation(&self) -> usize {
        match &self.replica {
            Replica::Serving(group) => group.capacity() / 16,
            Replica::Lost(_) => 0,
        }
    }

    fn vocabulary(&self) -> Option<u32> {
        (self.model.vocabulary > 0).then_some(self.model.vocabulary)
    }

    fn id(&self, name: &SessionName) -> Result<SessionId, Fault> {
        self.names.get(name).copied().ok_or_else(|| faults::no_session(name.as_str()))
    }

    fn session(&self, id: SessionId, name: &SessionName) -> Result<&Session, Fault> {
        self.sessions.get(&id).ok_or_else(|| faults::no_session(name.as_str()))
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn new_name(&mut self) -> Result<SessionName, Fault> {
        loop {
            let name = SessionName::new(format!("session-{}", self.next_name))?;
            self.next_name += 1;
            if !self.names.contains_key(&name) {
                return Ok(name);
            }
        }
    }
}
