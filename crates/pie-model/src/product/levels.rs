//! Panels of quantized weights: levels of a few bits, which are widened in registers.
//!
//! A level of b bits becomes the first b bits of the mantissa of a number between 1 and 2: f = 1 + level / 2^b costs a shift and
//! two logical operations, and no conversion. A weight is scale * level + offset = a f + c, with a = scale 2^b and c = offset - a, so
//! that for one row of x a group's part of the product is a (sum of f x) + c (sum of x), with the second sum the same for all outputs.
//!
//! Groups lie one behind the other, each as a record of lines with a number for each output of the panel:
//!
//! ```text
//! levels of 4 bits   4 lines of words   8 levels in each word, the first lowest
//!           5 bits   4 + 1              the fifth bits of all 32 levels in one word
//!           6 bits   4 + 2              the upper two bits of 16 levels in each of two words
//!           8 bits   8                  4 levels in each word
//! then a: one line, or two where halves of a group have scales of their own
//! then c: one line where offsets are stored; else levels lie around the middle of their range, and c = -1.5 a
//! ```

use super::kernel::{Destination, Product, block_by_panel};
use super::{PANEL, Singles};
use pie_gguf::{GROUP, Group, Storage};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::cell::Cell;

/// Inputs with one scale at least.
pub(crate) const HALF_GROUP: usize = GROUP / 2;
/// Inputs whose weights are widened at a time where there are several rows of x: a part of a panel that stays in the first-level cache.
const DEPTH: usize = 256;
/// What f is without its level: 1.
const ONE: u32 = 0x3f80_0000;
const MANTISSA: u32 = 23;

/// What a record is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Four bits around 8.
    Four,
    /// Four bits and an offset.
    FourOffset,
    /// Five bits around 16.
    Five,
    /// Five bits and an offset.
    FiveOffset,
    /// Six bits around 32, two scales.
    Six,
    /// Eight bits around 128.
    Eight,
}

impl Form {
    /// The form that holds all that a storage says; none where numbers are stored as they are.
    pub fn of(storage: Storage) -> Option<Self> {
        Some(match storage {
            Storage::Q4_0 => Self::Four,
            Storage::Q4_1 | Storage::Q4_K => Self::FourOffset,
            Storage::Q5_0 => Self::Five,
            Storage::Q5_1 | Storage::Q5_K => Self::FiveOffset,
            Storage::Q6_K => Self::Six,
            Storage::Q8_0 => Self::Eight,
            Storage::F32 | Storage::F16 | Storage::BF16 => return None,
        })
    }

    fn bits(self) -> usize {
        match self {
            Self::Four | Self::FourOffset => 4,
            Self::Five | Self::FiveOffset => 5,
            Self::Six => 6,
            Self::Eight => 8,
        }
    }

    /// Lines of `a`.
    fn scales(self) -> usize {
        if self == Self::Six { 2 } else { 1 }
    }

    fn has_offsets(self) -> bool {
        matches!(self, Self::FourOffset | Self::FiveOffset)
    }

    /// Lines of a record: as many words as bits, since 32 levels of one bit are a word.
    fn lines(self) -> usize {
        self.bits() + self.scales() + usize::from(self.has_offsets())
    }

    /// Bytes of a group of one output.
    pub fn bytes(self) -> u64 {
        4 * self.lines() as u64
    }
}

/// A number, or the bits of one, for each output of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u32; PANEL]);

/// Panels of one form, [panel][group][line].
pub(crate) struct LevelPanels {
    pub form: Form,
    lines: Vec<Line>,
    /// Groups of a panel.
    groups: usize,
}

impl LevelPanels {
    /// `group(output, index)` for all groups of all outputs that there are; the rest is 0.
    pub fn pack(
        form: Form,
        outputs: usize,
        inputs: usize,
        group: impl Fn(usize, usize) -> Group + Sync,
    ) -> Self {
        let (groups, record) = (inputs / GROUP, form.lines());
        let mut lines = vec![Line([0; PANEL]); outputs.div_ceil(PANEL) * groups * record];
        lines.par_chunks_mut(groups * record).enumerate().for_each(|(panel, lines)| {
            for output in panel * PANEL..outputs.min((panel + 1) * PANEL) {
                for (index, record) in lines.chunks_exact_mut(record).enumerate() {
                    form.put(&group(output, index), output % PANEL, record);
                }
            }
        });
        Self { form, lines, groups }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.lines.as_slice()) as u64
    }

    fn panel(&self, number: usize) -> &[Line] {
        let lines = self.groups * self.form.lines();
        &self.lines[number * lines..][..lines]
    }
}

