//! What a change replaced, kept until its plan is sure: as much as the change touched, not the whole table.

use crate::rows::RowState;
use crate::spans::Spans;
use crate::table::{Branch, Settling, Table};
use pie_words::{SessionId, Slot, Splices};

/// How one change is taken back; changes are, from the last to the first. The slots have a journal of their own.
#[derive(Debug)]
pub(crate) struct Undo {
    /// The session whose table changed.
    pub session: SessionId,
    /// What it was before.
    pub was: PriorTable,
}

/// What a table was before a change, as far as that touched it.
#[derive(Debug)]
pub(crate) enum PriorTable {
    /// The session was not open.
    Unknown,
    /// All of it is another one now, or gone.
    Table(Table),
    Branch(Option<Branch>),
    Spliced(Unsplice),
    /// What its rows waited for.
    States(Spans<RowState>),
    SharedUntil(usize),
}

/// What takes splices back.
#[derive(Debug)]
pub(crate) struct Unsplice {
    /// The splices that make the old tokens of the new ones.
    pub inverse: Splices,
    /// Of the deleted tokens, in their order.
    pub deleted: Vec<Slot>,
    /// Rows that changed slots after they were spliced, in this order.
    pub replaced: Vec<Replaced>,
    /// What each row waited for before.
    pub states: Spans<RowState>,
    /// The branch as it was.
    pub branch: Option<Branch>,
    /// Whether keys were to be turned.
    pub settling: Settling,
    /// Where rows that others share could end.
    pub shared_until: usize,
}

/// A row that got another slot.
#[derive(Debug)]
pub(crate) struct Replaced {
    /// The row's index in its table.
    pub index: usize,
    /// The slot that it had.
    pub slot: Slot,
}

impl Unsplice {
    /// Makes the table what it was.
    pub fn take_back(self, table: &mut Table) {
        let document = &mut table.document;
        for Replaced { index, slot } in self.replaced.into_iter().rev() {
            document.slots[index] = slot;
        }
        let mut deleted = self.deleted.into_iter();
        let slot = |_| deleted.next().expect("each deleted token had a slot");
        self.inverse.apply_to(&mut document.slots, slot);
        self.inverse.apply_to(&mut document.tokens, |token| token);
        document.states = self.states;
        (table.branch, table.settling, table.shared_until) = (self.branch, self.settling, self.shared_until);
    }
}
