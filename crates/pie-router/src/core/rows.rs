//! What the ranks hold of one session, as its group's owner knows it.

use super::layout::Layout;
use crate::tenants::Tenant;
use pie_plan::schedule::Ticket;
use pie_words::{SessionId, Splices, Strategy};

/// A session's rows. They die with the epoch.
pub(super) struct Rows {
    /// Whose they are.
    pub tenant: Tenant,
    /// Since when it was not served: who waits longest is next, who is idle longest makes room.
    pub ticket: Ticket,
    /// How the document stands in its table. `None`: it does not, and is encoded again when it is wanted.
    pub layout: Option<Layout>,
    /// How many leading rows others may share.
    pub exact: Exact,
    /// Tokens adopted since the last completion began.
    pub adopted: u32,
    /// The same document, being encoded anew beside these rows, which are worn.
    pub shadow: Option<SessionId>,
    /// What was encoded before anybody asked for a completion.
    pub ahead: Ahead,
}

impl Rows {
    /// None yet.
    pub fn none(tenant: Tenant, ticket: Ticket) -> Self {
        Self {
            tenant,
            ticket,
            layout: None,
            exact: Exact::All,
            adopted: 0,
            shadow: None,
            ahead: Ahead::default(),
        }
    }
}

/// How many leading rows are what encoding the text afresh would give: others may share those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exact {
    /// So many.
    Until(usize),
    /// All.
    All,
}

impl Exact {
    /// After splices of a table that had `length` tokens.
    pub fn after(self, splices: &Splices, strategy: Strategy, length: usize) -> Self {
        let Some(first) = splices.iter().next().map(|splice| splice.at.usize()) else { return self };
        let appended = first == length && splices.deleted() == 0;
        if self >= Self::Until(first) && (appended || strategy == Strategy::Full) {
            Self::All
        } else {
            self.min(Self::Until(first))
        }
    }

    /// How many of so many rows.
    pub fn among(self, rows: usize) -> usize {
        match self {
            Self::All => rows,
            Self::Until(exact) => rows.min(exact),
        }
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
    use pie_words::{Splice, TokenId, TokenIndex};

    /// Others may share what encoding the text afresh would give, and nothing that an edit left as it was encoded before.
    #[test]
    fn rows_behind_an_edit_are_not_exact() {
        let at = |at: u32, delete: u32| {
            let splice = Splice { at: TokenIndex(at), delete, insert: vec![TokenId(7)] };
            Splices::new(vec![splice], 100).expect("inside")
        };
        let cases = [
            (Exact::All, at(40, 1), Strategy::Pie, Exact::Until(40)),
            (Exact::Until(20), at(40, 1), Strategy::Pie, Exact::Until(20)),
            (Exact::All, at(100, 0), Strategy::Pie, Exact::All),
            (Exact::Until(20), at(100, 0), Strategy::Pie, Exact::Until(20)),
            (Exact::Until(50), at(40, 1), Strategy::Full, Exact::All),
            (Exact::Until(20), at(40, 1), Strategy::Full, Exact::Until(20)),
        ];
        for (exact, splices, strategy, expected) in cases {
            assert_eq!(
                exact.after(&splices, strategy, 100),
                expected,
                "{exact:?}, {splices:?}, {strategy:?}"
            );
        }
        assert_eq!(Exact::All.after(&Splices::default(), Strategy::Pie, 100), Exact::All);
        assert_eq!((Exact::Until(3).among(9), Exact::Until(9).among(3), Exact::All.among(5)), (3, 3, 5));
    }

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
