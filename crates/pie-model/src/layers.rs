//! The pieces of a layer, as operations on `[rows][width]` numbers in f32, each from one piece of memory to another.

use crate::error::ModelError;
use crate::product::Packed;
use pie_comm::Collective;
use pie_kv::simd::{exp, wide};
use rayon::prelude::*;
use std::ops::Range;

/// y = x W^T with the rows of W shared by the ranks: each has its columns of y. No communication.
pub(crate) struct ColumnParallel(pub Packed);

/// y = x W^T with the columns of W shared by the ranks: each has some columns of x, and y is the sum over all.
pub(crate) struct RowParallel(pub Packed);

/// Adds what all ranks have in `partial` to `x`; `partial` is then their sum.
pub(crate) fn add_sum(
    x: &mut [f32],
    partial: &mut [f32],
    comm: &mut dyn Collective,
) -> Result<(), ModelError> {
    comm.all_reduce_sum(partial)?;
    x.iter_mut().zip(partial).for_each(|(x, sum)| *x += *sum);
    Ok(())
}

/// x / rms(x) * weight, for each row (Zhang and Sennrich 2019).
pub(crate) struct RmsNorm {
    /// [width].
    pub weight: Vec<f32>,
    /// Added to the mean of squares.
    pub epsilon: f32,
}

impl RmsNorm {
    /// `[rows][width]` to as many.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        let Self { weight, epsilon } = self;
        by_row(
            (x, weight.len()),
            (out, weight.len()),
            #[inline(always)]
            |from, to| {
                let scale = 1.0 / (sum_of_squares(from) / from.len() as f32 + epsilon).sqrt();
                for ((to, from), weight) in to.iter_mut().zip(from).zip(weight) {
                    *to = from * scale * weight;
                }
            },
        );
    }
}

impl RmsNorm {
    /// Each head of some columns of `[rows][width]`, in its place.
    pub fn forward_heads(&self, rows: &mut [f32], width: usize, columns: Range<usize>) {
        let Self { weight, epsilon } = self;
        for row in rows.chunks_exact_mut(width) {
            for head in row[columns.clone()].chunks_exact_mut(weight.len()) {
                let scale = 1.0 / (sum_of_squares(head) / head.len() as f32 + epsilon).sqrt();
                head.iter_mut().zip(weight).for_each(|(number, weight)| *number *= scale * weight);
            }
        }
    }
}

/// Adds a bias to each row of `[rows][bias]`.
pub(crate) fn add_bias(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(number, bias)| *number += bias);
    }
}

#[inline(always)]
fn sum_of_squares(numbers: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (chunks, rest) = numbers.as_chunks::<16>();
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum = number.mul_add(*number, *sum);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|number| number * number).sum::<f32>()
}

/// SwiGLU's middle: `[rows][gate then up]` to silu(gate) * up, `[rows][width]`.
pub(crate) fn gated(gate_up: &[f32], out: &mut [f32], width: usize) {
    by_row(
        (gate_up, 2 * width),
        (out, width),
        #[inline(always)]
        |from, to| {
            let (gate, up) = from.split_at(to.len());
            for ((to, gate), up) in to.iter_mut().zip(gate).zip(up) {
                // e^-|gate| cannot overflow.
                let e = exp(-gate.abs());
                let sigmoid = if *gate < 0.0 { e } else { 1.0 } / (1.0 + e);
                *to = gate * sigmoid * up;
            }
        },
    );
}

/// Numbers of a result from which on its rows are shared by threads.
const WORTH_THREADS: usize = 1 << 15;
/// Rows of a thread's share.
const SHARE: usize = 8;

/// Applies a loop to each row of `from`, giving rows of another width.
fn by_row(
    (from, from_width): (&[f32], usize),
    (to, to_width): (&mut [f32], usize),
    apply: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let some = |(to, from): (&mut [f32], &[f32])| {
        wide(
            #[inline(always)]
            || {
                // A closure for each row would be compiled for the oldest machine.
                for (to, from) in
                    to.chunks_exact_mut(to_width.max(1)).zip(from.chunks_exact(from_width.max(1)))
                {
                    apply(from, to);
                }
            },
        );
    };
    if to.len() < WORTH_THREADS {
        some((to, from));
    } else {
        to.par_chunks_mut(SHARE * to_width).zip(from.par_chunks(SHARE * from_width)).for_each(some);
    }
}
