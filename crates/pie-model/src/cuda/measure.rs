//! What a GPU can do at best, measured: what the times of passes are held against.

use super::product::{DeviceMatrix, Output, Products};
use super::random::Random;
use crate::config::Config;
use crate::error::ModelError;
use pie_kv::cuda::{Dtype, Gpu, GpuError, Memory};
use std::time::{Duration, Instant};

/// Bytes a second of a copy of `bytes` bytes from device memory to device memory. Each counts twice: it is read and written.
///
/// # Errors
/// Memory, of which twice as much is taken; the driver.
pub fn copy_rate(gpu: &Gpu, bytes: usize) -> Result<f64, GpuError> {
    let what = "measuring copies";
    let (from, mut to) = (Memory::zeros(gpu, bytes, what)?, Memory::zeros(gpu, bytes, what)?);
    Random::new(gpu, Dtype::Bf16, 1)?.fill(&from, 1.0)?;
    let copy = || {
        let copied = gpu.stream().memcpy_dtod(from.slice(), to.slice_mut());
        copied.map_err(GpuError::failed("copying"))
    };
    let seconds = seconds_of(gpu, copy)?;
    Ok(2.0 * from.len() as f64 / seconds)
}

/// Operations a second (a multiplication and an addition are two) of the matrix product that passes of many rows use, at
/// `rows` rows of random numbers: of the MLP's two products of this model the faster.
///
/// # Errors
/// Memory; the driver, cuBLAS.
pub fn matrix_rate(gpu: &Gpu, config: &Config, dtype: Dtype, rows: usize) -> Result<f64, ModelError> {
    let Config { hidden_size: hidden, intermediate_size: mlp, .. } = *config;
    let products = Products::new(gpu, dtype)?;
    let mut random = Random::new(gpu, dtype, 2)?;
    let mut best = 0.0_f64;
    for (outputs, inputs, output) in [(2 * mlp, hidden, Output::Same), (hidden, mlp, Output::F32)] {
        let w = DeviceMatrix::zeros(gpu, dtype, outputs, inputs)?;
        let size = if output == Output::F32 { 4 } else { dtype.size() };
        let what = "measuring products";
        let x = Memory::zeros(gpu, rows * inputs * dtype.size(), what)?;
        let y = Memory::zeros(gpu, rows * outputs * size, what)?;
        // A GPU that multiplies zeros needs less power, and then runs faster than it ever does at work.
        random.fill(&w.memory, 1.0 / (inputs as f32).sqrt())?;
        random.fill(&x, 1.0)?;
        // SAFETY: x is [rows][inputs], y [rows][outputs] of the output's type, as made above.
        let multiply = || unsafe { products.many(w.all(), x.at(0), y.at(0), rows, output) };
        let seconds = seconds_of(gpu, multiply)?;
        best = best.max(2.0 * rows as f64 * outputs as f64 * inputs as f64 / seconds);
    }
    Ok(best)
}

/// How long is measured at a time: long against what starting and waiting take, and for clocks to follow the load.
const AT_LEAST: Duration = Duration::from_millis(300);

/// Seconds of what is enqueued once, when it is enqueued again and again; the median of three measurements.
fn seconds_of<E: From<GpuError>>(gpu: &Gpu, mut enqueue: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut seconds_of_each = |times: u32| {
        let start = Instant::now();
        for _ in 0..times {
            enqueue()?;
        }
        gpu.synchronize()?;
        Ok::<f64, E>(start.elapsed().as_secs_f64() / f64::from(times))
    };
    gpu.synchronize()?;
    seconds_of_each(1)?;
    let once = seconds_of_each(1)?;
    let times = (AT_LEAST.as_secs_f64() / once.max(1e-9)).ceil().clamp(1.0, 10_000.0) as u32;
    let mut measured = [seconds_of_each(times)?, seconds_of_each(times)?, seconds_of_each(times)?];
    measured.sort_by(f64::total_cmp);
    Ok(measured[1])
}
