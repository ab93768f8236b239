//! The columns of a table.

use crate::plan::{Row, Turns};
use crate::slots::Slots;
use crate::spans::Spans;
use pie_words::{Slot, Splices, TokenId, TokenIndex};
use std::ops::Range;

/// What the cached key of a token is rotated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRotation {
    /// Not encoded yet: the slot holds nothing of this token.
    Pending,
    /// Encoded, and rotated for this position.
    RotatedFor(TokenIndex),
}

/// The same, as far as it differs from where the token stands: neighbours that moved together are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowState {
    /// [`KeyRotation::Pending`].
    Pending,
    /// Encoded.
    Encoded {
        /// How many positions before its own the key is rotated for: the turn that it owes.
        owes: i32,
        /// Whether what the row says is up to date.
        age: Freshness,
    },
}

/// Whether an encoded row has seen what stands on its left now. An edit and an encoding on its left make it stale; turning its
/// key does not renew it (paper, section 3.2: values are kept).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Nothing on its left has changed since it was encoded.
    Fresh,
    /// Something has.
    Stale,
}

impl RowState {
    /// Encoded just now.
    pub const FRESH: Self = Self::Encoded { owes: 0, age: Freshness::Fresh };
    /// Encoded before something on its left changed, and turned since.
    pub const STALE: Self = Self::Encoded { owes: 0, age: Freshness::Stale };

    /// Of a row that moves by so many positions, or stays where something on its left changes.
    fn moved(self, by: i32) -> Self {
        match self {
            Self::Pending => Self::Pending,
            Self::Encoded { owes, .. } => {
                Self::Encoded { owes: owes.wrapping_add(by), age: Freshness::Stale }
            }
        }
    }

    /// Of a row whose key was turned.
    fn settled(self) -> Self {
        match self {
            Self::Pending => Self::Pending,
            Self::Encoded { age, .. } => Self::Encoded { owes: 0, age },
        }
    }

    fn is_stale(self) -> bool {
        matches!(self, Self::Encoded { age: Freshness::Stale, .. })
    }
}

/// Tokens in order, each with its slot, and what its row waits for. K2: the columns have equal length, and position = index.
///
/// What a pass or an edit asks of the columns it asks of spans, so it costs what changed since the last pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// By index.
    pub tokens: Vec<TokenId>,
    /// By index, as many as there are tokens.
    pub slots: Vec<Slot>,
    /// By index: what each row waits for.
    pub states: Spans<RowState>,
}

