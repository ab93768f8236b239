//! The rows of a rank: written by slot, turned in place.

use crate::aligned::Aligned;
use crate::attention::{self, Attention, LayerRows};
use crate::error::KvError;
use crate::number::{Bf16, Number};
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

    /// Bytes of K and V of all layers.
    pub fn bytes(&self, precision: Precision) -> u64 {
        self.bytes_by(precision.bytes())
    }

    /// The same of numbers that take so many bytes each.
    pub(crate) fn bytes_by(&self, number: u64) -> u64 {
        2 * number * (self.layers * self.numbers()) as u64 * self.slots as u64
    }

    /// Where a layer lies.
    fn numbers_of(&self, layer: usize) -> Range<usize> {
        let length = self.slots * self.numbers();
        layer * length..(layer + 1) * length
    }
}

/// What the numbers of rows are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// bf16, half the bytes: each number is rounded when it is written, and each key again when it is turned.
    Bf16,
}

impl Precision {
    /// Bytes of a number.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
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

/// K and V of all layers, in host memory: `[layers][slots][kv heads][head dimension]`.
pub struct KvCache {
    shape: KvShape,
    rows: Rows,
}

/// The rows, by what their numbers are kept as.
enum Rows {
    F32(KeptRows<f32>),
    Bf16(KeptRows<Bf16>),
}

/// Does the same with rows of either kind.
macro_rules! each_kind {
    ($rows:expr, $kept:ident => $what:expr) => {
        match $rows {
            Rows::F32($kept) => $what,
            Rows::Bf16($kept) => $what,
        }
    };
}

impl KvCache {
    /// Allocates a cache of f32 numbers. The capacity is fixed from here on.
    ///
    /// # Errors
    /// [`KvError::OutOfMemory`].
    pub fn new(shape: KvShape) -> Result<Self, KvError> {
        Self::with_precision(shape, Precision::F32)
    }

    /// The same of others.
    ///
    /// # Errors
    /// [`KvError::OutOfMemory`].
    pub fn with_precision(shape: KvShape, precision: Precision) -> Result<Self, KvError> {
        let bytes = shape.bytes(precision);
        let layer = shape.numbers().checked_mul(shape.slots);
        let numbers = layer.and_then(|layer| layer.checked_mul(shape.layers));
        let numbers = numbers.ok_or(KvError::OutOfMemory { bytes })?;
        let rows = match precision {
            Precision::F32 => {
                Rows::F32(KeptRows { keys: zeros(numbers, bytes)?, values: zeros(numbers, bytes)? })
            }
            Precision::Bf16 => {
                Rows::Bf16(KeptRows { keys: zeros(numbers, bytes)?, values: zeros(numbers, bytes)? })
            }
        };
        Ok(Self { shape, rows })
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
        let row = self.shape.numbers();
        for (rows, what) in [(keys, "keys"), (values, "values")] {
            let needed = slots.len().checked_sub(1).map_or(0, |last| last * rows.stride + rows.first + row);
            if rows.numbers.len() < needed {
                let (got, expected) = (vec![rows.numbers.len()], vec![needed]);
                return Err(KvError::Shape { what, got, expected });
            }
        }
        let shape = self.shape;
        each_kind!(&mut self.rows, kept => kept.write(&shape, layer, slots, [keys, values]));
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
        if 2 * rope.inverse_frequencies().len() != self.shape.head_dim {
            return Err(KvError::Mismatch("the rotation is for another head dimension".to_owned()));
        }
        let (shape, runs) = (self.shape, runs(slots, deltas, rope));
        each_kind!(&mut self.rows, kept => kept.turn(&shape, &runs));
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
        let shape = self.shape;
        each_kind!(&mut self.rows, kept => kept.copy(&shape, from, to));
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
        each_kind!(&self.rows, kept => {
            let rows = kept.layer(&self.shape, layer);
            attention::attend(rows, (queries, heads), sequences, out)
        })
    }

