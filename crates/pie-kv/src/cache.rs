//! The rows of a rank: written by slot, turned in place.

use crate::attention::{self, Attention};
use crate::error::KvError;
use crate::rope::{Rope, Turn, rotate_head};
use crate::simd::wide;
use crate::view::View;
use pie_words::Slot;
use rayon::prelude::*;
use std::ops::Range;

/// Sizes of a rank's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model.
    pub layers: usize,
    /// KV heads of this rank.
    pub kv_heads: usize,
    /// Dimension of a head.
    pub head_dim: usize,
    /// Tokens that the cache holds.
    pub slots: usize,
}

impl KvShape {
    /// Numbers of a token's K row in one layer.
    pub fn numbers(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub(crate) fn check(&self, layer: usize, slots: &[Slot]) -> Result<(), KvError> {
        if layer >= self.layers {
            return Err(KvError::LayerOutOfRange { layer, layers: self.layers });
        }
        match slots.iter().find(|slot| slot.usize() >= self.slots) {
            Some(slot) => Err(KvError::SlotOutOfRange { slot: slot.0, slots: self.slots }),
            None => Ok(()),
        }
    }

    /// As [`KvShape::check`], by what a view says of all its slots.
    pub(crate) fn check_view(&self, view: &View<'_>) -> Result<(), KvError> {
        match view.bound().checked_sub(1) {
            Some(slot) if slot >= self.slots => {
                Err(KvError::SlotOutOfRange { slot: slot as u32, slots: self.slots })
            }
            _ => Ok(()),
        }
    }

    /// Bytes of K and V of all layers in f32.
    pub fn bytes(&self) -> u64 {
        2 * 4 * (self.layers * self.numbers()) as u64 * self.slots as u64
    }
}

/// What numbers the rows hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Those that bf16 has: each is rounded when it is written, and each key again when it is turned, as in a cache whose
    /// memory is bf16. The memory stays f32; it is for measuring what such a cache would lose.
    Bf16,
}

impl Precision {
    /// K5: numbers are computed in f32, and rounded once they are.
    #[inline(always)]
    fn round(self, numbers: &mut [f32]) {
        if self == Self::Bf16 {
            numbers.iter_mut().for_each(|number| *number = half::bf16::from_f32(*number).to_f32());
        }
    }
}

/// Rows of K or V among other numbers.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    /// The numbers.
    pub numbers: &'a [f32],
    /// Where the first row starts.
    pub first: usize,
    /// From the start of one row to that of the next.
    pub stride: usize,
}

/// K and V of all layers, f32, in host memory: `[layers][slots][kv heads][head dimension]`.
///
/// Each is one piece: so large a one comes fresh from the system, which makes its zeros when they are touched. A cache takes the
/// memory of the rows that were written.
pub struct KvCache {
    shape: KvShape,
    precision: Precision,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    /// Allocates the cache. The capacity is fixed from here on.
    ///
    /// # Errors
    /// [`KvError::OutOfMemory`].
    pub fn new(shape: KvShape) -> Result<Self, KvError> {
        let bytes = shape.bytes();
        let layer = shape.numbers().checked_mul(shape.slots);
        let numbers = layer.and_then(|layer| layer.checked_mul(shape.layers));
        let numbers = numbers.ok_or(KvError::OutOfMemory { bytes })?;
        let zeros = || -> Result<Vec<f32>, KvError> {
            Vec::<f32>::new().try_reserve_exact(numbers).map_err(|_| KvError::OutOfMemory { bytes })?;
            Ok(vec![0.0; numbers])
        };
        let (keys, values) = (zeros()?, zeros()?);
        Ok(Self { shape, precision: Precision::F32, keys, values })
    }

    /// The same cache with rows of another precision from here on; rows that are there stay as they are.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Writes rotated keys and values of one layer to slots: for each slot a row, `[kv heads][head dimension]`.
    ///
    /// # Errors
    /// A layer or slot out of range, or rows too few or too short.
    pub fn write(
        &mut self,
        layer: usize,
        slots: &[Slot],
        keys: Strided<'_>,
        values: Strided<'_>,
    ) -> Result<(), KvError> {
        self.shape.check(layer, slots)?;
        let (row, precision) = (self.shape.numbers(), self.precision);
        for (rows, what) in [(keys, "keys"), (values, "values")] {
            let needed = slots.len().checked_sub(1).map_or(0, |last| last * rows.stride + rows.first + row);
            if rows.numbers.len() < needed {
                let (got, expected) = (vec![rows.numbers.len()], vec![needed]);
                return Err(KvError::Shape { what, got, expected });
            }
        }
        let of_layer = self.numbers_of(layer);
        for (rows, all) in [(keys, &mut self.keys), (values, &mut self.values)] {
            let layer = &mut all[of_layer.clone()];
            for (index, slot) in slots.iter().enumerate() {
                let to = &mut layer[slot.usize() * row..][..row];
                to.copy_from_slice(&rows.numbers[index * rows.stride + rows.first..][..row]);
                precision.round(to);
            }
        }
        Ok(())
    }