impl Rows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether all columns have as many entries.
    pub fn columns_agree(&self) -> bool {
        let length = self.tokens.len();
        [self.slots.len(), self.states.len()] == [length; 2] && self.states.is_shortest()
    }

    /// What the key at an index is rotated for, in rows that are a document.
    pub fn key(&self, index: usize) -> Option<KeyRotation> {
        let position = |turn: i32| (index as u32).wrapping_sub(turn.cast_unsigned());
        self.states.get(index).map(|state| match state {
            RowState::Pending => KeyRotation::Pending,
            RowState::Encoded { owes, .. } => KeyRotation::RotatedFor(TokenIndex(position(owes))),
        })
    }

    /// The first `limit` rows before `end` that wait to be encoded, in order.
    pub fn pending(&self, end: usize, mut limit: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let pending = self.states.within(0..end).filter(|(_, state)| *state == RowState::Pending);
        pending.map_while(move |(rows, _)| {
            let taken = rows.start..rows.end.min(rows.start.saturating_add(limit));
            limit -= taken.len();
            (!taken.is_empty()).then_some(taken)
        })
    }

    /// Adds a row behind the last, still to be encoded.
    pub fn push(&mut self, token: TokenId, slot: Slot) {
        self.tokens.push(token);
        self.slots.push(slot);
        self.states.extend(1, RowState::Pending);
    }

    /// The first `length` rows, in the same slots.
    pub fn prefix(&self, length: usize) -> Self {
        Self {
            tokens: self.tokens[..length].to_vec(),
            slots: self.slots[..length].to_vec(),
            states: self.states.prefix(length),
        }
    }

    /// Deletes rows, whose slots the caller has given back, and inserts pending ones in slots that it takes.
    pub fn splice(&mut self, splices: &Splices, mut take: impl FnMut() -> Slot) {
        splices.apply_to(&mut self.slots, |_| take());
        splices.apply_to(&mut self.tokens, |token| token);
        self.states.splice(splices, RowState::Pending, RowState::moved);
    }

    /// The first row whose cache is not what a fresh encoding of all rows up to it would give: H1.
    pub fn frontier(&self) -> usize {
        let exact = |(_, state): &(Range<usize>, RowState)| *state == RowState::FRESH;
        self.states.iter().take_while(exact).last().map_or(0, |(rows, _)| rows.end)
    }

    /// Stale rows of a range, in order (H2).
    pub fn stale(&self, within: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let stale = self.states.within(within).filter(|(_, state)| state.is_stale());
        stale.map(|(rows, _)| rows)
    }

    /// Something on the left of all rows from `first` on changes.
    pub fn age_from(&mut self, first: usize) {
        let behind = first..self.len();
        if !behind.is_empty() {
            self.states.map(std::slice::from_ref(&behind), |state| state.moved(0));
        }
    }

    /// The position of the first row changes by so much, and of all others with it.
    pub fn move_by(&mut self, by: i32) {
        let all = 0..self.len();
        self.states.map(std::slice::from_ref(&all), |state| state.moved(by));
    }

    /// Drops the first `count` rows; their slots go back. Those that stay keep their positions.
    pub fn drop_front(&mut self, count: usize, slots: &mut Slots) {
        self.slots.drain(..count).for_each(|slot| slots.release(slot));
        self.tokens.drain(..count);
        self.states.drop_front(count);
    }

    /// All slots go back, in token order.
    pub fn release(&self, slots: &mut Slots) {
        self.slots.iter().for_each(|slot| slots.release(*slot));
    }

    /// The token at `index` is to be encoded again. A slot that other tables hold too is left to them.
    pub fn reopen(&mut self, index: usize, slots: &mut Slots) -> Result<(), OutOfSlots> {
        if slots.is_shared(self.slots[index]) {
            let own = slots.take().ok_or(OutOfSlots { needed: 1, free: 0 })?;
            slots.release(std::mem::replace(&mut self.slots[index], own));
        }
        self.set(std::slice::from_ref(&(index..index + 1)), RowState::Pending);
        Ok(())
    }

    /// Rows of another state.
    pub fn set(&mut self, rows: &[Range<usize>], state: RowState) {
        self.states.map(rows, |_| state);
    }

    /// Brings the rotation of the encoded keys in some ranges, which come in order, to their positions.
    pub fn settle(&mut self, ranges: impl Iterator<Item = Range<usize>>, turns: &mut Turns) {
        let mut owing = Vec::new();
        for (rows, state) in ranges.flat_map(|range| self.states.within(range)) {
            if let RowState::Encoded { owes: turn @ (..=-1 | 1..), .. } = state {
                turns.slots.extend_from_slice(&self.slots[rows.clone()]);
                turns.deltas.extend(std::iter::repeat_n(turn, rows.len()));
                owing.push(rows);
            }
        }
        self.states.map(&owing, RowState::settled);
    }

    /// Takes the first `limit` pending rows before `end`, in order, as rows to encode, and counts them as encoded. The first
    /// row of all has the position `first`. Rows behind them that are not encoded with them have seen what was there before.
    pub fn encode(&mut self, first: usize, end: usize, limit: usize, to: &mut Vec<Row>) {
        let pending: Vec<Range<usize>> = self.pending(end, limit).collect();
        let Some(leftmost) = pending.first().map(|rows| rows.start) else { return };
        to.extend(pending.iter().cloned().flatten().map(|index| Row {
            token: self.tokens[index],
            position: TokenIndex((first + index) as u32),
            slot: self.slots[index],
        }));
        self.age_from(leftmost);
        self.set(&pending, RowState::FRESH);
    }

    /// Adds everything to a digest (P4).
    pub fn hash(&self, hasher: &mut xxhash_rust::xxh3::Xxh3) {
        hasher.update(&(self.tokens.len() as u64).to_le_bytes());
        hash(hasher, self.tokens.iter().map(|token| token.0));
        hash(hasher, self.slots.iter().map(|slot| slot.0));
        let state = |state| match state {
            RowState::Pending => [0, 0],
            RowState::Encoded { owes, age } => [1 + u32::from(age == Freshness::Stale), owes.cast_unsigned()],
        };
        let states = self.states.iter().map(|(rows, of)| (rows.end as u32, state(of)));
        hash(hasher, states.flat_map(|(end, [encoded, turn])| [end, encoded, turn]));
    }
}

/// A column at a time, by the page: four bytes at a time the hash itself would be the smallest part.
fn hash(hasher: &mut xxhash_rust::xxh3::Xxh3, mut column: impl Iterator<Item = u32>) {
    let mut page = [0; 1024];
    loop {
        let mut length = 0;
        for (bytes, number) in page.chunks_exact_mut(4).zip(column.by_ref()) {
            bytes.copy_from_slice(&number.to_le_bytes());
            length += 4;
        }
        if length == 0 {
            return;
        }
        hasher.update(&page[..length]);
    }
}

/// A change needs more slots than are free. Both are counted before it takes any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfSlots {
    /// Slots that were asked for.
    pub needed: usize,
    /// Slots that there were.
    pub free: usize,
}
