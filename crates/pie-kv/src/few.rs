//! Attention of few query vectors: each KV row is read once, for all of them, at the memory's pace.

use crate::attention::{Head, Queries};
use crate::simd::{exp, wide};
use pie_plan::Slot;

/// Slots scored before their values are read: scores stay in registers' reach, rows in the first-level cache.
const TILE: usize = 64;
const LANES: usize = 16;

/// [rows * group][dim] of results.
pub(crate) fn attend(head: &Head<'_>, table: &[Slot], queries: &Queries<'_>) -> Vec<f32> {
    match head.dim {
        16 => wide(
            #[inline(always)]
            || fixed::<16>(head, table, queries),
        ),
        24 => wide(
            #[inline(always)]
            || fixed::<24>(head, table, queries),
        ),
        32 => wide(
            #[inline(always)]
            || fixed::<32>(head, table, queries),
        ),
        48 => wide(
            #[inline(always)]
            || fixed::<48>(head, table, queries),
        ),
        64 => wide(
            #[inline(always)]
            || fixed::<64>(head, table, queries),
        ),
        96 => wide(
            #[inline(always)]
            || fixed::<96>(head, table, queries),
        ),
        128 => wide(
            #[inline(always)]
            || fixed::<128>(head, table, queries),
        ),
        _ => wide(
            #[inline(always)]
            || any(head, table, queries),
        ),
    }
}

/// The length of a head is known: the compiler keeps whole vectors in registers.
#[inline(always)]
fn fixed<const DIM: usize>(head: &Head<'_>, table: &[Slot], queries: &Queries<'_>) -> Vec<f32> {
    let mut out = vec![0.0; queries.vectors.len()];
    let vectors = queries.vectors.as_chunks::<DIM>().0;
    let results = out.as_chunks_mut::<DIM>().0;
    for (index, (query, result)) in vectors.iter().zip(results).enumerate() {
        let visible = queries.visible[index / queries.group] as usize;
        let (mut most, mut sum) = (f32::NEG_INFINITY, 0.0_f32);
        let mut scores = [0.0_f32; TILE];
        for tile in table[..visible].chunks(TILE) {
            let scores = &mut scores[..tile.len()];
            for (score, slot) in scores.iter_mut().zip(tile) {
                *score = dot::<DIM>(query, array::<DIM>(head.keys, head, *slot));
            }
            let (rescale, added) = softmax(scores, &mut most);
            sum = sum.mul_add(rescale, added);
            result.iter_mut().for_each(|number| *number *= rescale);
            let mut total = *result;
            for (weight, slot) in scores.iter().zip(tile) {
                let value = array::<DIM>(head.values, head, *slot);
                for i in 0..DIM {
                    total[i] = weight.mul_add(value[i], total[i]);
                }
            }
            *result = total;
        }
        result.iter_mut().for_each(|number| *number /= sum);
    }
    out
}

/// Any length.
#[inline(always)]
fn any(head: &Head<'_>, table: &[Slot], queries: &Queries<'_>) -> Vec<f32> {
    let mut out = vec![0.0; queries.vectors.len()];
    let pairs = queries.vectors.chunks_exact(head.dim).zip(out.chunks_exact_mut(head.dim));
    for (index, (query, result)) in pairs.enumerate() {
        let visible = queries.visible[index / queries.group] as usize;
        let (mut most, mut sum) = (f32::NEG_INFINITY, 0.0_f32);
        let mut scores = [0.0_f32; TILE];
        for tile in table[..visible].chunks(TILE) {
            let scores = &mut scores[..tile.len()];
            for (score, slot) in scores.iter_mut().zip(tile) {
                let key = row(head.keys, head, *slot);
                *score = query.iter().zip(key).fold(0.0, |sum, (a, b)| a.mul_add(*b, sum));
            }
            let (rescale, added) = softmax(scores, &mut most);
            sum = sum.mul_add(rescale, added);
            result.iter_mut().for_each(|number| *number *= rescale);
            for (weight, slot) in scores.iter().zip(tile) {
                let value = row(head.values, head, *slot);
                result
                    .iter_mut()
                    .zip(value)
                    .for_each(|(number, value)| *number = weight.mul_add(*value, *number));
            }
        }
        result.iter_mut().for_each(|number| *number /= sum);
    }
    out
}

#[inline(always)]
fn row<'a>(rows: &'a [f32], head: &Head<'_>, slot: Slot) -> &'a [f32] {
    &rows[slot.usize() * head.stride + head.offset..][..head.dim]
}

#[inline(always)]
fn array<'a, const DIM: usize>(rows: &'a [f32], head: &Head<'_>, slot: Slot) -> &'a [f32; DIM] {
    let start = slot.usize() * head.stride + head.offset;
    rows[start..].first_chunk().expect("slots and head were checked against the cache")
}

#[inline(always)]
fn dot<const DIM: usize>(a: &[f32; DIM], b: &[f32; DIM]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = DIM / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for i in 0..LANES {
            lanes[i] = a[start + i].mul_add(b[start + i], lanes[i]);
        }
    }
    for i in whole..DIM {
        lanes[i - whole] = a[i].mul_add(b[i], lanes[i - whole]);
    }
    lanes.iter().sum()
}

/// Turns scores into weights against the largest score so far; returns by how much earlier sums shrink, and the
/// weights' sum (online softmax, Milakov and Gimelshein 2018).
#[inline(always)]
pub(crate) fn softmax(scores: &mut [f32], most: &mut f32) -> (f32, f32) {
    let largest = scores.iter().copied().fold(*most, f32::max);
    let rescale = if *most == f32::NEG_INFINITY { 0.0 } else { exp(*most - largest) };
    *most = largest;
    let mut sums = [0.0_f32; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp(chunk[i] - largest);
            sums[i] += chunk[i];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for score in rest {
        *score = exp(*score - largest);
        sum += *score;
    }
    (rescale, sum)
}