    /// The keys of slots in one layer, as rotated now: `[slots][kv heads][head dimension]`.
    ///
    /// # Errors
    /// A layer or slot out of range.
    pub fn keys(&self, layer: usize, slots: &[Slot]) -> Result<Vec<f32>, KvError> {
        self.shape.check(layer, slots)?;
        let row = self.shape.numbers();
        Ok(each_kind!(&self.rows, kept => read(kept.layer(&self.shape, layer).keys, row, slots)))
    }

    /// The values of slots in one layer: `[slots][kv heads][head dimension]`.
    ///
    /// # Errors
    /// A layer or slot out of range.
    pub fn values(&self, layer: usize, slots: &[Slot]) -> Result<Vec<f32>, KvError> {
        self.shape.check(layer, slots)?;
        let row = self.shape.numbers();
        Ok(each_kind!(&self.rows, kept => read(kept.layer(&self.shape, layer).values, row, slots)))
    }
}

fn zeros<N: Number + From<u8>>(numbers: usize, bytes: u64) -> Result<Aligned<N>, KvError> {
    let with_rest = numbers.checked_add(Aligned::<N>::most_before());
    let is_there = with_rest.is_some_and(|all| Vec::<N>::new().try_reserve_exact(all).is_ok());
    if is_there { Ok(Aligned::of(N::from(0), numbers)) } else { Err(KvError::OutOfMemory { bytes }) }
}

fn read<N: Number>(layer: &[N], row: usize, slots: &[Slot]) -> Vec<f32> {
    slots.iter().flat_map(|slot| &layer[slot.usize() * row..][..row]).map(|number| number.widen()).collect()
}

/// Rows whose numbers are kept as `N`.
///
/// Keys and values are one piece each: so large a one comes fresh from the system, which makes its zeros when they are touched. A
/// cache takes the memory of the rows that were written.
struct KeptRows<N> {
    keys: Aligned<N>,
    values: Aligned<N>,
}

impl<N: Number> KeptRows<N> {
    fn layer(&self, shape: &KvShape, layer: usize) -> LayerRows<'_, N> {
        let numbers = shape.numbers_of(layer);
        LayerRows {
            keys: &self.keys[numbers.clone()],
            values: &self.values[numbers],
            kv_heads: shape.kv_heads,
            dim: shape.head_dim,
        }
    }

    fn write(&mut self, shape: &KvShape, layer: usize, slots: &[Slot], rows: [Strided<'_>; 2]) {
        let (row, of_layer) = (shape.numbers(), shape.numbers_of(layer));
        for (rows, all) in rows.into_iter().zip([&mut self.keys, &mut self.values]) {
            let layer = &mut all[of_layer.clone()];
            wide(
                #[inline(always)]
                || {
                    for (index, slot) in slots.iter().enumerate() {
                        let to = &mut layer[slot.usize() * row..][..row];
                        let from = &rows.numbers[index * rows.stride + rows.first..][..row];
                        N::narrow_into(from, to);
                    }
                },
            );
        }
    }

    fn turn(&mut self, shape: &KvShape, runs: &[(&[Slot], Turn)]) {
        let (row, head_dim) = (shape.numbers(), shape.head_dim);
        self.keys.par_chunks_exact_mut(shape.slots * row).for_each(|layer| {
            wide(
                #[inline(always)]
                || {
                    for (slots, turn) in runs {
                        for slot in *slots {
                            let keys = &mut layer[slot.usize() * row..][..row];
                            keys.chunks_exact_mut(head_dim).for_each(|head| rotate_head(head, turn));
                        }
                    }
                },
            );
        });
    }

    fn copy(&mut self, shape: &KvShape, from: &[Slot], to: &[Slot]) {
        let (row, length) = (shape.numbers(), shape.slots * shape.numbers());
        let (keys, values) = (&mut self.keys, &mut self.values);
        keys.par_chunks_exact_mut(length).chain(values.par_chunks_exact_mut(length)).for_each(|layer| {
            for (from, to) in from.iter().zip(to) {
                let start = from.usize() * row;
                layer.copy_within(start..start + row, to.usize() * row);
            }
        });
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
