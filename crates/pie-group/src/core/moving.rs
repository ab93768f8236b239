//! Sessions that come from elsewhere and go elsewhere: the document and its revision move, the cache is encoded again.

use super::Core;
use crate::call::{ArrivedDocuments, BusySessionPolicy, GiveReply, ImportedSession};
use crate::faults;
use crate::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::request::SessionName;

impl Core {
    /// Takes a session that was open elsewhere. Limits do not hold it back, not even the model's: nothing may be lost on the
    /// way, and what cannot be completed here can be read.
    pub(crate) fn take(&mut self, taken: ImportedSession) -> Result<(), Fault> {
        if self.sessions.is_given_up {
            return Err(faults::moving(taken.name.as_str()));
        }
        self.inherit(taken);
        Ok(())
    }

    /// Takes a document that the group's owner before had: also when the group has been given up meanwhile, for whoever asks
    /// next. Of two of one name the one with the greater revision stays: its client has opened it here meanwhile, or edited it
    /// elsewhere.
    pub fn inherit(&mut self, taken: ImportedSession) {
        if let Some(present) = self.sessions.named(&taken.tenant, &taken.name) {
            let (id, revision) = (present.id, present.document.revision());
            // A copy that is here only until it is known to have arrived elsewhere gives way to what comes back from there. Else
            // revisions only grow, from one life of a name to the next too: what is older here was left behind by somebody.
            let is_kept = self.sessions.given.remove(&id) == Some(revision);
            if revision > taken.document.revision() || (revision == taken.document.revision() && !is_kept) {
                return;
            }
            self.remove(id, &faults::replaced(taken.name.as_str()));
        }
        let id = self.sessions.insert(taken);
        if let (Ok(planner), Some(session)) = (&mut self.planner, self.sessions.get(id)) {
            planner.laid_by(session);
        }
        self.stats.sessions.taken.add(1);
    }

    /// Gives a session's document away. It stays here too, out of reach, until it is known to have arrived.
    pub(crate) fn give(
        &mut self,
        tenant: &Tenant,
        name: &SessionName,
        busy: BusySessionPolicy,
    ) -> Result<GiveReply, Fault> {
        let session = self.sessions.find(tenant, name, None)?;
        let (id, given) = (session.id, session.snapshot().carried());
        if busy == BusySessionPolicy::Waits
            && self.planner.as_ref().is_ok_and(|planner| planner.completions(id) > 0)
        {
            return Ok(GiveReply::NotYet);
        }
        self.sessions.leaves(id)?;
        if let Ok(planner) = &mut self.planner {
            planner.allotment.completions.fail_in(id, &faults::moving(name.as_str()));
        }
        Ok(GiveReply::Carried(Box::new(given)))
    }

    /// What was given has arrived.
    pub(crate) fn arrived(&mut self, what: &ArrivedDocuments) {
        for id in self.sessions.arrived(what) {
            self.remove(id, &faults::moving("this"));
            self.stats.sessions.given.add(1);
        }
    }
}
