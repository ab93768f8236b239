//! The slot table of one session: its tokens in order, where their KV rows lie, and what their keys are rotated for; and
//! beside the document the branch of its completion.

use crate::plan::{Copies, Row, Then, Turns};
pub use crate::rows::Key;
use crate::rows::{OutOfSlots, PackedKey, Rows};
use crate::slots::Slots;
use pie_words::{Slot, Splice, Splices, Strategy, TokenId, TokenIndex};

/// Whether stale rotations are settled before the next encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Settling {
    #[default]
    Turn,
    Leave,
}

/// Whether the rows of a branch are what encoding the same tokens in the document would give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The document in front of the branch is as it was when the branch was encoded.
    Same,
    /// It was edited since.
    Edited,
}

/// Tokens beside the document: they stand behind its first `share` tokens, whose slots they see too. So a completion in the
/// middle of a document leaves the document alone.
#[derive(Clone, Debug)]
struct Branch {
    share: usize,
    rows: Rows,
    origin: Origin,
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
    document: Rows,
    branch: Option<Branch>,
    settling: Settling,
    /// Rows from here on are in no other table.
    shared_until: usize,
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

    /// The slots that the rows of a run see, in order of their positions: what attention reads through.
    pub fn view(&self, then: Then) -> Vec<Slot> {
        match (then, &self.branch) {
            (Then::Sample, Some(branch)) => {
                let mut slots = Vec::with_capacity(branch.share + branch.rows.len());
                slots.extend_from_slice(&self.document.slots[..branch.share]);
                slots.extend_from_slice(&branch.rows.slots);
                slots
            }
            _ => self.document.slots.clone(),
        }
    }

    /// Whether rows of the branch may yet become the document's: nothing in front of it was edited since it began.
    pub fn may_adopt(&self) -> bool {
        self.branch.as_ref().is_none_or(|branch| branch.origin == Origin::Same)
    }

    /// The state of the key of the document's token at `index`.
    pub fn key(&self, index: TokenIndex) -> Option<Key> {
        self.document.keys.get(index.usize()).map(|key| key.key())
    }

