//! What the ranks hold of one session, as its group's owner knows it.

use super::layout::Layout;
use super::places::EditLocations;
use super::spilling::OnDisk;
use crate::tenants::Tenant;
use pie_plan::schedule::Ticket;

/// A session's rows. They die with the epoch.
pub(super) struct HeldRows {
    /// Whose they are.
    pub tenant: Tenant,
    /// Since when it was not served: who waits longest is next, who is idle longest makes room.
    pub ticket: Ticket,
    /// How the document stands in its table. `None`: it does not, and is encoded again when it is wanted.
    pub layout: Option<Layout>,
    /// Tokens adopted since the last completion began.
    pub adopted: u32,
    /// Where it was edited lately.
    pub places: EditLocations,
    /// Kept tokens that are encoded again with its latest edit, where that says so.
    pub window: Option<u32>,
    /// Rows that were encoded again since the group was formed.
    pub repaired: u64,
    /// Tokens that a plan began to encode again and that wait for further ones.
    pub to_repair: u32,
    /// What was encoded before anybody asked for a completion.
    pub ahead: Ahead,
    /// What of it is on disk.
    pub disk: OnDisk,
}

impl HeldRows {
    /// None yet.
    pub fn none(tenant: Tenant, ticket: Ticket) -> Self {
        Self {
            tenant,
            ticket,
            layout: None,
            adopted: 0,
            places: EditLocations::default(),
            window: None,
            repaired: 0,
            to_repair: 0,
            ahead: Ahead::default(),
            disk: OnDisk::default(),
        }
    }

    /// How many of the rows that a plan encodes are repairs, those that older plans left for it included. What was edited since is
    /// not known to be one.
    pub fn repairs(&mut self, asked_for: u32, is_edited: bool, encoded: u32) -> u32 {
        let left = if is_edited { 0 } else { self.to_repair };
        let repairs = (left + asked_for).min(encoded);
        self.to_repair = left + asked_for - repairs;
        repairs
    }
}

/// Pending tokens from which on a session is encoded without being asked for a completion. A smaller edit waits for
/// the completion that follows it: both then cost one pass over the weights instead of two.
pub(super) const AHEAD_TOKENS: usize = 256;

/// What is encoded without being asked for a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Tokens that came in since all was encoded.
    waiting: usize,
    /// Tokens encoded so since the latest change, for the next answer's timings.
    pub encoded: u32,
    /// Tokens turned so.
    pub rotated: u32,
}

impl Ahead {
    /// More tokens wait.
    pub fn add(&mut self, tokens: usize) {
        *self = Self { waiting: self.waiting + tokens, ..Self::default() };
    }

    /// Much came at once: it is encoded to the end.
    pub fn is_wanted(&self) -> bool {
        self.waiting >= AHEAD_TOKENS
    }

    /// What was done ahead of a completion that begins now.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self { waiting: self.waiting, ..Self::default() })
    }

    /// All is encoded.
    pub fn done(&mut self) {
        self.waiting = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_small_pieces_waits_until_it_is_much() {
        let mut ahead = Ahead::default();
        ahead.add(AHEAD_TOKENS - 1);
        assert!(!ahead.is_wanted());
        ahead.encoded = 3;
        ahead.add(1);
        assert!(ahead.is_wanted() && ahead.encoded == 0, "what was encoded before a change is not of it");
        ahead.done();
        assert!(!ahead.is_wanted());
    }
}