    /// Positional Integrity Encoding (paper, equation 3): rotates the keys of `slots[i]` by R(`deltas[i]`) in all
    /// layers, in place. V stays (K4). Slots must be distinct; runs of equal deltas share one rotation.
    ///
    /// # Errors
    /// Arrays of different lengths, a slot out of range, or a rotation of another head dimension.
    pub fn turn(&mut self, rope: &Rope, slots: &[Slot], deltas: &[i32]) -> Result<(), KvError> {
        if slots.len() != deltas.len() {
            let (slots, deltas) = (slots.len(), deltas.len());
            return Err(KvError::Mismatch(format!("{slots} slots to turn by {deltas} deltas")));
        }
        if slots.is_empty() {
            return Ok(());
        }
        self.shape.check(0, slots)?;
        let (row, head_dim) = (self.shape.numbers(), self.shape.head_dim);
        if 2 * rope.inverse_frequencies().len() != head_dim {
            return Err(KvError::Mismatch("the rotation is for another head dimension".to_owned()));
        }
        let precision = self.precision;
        let runs: Vec<(&[Slot], Turn)> = runs(slots, deltas, rope);
        self.keys.par_chunks_exact_mut(self.shape.slots * row).for_each(|layer| {
            wide(
                #[inline(always)]
                || {
                    for (slots, turn) in &runs {
                        for slot in *slots {
                            let keys = &mut layer[slot.usize() * row..][..row];
                            keys.chunks_exact_mut(head_dim).for_each(|head| rotate_head(head, turn));
                            precision.round(keys);
                        }
                    }
                },
            );
        });
        Ok(())
    }

    /// Copies K and V of `from[i]` to `to[i]` in all layers, bit for bit, pair by pair in this order: a slot that an earlier
    /// pair wrote may be read by a later one. What keys are rotated for goes with them.
    ///
    /// # Errors
    /// Arrays of different lengths, or a slot out of range.
    pub fn copy(&mut self, from: &[Slot], to: &[Slot]) -> Result<(), KvError> {
        if from.len() != to.len() {
            let (from, to) = (from.len(), to.len());
            return Err(KvError::Mismatch(format!("{from} slots to copy to {to}")));
        }
        if from.is_empty() {
            return Ok(());
        }
        self.shape.check(0, from)?;
        self.shape.check(0, to)?;
        let row = self.shape.numbers();
        let length = self.shape.slots * row;
        let (keys, values) = (&mut self.keys, &mut self.values);
        keys.par_chunks_exact_mut(length).chain(values.par_chunks_exact_mut(length)).for_each(|layer| {
            for (from, to) in from.iter().zip(to) {
                let start = from.usize() * row;
                layer.copy_within(start..start + row, to.usize() * row);
            }
        });
        Ok(())
    }

    /// Attention of `queries` `[rows][heads][head dimension]`, rotated, over the slots that each row sees, to as many
    /// numbers. `heads` is a multiple of the rank's KV heads (grouped queries).
    ///
    /// # Errors
    /// Lengths, tables or visibilities that do not fit.
    pub fn attend(
        &self,
        layer: usize,
        (queries, heads): (&[f32], usize),
        sequences: &[Attention<'_>],
        out: &mut [f32],
    ) -> Result<(), KvError> {
        self.shape.check(layer, &[])?;
        sequences.iter().try_for_each(|sequence| self.shape.check_view(&sequence.view))?;
        let of_layer = self.numbers_of(layer);
        let (keys, values) = (&self.keys[of_layer.clone()], &self.values[of_layer]);
        attention::attend(&self.shape, keys, values, (queries, heads), sequences, out)
    }

    /// The keys of slots in one layer, as rotated now: `[slots][kv heads][head dimension]`.
    ///
    /// # Errors
    /// A layer or slot out of range.
    pub fn keys(&self, layer: usize, slots: &[Slot]) -> Result<Vec<f32>, KvError> {
        self.shape.check(layer, slots)?;
        Ok(self.read(&self.keys[self.numbers_of(layer)], slots))
    }

    /// The values of slots in one layer: `[slots][kv heads][head dimension]`.
    ///
    /// # Errors
    /// A layer or slot out of range.
    pub fn values(&self, layer: usize, slots: &[Slot]) -> Result<Vec<f32>, KvError> {
        self.shape.check(layer, slots)?;
        Ok(self.read(&self.values[self.numbers_of(layer)], slots))
    }

    /// Where a layer lies.
    fn numbers_of(&self, layer: usize) -> Range<usize> {
        let length = self.shape.slots * self.shape.numbers();
        layer * length..(layer + 1) * length
    }

    fn read(&self, layer: &[f32], slots: &[Slot]) -> Vec<f32> {
        let row = self.shape.numbers();
        slots.iter().flat_map(|slot| &layer[slot.usize() * row..][..row]).copied().collect()
    }
}

/// Neighbouring slots of equal delta, with their rotation; a delta of 0 is left out.
fn runs<'a>(slots: &'a [Slot], deltas: &[i32], rope: &Rope) -> Vec<(&'a [Slot], Turn)> {
    let mut runs = Vec::new();
    let mut start = 0;
    for run in deltas.chunk_by(|a, b| a == b) {
        if run[0] != 0 {
            runs.push((&slots[start..start + run.len()], rope.turn(i64::from(run[0]))));
        }
        start += run.len();
    }
    runs
}
