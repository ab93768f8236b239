//! The slot table of one session: its tokens in order, where their KV rows lie, and what their keys are rotated for; and
//! beside the document the branch of its completion.

use crate::group::Staged;
use crate::plan::{Copies, Row, Then, Turns};
pub use crate::rows::KeyRotation;
use crate::rows::{OutOfSlots, RowState, Rows};
use crate::slots::Slots;
use crate::spans::Spans;
use crate::undo::{Replaced, Unsplice};
use pie_words::{Slot, Splice, Splices, Strategy, TokenId, TokenIndex};
use std::ops::Range;

/// Whether stale rotations are settled before the next encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Settling {
    #[default]
    Turn,
    Leave,
}

/// Whether the rows of a branch are what encoding the same tokens in the document would give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The document in front of the branch is as it was when the branch was encoded.
    Same,
    /// It was edited since.
    Edited,
}

/// Tokens beside the document: they stand behind its first `share` tokens, whose slots they see too. So a completion in the
/// middle of a document leaves the document alone.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) share: usize,
    pub(crate) rows: Rows,
    pub(crate) origin: Origin,
}

/// What a run asks a model to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// So many positions, from 0.
    pub positions: usize,
    /// So many entries of the vocabulary, from 0.
    pub tokens: u32,
}

/// One session's document and branch.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub(crate) document: Rows,
    pub(crate) branch: Option<Branch>,
    pub(crate) settling: Settling,
    /// Rows from here on are in no other table.
    pub(crate) shared_until: usize,
}

