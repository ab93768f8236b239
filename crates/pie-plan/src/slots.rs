//! The slots of a group: which are free, and which stand in more than one table.

use pie_words::Slot;
use std::collections::{BTreeMap, BTreeSet};

/// K1: a slot is free, or stands in exactly one table, or is shared and counted.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    /// The lowest is taken first: what is opened together lies together, however scattered what was closed before lay, and
    /// memory is read at its pace.
    free: BTreeSet<Slot>,
    /// How many tables hold a slot, for those that more than one holds.
    holders: BTreeMap<Slot, u32>,
    capacity: usize,
    /// What happened since [`Slots::mark`], to be undone if the plan is refused.
    journal: Vec<SlotEvent>,
}

#[derive(Clone, Copy, Debug)]
enum SlotEvent {
    Taken(Slot),
    Freed(Slot),
    Unshared(Slot),
    Shared(Slot),
}

impl Slots {
    /// So many slots, all free.
    pub fn new(capacity: u32) -> Self {
        Self {
            free: (0..capacity).map(Slot).collect(),
            holders: BTreeMap::new(),
            capacity: capacity as usize,
            journal: Vec::new(),
        }
    }

    /// So many slots, of which tables hold these: one that stands there twice is shared.
    pub fn held(capacity: u32, held: impl IntoIterator<Item = Slot>) -> Self {
        let mut slots = Self::new(capacity);
        for slot in held {
            if !slots.free.remove(&slot) {
                *slots.holders.entry(slot).or_insert(1) += 1;
            }
        }
        slots
    }

    /// All slots, free or not.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Those that nobody holds.
    pub fn free(&self) -> &BTreeSet<Slot> {
        &self.free
    }

    /// How many tables hold each slot that more than one holds.
    pub fn holders(&self) -> &BTreeMap<Slot, u32> {
        &self.holders
    }

    /// The lowest free slot, which has one holder from now on; none when all are held.
    pub fn take(&mut self) -> Option<Slot> {
        let slot = self.free.pop_first()?;
        self.journal.push(SlotEvent::Taken(slot));
        Some(slot)
    }

    /// One table less holds the slot; it is free when none does.
    pub fn release(&mut self, slot: Slot) {
        if self.is_shared(slot) {
            self.drop_holder(slot);
            self.journal.push(SlotEvent::Unshared(slot));
        } else {
            self.free.insert(slot);
            self.journal.push(SlotEvent::Freed(slot));
        }
    }

    /// One table more holds the slot.
    pub fn share(&mut self, slot: Slot) {
        *self.holders.entry(slot).or_insert(1) += 1;
        self.journal.push(SlotEvent::Shared(slot));
    }

    /// Whether more than one table holds it.
    pub fn is_shared(&self, slot: Slot) -> bool {
        self.holders.contains_key(&slot)
    }

    /// How many of a table's slots would be free if it let them go.
    pub fn would_free(&self, slots: &[Slot]) -> usize {
        slots.iter().filter(|slot| !self.is_shared(**slot)).count()
    }

    /// From here on [`Slots::roll_back`] undoes.
    pub fn mark(&mut self) {
        self.journal.clear();
    }

    /// Takes back what was taken and released since [`Slots::mark`].
    pub fn roll_back(&mut self) {
        while let Some(event) = self.journal.pop() {
            match event {
                SlotEvent::Taken(slot) => {
                    self.free.insert(slot);
                }
                SlotEvent::Freed(slot) => {
                    self.free.remove(&slot);
                }
                SlotEvent::Unshared(slot) => *self.holders.entry(slot).or_insert(1) += 1,
                SlotEvent::Shared(slot) => self.drop_holder(slot),
            }
        }
    }

    fn drop_holder(&mut self, slot: Slot) {
        match self.holders.get_mut(&slot) {
            Some(2) => drop(self.holders.remove(&slot)),
            Some(holders) => *holders -= 1,
            None => {}
        }
    }
}
