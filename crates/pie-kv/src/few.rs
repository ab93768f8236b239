//! Attention of few query vectors: each K and V row is read once for all heads, in the order of the table, at the
//! memory's pace.

use crate::aligned::Aligned;
use crate::attention::{Attention, LayerRows, Queries};
use crate::number::Number;
use crate::simd::{LANES, exp2, greater, largest, prefetch, wide};
use pie_words::Slot;
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Slots scored before their values are read: scores and rows stay in the first caches.
const TILE: usize = 64;
/// Slots whose rows are asked for before they are read.
const AHEAD: usize = 8;
/// Values added at once: a result is loaded and stored once for all of them.
const AT_ONCE: usize = 4;

/// What some vectors, [rows][heads], make of a part of what they see.
pub(crate) struct Partial {
    /// The largest score of each vector.
    most: Vec<f32>,
    /// The sum of its weights, against that score.
    sums: Vec<f32>,
    /// [vectors][dim], not divided by the sums.
    out: Aligned<f32>,
}

/// The part's slots for all rows of a sequence.
pub(crate) fn attend<N: Number>(
    rows: &LayerRows<'_, N>,
    queries: &Queries<'_>,
    sequence: &Attention<'_>,
    part: Range<usize>,
) -> Partial {
    pulp::Arch::new().dispatch(AttendFew { rows, queries, sequence, part })
}

struct AttendFew<'a, N> {
    rows: &'a LayerRows<'a, N>,
    queries: &'a Queries<'a>,
    sequence: &'a Attention<'a>,
    part: Range<usize>,
}

impl<N: Number> WithSimd for AttendFew<'_, N> {
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

/// Tile after tile: its keys are scored, the scores become weights, and its values are added by weight.
///
/// ```text
/// number    counts                                     leads to
/// row       the sequence's rows                        visible[row]: how many positions it sees
/// head      the query heads of a row
/// vector    row * heads + head: all query vectors      vectors[vector * dim..], scores[vector], out[vector * dim..]
/// kv_head   head / group: `group` heads share one      of the numbers of a slot, those from kv_head * dim on
/// position  what the sequence sees, in its order       first + place
/// place     a tile's part of that: 0..TILE             scores[vector][place]
/// slot      the rows of the cache: the view's, by      keys[slot * stride..], values[slot * stride..]
///           position, in any order
/// ```
#[inline(always)]
fn over<S: Simd, N: Number>(
    simd: S,
    rows: &LayerRows<'_, N>,
    queries: &Queries<'_>,
    sequence: &Attention<'_>,
    part: Range<usize>,
    dim: usize,
) -> Partial {
    let Queries { heads, group, .. } = *queries;
    let count = sequence.rows.len() * heads;
    let vectors = &queries.data[sequence.rows.start * heads * dim..][..count * dim];
    let mut scaled = Aligned::of(0.0, count * dim);
    scaled.iter_mut().zip(vectors).for_each(|(to, number)| *to = number * queries.scale);
    let vectors = &*scaled;
    let mut partial = Partial {
        most: vec![f32::NEG_INFINITY; count],
        sums: vec![0.0; count],
        out: Aligned::of(0.0, count * dim),
    };
    let (mut scores, mut joined) = (vec![[0.0_f32; TILE]; count], Vec::new());
    let mut space = Aligned::of(0.0, AT_ONCE * rows.stride());
    for first in part.clone().step_by(TILE) {
        let slots = sequence.view.part(first..part.end.min(first + TILE), &mut joined);
        // Rows see ever more: those that see nothing of this tile come first.
        let done = sequence.visible.partition_point(|visible| *visible as usize <= first) * heads;
        let tile = Tile { rows, slots, space: &mut space };
        score(simd, tile, &vectors[done * dim..], &mut scores[done..], group, dim);
        for (vector, scores) in scores.iter_mut().enumerate().skip(done) {
            let visible = sequence.visible[vector / heads] as usize - first;
            let (seen, unseen) = scores.split_at_mut(visible.min(slots.len()));
            let (rescale, added) = softmax(seen, &mut partial.most[vector]);
            unseen.fill(0.0);
            partial.sums[vector] = partial.sums[vector].mul_add(rescale, added);
            partial.out[vector * dim..][..dim].iter_mut().for_each(|number| *number *= rescale);
        }
        // `done` is a multiple of the heads, so the vectors from there on start with a first head.
        let tile = Tile { rows, slots, space: &mut space };
        add(simd, tile, &scores[done..], &mut partial.out[done * dim..], queries, dim);
    }
    partial
}

