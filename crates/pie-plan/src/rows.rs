//! The columns of a table.

use crate::plan::{Row, Turns};
use crate::slots::Slots;
use pie_words::{Slot, TokenId, TokenIndex};

/// What the cached key of a token is rotated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Not encoded yet: the slot holds nothing of this token.
    Pending,
    /// Encoded, and rotated for this position.
    RotatedFor(TokenIndex),
}

/// [`Key`] in four bytes; tables are the router's main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedKey(u32);

impl PackedKey {
    pub const PENDING: Self = Self(u32::MAX);

    /// Rotated for its index. A session cannot reach `u32::MAX` tokens: slots are `u32` too.
    pub fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("a table is no longer than the slots, which are numbered by u32"))
    }

    pub fn key(self) -> Key {
        if self == Self::PENDING { Key::Pending } else { Key::RotatedFor(TokenIndex(self.0)) }
    }
}

/// Tokens in order, each with its slot, what its key is rotated for, and how often it was turned since it was encoded
/// (each turn rounds once more). K2: the columns have equal length, and position = index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    pub tokens: Vec<TokenId>,
    pub slots: Vec<Slot>,
    pub keys: Vec<PackedKey>,
    pub turned: Vec<u16>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn columns_agree(&self) -> bool {
        let length = self.tokens.len();
        self.slots.len() == length && self.keys.len() == length && self.turned.len() == length
    }

    pub fn pending(&self) -> usize {
        self.keys.iter().filter(|key| **key == PackedKey::PENDING).count()
    }

    pub fn push(&mut self, token: TokenId, slot: Slot) {
        self.tokens.push(token);
        self.slots.push(slot);
        self.keys.push(PackedKey::PENDING);
        self.turned.push(0);
    }

    /// Drops the first `count` rows; their slots go back.
    pub fn drop_front(&mut self, count: usize, slots: &mut Slots) {
        self.slots.drain(..count).for_each(|slot| slots.release(slot));
        self.tokens.drain(..count);
        self.keys.drain(..count);
        self.turned.drain(..count);
    }

    /// All slots go back, in token order.
    pub fn release(self, slots: &mut Slots) {
        self.slots.into_iter().for_each(|slot| slots.release(slot));
    }

    /// The token at `index` is to be encoded again. A slot that other tables hold too is left to them.
    pub fn reopen(&mut self, index: usize, slots: &mut Slots) -> Result<(), OutOfSlots> {
        if slots.is_shared(self.slots[index]) {
            let own = slots.take().ok_or(OutOfSlots { needed: 1, free: 0 })?;
            slots.release(std::mem::replace(&mut self.slots[index], own));
        }
        (self.keys[index], self.turned[index]) = (PackedKey::PENDING, 0);
        Ok(())
    }

    /// Brings the rotation of every encoded key to its position, which is its index behind `first`.
    pub fn settle(&mut self, first: usize, turns: &mut Turns) {
        let columns = self.keys.iter_mut().zip(&self.slots).zip(&mut self.turned).enumerate();
        for (index, ((key, slot), turned)) in columns {
            let position = PackedKey::at(first + index);
            if *key != PackedKey::PENDING && *key != position {
                turns.slots.push(*slot);
                turns.deltas.push(position.0.wrapping_sub(key.0).cast_signed());
                *key = position;
                *turned = turned.saturating_add(1);
            }
        }
    }

    /// Takes the first `limit` pending rows before `end`, in order, as rows to encode, and counts them as encoded.
    pub fn encode(&mut self, first: usize, end: usize, limit: usize, rows: &mut Vec<Row>) -> usize {
        let before = rows.len();
        let columns =
            self.keys.iter_mut().zip(&self.tokens).zip(&self.slots).zip(&mut self.turned).enumerate();
        let pending = columns.take(end).filter(|(_, (((key, _), _), _))| **key == PackedKey::PENDING);
        for (index, (((key, token), slot), turned)) in pending.take(limit) {
            *key = PackedKey::at(first + index);
            *turned = 0;
            rows.push(Row { token: *token, position: TokenIndex(key.0), slot: *slot });
        }
        rows.len() - before
    }

    pub fn hash(&self, hasher: &mut xxhash_rust::xxh3::Xxh3) {
        hasher.update(&(self.tokens.len() as u64).to_le_bytes());
        hash(hasher, self.tokens.iter().map(|token| token.0));
        hash(hasher, self.slots.iter().map(|slot| slot.0));
        hash(hasher, self.keys.iter().map(|key| key.0));
        hash(hasher, self.turned.iter().map(|turned| u32::from(*turned)));
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
    pub needed: usize,
    pub free: usize,
}
