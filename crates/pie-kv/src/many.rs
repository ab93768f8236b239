//! Attention of many query vectors: tiles of K and V are gathered through the table once for all of them, and
//! multiplied as matrices; softmax goes along tile by tile.

use crate::attention::{Head, Queries};
use crate::few::softmax;
use crate::simd::wide;
use gemm::Parallelism;
use pie_plan::Slot;

/// Slots of a tile: its K, its V and the scores stay in the second-level cache.
const TILE: usize = 256;

/// [rows * group][dim] of results.
pub(crate) fn attend(head: &Head<'_>, table: &[Slot], queries: &Queries<'_>) -> Vec<f32> {
    let (dim, group) = (head.dim, queries.group);
    let vectors = queries.vectors.len() / dim;
    let seen = queries.visible.last().map_or(0, |visible| *visible as usize);
    let mut out = vec![0.0_f32; vectors * dim];
    let mut most = vec![f32::NEG_INFINITY; vectors];
    let mut sums = vec![0.0_f32; vectors];
    let mut scores = vec![0.0_f32; vectors * TILE];
    let (mut keys, mut values) = (vec![0.0_f32; TILE * dim], vec![0.0_f32; TILE * dim]);
    for (number, tile) in table[..seen].chunks(TILE).enumerate() {
        let start = number * TILE;
        // Rows are in ascending visibility: those that end before this tile are done.
        let first = queries.visible.partition_point(|visible| *visible as usize <= start) * group;
        gather(head.keys, head, tile, &mut keys);
        gather(head.values, head, tile, &mut values);
        let active = vectors - first;
        let scores = &mut scores[..active * tile.len()];
        product_transposed(&queries.vectors[first * dim..], &keys[..tile.len() * dim], scores, dim);
        wide(
            #[inline(always)]
            || {
                let rows = scores.chunks_exact_mut(tile.len()).enumerate();
                for (index, row) in rows {
                    let vector = first + index;
                    let visible = queries.visible[vector / group] as usize - start;
                    let (seen, unseen) = row.split_at_mut(visible.min(tile.len()));
                    let (rescale, added) = softmax(seen, &mut most[vector]);
                    unseen.fill(0.0);
                    sums[vector] = sums[vector].mul_add(rescale, added);
                    out[vector * dim..][..dim].iter_mut().for_each(|number| *number *= rescale);
                }
            },
        );
        add_product(scores, &values[..tile.len() * dim], &mut out[first * dim..], dim);
    }
    for (result, sum) in out.chunks_exact_mut(dim).zip(sums) {
        result.iter_mut().for_each(|number| *number /= sum);
    }
    out
}

fn gather(rows: &[f32], head: &Head<'_>, tile: &[Slot], to: &mut [f32]) {
    for (slot, to) in tile.iter().zip(to.chunks_exact_mut(head.dim)) {
        to.copy_from_slice(&rows[slot.usize() * head.stride + head.offset..][..head.dim]);
    }
}

/// scores [m][n] = queries [m][dim] x keys [n][dim] transposed.
fn product_transposed(queries: &[f32], keys: &[f32], scores: &mut [f32], dim: usize) {
    let (m, n) = (queries.len() / dim, keys.len() / dim);
    assert!(scores.len() == m * n, "the score matrix has the shape of its factors");
    let (dim_stride, n_stride) = (dim as isize, n as isize);
    // SAFETY: `queries` holds m rows of `dim`, `keys` n rows of `dim`, `scores` m rows of n (asserted); strides
    // address within them; `scores` is borrowed mutably and overlaps neither factor.
    unsafe {
        gemm::gemm(
            m,
            n,
            dim,
            scores.as_mut_ptr(),
            1,
            n_stride,
            false,
            queries.as_ptr(),
            1,
            dim_stride,
            keys.as_ptr(),
            dim_stride,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// out [m][dim] += weights [m][n] x values [n][dim].
fn add_product(weights: &[f32], values: &[f32], out: &mut [f32], dim: usize) {
    let (m, n) = (out.len() / dim, values.len() / dim);
    assert!(weights.len() == m * n, "the weights have the shape of their product");
    let (dim_stride, n_stride) = (dim as isize, n as isize);
    // SAFETY: `weights` holds m rows of n (asserted), `values` n rows of `dim`, `out` m rows of `dim`; strides address
    // within them; `out` is borrowed mutably and overlaps neither factor.
    unsafe {
        gemm::gemm(
            m,
            dim,
            n,
            out.as_mut_ptr(),
            1,
            dim_stride,
            true,
            weights.as_ptr(),
            1,
            n_stride,
            values.as_ptr(),
            1,
            dim_stride,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