impl Table {
    /// The document's tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.document.tokens
    }

    /// The slots of the document's tokens, in token order.
    pub fn slots(&self) -> &[Slot] {
        &self.document.slots
    }

    /// The branch's tokens.
    pub fn branch(&self) -> &[TokenId] {
        self.branch.as_ref().map_or(&[], |branch| &branch.rows.tokens)
    }

    /// The slots of the branch's tokens.
    pub fn branch_slots(&self) -> &[Slot] {
        self.branch.as_ref().map_or(&[], |branch| &branch.rows.slots)
    }

    /// How many of the document's tokens the branch stands behind: all, where there is none.
    pub fn share(&self) -> usize {
        self.branch.as_ref().map_or(self.document.len(), |branch| branch.share)
    }

    /// Tokens that a completion sees: those of the document before its place, and those of the branch.
    pub fn context_length(&self) -> usize {
        self.share() + self.branch().len()
    }

    /// The slots that the rows of a run see, in order of their positions: what attention reads through. Those of the document,
    /// then those of the branch.
    pub fn view(&self, then: Then) -> [&[Slot]; 2] {
        match then {
            Then::Stop => [&self.document.slots, &[]],
            Then::Sample => [&self.document.slots[..self.share()], self.branch_slots()],
        }
    }

    /// Whether rows of the branch may yet become the document's: nothing in front of it was edited since it began.
    pub fn may_adopt(&self) -> bool {
        self.branch.as_ref().is_none_or(|branch| branch.origin == Origin::Same)
    }

    /// The state of the key of the document's token at `index`.
    pub fn key(&self, index: TokenIndex) -> Option<KeyRotation> {
        self.document.key(index.usize())
    }

    /// For each token of the document the position that its key is rotated for; `None` while it waits to be encoded.
    pub fn rotations(&self) -> impl Iterator<Item = Option<u32>> + '_ {
        (0..self.document.len()).map(|index| match self.document.key(index)? {
            KeyRotation::Pending => None,
            KeyRotation::RotatedFor(position) => Some(position.0),
        })
    }

    /// How many tokens of the document wait to be encoded.
    pub fn pending(&self) -> usize {
        self.document.pending(self.document.len(), usize::MAX).map(|rows| rows.len()).sum()
    }

    /// How many rows a completion's next token takes: what is pending in its context, and the last token in any case (W1).
    pub fn context_pending(&self) -> usize {
        let rows = |rows: &Rows, end| rows.pending(end, usize::MAX).map(|rows| rows.len()).sum::<usize>();
        let branch = self.branch.as_ref().map(|branch| &branch.rows).filter(|rows| rows.len() > 0);
        let last = match branch {
            Some(branch) => branch.states.get(branch.len() - 1),
            None => self.share().checked_sub(1).and_then(|last| self.document.states.get(last)),
        };
        let last_is_encoded = last.is_some_and(|state| state != RowState::Pending);
        let branch = branch.map_or(0, |branch| rows(branch, branch.len()));
        rows(&self.document, self.share()) + branch + usize::from(last_is_encoded)
    }

    /// What the first pass of a run asks a model to know: one more than its last position, and than the largest token that it
    /// would encode, which is among the first `limit`.
    pub(crate) fn reach(&self, then: Then, limit: usize) -> Reach {
        let [document, branch] = self.view(then).map(<[Slot]>::len);
        let largest = |rows: &Rows, end: usize, limit: usize| {
            let pending = rows.pending(end, limit).flat_map(|pending| &rows.tokens[pending]);
            pending.max().map_or(0, |token| token.0 + 1)
        };
        let of_branch = self.branch.as_ref().map_or(0, |own| largest(&own.rows, branch, usize::MAX));
        Reach {
            positions: document + branch,
            tokens: largest(&self.document, document, limit).max(of_branch),
        }
    }

    /// H1: the rows of the document before this one are what a fresh encoding of its text gives, number for number. Another
    /// session may share them.
    pub fn frontier(&self) -> usize {
        self.document.frontier()
    }

    /// The document's rows in a range that were encoded before something on their left changed, as sorted runs (H2).
    pub fn stale(&self, within: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        self.document.stale(within)
    }

    /// The document's rows in a range that are encoded, as sorted runs: those that may be repaired. Behind the frontier all of them
    /// have to be, fresh ones too, since what stands on their left changes then.
    pub fn encoded(&self, within: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let encoded = self.document.states.within(within).filter(|(_, state)| *state != RowState::Pending);
        encoded.map(|(rows, _)| rows)
    }

    /// How many rows of the document are stale that a completion sees.
    pub fn stale_in_context(&self) -> usize {
        self.stale(0..self.share()).map(|rows| rows.len()).sum()
    }

    /// How many rows of the document are stale.
    pub fn stale_rows(&self) -> usize {
        self.stale(0..self.document.len()).map(|rows| rows.len()).sum()
    }

    /// No row from here on is in another session's table too.
    pub fn shared_until(&self) -> usize {
        self.shared_until
    }

    /// Neither document nor branch holds a row.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens().is_empty() && self.branch().is_empty()
    }

    pub(crate) fn columns_agree(&self) -> bool {
        let branch = self.branch.as_ref();
        self.document.columns_agree()
            && branch.is_none_or(|branch| branch.rows.columns_agree() && branch.share <= self.document.len())
    }

    /// A branch behind the first `share` tokens, in place of the one that is there, which is returned. What both begin with stays
    /// as it is, if they stand behind the same text: a completion that goes on where another one was has its rows.
    pub(crate) fn begin_branch(
        &mut self,
        share: usize,
        tokens: &[TokenId],
        slots: &mut Slots,
    ) -> Result<Option<Branch>, OutOfSlots> {
        let kept = self.common_branch(share, tokens);
        let goes = self.branch_slots().get(kept..).unwrap_or_default();
        let (needed, free) = (tokens.len() - kept, slots.free().len() + slots.would_free(goes));
        if free < needed {
            return Err(OutOfSlots { needed, free });
        }
        let before = self.branch.take();
        let mut rows = before.as_ref().map_or_else(Rows::default, |branch| branch.rows.prefix(kept));
        let behind = before.as_ref().and_then(|branch| branch.rows.slots.get(kept..));
        behind.unwrap_or_default().iter().for_each(|slot| slots.release(*slot));
        for token in &tokens[kept..] {
            rows.push(*token, slots.take().expect("they were counted"));
        }
        self.branch = Some(Branch { share, rows, origin: Origin::Same });
        Ok(before)
    }

    /// How many tokens the branch has in common with one that would stand there.
    fn common_branch(&self, share: usize, tokens: &[TokenId]) -> usize {
        let stays = |branch: &&Branch| branch.share == share && branch.origin == Origin::Same;
        let Some(branch) = self.branch.as_ref().filter(stays) else { return 0 };
        branch.rows.tokens.iter().zip(tokens).take_while(|(held, wanted)| held == wanted).count()
    }

    /// Drops the branch; its slots go back in token order.
    pub(crate) fn end_branch(&mut self, slots: &mut Slots) -> Option<Branch> {
        let branch = self.branch.take()?;
        branch.rows.release(slots);
        Some(branch)
    }

    /// Drops everything, which is returned; the session stays, empty.
    pub(crate) fn clear(&mut self, slots: &mut Slots) -> Self {
        let empty = Self { settling: self.settling, ..Self::default() };
        let before = std::mem::replace(self, empty);
        before.branch.iter().for_each(|branch| branch.rows.release(slots));
        before.document.release(slots);
        before
    }

    /// The leading rows of another session's table: the same slots, counted.
    pub(crate) fn share_from(&mut self, from: &mut Self, length: usize, slots: &mut Slots) {
        self.document = from.document.prefix(length);
        self.document.slots.iter().for_each(|slot| slots.share(*slot));
        self.shared_until = length;
        from.shared_until = from.shared_until.max(length);
    }

    /// Encoded rows are to be encoded again, in their slots, with the next run. Those that others hold too are exact, and stay.
    /// Their keys are brought to their index all the same: the run may be given up. Returns what the rows waited for before.
    pub(crate) fn repair(
        &mut self,
        rows: &[Range<usize>],
        slots: &Slots,
        turns: &mut Turns,
    ) -> Spans<RowState> {
        let before = self.document.states.clone();
        let own = self.own(rows, slots);
        self.document.settle(own.iter().cloned(), turns);
        self.document.set(&own, RowState::Pending);
        before
    }

    /// Those of some rows that no other table holds.
    fn own(&self, rows: &[Range<usize>], slots: &Slots) -> Vec<Range<usize>> {
        let is_own =
            |index: &usize| *index >= self.shared_until || !slots.is_shared(self.document.slots[*index]);
        rows.iter().cloned().flatten().filter(is_own).map(|index| index..index + 1).collect()
    }

    /// Rows were to be encoded and are not: those of `repaired` hold what they held before, or something newer, and are stale; the
    /// others wait again.
    pub(crate) fn give_up(&mut self, rows: &[Range<usize>], repaired: &[Range<usize>], slots: &Slots) {
        self.document.set(rows, RowState::Pending);
        let own = self.own(repaired, slots);
        self.document.set(&own, RowState::STALE);
    }

    /// Applies splices to the document. Slots of deleted tokens go back first, so that they may serve the inserted ones.
    /// Rows that are shared with other sessions and move are copied before they do. The branch follows; what it holds of
    /// the inserted text already is adopted. Returns what takes all this back.
    pub(crate) fn splice(
        &mut self,
        splices: &Splices,
        strategy: Strategy,
        slots: &mut Slots,
        staged: &mut Staged,
    ) -> Result<Unsplice, OutOfSlots> {
        let deleted = splices.iter().flat_map(|splice| &self.document.slots[splice.deleted()]);
        let deleted: Vec<Slot> = deleted.copied().collect();
        // Counted before anything is taken, so that no token is without a slot.
        let needed = splices.inserted() + self.shared_behind(splices, slots);
        let free = slots.free().len() + slots.would_free(&deleted);
        if free < needed {
            return Err(OutOfSlots { needed, free });
        }
        let mut before = Unsplice {
            inverse: splices.inverse(&self.document.tokens),
            deleted,
            replaced: Vec::new(),
            states: self.document.states.clone(),
            branch: self.branch.clone(),
            settling: self.settling,
            shared_until: self.shared_until,
        };
        self.settling = match strategy {
            Strategy::Pie | Strategy::Repair | Strategy::Full => Settling::Turn,
            Strategy::Conflict => Settling::Leave,
        };
        let Some(first) = splices.iter().next().map(|splice| splice.at.usize()) else { return Ok(before) };
        before.deleted.iter().for_each(|slot| slots.release(*slot));
        self.document.splice(splices, || slots.take().expect("they were counted"));
        if strategy == Strategy::Full {
            let behind = first..self.document.len();
            self.document.set(std::slice::from_ref(&behind), RowState::Pending);
        }
        self.unshare(first, slots, &mut staged.copies, &mut before.replaced);
        self.move_branch(splices);
        staged.adopted += self.adopt(slots, &mut before.replaced);
        Ok(before)
    }

    /// How many rows behind the first splice other tables hold too, of those that splices leave.
    fn shared_behind(&self, splices: &Splices, slots: &Slots) -> usize {
        let first = splices.iter().next().map_or(self.document.len(), |splice| splice.at.usize());
        if first >= self.shared_until {
            return 0;
        }
        let mut deleted = splices.iter().flat_map(Splice::deleted).peekable();
        let rows = self.document.slots.iter().enumerate().take(self.shared_until).skip(first);
        let kept = rows.filter(|(index, _)| deleted.next_if_eq(index).is_none());
        kept.filter(|(_, slot)| slots.is_shared(**slot)).count()
    }

    /// Rows from `first` on that other tables hold too get slots of their own, which were counted; encoded ones are copied.
    fn unshare(
        &mut self,
        first: usize,
        slots: &mut Slots,
        copies: &mut Copies,
        replaced: &mut Vec<Replaced>,
    ) {
        if first >= self.shared_until {
            return;
        }
        for (rows, state) in self.document.states.within(first..self.document.len()) {
            for index in rows {
                let slot = self.document.slots[index];
                if slots.is_shared(slot) {
                    let own = slots.take().expect("they were counted");
                    slots.release(slot);
                    self.document.slots[index] = own;
                    replaced.push(Replaced { index, slot });
                    if state != RowState::Pending {
                        copies.from.push(slot);
                        copies.to.push(own);
                    }
                }
            }
        }
        self.shared_until = first;
    }

    /// The branch stays behind the token that it stands behind. An insertion at its very place stands beside it.
    fn move_branch(&mut self, splices: &Splices) {
        let Some(branch) = &mut self.branch else { return };
        let before = |splice: &&Splice| splice.at.usize() < branch.share;
        let (mut deleted, mut inserted) = (0, 0);
        for splice in splices.iter().take_while(before) {
            branch.origin = Origin::Edited;
            deleted += splice.end().usize().min(branch.share) - splice.at.usize();
            inserted += splice.insert.len();
        }
        if deleted + inserted == 0 {
            return;
        }
        branch.share = branch.share - deleted + inserted;
        branch.rows.move_by((inserted as u32).wrapping_sub(deleted as u32).cast_signed());
    }

    /// Where the document now goes on with the branch's own tokens, the branch's rows become the document's: they were
    /// encoded for just this place behind just this text.
    fn adopt(&mut self, slots: &mut Slots, replaced: &mut Vec<Replaced>) -> usize {
        let Some(branch) = self.branch.as_mut().filter(|branch| branch.origin == Origin::Same) else {
            return 0;
        };
        let share = branch.share;
        let pairs = self.document.tokens[share..].iter().zip(&branch.rows.tokens);
        let common = pairs.take_while(|(ours, theirs)| ours == theirs).count();
        let mut adopted = Vec::new();
        for waiting in self.document.pending(share + common, usize::MAX) {
            for index in waiting.start.max(share)..waiting.end {
                if let Some(state @ RowState::Encoded { owes: 0, .. }) = branch.rows.states.get(index - share)
                {
                    adopted.push((index, state));
                }
            }
        }
        // Nothing in front of the branch was edited, so none of its keys was ever turned.
        for (index, state) in &adopted {
            replaced.push(Replaced { index: *index, slot: self.document.slots[*index] });
            std::mem::swap(&mut self.document.slots[*index], &mut branch.rows.slots[index - share]);
            self.document.set(std::slice::from_ref(&(*index..index + 1)), *state);
        }
        branch.rows.drop_front(common, slots);
        branch.share += common;
        adopted.len()
    }

    /// Appends one generated token to the branch; the first begins one behind the document.
    pub(crate) fn append(&mut self, token: TokenId, slot: Slot) {
        let share = self.document.len();
        let branch = || Branch { share, rows: Rows::default(), origin: Origin::Same };
        self.branch.get_or_insert_with(branch).rows.push(token, slot);
    }

    /// W1: the last token of the context is encoded again, whatever its key holds. It needs a slot if others hold its own.
    pub(crate) fn reopen_last(&mut self, slots: &mut Slots) -> Result<(), OutOfSlots> {
        let share = self.share();
        match &mut self.branch {
            Some(branch) if branch.rows.len() > 0 => branch.rows.reopen(branch.rows.len() - 1, slots),
            _ if share > 0 => self.document.reopen(share - 1, slots),
            _ => Ok(()),
        }
    }

    /// Brings every encoded key's rotation to its index (Positional Integrity Encoding, paper section 3.2): the turns
    /// that the ranks owe, net of all edits since the last settling. Returns how many keys turn.
    pub(crate) fn settle(&mut self, turns: &mut Turns) -> usize {
        if self.settling == Settling::Leave {
            return 0;
        }
        let before = turns.slots.len();
        let all = |rows: &Rows| std::iter::once(0..rows.len());
        self.document.settle(all(&self.document), turns);
        if let Some(branch) = &mut self.branch {
            branch.rows.settle(all(&branch.rows), turns);
        }
        turns.slots.len() - before
    }

    /// Takes pending tokens as rows to encode, in index order, and counts them as encoded: the first `limit` of the
    /// document, or all of a completion's context.
    pub(crate) fn encode(&mut self, then: Then, limit: usize, slots: &Slots, rows: &mut Vec<Row>) {
        let share = match then {
            Then::Stop => self.document.len(),
            Then::Sample => self.share(),
        };
        let leftmost = self.document.pending(share, limit).next().map_or(usize::MAX, |rows| rows.start);
        self.document.encode(0, share, limit, rows);
        self.renewed(leftmost, slots);
        if let (Then::Sample, Some(branch)) = (then, &mut self.branch) {
            let length = branch.rows.len();
            branch.rows.encode(branch.share, length, usize::MAX, rows);
        }
    }

    /// Rows of the document are others from `leftmost` on, and those behind them were told so. The branch has seen what was there
    /// before. Rows that other tables hold too have not: they were exact when they were shared, and an edit on their left would have given
    /// this table slots of its own, so the same text stands there.
    fn renewed(&mut self, leftmost: usize, slots: &Slots) {
        let until = self.shared_until.min(self.document.len());
        let shared = (leftmost..until).filter(|index| slots.is_shared(self.document.slots[*index]));
        let shared: Vec<Range<usize>> = shared.map(|index| index..index + 1).collect();
        self.document.set(&shared, RowState::FRESH);
        if let Some(branch) = self.branch.as_mut().filter(|branch| leftmost < branch.share) {
            branch.rows.age_from(0);
        }
    }

    /// The first rows that waited were read from disk.
    pub(crate) fn reload(&mut self, rows: Range<usize>, slots: &Slots) {
        self.document.age_from(rows.start);
        self.document.set(std::slice::from_ref(&rows), RowState::FRESH);
        self.renewed(rows.start, slots);
    }

    pub(crate) fn hash(&self, hasher: &mut xxhash_rust::xxh3::Xxh3) {
        self.document.hash(hasher);
        hasher.update(&[u8::from(self.settling == Settling::Leave)]);
        hasher.update(&(self.shared_until as u64).to_le_bytes());
        if let Some(branch) = &self.branch {
            hasher.update(&(branch.share as u64).to_le_bytes());
            hasher.update(&[u8::from(branch.origin == Origin::Edited)]);
            branch.rows.hash(hasher);
        }
    }
}
