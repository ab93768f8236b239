//! Sessions of which the ranks hold nothing since the group was formed, or since they came from elsewhere: they are encoded
//! as they are used. When nobody wants anything they are encoded ahead, one after the other, so that their next completion
//! need not wait; whoever comes in meanwhile goes first.

use super::tables::Op;
use super::{Core, Residence};
use crate::session::AHEAD_TOKENS;
use pie_plan::{PlanError, SessionId};

impl Core {
    /// The ranks are told of a session, and no more for now.
    pub(super) fn lay_by(&mut self, session: SessionId) {
        if self.group().is_some() {
            self.queue(Op::Name { session });
            self.asleep.push(session);
        }
    }

    /// Nobody wants anything: the latest used of those sessions gets rows, if there are enough that nobody has. False when
    /// there is none.
    pub(super) fn wake_one(&mut self) -> Result<bool, PlanError> {
        while let Some(id) = self.asleep.pop() {
            let free = self.group().map_or(0, pie_plan::Group::free_slots);
            let Some(session) = self.sessions.get(&id) else { continue };
            let tokens = session.tokens();
            // What is less than this is encoded with the first token of its next completion, in one pass.
            let worth_it = session.residence == Residence::Dropped && tokens >= AHEAD_TOKENS;
            if worth_it && tokens < free && self.check_fit(session).is_ok() {
                self.restore(id)?;
                self.quiet.insert(id);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
