//! Sessions that come from elsewhere and go elsewhere: the document and its revision move, the cache is encoded again.

use super::{Core, fail};
use crate::call::{Arrived, Busy, Given, Taken};
use crate::faults;
use crate::session::Session;
use crate::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::carried::Carried;
use pie_proto::request::{Content, SessionName};

/// Whether sessions may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// They may.
    #[default]
    Here,
    /// They are on their way: whoever asks for them is to ask again.
    Leaving,
}

impl Core {
    /// Takes a session that was open elsewhere. Limits do not hold it back, not even the model's: nothing may be lost on the
    /// way, and what cannot be completed here can be read. Of two of one name the one with the greater revision stays: its client
    /// has opened it here meanwhile, or edited it elsewhere.
    pub(super) fn take(&mut self, taken: Taken) -> Result<(), Fault> {
        if self.standing == Standing::Leaving {
            return Err(faults::moving(taken.name.as_str()));
        }
        self.settle(taken);
        Ok(())
    }

    fn settle(&mut self, taken: Taken) {
        let present = self.names.get(&taken.tenant, &taken.name).and_then(|id| self.sessions.get(&id));
        if let Some((id, revision)) = present.map(|present| (present.id, present.document.revision())) {
            // A copy that is here only until it is known to have arrived elsewhere gives way to what comes back from there. Else
            // revisions only grow, from one life of a name to the next too: what is older here was left behind by somebody.
            let is_kept = self.given.remove(&id) == Some(revision);
            if revision > taken.document.revision() || (revision == taken.document.revision() && !is_kept) {
                return;
            }
            self.remove(id, &faults::replaced(taken.name.as_str()));
        }
        let id = self.insert(taken);
        self.lay_by(id);
        self.stats.sessions_taken.add(1);
    }

    /// Takes the documents that the group's owner before had: also when the group has been given up meanwhile, for whoever asks
    /// next.
    pub fn inherit(&mut self, taken: Vec<Taken>) {
        taken.into_iter().for_each(|session| self.settle(session));
    }

    /// Gives a session's document away. It stays here too, out of reach, until it is known to have arrived.
    pub(super) fn give(&mut self, tenant: &Tenant, name: &SessionName, busy: Busy) -> Result<Given, Fault> {
        let id = self.id(tenant, name)?;
        let Some(session) = self.sessions.get_mut(&id) else { return Err(faults::no_session(name.as_str())) };
        if busy == Busy::Waits && !session.completions.is_empty() {
            return Ok(Given::NotYet);
        }
        (session.standing, session.left) = (Standing::Leaving, self.now);
        let ended: Vec<_> = session.completions.drain(..).collect();
        let given = carried(session);
        self.completions -= ended.len();
        self.active.remove(&id);
        ended
            .into_iter()
            .for_each(|completion| fail(&self.stats, completion, &faults::moving(name.as_str())));
        Ok(Given::Carried(Box::new(given)))
    }

    /// The whole group goes to another router: nothing is answered any more but that.
    pub fn retire(&mut self) {
        self.lost("another router takes the group over");
        self.standing = Standing::Leaving;
    }

    /// All documents, for the next owner. They stay here until they are known to have arrived: whoever asked may be gone meanwhile.
    /// Nothing changes them, since nothing of a group is answered that is not owned.
    pub fn give_all(&mut self) -> Result<Vec<Carried>, Fault> {
        if self.group().is_some() {
            return Err(faults::owned(&self.group_name));
        }
        let given = self.sessions.values().map(|session| (session.id, session.document.revision()));
        self.given = given.collect();
        Ok(self.sessions.values().map(carried).collect())
    }

    /// What was given has arrived. What has come or changed since stays.
    pub(super) fn arrived(&mut self, what: &Arrived) {
        let given = match what {
            Arrived::All => std::mem::take(&mut self.given),
            Arrived::One(tenant, name) => {
                let id = self.names.get(tenant, name);
                id.and_then(|id| self.given.remove_entry(&id)).into_iter().collect()
            }
        };
        for (id, revision) in given {
            if self.sessions.get(&id).is_some_and(|session| session.document.revision() == revision) {
                self.remove(id, &faults::moving("this"));
                self.stats.sessions_given.add(1);
            }
        }
    }

    /// Sessions of all tenants that have not left.
    pub(crate) fn residents(&self) -> Vec<(Tenant, SessionName)> {
        let here = self.sessions.values().filter(|session| session.standing == Standing::Here);
        here.map(|session| (session.tenant.clone(), session.name.clone())).collect()
    }
}

fn carried(session: &Session) -> Carried {
    let document = &session.document;
    let content = match document.text() {
        Some(text) => Content::Text(text),
        None => Content::Tokens(document.tokens().collect()),
    };
    Carried {
        tenant: session.tenant.as_str().to_owned(),
        name: session.name.clone(),
        identity: Some(session.identity.clone()),
        revision: document.revision(),
        strategy: session.strategy,
        content,
    }
}
