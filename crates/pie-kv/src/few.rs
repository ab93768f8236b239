//! Attention of few query vectors: each K and V row is read once for all heads, in the order of the table, at the
//! memory's pace.

use crate::attention::{Attention, LayerRows, Queries};
use crate::simd::{LANES, exp2, greater, largest, wide};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Slots scored before their values are read: scores and rows stay in the first caches.
const TILE: usize = 64;
/// Values added at once: a result is loaded and stored once for all of them.
const AT_ONCE: usize = 4;

/// What some vectors, [rows][heads], make of a part of what they see.
pub(crate) struct Partial {
    /// The largest score of each vector.
    most: Vec<f32>,
    /// The sum of its weights, against that score.
    sums: Vec<f32>,
    /// [vectors][dim], not divided by the sums.
    out: Vec<f32>,
}

/// The part's slots for all rows of a sequence.
pub(crate) fn attend(
    rows: &LayerRows<'_>,
    queries: &Queries<'_>,
    sequence: &Attention<'_>,
    part: Range<usize>,
) -> Partial {
    pulp::Arch::new().dispatch(AttendFew { rows, queries, sequence, part })
}

struct AttendFew<'a> {
    rows: &'a LayerRows<'a>,
    queries: &'a Queries<'a>,
    sequence: &'a Attention<'a>,
    part: Range<usize>,
}

impl WithSimd for AttendFew<'_> {
    type Output = Partial;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Partial {
        let Self { rows, queries, sequence, part } = self;
        macro_rules! with_dim {
            ($($dim:literal)*) => {
                match rows.dim {
                    // A length that the compiler knows keeps whole heads in registers.
                    $($dim => over(simd, rows, queries, sequence, part, $dim),)*
                    dim => over(simd, rows, queries, sequence, part, dim),
                }
            };
        }
        with_dim!(32 64 128)
    }
}

#[inline(always)]
fn over<S: Simd>(
    simd: S,
    rows: &LayerRows<'_>,
    queries: &Queries<'_>,
    sequence: &Attention<'_>,
    part: Range<usize>,
    dim: usize,
) -> Partial {
    let Queries { heads, group, .. } = *queries;
    let (count, stride) = (sequence.rows.len() * heads, rows.kv_heads * dim);
    let vectors = &queries.data[sequence.rows.start * heads * dim..][..count * dim];
    let vectors: Vec<f32> = vectors.iter().map(|number| number * queries.scale).collect();
    let mut partial =
        Partial { most: vec![f32::NEG_INFINITY; count], sums: vec![0.0; count], out: vec![0.0; count * dim] };
    let mut scores = vec![[0.0_f32; TILE]; count];
    for first in part.clone().step_by(TILE) {
        let tile = &sequence.table[first..part.end.min(first + TILE)];
        // Rows are in ascending visibility: those that end before this tile are done.
        let done = sequence.visible.partition_point(|visible| *visible as usize <= first) * heads;
        for (place, slot) in tile.iter().enumerate() {
            let keys = &rows.keys[slot.usize() * stride..][..stride];
            let mut vector = done;
            while vector < count {
                for key in keys.chunks_exact(dim) {
                    for _ in 0..group {
                        scores[vector][place] = dot(simd, &vectors[vector * dim..][..dim], &key[..dim]);
                        vector += 1;
                    }
                }
            }
        }
        for (vector, scores) in scores.iter_mut().enumerate().skip(done) {
            let visible = sequence.visible[vector / heads] as usize - first;
            let (seen, unseen) = scores.split_at_mut(visible.min(tile.len()));
            let (rescale, added) = softmax(seen, &mut partial.most[vector]);
            unseen.fill(0.0);
            partial.sums[vector] = partial.sums[vector].mul_add(rescale, added);
            partial.out[vector * dim..][..dim].iter_mut().for_each(|number| *number *= rescale);
        }
        for (block, slots) in tile.chunks(AT_ONCE).enumerate() {
            // A last block repeats its last slot, with the weight 0.
            let mut values: [&[f32]; AT_ONCE] = [&[]; AT_ONCE];
            for (index, values) in values.iter_mut().enumerate() {
                let slot = slots[index.min(slots.len() - 1)];
                *values = &rows.values[slot.usize() * stride..][..stride];
            }
            let [a, b, c, d] = values;
            for (vector, scores) in scores.iter().enumerate().skip(done) {
                let weights: &[f32; AT_ONCE] = &scores.as_chunks().0[block];
                let head = vector % heads / group * dim;
                let (a, b) = (&a[head..][..dim], &b[head..][..dim]);
                let (c, d) = (&c[head..][..dim], &d[head..][..dim]);
                let out = &mut partial.out[vector * dim..][..dim];
                for i in 0..dim {
                    let sum = weights[1].mul_add(b[i], weights[0].mul_add(a[i], out[i]));
                    out[i] = weights[3].mul_add(d[i], weights[2].mul_add(c[i], sum));
                }
            }
        }
    }
    partial
}

/// The sum of products of two slices of one length.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let mut sums = simd.splat_f32s(0.0);
    for (a, b) in a.iter().zip(b) {
        sums = simd.mul_add_e_f32s(*a, *b, sums);
    }
    let mut sum = simd.reduce_sum_f32s(sums);
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum = a.mul_add(*b, sum);
    }
    sum
}

/// Joins the parts of one sequence into the attention of its vectors, at the start of `out`.
pub(crate) fn merge(parts: &[Partial], dim: usize, out: &mut [f32]) {
    let vectors = parts.first().map_or(0, |part| part.sums.len());
    wide(
        #[inline(always)]
        || {
            for (vector, out) in out.chunks_exact_mut(dim).take(vectors).enumerate() {
                let most =
                    parts.iter().fold(f32::NEG_INFINITY, |most, part| greater(part.most[vector], most));
                let mut sum = 0.0_f32;
                out.fill(0.0);
                for part in parts {
                    // A part of which a row sees nothing has a sum of 0.
                    let share = exp2(part.most[vector] - most);
                    sum = part.sums[vector].mul_add(share, sum);
                    for (out, number) in out.iter_mut().zip(&part.out[vector * dim..][..dim]) {
                        *out = number.mul_add(share, *out);
                    }
                }
                out.iter_mut().for_each(|number| *number /= sum);
            }
        },
    );
}

/// Turns scores into weights against the largest score so far; returns by how much earlier sums shrink, and the
/// weights' sum (online softmax, Milakov and Gimelshein 2018).
#[inline(always)]
fn softmax(scores: &mut [f32], most: &mut f32) -> (f32, f32) {
    let largest = greater(largest(scores), *most);
    let rescale = if *most == f32::NEG_INFINITY { 0.0 } else { exp2(*most - largest) };
    *most = largest;
    let mut sums = [0.0_f32; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp2(chunk[i] - largest);
            sums[i] += chunk[i];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for score in rest {
        *score = exp2(*score - largest);
        sum += *score;
    }
    (rescale, sum)
}