/// Some slots of a layer.
struct Tile<'a, N> {
    rows: &'a LayerRows<'a, N>,
    slots: &'a [Slot],
    /// Where their rows are in f32 while they are used.
    space: &'a mut [f32],
}

/// Scores of a tile's slots for vectors that start with a row's first head. Each slot's keys are read once for all of them.
#[inline(always)]
fn score<S: Simd, N: Number>(
    simd: S,
    tile: Tile<'_, N>,
    vectors: &[f32],
    scores: &mut [[f32; TILE]],
    group: usize,
    dim: usize,
) {
    let Tile { rows, slots, space } = tile;
    let stride = rows.kv_heads * dim;
    for (place, slot) in slots.iter().enumerate() {
        if let Some(soon) = slots.get(place + AHEAD) {
            prefetch(&rows.keys[soon.usize() * stride..][..stride]);
        }
        let keys = N::widened(&rows.keys[slot.usize() * stride..][..stride], &mut space[..stride]);
        let mut vector = 0;
        while vector < scores.len() {
            for key in keys.chunks_exact(dim) {
                for _ in 0..group {
                    scores[vector][place] = dot(simd, &vectors[vector * dim..][..dim], &key[..dim]);
                    vector += 1;
                }
            }
        }
    }
}

/// Adds a tile's values by the weights of vectors that start with a row's first head.
#[inline(always)]
fn add<S: Simd, N: Number>(
    simd: S,
    tile: Tile<'_, N>,
    weights: &[[f32; TILE]],
    out: &mut [f32],
    queries: &Queries<'_>,
    dim: usize,
) {
    let Tile { rows, slots, space } = tile;
    let stride = rows.kv_heads * dim;
    let mut later = slots.iter().skip(AHEAD);
    for (block, slots) in slots.chunks(AT_ONCE).enumerate() {
        // A last block repeats its last slot, with the weight 0.
        let mut values: [&[f32]; AT_ONCE] = [&[]; AT_ONCE];
        for soon in later.by_ref().take(AT_ONCE) {
            prefetch(&rows.values[soon.usize() * stride..][..stride]);
        }
        for (index, (values, space)) in values.iter_mut().zip(space.chunks_exact_mut(stride)).enumerate() {
            let slot = slots[index.min(slots.len() - 1)];
            *values = N::widened(&rows.values[slot.usize() * stride..][..stride], space);
        }
        for (vector, (weights, out)) in weights.iter().zip(out.chunks_exact_mut(dim)).enumerate() {
            let kv_head = vector % queries.heads / queries.group * dim;
            add_block(
                simd,
                &weights.as_chunks().0[block],
                values.map(|values| &values[kv_head..][..dim]),
                out,
            );
        }
    }
}

/// Adds some values by weight. In vectors by hand: left to the compiler it is one number at a time for heads of 64 numbers.
#[inline(always)]
fn add_block<S: Simd>(simd: S, weights: &[f32; AT_ONCE], values: [&[f32]; AT_ONCE], out: &mut [f32]) {
    let splats = weights.map(|weight| simd.splat_f32s(weight));
    let parts = values.map(|values| S::as_simd_f32s(values));
    let (vectors, rest) = S::as_mut_simd_f32s(out);
    for (i, out) in vectors.iter_mut().enumerate() {
        let mut sum = *out;
        for (weight, (values, _)) in splats.iter().zip(&parts) {
            sum = simd.mul_add_e_f32s(*weight, values[i], sum);
        }
        *out = sum;
    }
    for (i, out) in rest.iter_mut().enumerate() {
        for (weight, (_, values)) in weights.iter().zip(&parts) {
            *out = weight.mul_add(values[i], *out);
        }
    }
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
