//! Rows that are encoded again: in an edit's own pass, or in idle time from the frontier on.

use super::{Bed, Done, SESSION, TimedEdit, edit, encode};
use crate::error::EvalError;
use crate::names::Choice;
use pie_plan::{Change, Run, Table};
use pie_words::{Splices, Strategy};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Rows of a pass whose time says how many rows are repaired in a second.
pub const RATE_ROWS: u32 = 16;
/// Passes that are timed for it.
const RATE_PASSES: usize = 9;

/// Which kept rows are encoded again in the pass that encodes an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairSelection {
    /// Where they stand.
    pub choice: Choice,
    /// How many there are at most, in all places of the edit together.
    pub rows: u32,
}

impl RepairSelection {
    /// A window right behind each edited place.
    pub fn behind(rows: u32) -> Self {
        Self { choice: Choice::Behind, rows }
    }
}

impl Bed<'_> {
    /// Edits as [`Bed::edit`] by `pie` does, and encodes some of the kept rows again in the same pass.
    ///
    /// # Errors
    /// As [`Bed::edit`].
    pub fn edit_repairing(
        &mut self,
        splices: Splices,
        repairs: RepairSelection,
    ) -> Result<TimedEdit, EvalError> {
        let start = Instant::now();
        let mut done = Done::default();
        let rows = self.splice_and_choose(splices, repairs, &mut done)?;
        if self.table().is_some_and(|table| table.pending() > self.chunk as usize) {
            self.add(&mut done, |bed| bed.catch_up(bed.chunk as usize))?;
        }
        let sample = Some(Run::Sample { session: SESSION });
        let next = self.counted(vec![Change::Repair { session: SESSION, rows }], sample, &mut done)?;
        let elapsed = start.elapsed();
        let next = next.into_iter().next().ok_or(EvalError::NothingSampled)?;
        Ok(TimedEdit { elapsed, done, next })
    }

    /// Edits as [`Bed::encode`] by `pie` does, and encodes some of the kept rows again in the same pass. Returns which, beside
    /// what it took.
    ///
    /// # Errors
    /// As [`Bed::edit`].
    pub fn encode_repairing(
        &mut self,
        splices: Splices,
        repairs: RepairSelection,
    ) -> Result<(Done, Vec<Range<u32>>), EvalError> {
        let mut done = Done::default();
        let rows = self.splice_and_choose(splices, repairs, &mut done)?;
        let repair = Change::Repair { session: SESSION, rows: rows.clone() };
        self.counted(vec![repair], Some(encode(self.chunk)), &mut done)?;
        self.add(&mut done, |bed| bed.catch_up(0))?;
        Ok((done, rows))
    }

    /// Encodes up to so many rows again, from the frontier on. Returns which: fewer where the document ends.
    ///
    /// # Errors
    /// None that is no bug.
    pub fn heal(&mut self, budget: u64) -> Result<Vec<Range<u32>>, EvalError> {
        let (mut left, mut healed) = (budget, Vec::new());
        while left > 0 {
            let most = left.min(u64::from(self.chunk)) as usize;
            let rows = self.table().map(|table| from_frontier(table, most)).unwrap_or_default();
            let count: usize = rows.iter().map(|rows| rows.len()).sum();
            if count == 0 {
                break;
            }
            let repair = Change::Repair { session: SESSION, rows: rows.clone() };
            self.run(vec![repair], Some(encode(self.chunk)), 1)?;
            left -= count as u64;
            healed.extend(rows);
        }
        Ok(healed)
    }

    /// The time of a pass that encodes [`RATE_ROWS`] rows in the middle of the document again: the median of several.
    ///
    /// # Errors
    /// None that is no bug.
    pub fn time_repair(&mut self) -> Result<Duration, EvalError> {
        let middle = u32::try_from(self.tokens().len() / 2).unwrap_or(u32::MAX);
        let rows = middle..middle + RATE_ROWS;
        let mut times = Vec::with_capacity(RATE_PASSES);
        for _ in 0..RATE_PASSES {
            let start = Instant::now();
            let repair = Change::Repair { session: SESSION, rows: vec![rows.clone()] };
            self.run(vec![repair], Some(encode(self.chunk)), 1)?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times[RATE_PASSES / 2])
    }

    /// How many rows of the document are stale.
    pub fn stale_rows(&self) -> usize {
        self.table().map_or(0, Table::stale_rows)
    }

    /// Changes the tables, and says which rows are then to be encoded again.
    fn splice_and_choose(
        &mut self,
        splices: Splices,
        repairs: RepairSelection,
        done: &mut Done,
    ) -> Result<Vec<Range<u32>>, EvalError> {
        let places = places(&splices);
        self.counted(edit(splices, Strategy::Repair), None, done)?;
        Ok(self.table().map(|table| chosen(table, &places, repairs)).unwrap_or_default())
    }

    fn add(
        &mut self,
        sum: &mut Done,
        work: impl FnOnce(&mut Self) -> Result<Done, EvalError>,
    ) -> Result<(), EvalError> {
        let done = work(self)?;
        sum.encoded += done.encoded;
        sum.rotated += done.rotated;
        Ok(())
    }
}