impl Form {
    /// Writes a group to a record, as that of one output.
    fn put(self, group: &Group, output: usize, record: &mut [Line]) {
        let bits = self.bits();
        for (input, level) in group.levels.iter().enumerate() {
            let level = u32::from(*level);
            let mut put = |line: usize, at: usize, bits: u32| record[line].0[output] |= bits << at;
            match self {
                Self::Eight => put(input / 4, 8 * (input % 4), level),
                _ => put(input / 8, 4 * (input % 8), level & 15),
            }
            match bits {
                5 => put(4, input, level >> 4),
                6 => put(4 + input / 16, 2 * (input % 16), level >> 4),
                _ => {}
            }
        }
        let one = (1 << bits) as f32;
        for half in 0..self.scales() {
            record[bits + half].0[output] = (group.scales[half] * one).to_bits();
        }
        if self.has_offsets() {
            let shifted = group.offsets[0] - group.scales[0] * one;
            record[bits + 1].0[output] = shifted.to_bits();
        }
    }
}

/// The product of blocks of rows with some panels of levels.
pub(super) struct LevelProduct<'a, 'b> {
    /// All of it but the weights.
    pub product: Product<'a, &'b LevelPanels>,
}

thread_local! {
    static WIDENED: Cell<Vec<Singles>> = const { Cell::new(Vec::new()) };
}

/// Calls a function with the constants of a form: bits, lines of scales, whether there is one of offsets.
macro_rules! by_form {
    ($form:expr, $function:ident::<$simd:ident>($($argument:expr),*)) => {
        match $form {
            Form::Four => $function::<$simd, 4, 1, false>($($argument),*),
            Form::FourOffset => $function::<$simd, 4, 1, true>($($argument),*),
            Form::Five => $function::<$simd, 5, 1, false>($($argument),*),
            Form::FiveOffset => $function::<$simd, 5, 1, true>($($argument),*),
            Form::Six => $function::<$simd, 6, 2, false>($($argument),*),
            Form::Eight => $function::<$simd, 8, 1, false>($($argument),*),
        }
    };
}

impl WithSimd for LevelProduct<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { rows, outputs, inputs, blocks, own, panels, out, stride } = self.product;
        // Not lent to a closure, which would be compiled for the oldest machine.
        let mut widened = WIDENED.take();
        widened.resize(DEPTH, Singles([0.0; PANEL]));
        for (column, number) in panels.enumerate() {
            let panel = rows.panel(number);
            let width = PANEL.min(outputs - number * PANEL);
            if blocks.rows == 1 {
                let mut sums = [0.0; PANEL];
                by_form!(rows.form, one_row::<S>(simd, blocks.data, blocks.sums, panel, &mut sums));
                out[column * PANEL..][..width].copy_from_slice(&sums[..width]);
                continue;
            }
            let records = panel.chunks(rows.form.lines() * (DEPTH / GROUP));
            for (records, start) in records.zip((0..inputs).step_by(DEPTH)) {
                let end = inputs.min(start + DEPTH);
                by_form!(rows.form, widen::<S>(simd, records, &mut widened));
                for (index, block) in own.clone().enumerate() {
                    let (data, rows) = blocks.block(block);
                    let from = index * blocks.height * stride + column * PANEL;
                    let target = Destination { out: &mut out[from..], stride, width, first: start == 0 };
                    let x = &data[start * rows..end * rows];
                    block_by_panel(simd, rows, x, &widened[..end - start], target);
                }
            }
        }
        WIDENED.set(widened);
    }
}

/// Vectors of outputs that a row of x is multiplied with at a time; each has two sums, so that few wait for the latency of each other.
const VECTORS: usize = 2;

/// A vector of a record's line, from an output on.
#[inline(always)]
fn words<S: Simd>(line: &Line, output: usize) -> S::u32s {
    S::as_simd_u32s(&line.0[output..]).0[0]
}

/// The same of a line of numbers.
#[inline(always)]
fn numbers<S: Simd>(simd: S, line: &Line, output: usize) -> S::f32s {
    simd.transmute_f32s_u32s(words::<S>(line, output))
}

/// Some bits of words, moved to another place.
#[inline(always)]
fn moved<S: Simd>(simd: S, words: S::u32s, from: usize, bits: usize, to: usize) -> S::u32s {
    let moved = if to >= from {
        simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s((to - from) as u32))
    } else {
        simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s((from - to) as u32))
    };
    simd.and_u32s(moved, simd.splat_u32s(((1 << bits) - 1) << to))
}

/// f of one input, for a vector of outputs. After inlining, `input` is a constant.
#[inline(always)]
fn level<S: Simd, const BITS: usize>(simd: S, record: &[Line], input: usize, output: usize) -> S::f32s {
    let lowest = MANTISSA as usize - BITS;
    let low = match BITS {
        8 => moved(simd, words::<S>(&record[input / 4], output), 8 * (input % 4), 8, lowest),
        _ => moved(simd, words::<S>(&record[input / 8], output), 4 * (input % 8), 4, lowest),
    };
    let level = match BITS {
        5 => {
            let high = moved(simd, words::<S>(&record[4], output), input, 1, lowest + 4);
            simd.or_u32s(low, high)
        }
        6 => {
            let high = words::<S>(&record[4 + input / 16], output);
            simd.or_u32s(low, moved(simd, high, 2 * (input % 16), 2, lowest + 4))
        }
        _ => low,
    };
    simd.transmute_f32s_u32s(simd.or_u32s(level, simd.splat_u32s(ONE)))
}

