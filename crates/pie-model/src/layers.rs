//! The pieces of a layer, as operations on [rows, width] tensors in f32.

use crate::error::ModelError;
use crate::product::Packed;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pie_comm::Collective;
use pie_kv::simd::{exp, wide};
use rayon::prelude::*;

/// y = x W^T with the rows of W shared by the ranks: each has its columns of y. No communication.
pub(crate) struct ColumnParallel(pub Packed);

impl ColumnParallel {
    /// [rows, inputs] to [rows, own outputs].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op1_no_bwd(&Multiply(&self.0))
    }
}

/// y = x W^T with the columns of W shared by the ranks: each has some columns of x, and y is the sum over all.
pub(crate) struct RowParallel(pub Packed);

impl RowParallel {
    /// [rows, own inputs] to [rows, outputs], whole on every rank.
    pub fn forward(&self, x: &Tensor, comm: &mut dyn Collective) -> std::result::Result<Tensor, ModelError> {
        let partial = x.apply_op1_no_bwd(&Multiply(&self.0))?;
        comm.all_reduce_sum(&partial)?;
        Ok(partial)
    }
}

struct Multiply<'a>(&'a Packed);

impl CustomOp1 for Multiply<'_> {
    fn name(&self) -> &'static str {
        "multiply-packed"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, data) = rows(storage, layout, self.0.inputs())?;
        Ok((CpuStorage::F32(self.0.multiply(data)), (rows, self.0.outputs()).into()))
    }
}

/// x / rms(x) * weight, for each row (Zhang and Sennrich 2019).
pub(crate) struct RmsNorm {
    pub weight: Vec<f32>,
    pub epsilon: f32,
}

impl RmsNorm {
    /// [rows, width] to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op1_no_bwd(&Normalize(self))
    }
}

struct Normalize<'a>(&'a RmsNorm);

impl CustomOp1 for Normalize<'_> {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let RmsNorm { weight, epsilon } = self.0;
        let (count, data) = rows(storage, layout, weight.len())?;
        let out = by_row(data, weight.len(), weight.len(), |from, to| {
            let scale = 1.0 / (sum_of_squares(from) / from.len() as f32 + epsilon).sqrt();
            for ((to, from), weight) in to.iter_mut().zip(from).zip(weight) {
                *to = from * scale * weight;
            }
        });
        Ok((CpuStorage::F32(out), (count, weight.len()).into()))
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

/// SwiGLU's middle: [rows, gate then up] to silu(gate) * up, [rows, width / 2].
pub(crate) fn gated(gate_up: &Tensor) -> Result<Tensor> {
    gate_up.apply_op1_no_bwd(&Gate)
}

struct Gate;

impl CustomOp1 for Gate {
    fn name(&self) -> &'static str {
        "silu-times"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let (count, data) = rows(storage, layout, width)?;
        let out = by_row(data, width, width / 2, |from, to| {
            let (gate, up) = from.split_at(to.len());
            for ((to, gate), up) in to.iter_mut().zip(gate).zip(up) {
                // e^-|gate| cannot overflow.
                let e = exp(-gate.abs());
                let sigmoid = if *gate < 0.0 { e } else { 1.0 } / (1.0 + e);
                *to = gate * sigmoid * up;
            }
        });
        Ok((CpuStorage::F32(out), (count, width / 2).into()))
    }
}

/// Numbers of a result from which on its rows are shared by threads.
const WORTH_THREADS: usize = 1 << 15;

/// Applies a loop to each row of `from`, giving rows of another width.
fn by_row(data: &[f32], from: usize, to: usize, apply: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0.0; data.len() / from.max(1) * to];
    let rows = if out.len() < WORTH_THREADS { out.len() } else { 8 * to };
    let some = |(out, data): (&mut [f32], &[f32])| {
        wide(
            #[inline(always)]
            || {
                out.chunks_exact_mut(to.max(1))
                    .zip(data.chunks_exact(from.max(1)))
                    .for_each(|(to, from)| apply(from, to))
            },
        );
    };
    if out.len() < WORTH_THREADS {
        some((&mut out, data));
    } else {
        out.par_chunks_mut(rows).zip(data.par_chunks(8 * from)).for_each(some);
    }
    out
}

/// The rows of a contiguous [rows, width] tensor in host memory.
fn rows<'a>(storage: &'a CpuStorage, layout: &Layout, width: usize) -> Result<(usize, &'a [f32])> {
    let (rows, columns) = layout.shape().dims2()?;
    if columns != width {
        candle_core::bail!("rows of {columns} where rows of {width} are needed");
    }
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok((rows, &data[start..end])),
        _ => candle_core::bail!("rows must be contiguous and f32"),
    }
}