/// Where the inserted tokens of each splice stand afterwards; nothing between two ends where tokens only went.
fn places(splices: &Splices) -> Vec<Range<usize>> {
    let mut moved = 0_isize;
    let place = |splice: &pie_words::Splice| {
        let start = splice.at.usize().saturating_add_signed(moved);
        moved += splice.insert.len() as isize - splice.delete as isize;
        start..start + splice.insert.len()
    };
    splices.iter().map(place).collect()
}

fn from_frontier(table: &Table, most: usize) -> Vec<Range<u32>> {
    let encoded = table.encoded(table.frontier()..table.tokens().len());
    ranges(encoded.flatten().take(most))
}

fn chosen(table: &Table, places: &[Range<usize>], repairs: RepairSelection) -> Vec<Range<u32>> {
    let (rows, length) = (repairs.rows as usize, table.tokens().len());
    let mut chosen = BTreeSet::new();
    match repairs.choice {
        Choice::Behind => {
            for (place, share) in places.iter().zip(shares(rows, places.len())) {
                // What an earlier place's window holds is not taken twice.
                let stale = table.stale(place.end..length).flatten();
                let new: Vec<usize> = stale.filter(|row| !chosen.contains(row)).take(share).collect();
                chosen.extend(new);
            }
        }
        Choice::Before => {
            for (place, share) in places.iter().zip(shares(rows, places.len())) {
                let encoded: Vec<usize> = table.encoded(0..place.start).flatten().collect();
                let new: Vec<usize> =
                    encoded.into_iter().rev().filter(|row| !chosen.contains(row)).take(share).collect();
                chosen.extend(new);
            }
        }
        Choice::Scattered => {
            let stale: Vec<usize> = table.stale(0..length).flatten().collect();
            // The same rows for the same document.
            let mut random = ChaCha8Rng::seed_from_u64(stale.len() as u64);
            let places = rand::seq::index::sample(&mut random, stale.len(), rows.min(stale.len()));
            chosen.extend(places.into_iter().map(|place| stale[place]));
        }
        Choice::All => chosen.extend(table.stale(0..length).flatten()),
    }
    ranges(chosen.into_iter())
}

/// So many rows for each of some places; what does not come out even goes to the first ones.
fn shares(rows: usize, places: usize) -> impl Iterator<Item = usize> {
    (0..places).map(move |place| rows / places + usize::from(place < rows % places))
}

/// Ascending rows, as ranges.
fn ranges(rows: impl Iterator<Item = usize>) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for row in rows.map(|row| u32::try_from(row).unwrap_or(u32::MAX)) {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end = row + 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}
