//! Texts of other documents in front of this one: which are wanted there, and which the pool has.

use pie_proto::v1;

/// See the module.
#[derive(Debug, Default)]
pub struct PrecedingParts {
    wanted: v1::Parts,
    held: v1::Parts,
    /// The pool has no room for them beside the document.
    has_no_room: bool,
}

impl PrecedingParts {
    /// These belong there from now on.
    pub fn want(&mut self, parts: v1::Parts) {
        if parts != self.wanted {
            self.wanted = parts;
            self.has_no_room = false;
        }
    }

    /// The session is another one, or none: nothing stands there.
    pub fn lost(&mut self) {
        self.held = v1::Parts::default();
    }

    /// What to put there, if that is not what stands there.
    pub fn next(&self) -> Option<v1::Parts> {
        let none = v1::Parts::default();
        let wanted = if self.has_no_room { &none } else { &self.wanted };
        let is_there = wanted.parts == self.held.parts
            && (wanted.parts.is_empty() || wanted.document == self.held.document);
        (!is_there).then(|| wanted.clone())
    }

    /// They stand there.
    pub fn put(&mut self, parts: v1::Parts) {
        self.held = parts;
    }

    /// The document itself comes first. False if there was nothing to leave out.
    pub fn make_room(&mut self) -> bool {
        !std::mem::replace(&mut self.has_no_room, true) && !self.wanted.parts.is_empty()
    }
}
