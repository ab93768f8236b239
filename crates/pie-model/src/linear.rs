//! The three operations between attention and all-reduce: products with a weight matrix, RMSNorm, SwiGLU.

use crate::error::ModelError;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Shape, Tensor};
use pie_kv::simd::{exp, wide};
use rayon::prelude::*;

/// Up to this many rows a product is bound by reading the weights: each is then read once for all rows.
const FEW: usize = 6;
const LANES: usize = 16;

/// y = x W^T, with W [out, in] as Hugging Face stores it.
pub(crate) struct Linear {
    weight: Tensor,
    transposed: Tensor,
}

impl Linear {
    pub fn new(weight: Vec<f32>, out: usize, device: &Device) -> Result<Self, ModelError> {
        let columns = weight.len() / out.max(1);
        let weight = Tensor::from_vec(weight, (out, columns), device)?;
        let transposed = weight.t()?;
        Ok(Self { weight, transposed })
    }

    /// [rows, in] -> [rows, out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let rows = x.dims2()?.0;
        if rows <= FEW && x.device().is_cpu() {
            return Ok(x.contiguous()?.apply_op2_no_bwd(&self.weight, &FewRows)?);
        }
        Ok(x.matmul(&self.transposed)?)
    }

    pub fn bytes(&self) -> u64 {
        4 * self.weight.elem_count() as u64
    }
}

fn f32_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => candle_core::bail!("the tensor must be f32 and contiguous"),
    }
}

struct FewRows;

impl CustomOp2 for FewRows {
    fn name(&self) -> &'static str {
        "few-rows-product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, columns) = x_layout.shape().dims2()?;
        let out = weight_layout.shape().dims2()?.0;
        let (x, weight) = (f32_slice(x, x_layout)?, f32_slice(weight, weight_layout)?);
        // [out][rows]: a thread owns neighbouring outputs; turned around at the end.
        let mut turned = vec![0.0_f32; out * rows];
        let share = out.div_ceil(4 * rayon::current_num_threads()).max(8);
        turned.par_chunks_mut(share * rows).zip(weight.par_chunks(share * columns)).for_each(|(to, weight)| {
            wide(|| {
                for (to, weight) in to.chunks_exact_mut(rows).zip(weight.chunks_exact(columns)) {
                    for (to, x) in to.iter_mut().zip(x.chunks_exact(columns)) {
                        *to = dot(x, weight);
                    }
                }
            });
        });
        let mut result = turned;
        if rows > 1 {
            result = (0..rows).flat_map(|row| result.iter().skip(row).step_by(rows).copied()).collect();
        }
        Ok((CpuStorage::F32(result), (rows, out).into()))
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [[0.0_f32; LANES]; 2];
    let (a_chunks, a_rest) = a.as_chunks::<{ 2 * LANES }>();
    let (b_chunks, b_rest) = b.as_chunks::<{ 2 * LANES }>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[0][i] = a[i].mul_add(b[i], lanes[0][i]);
            lanes[1][i] = a[LANES + i].mul_add(b[LANES + i], lanes[1][i]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(0.0, |sum, (a, b)| a.mul_add(*b, sum));
    lanes.iter().flatten().sum::<f32>() + rest
}

/// x / rms(x) * weight.
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub fn new(weight: Vec<f32>, eps: f64, device: &Device) -> Result<Self, ModelError> {
        let length = weight.len();
        Ok(Self { weight: Tensor::from_vec(weight, length, device)?, eps: eps as f32 })
    }

    /// [rows, hidden] -> [rows, hidden].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.eps)?)
    }
}

/// silu(gate) * up of [rows, 2 * mlp], gate first -> [rows, mlp].
pub(crate) fn swiglu(gate_up: &Tensor) -> Result<Tensor, ModelError> {
    if gate_up.dtype() == DType::F32 && gate_up.device().is_cpu() {
        return Ok(gate_up.contiguous()?.apply_op1_no_bwd(&SwiGlu)?);
    }
    let halves = gate_up.chunk(2, 1)?;
    Ok((halves[0].silu()? * &halves[1])?)
}

struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (rows, both) = layout.shape().dims2()?;
        let data = f32_slice(storage, layout)?;
        let mlp = both / 2;
        let mut out = vec![0.0_f32; rows * mlp];
        out.par_chunks_mut(mlp.max(1)).zip(data.par_chunks(both.max(1))).for_each(|(to, from)| {
            let (gate, up) = from.split_at(mlp);
            wide(|| {
                for ((to, gate), up) in to.iter_mut().zip(gate).zip(up) {
                    // e^-|x| never overflows.
                    let e = exp(-gate.abs());
                    let sigmoid = if *gate >= 0.0 { 1.0 } else { e } / (1.0 + e);
                    *to = gate * sigmoid * up;
                }
            });
        });
        Ok((CpuStorage::F32(out), (rows, mlp).into()))
    }
}