    /// For each token of the document the position that its key is rotated for; `None` while it waits to be encoded.
    pub fn rotations(&self) -> impl Iterator<Item = Option<u32>> + '_ {
        self.document.keys.iter().map(|key| match key.key() {
            Key::Pending => None,
            Key::RotatedFor(position) => Some(position.0),
        })
    }

    /// How many tokens of the document wait to be encoded.
    pub fn pending(&self) -> usize {
        self.document.pending()
    }

    /// How many rows a completion's next token takes: what is pending in its context, and the last token in any case (W1).
    pub fn context_pending(&self) -> usize {
        let keys = &self.document.keys[..self.share()];
        let branch = self.branch.as_ref().map(|branch| &branch.rows.keys[..]).unwrap_or_default();
        let last = branch.last().or(keys.last()).is_some_and(|key| *key != PackedKey::PENDING);
        let pending = keys.iter().chain(branch).filter(|key| **key == PackedKey::PENDING).count();
        pending + usize::from(last)
    }

    /// What a run asks a model to know: one more than its last position, and than the largest token that it would encode.
    pub fn reach(&self, then: Then) -> Reach {
        let keys = match then {
            Then::Stop => &self.document.keys[..],
            Then::Sample => &self.document.keys[..self.share()],
        };
        let branch = self.branch.as_ref().filter(|_| then == Then::Sample).map(|branch| &branch.rows);
        let pending = |keys: &[PackedKey], tokens: &[TokenId]| {
            let pending = keys.iter().zip(tokens).filter(|(key, _)| **key == PackedKey::PENDING);
            pending.map(|(_, token)| token.0 + 1).max().unwrap_or(0)
        };
        let of_branch = branch.map_or(0, |rows| pending(&rows.keys, &rows.tokens));
        Reach {
            positions: keys.len() + branch.map_or(0, Rows::len),
            tokens: pending(keys, &self.document.tokens).max(of_branch),
        }
    }

    /// How often the most turned key was turned since it was encoded.
    pub fn most_turned(&self) -> u16 {
        self.document.turned.iter().copied().max().unwrap_or(0)
    }

    /// How many leading tokens are encoded, with keys that stand at their index: those that another session may share.
    pub fn settled_prefix(&self) -> usize {
        let settled = |(index, key): &(usize, &PackedKey)| **key == PackedKey::at(*index);
        self.document.keys.iter().enumerate().take_while(settled).count()
    }

    /// No row from here on is in another session's table too.
    pub fn shared_until(&self) -> usize {
        self.shared_until
    }

    pub(crate) fn columns_agree(&self) -> bool {
        let branch = self.branch.as_ref();
        self.document.columns_agree()
            && branch.is_none_or(|branch| branch.rows.columns_agree() && branch.share <= self.document.len())
    }

    /// A branch behind the first `share` tokens, in place of the one that is there.
    pub(crate) fn begin_branch(
        &mut self,
        share: usize,
        tokens: &[TokenId],
        slots: &mut Slots,
    ) -> Result<(), OutOfSlots> {
        self.end_branch(slots);
        let lack = OutOfSlots { needed: tokens.len(), free: slots.free().len() };
        let mut rows = Rows::default();
        for token in tokens {
            rows.push(*token, slots.take().ok_or(lack)?);
        }
        self.branch = Some(Branch { share, rows, origin: Origin::Same });
        Ok(())
    }

    /// Drops the branch; its slots go back in token order.
    pub(crate) fn end_branch(&mut self, slots: &mut Slots) {
        if let Some(branch) = self.branch.take() {
            branch.rows.release(slots);
        }
    }

    /// Drops everything; the session stays, empty.
    pub(crate) fn clear(&mut self, slots: &mut Slots) {
        self.end_branch(slots);
        std::mem::take(&mut self.document).release(slots);
        *self = Self { settling: self.settling, ..Self::default() };
    }

    /// The leading rows of another session's table: the same slots, counted.
    pub(crate) fn share_from(&mut self, from: &mut Self, length: usize, slots: &mut Slots) {
        let theirs = &from.document;
        theirs.slots[..length].iter().for_each(|slot| slots.share(*slot));
        self.document = Rows {
            tokens: theirs.tokens[..length].to_vec(),
            slots: theirs.slots[..length].to_vec(),
            keys: theirs.keys[..length].to_vec(),
            turned: theirs.turned[..length].to_vec(),
        };
        self.shared_until = length;
        from.shared_until = from.shared_until.max(length);
    }

    /// Takes over the rows of a table that holds the same document. The branch stays.
    pub(crate) fn take_over(&mut self, mut other: Self, slots: &mut Slots) {
        other.end_branch(slots);
        std::mem::replace(&mut self.document, other.document).release(slots);
        (self.settling, self.shared_until) = (other.settling, other.shared_until);
    }

    /// Applies splices to the document. Slots of deleted tokens go back first, so that they may serve the inserted ones.
    /// Rows that are shared with other sessions and move are copied before they do. The branch follows; what it holds of
    /// the inserted text already is adopted. Returns how many tokens are.
    pub(crate) fn splice(
        &mut self,
        splices: &Splices,
        strategy: Strategy,
        slots: &mut Slots,
        copies: &mut Copies,
    ) -> Result<usize, OutOfSlots> {
        self.settling = match strategy {
            Strategy::Pie | Strategy::Full => Settling::Turn,
            Strategy::Conflict => Settling::Leave,
        };
        let Some(first) = splices.iter().next().map(|splice| splice.at.usize()) else { return Ok(0) };
        for splice in splices {
            let deleted = splice.at.usize()..splice.end().usize();
            self.document.slots[deleted].iter().for_each(|slot| slots.release(*slot));
        }
        // Checked before anything takes one, so that no token is without a slot.
        let lack = OutOfSlots {
            needed: splices.inserted() + self.shared_from(first, splices, slots),
            free: slots.free().len(),
        };
        if lack.free < lack.needed {
            return Err(lack);
        }
        splices.apply_to(&mut self.document.slots, |_| slots.take().expect("there are enough"));
        splices.apply_to(&mut self.document.keys, |_| PackedKey::PENDING);
        splices.apply_to(&mut self.document.turned, |_| 0);
        splices.apply_to(&mut self.document.tokens, |token| token);
        if strategy == Strategy::Full {
            self.document.keys[first..].fill(PackedKey::PENDING);
        }
        self.unshare(first, slots, copies, lack)?;
        self.move_branch(splices);
        Ok(self.adopt(slots))
    }

    /// How many rows from `first` on other tables hold too, of those that splices leave.
    fn shared_from(&self, first: usize, splices: &Splices, slots: &Slots) -> usize {
        if first >= self.shared_until {
            return 0;
        }
        let mut deleted =
            splices.iter().flat_map(|splice| splice.at.usize()..splice.end().usize()).peekable();
        let rows = self.document.slots.iter().enumerate().skip(first);
        let kept = rows.filter(|(index, _)| deleted.next_if_eq(index).is_none());
        kept.filter(|(_, slot)| slots.is_shared(**slot)).count()
    }

    /// Rows from `first` on that other tables hold too get slots of their own; encoded ones are copied.
    fn unshare(
        &mut self,
        first: usize,
        slots: &mut Slots,
        copies: &mut Copies,
        lack: OutOfSlots,
    ) -> Result<(), OutOfSlots> {
        if first >= self.shared_until {
            return Ok(());
        }
        for (slot, key) in self.document.slots[first..].iter_mut().zip(&self.document.keys[first..]) {
            if slots.is_shared(*slot) {
                let own = slots.take().ok_or(lack)?;
                let shared = std::mem::replace(slot, own);
                slots.release(shared);
                if *key != PackedKey::PENDING {
                    copies.from.push(shared);
                    copies.to.push(own);
                }
            }
        }
        self.shared_until = first;
        Ok(())
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
        branch.share = branch.share - deleted + inserted;
    }

    /// Where the document now goes on with the branch's own tokens, the branch's rows become the document's: they were
    /// encoded for just this place behind just this text.
    fn adopt(&mut self, slots: &mut Slots) -> usize {
        let Some(branch) = self.branch.as_mut().filter(|branch| branch.origin == Origin::Same) else {
            return 0;
        };
        let share = branch.share;
        let pairs = self.document.tokens[share..].iter().zip(&branch.rows.tokens);
        let common = pairs.take_while(|(ours, theirs)| ours == theirs).count();
        let mut adopted = 0;
        for index in 0..common {
            let (ours, position) = (share + index, PackedKey::at(share + index));
            if self.document.keys[ours] == PackedKey::PENDING && branch.rows.keys[index] == position {
                std::mem::swap(&mut self.document.slots[ours], &mut branch.rows.slots[index]);
                (self.document.keys[ours], self.document.turned[ours]) =
                    (position, branch.rows.turned[index]);
                adopted += 1;
            }
        }
        branch.rows.drop_front(common, slots);
        branch.share += common;
        adopted
    }

    /// Appends one generated token to the branch; the first begins one behind the document.
    pub(crate) fn append(&mut self, token: TokenId, slot: Slot) {
        let share = self.document.len();
        let branch = || Branch { share, rows: Rows::default(), origin: Origin::Same };
        self.branch.get_or_insert_with(branch).rows.push(token, slot);
    }

    /// W1: the last token of the context is encoded again, whatever its key holds.
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
        self.document.settle(0, turns);
        if let Some(branch) = &mut self.branch {
            branch.rows.settle(branch.share, turns);
        }
        turns.slots.len() - before
    }

    /// Takes pending tokens as rows to encode, in index order, and counts them as encoded: the first `limit` of the
    /// document, or all of a completion's context.
    pub(crate) fn encode(&mut self, then: Then, limit: usize, rows: &mut Vec<Row>) {
        let share = match then {
            Then::Stop => self.document.len(),
            Then::Sample => self.share(),
        };
        self.document.encode(0, share, limit, rows);
        if let (Then::Sample, Some(branch)) = (then, &mut self.branch) {
            let length = branch.rows.len();
            branch.rows.encode(branch.share, length, usize::MAX, rows);
        }
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
