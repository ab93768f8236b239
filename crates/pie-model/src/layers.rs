//! The pieces of a layer, as operations on `[rows][width]` numbers in f32, each from one piece of memory to another.

use crate::error::ModelError;
use crate::product::Packed;
use candle_core::{CpuStorage, Device, Storage, Tensor};
use pie_comm::Collective;
use pie_kv::simd::{exp, wide};
use rayon::prelude::*;

/// y = x W^T with the rows of W shared by the ranks: each has its columns of y. No communication.
pub(crate) struct ColumnParallel(pub Packed);

/// y = x W^T with the columns of W shared by the ranks: each has some columns of x, and y is the sum over all.
pub(crate) struct RowParallel(pub Packed);

/// Adds what all ranks have in `partial`, `[rows][width]`, to `x`.
pub(crate) fn add_sum(
    x: &mut [f32],
    partial: &[f32],
    width: usize,
    comm: &mut dyn Collective,
) -> Result<(), ModelError> {
    let add = |x: &mut [f32], sum: &[f32]| x.iter_mut().zip(sum).for_each(|(x, sum)| *x += sum);
    // One rank has the sum already.
    if comm.member().world_size().get() == 1 {
        add(x, partial);
        return Ok(());
    }
    let tensor = Tensor::from_slice(partial, (partial.len() / width.max(1), width), &Device::Cpu)?;
    comm.all_reduce_sum(&tensor)?;
    match &*tensor.storage_and_layout().0 {
        Storage::Cpu(CpuStorage::F32(sum)) => add(x, sum),
        _ => return Err(candle_core::Error::Msg("a sum must stay f32 in host memory".to_owned()).into()),
    }
    Ok(())
}

/// x / rms(x) * weight, for each row (Zhang and Sennrich 2019).
pub(crate) struct RmsNorm {
    pub weight: Vec<f32>,
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
