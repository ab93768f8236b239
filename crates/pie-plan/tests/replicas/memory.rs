//! A replica with the memory of its rank, moved by hand: what its tensors would hold.

use pie_plan::{Group, Then, Work};
use pie_words::{Epoch, SessionId, Slot, TokenId};

/// What one KV row holds.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedRow {
    /// The token that was encoded there.
    pub token: TokenId,
    /// The position that its key stands at.
    pub position: i64,
    /// Stands for keys and values: made of the token and of all that the row saw, as a model makes them.
    says: u64,
}

/// What a row makes of its token and of the rows that it sees, which come in order.
fn said(seen: u64, token: TokenId) -> u64 {
    (seen ^ u64::from(token.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// The same rows, and one more.
fn seen(rows: u64, held: SimulatedRow) -> u64 {
    (rows.rotate_left(7) ^ held.says)
        .wrapping_add(held.position.cast_unsigned())
        .wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

pub type Memory = Vec<Option<SimulatedRow>>;

/// A replica with the memory of a rank.
pub struct Replica {
    pub group: Group,
    pub memory: Memory,
}

impl Replica {
    pub fn new(capacity: u32) -> Self {
        Self { group: Group::new(Epoch(7), capacity), memory: vec![None; capacity as usize] }
    }

    /// Does the work. `settled` says whether the keys of a session stand at their index after it.
    pub fn carry_out(&mut self, work: &Work, settled: impl Fn(SessionId) -> bool) {
        for (from, to) in work.copies.from.iter().zip(&work.copies.to) {
            self.memory[to.usize()] = self.memory[from.usize()];
        }
        assert_eq!(work.turns.slots.len(), work.turns.deltas.len());
        for (slot, delta) in work.turns.slots.iter().zip(&work.turns.deltas) {
            assert_ne!(*delta, 0, "a delta of 0 costs nothing");
            let row = self.memory[slot.usize()].as_mut().expect("only encoded rows turn");
            row.position += i64::from(*delta);
        }
        for sequence in &work.sequences {
            let table = self.group.table(sequence.session).expect("a session that runs is open");
            let rows = &work.rows[sequence.rows.clone()];
            assert!(rows.is_sorted_by_key(|row| row.position), "rows see what was encoded before them");
            let view = table.view(sequence.then).concat();
            let tokens = match sequence.then {
                Then::Stop => table.tokens().to_vec(),
                Then::Sample => [&table.tokens()[..table.share()], table.branch()].concat(),
            };
            for row in rows {
                let (token, position) = (row.token, row.position.usize());
                assert_eq!(view[position], row.slot, "K2: position = index");
                assert_eq!(tokens[position], token);
                let left = view[..position].iter().map(|slot| self.memory[slot.usize()].expect("M1"));
                let says = said(left.fold(0, seen), token);
                self.memory[row.slot.usize()] = Some(SimulatedRow { token, position: position as i64, says });
            }
            if sequence.then == Then::Sample {
                let last = rows.last().expect("W1: the last token is always encoded again");
                assert_eq!(last.position.usize() + 1, view.len(), "W1");
                for (index, (slot, token)) in view.iter().zip(&tokens).enumerate() {
                    let held = self.memory[slot.usize()].expect("M1: a row sees encoded rows only");
                    assert_eq!(held.token, *token, "a row sees the tokens of its own context");
                    assert!(!settled(sequence.session) || held.position == index as i64, "K3");
                }
            }
        }
    }

    /// Rows get other contents, each its own.
    pub fn spoil(&mut self, slots: Vec<Slot>) {
        for slot in slots {
            if let Some(held) = &mut self.memory[slot.usize()] {
                held.says = held.says.rotate_left(11) ^ u64::from(slot.0);
            }
        }
    }

    /// What tables say of themselves is what counting row by row finds.
    pub fn recount(&self) {
        for (_, table) in self.group.sessions() {
            let rotations: Vec<_> = table.rotations().collect();
            assert_eq!(table.pending(), rotations.iter().filter(|rotated_for| rotated_for.is_none()).count());
            let (mut fresh, mut stale) = (0, 0);
            for (index, (slot, token)) in table.slots().iter().zip(table.tokens()).enumerate() {
                if index == table.frontier() {
                    break;
                }
                let held = self.memory[slot.usize()].expect("an exact row holds something");
                let exact = SimulatedRow { token: *token, position: index as i64, says: said(fresh, *token) };
                assert_eq!((held.says, held.position), (exact.says, exact.position), "H1: row {index}");
                fresh = seen(fresh, exact);
            }
            for run in table.stale(0..usize::MAX) {
                assert!(run.start >= stale.max(table.frontier()) && run.end > run.start, "H2");
                stale = run.end;
            }
            let waits = rotations.get(table.frontier()).is_some_and(Option::is_none);
            let is_stale = table.stale(table.frontier()..table.frontier() + 1).next().is_some();
            assert!(
                waits || is_stale || table.frontier() == rotations.len(),
                "the frontier is a row to be encoded"
            );
            let rows = table.slots().iter().zip(&rotations).enumerate();
            let encoded = rows.filter_map(|(index, (slot, rotated_for))| {
                let held = || self.memory[slot.usize()].expect("an encoded row holds something");
                rotated_for.map(|position| (index, position, held()))
            });
            for (index, position, held) in encoded {
                let knows = (table.tokens()[index], i64::from(position));
                assert_eq!((held.token, held.position), knows, "the table knows what the rank holds");
            }
        }
    }
}