/// Calls a macro once for each input of a half of a group, so that shifts are constants.
macro_rules! of_half {
    ($step:ident) => {
        $step!(0);
        $step!(1);
        $step!(2);
        $step!(3);
        $step!(4);
        $step!(5);
        $step!(6);
        $step!(7);
        $step!(8);
        $step!(9);
        $step!(10);
        $step!(11);
        $step!(12);
        $step!(13);
        $step!(14);
        $step!(15);
    };
}

/// Sums of f x over a half of a group.
#[inline(always)]
fn half_sums<S: Simd, const BITS: usize, const FIRST: usize>(
    simd: S,
    x: &[f32; GROUP],
    record: &[Line],
    offset: usize,
) -> [S::f32s; VECTORS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; 2];
    macro_rules! step {
        ($input:literal) => {
            let x = simd.splat_f32s(x[FIRST + $input]);
            for vector in 0..VECTORS {
                let f = level::<S, BITS>(simd, record, FIRST + $input, offset + vector * S::F32_LANES);
                sums[$input % 2][vector] = simd.mul_add_e_f32s(x, f, sums[$input % 2][vector]);
            }
        };
    }
    of_half!(step);
    let [mut even, odd] = sums;
    for vector in 0..VECTORS {
        even[vector] = simd.add_f32s(even[vector], odd[vector]);
    }
    even
}

/// A row of x times a panel, which is read once.
#[inline(always)]
fn one_row<S: Simd, const BITS: usize, const SCALES: usize, const OFFSETS: bool>(
    simd: S,
    x: &[f32],
    sums: &[f32],
    panel: &[Line],
    out: &mut [f32; PANEL],
) {
    let records = panel.chunks_exact(BITS + SCALES + usize::from(OFFSETS));
    for offset in (0..PANEL).step_by((VECTORS * S::F32_LANES).max(1)) {
        let mut total = [simd.splat_f32s(0.0); VECTORS];
        for ((record, x), sum) in records.clone().zip(x.as_chunks::<GROUP>().0).zip(sums.as_chunks::<2>().0) {
            let halves = [
                half_sums::<S, BITS, 0>(simd, x, record, offset),
                half_sums::<S, BITS, HALF_GROUP>(simd, x, record, offset),
            ];
            // c is -1.5 a where it is not stored.
            let middle = simd.splat_f32s(-1.5);
            let sums = [sum[0], sum[1], sum[0] + sum[1]].map(
                #[inline(always)]
                |sum| simd.splat_f32s(sum),
            );
            for vector in 0..VECTORS {
                let output = offset + vector * S::F32_LANES;
                let a = numbers(simd, &record[BITS], output);
                let both = simd.add_f32s(halves[0][vector], halves[1][vector]);
                total[vector] = if SCALES == 2 {
                    let second = numbers(simd, &record[BITS + 1], output);
                    let [first_half, second_half] = [0, 1].map(
                        #[inline(always)]
                        |half: usize| simd.mul_add_e_f32s(middle, sums[half], halves[half][vector]),
                    );
                    simd.mul_add_e_f32s(
                        second,
                        second_half,
                        simd.mul_add_e_f32s(a, first_half, total[vector]),
                    )
                } else if OFFSETS {
                    let c = numbers(simd, &record[BITS + 1], output);
                    simd.mul_add_e_f32s(c, sums[2], simd.mul_add_e_f32s(a, both, total[vector]))
                } else {
                    let around = simd.mul_add_e_f32s(middle, sums[2], both);
                    simd.mul_add_e_f32s(a, around, total[vector])
                };
            }
        }
        let (vectors, _) = S::as_mut_simd_f32s(&mut out[offset..]);
        vectors[..VECTORS].copy_from_slice(&total);
    }
}

/// The weights of some records, one input after the other.
#[inline(always)]
fn widen<S: Simd, const BITS: usize, const SCALES: usize, const OFFSETS: bool>(
    simd: S,
    records: &[Line],
    to: &mut [Singles],
) {
    let records = records.chunks_exact(BITS + SCALES + usize::from(OFFSETS));
    for (record, to) in records.zip(to.as_chunks_mut::<GROUP>().0) {
        for offset in (0..PANEL).step_by(S::F32_LANES.max(1)) {
            let scales =
                [numbers(simd, &record[BITS], offset), numbers(simd, &record[BITS + SCALES - 1], offset)];
            let middle = simd.splat_f32s(-1.5);
            let offsets = if OFFSETS {
                [numbers(simd, &record[BITS + 1], offset); 2]
            } else {
                [simd.mul_f32s(middle, scales[0]), simd.mul_f32s(middle, scales[1])]
            };
            macro_rules! step {
                ($input:literal) => {
                    for half in 0..2 {
                        let input = half * HALF_GROUP + $input;
                        let f = level::<S, BITS>(simd, record, input, offset);
                        S::as_mut_simd_f32s(&mut to[input].0[offset..]).0[0] =
                            simd.mul_add_e_f32s(scales[half], f, offsets[half]);
                    }
                };
            }
            of_half!(step);
        }
    }
}
