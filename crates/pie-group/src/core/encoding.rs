//! Who wants tokens encoded, and who could do with it.

use pie_words::SessionId;
use std::collections::BTreeSet;

/// The sessions of a group that have something to be encoded.
#[derive(Default)]
pub(super) struct EncodingBacklog {
    /// Sessions that want something: the others cost a step nothing.
    pub active: BTreeSet<SessionId>,
    /// Those of them that nobody has used yet: nobody waits for them.
    pub unasked: BTreeSet<SessionId>,
    /// Sessions that were opened and have no rows yet.
    pub opened: BTreeSet<SessionId>,
    /// Sessions of which the ranks have held nothing since the group was formed, or since they came from elsewhere, the next to
    /// be encoded last: until they are used, or nobody wants anything.
    pub asleep: Vec<SessionId>,
}

impl EncodingBacklog {
    /// Its client is there.
    pub fn asked(&mut self, id: SessionId) {
        self.unasked.remove(&id);
        self.active.insert(id);
    }

    /// It has no rows any more.
    pub fn cleared(&mut self, id: SessionId) {
        self.unasked.remove(&id);
    }

    /// It is gone.
    pub fn forget(&mut self, id: SessionId) {
        self.cleared(id);
        self.active.remove(&id);
        self.opened.remove(&id);
    }
}
