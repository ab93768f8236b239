//! Sessions come and go.

use super::tables::Op;
use super::{Core, Standing, fail};
use crate::call::{Taken, Why};
use crate::faults;
use crate::layout::Layout;
use crate::session::{Ahead, Exact, Residence, Session, count, difference};
use crate::tenants::Tenant;
use pie_plan::{SessionId, Strategy};
use pie_proto::request::{Identity, SessionName};
use pie_proto::{Fault, v1};
use pie_text::{Change, Document};
use std::collections::VecDeque;

/// A client's text.
struct Text {
    document: Document,
    /// What makes the session's document equal to it, as that was when the service looked.
    change: Option<Box<Change>>,
}

/// Tokens of a text that is compared with its session here, where the service could not do it.
const COMPARED_HERE: usize = 1024;

impl Core {
    /// A copy of a session's document, if it is open.
    pub(super) fn look(&self, tenant: &Tenant, name: &SessionName) -> Result<Option<Box<Document>>, Fault> {
        if self.standing == Standing::Here && self.names.get(tenant, name).is_none() {
            return Ok(None);
        }
        let session = self.session(self.id(tenant, name)?, name)?;
        Ok(Some(Box::new(session.document.snapshot())))
    }

    pub(super) fn open(
        &mut self,
        opened: Taken,
        change: Option<Box<Change>>,
        strategy: Option<Strategy>,
    ) -> Result<v1::OpenSessionResponse, Fault> {
        let Taken { tenant, name, document, .. } = &opened;
        if self.standing == Standing::Leaving {
            return Err(faults::moving(name.as_str()));
        }
        let tokens = document.token_count();
        self.check_length(tokens)?;
        faults::check_tokens(document, self.vocabulary())?;
        if self.names.get(tenant, name).is_some() {
            let id = self.id(tenant, name)?;
            return self.reopen(id, Text { document: *opened.document, change }, strategy);
        }
        if self.sessions.len() >= self.settings.sessions {
            return Err(self.too_many_sessions());
        }
        self.check_slots(tokens)?;
        self.tenants.check_open(tenant, tokens)?;
        let (session, revision) = (name.as_str().to_owned(), document.revision().0);
        let identity = opened.identity.as_str().to_owned();
        let id = self.insert(opened);
        self.queue(Op::Open { session: id });
        self.stats.sessions_opened.add(1);
        Ok(v1::OpenSessionResponse { session, revision, tokens: count(tokens), reused: 0, identity })
    }

    /// A session that is new here. The ranks do not know of it yet.
    pub(super) fn insert(&mut self, new: Taken) -> SessionId {
        let Taken { tenant, name, identity, strategy, document } = new;
        let tokens = document.token_count();
        self.tenants.opened(&tenant, tokens);
        self.tokens += tokens;
        let id = self.new_id();
        let mut ahead = Ahead::default();
        ahead.add(tokens);
        let session = Session {
            name: name.clone(),
            id,
            identity,
            tenant: tenant.clone(),
            standing: Standing::Here,
            left: self.now,
            used: self.now,
            document: *document,
            strategy,
            completions: VecDeque::new(),
            ticket: self.ticket(),
            ahead,
            edited: None,
            residence: Residence::Dropped,
            layout: Layout::Plain,
            exact: Exact::All,
            adopted: 0,
            shadow: None,
        };
        self.sessions.insert(id, session);
        self.names.insert(tenant, name, id);
        id
    }

    /// The client's text is the truth; what the pool holds already is kept, and so is the strategy, if the client names none.
    fn reopen(
        &mut self,
        id: SessionId,
        text: Text,
        strategy: Option<Strategy>,
    ) -> Result<v1::OpenSessionResponse, Fault> {
        self.used(id);
        let session = self.sessions.get(&id).ok_or_else(|| faults::no_session("the name's session"))?;
        let strategy = strategy.unwrap_or(session.strategy);
        let Text { document, change } = text;
        let change = match change {
            Some(change) if session.document.accepts(&change).is_ok() => *change,
            _ if document.token_count() <= COMPARED_HERE => {
                difference(&session.document, &document).map_err(|error| faults::text(&error))?
            }
            // Another call was quicker. Comparing a long text here would make everybody wait.
            _ => return Err(faults::overtaken(session.name.as_str())),
        };
        let inserted = change.splices().inserted();
        let name = session.name.as_str().to_owned();
        if !change.splices().is_empty() || session.document.text() != document.text() {
            self.check_growth(session, change.splices())?;
            self.commit(id, change, strategy, None)?;
        }
        let session = self.sessions.get_mut(&id).ok_or_else(|| faults::no_session(&name))?;
        session.strategy = strategy;
        let (revision, tokens) = (session.document.revision().0, session.tokens());
        Ok(v1::OpenSessionResponse {
            session: name,
            identity: session.identity.as_str().to_owned(),
            revision,
            tokens: count(tokens),
            reused: count(tokens.saturating_sub(inserted)),
        })
    }

    pub(super) fn close(
        &mut self,
        tenant: &Tenant,
        name: &SessionName,
        identity: Option<&Identity>,
    ) -> Result<(), Fault> {
        let id = self.id_of(tenant, name, identity)?;
        self.remove(id, &faults::no_session(name.as_str()));
        self.stats.closed(Why::Client);
        Ok(())
    }

    /// A session is gone; whoever waits for it is told.
    pub(super) fn remove(&mut self, id: SessionId, fault: &Fault) {
        if let Some(session) = self.sessions.remove(&id) {
            self.names.remove(&session.tenant, &session.name);
            self.tenants.closed(&session.tenant, session.tokens());
            self.tokens -= session.tokens();
            self.completions -= session.completions.len();
            for completion in session.completions {
                fail(&self.stats, completion, fault);
            }
            self.active.remove(&id);
            self.worn.remove(&id);
            self.quiet.remove(&id);
            let shadow = session.shadow.map(|session| Op::Close { session });
            shadow.into_iter().chain([Op::Close { session: id }]).for_each(|op| self.queue(op));
        }
    }
}
