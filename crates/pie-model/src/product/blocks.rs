//! The rows of x, packed for the kernel.

use super::WORTH_A_THREAD;
use super::kernel::height;
use super::levels::HALF_GROUP;
use super::whole::WholeRows;
use rayon::prelude::*;
use std::ops::Range;

/// The activations, in blocks of as many rows as the kernel takes at once, `[block][input][row in block]`.
pub(super) struct Blocks<'a> {
    /// The numbers, in blocks.
    pub data: &'a [f32],
    /// Of a single row: the sum of each half of a group.
    pub sums: &'a [f32],
    /// The same rows for levels that are multiplied in whole numbers.
    pub whole: Option<WholeRows<'a>>,
    /// All rows.
    pub rows: usize,
    inputs: usize,
    /// Rows of a whole block.
    pub height: usize,
}

impl<'a> Blocks<'a> {
    /// Rows that are not packed: none is multiplied in f32.
    pub fn unpacked(rows: usize, inputs: usize) -> Self {
        Self { data: &[], sums: &[], whole: None, rows, inputs, height: height() }
    }

    /// Packs rows of x.
    pub fn new(
        rows: &'a [f32],
        inputs: usize,
        threads: usize,
        scratch: &'a mut Vec<f32>,
        sums: &'a mut Vec<f32>,
    ) -> Self {
        let count = rows.len() / inputs;
        let height = height();
        if count == 1 {
            sums.clear();
            sums.extend(rows.as_chunks::<HALF_GROUP>().0.iter().map(|half| half.iter().sum::<f32>()));
            return Self { data: rows, sums, whole: None, rows: 1, inputs, height };
        }
        if scratch.len() < rows.len() {
            scratch.resize(rows.len(), 0.0);
        }
        let data = &mut scratch[..rows.len()];
        let pack = |(to, from): (&mut [f32], &[f32])| {
            let height = from.len() / inputs;
            for (row, from) in from.chunks_exact(inputs).enumerate() {
                for (to, from) in to.chunks_exact_mut(height).zip(from) {
                    to[row] = *from;
                }
            }
        };
        let block = height * inputs;
        if threads > 1 && rows.len() >= WORTH_A_THREAD {
            data.par_chunks_mut(block).zip(rows.par_chunks(block)).for_each(pack);
        } else {
            data.chunks_mut(block).zip(rows.chunks(block)).for_each(pack);
        }
        Self { data, sums: &[], whole: None, rows: count, inputs, height }
    }

    /// How many blocks there are.
    pub fn count(&self) -> usize {
        self.rows.div_ceil(self.height)
    }

    /// The rows of some blocks.
    pub fn rows_of(&self, blocks: &Range<usize>) -> Range<usize> {
        blocks.start * self.height..self.rows.min(blocks.end * self.height)
    }

    /// A block, and its number of rows.
    pub fn block(&self, index: usize) -> (&[f32], usize) {
        let rows = self.height.min(self.rows - index * self.height);
        (&self.data[index * self.height * self.inputs..][..rows * self.inputs], rows)
    }
}
