//! Products with levels in f32: they are widened in registers.
//!
//! A level of b bits becomes the first b bits of the mantissa of a number between 1 and 2: f = 1 + level / 2^b costs a shift and
//! two logical operations, and no conversion. A weight is scale * level + offset = a f + c, with a = scale 2^b and c = offset - a, so
//! that for one row of x a group's part of the product is a (sum of f x) + c (sum of x), with the second sum the same for all outputs.

use super::kernel::{Destination, Product, block_by_panel};
use super::levels::{
    Factors, HALF_GROUP, LevelPanels, MANTISSA, Panel, PanelLine, by_form, factors, moved, place, words,
};
use super::{PANEL, Singles};
use pie_gguf::GROUP;
use pulp::{Simd, WithSimd};
use std::cell::Cell;

/// Inputs whose weights are widened at a time where there are several rows of x: a part of a panel that stays in the first-level cache.
const DEPTH: usize = 256;
/// What f is without its level: 1.
const ONE: u32 = 0x3f80_0000;

/// The product of blocks of rows with some panels of levels.
pub(super) struct LevelProduct<'a, 'b> {
    /// All of it but the weights.
    pub product: Product<'a, &'b LevelPanels>,
}

thread_local! {
    static WIDENED: Cell<Vec<Singles>> = const { Cell::new(Vec::new()) };
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
                by_form!(rows.form(), one_row::<S>(simd, blocks.data, blocks.sums, panel, &mut sums));
                out[column * PANEL..][..width].copy_from_slice(&sums[..width]);
                continue;
            }
            for start in (0..inputs).step_by(DEPTH) {
                let end = inputs.min(start + DEPTH);
                by_form!(rows.form(), widen::<S>(simd, panel, start / GROUP, &mut widened[..end - start]));
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

/// f of one input, for a vector of outputs. After inlining, `input` is a constant.
#[inline(always)]
fn level<S: Simd, const BITS: usize>(simd: S, record: &[PanelLine], input: usize, output: usize) -> S::f32s {
    let lowest = MANTISSA as usize - BITS;
    let (quad, byte) = place(input);
    let low = match BITS {
        8 => moved(simd, words::<S>(&record[quad], output), 8 * byte, 8, lowest),
        _ => moved(simd, words::<S>(&record[quad / 2], output), 8 * byte + 4 * (quad % 2), 4, lowest),
    };
    let level = match BITS {
        5 => {
            let high = moved(simd, words::<S>(&record[4], output), 8 * byte + quad, 1, lowest + 4);
            simd.or_u32s(low, high)
        }
        6 => {
            let high = words::<S>(&record[4 + quad / 4], output);
            simd.or_u32s(low, moved(simd, high, 8 * byte + 2 * (quad % 4), 2, lowest + 4))
        }
        _ => low,
    };
    simd.transmute_f32s_u32s(simd.or_u32s(level, simd.splat_u32s(ONE)))
}

/// a and c of the two halves of a group: what makes numbers of f.
#[inline(always)]
fn of_f<S: Simd, const BITS: usize>(simd: S, factors: Factors<S::f32s>) -> [(S::f32s, S::f32s); 2] {
    let Factors { scale, offset } = factors;
    let one = simd.splat_f32s((1_u32 << BITS) as f32);
    let half = |half: usize| {
        let a = simd.mul_f32s(scale[half], one);
        (a, simd.sub_f32s(offset[half], a))
    };
    [half(0), half(1)]
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
    record: &[PanelLine],
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
fn one_row<S: Simd, const BITS: usize, const KIND: u8>(
    simd: S,
    x: &[f32],
    sums: &[f32],
    panel: Panel<'_>,
    out: &mut [f32; PANEL],
) {
    for offset in (0..PANEL).step_by((VECTORS * S::F32_LANES).max(1)) {
        let mut total = [simd.splat_f32s(0.0); VECTORS];
        let groups =
            panel.words.chunks_exact(BITS).zip(x.as_chunks::<GROUP>().0).zip(sums.as_chunks::<2>().0);
        for (group, ((record, x), sum)) in groups.enumerate() {
            let first = half_sums::<S, BITS, 0>(simd, x, record, offset);
            let second = half_sums::<S, BITS, HALF_GROUP>(simd, x, record, offset);
            let (of_first, of_second) = (simd.splat_f32s(sum[0]), simd.splat_f32s(sum[1]));
            for vector in 0..VECTORS {
                let factors = factors::<S, BITS, KIND>(simd, panel, group, offset + vector * S::F32_LANES);
                let [(a, c), (a_second, c_second)] = of_f::<S, BITS>(simd, factors);
                let with_first = simd.mul_add_e_f32s(a, first[vector], total[vector]);
                let with_both = simd.mul_add_e_f32s(a_second, second[vector], with_first);
                let rest = simd.mul_add_e_f32s(c_second, of_second, simd.mul_f32s(c, of_first));
                total[vector] = simd.add_f32s(with_both, rest);
            }
        }
        let (vectors, _) = S::as_mut_simd_f32s(&mut out[offset..]);
        vectors[..VECTORS].copy_from_slice(&total);
    }
}

/// The weights of groups from a first one on, one input after the other.
#[inline(always)]
fn widen<S: Simd, const BITS: usize, const KIND: u8>(
    simd: S,
    panel: Panel<'_>,
    first: usize,
    to: &mut [Singles],
) {
    let records = panel.words[first * BITS..].chunks_exact(BITS);
    for (index, (record, to)) in records.zip(to.as_chunks_mut::<GROUP>().0).enumerate() {
        for offset in (0..PANEL).step_by(S::F32_LANES.max(1)) {
            let factors = factors::<S, BITS, KIND>(simd, panel, first + index, offset);
            let of_f = of_f::<S, BITS>(simd, factors);
            macro_rules! step {
                ($input:literal) => {
                    for half in 0..2 {
                        let input = half * HALF_GROUP + $input;
                        let f = level::<S, BITS>(simd, record, input, offset);
                        S::as_mut_simd_f32s(&mut to[input].0[offset..]).0[0] =
                            simd.mul_add_e_f32s(of_f[half].0, f, of_f[half].1);
                    }
                };
            }
            of_half!(step);
        }
    }
}
