//! Seeded random numbers, made where they are used.

use super::Address;
use cudarc::driver::CudaFunction;
use pie_kv::cuda::{Dtype, Gpu, GpuError, LaunchConfig, Memory, PushKernelArg};

/// Fills device memory, each call from a stream of numbers of its own.
pub(super) struct Random {
    gpu: Gpu,
    kernel: CudaFunction,
    dtype: Dtype,
    stream: u64,
}

impl Random {
    /// Equal seeds give equal numbers.
    pub fn new(gpu: &Gpu, dtype: Dtype, seed: u64) -> Result<Self, GpuError> {
        let kernels = gpu.load(include_bytes!("../../kernels/layers.ptx.gz"))?;
        let kernel = kernels.get(&format!("random_{}", dtype.suffix()))?;
        Ok(Self { gpu: gpu.clone(), kernel, dtype, stream: seed << 16 })
    }

    /// Enqueues numbers of mean 0, as many as the memory holds.
    pub fn fill(&mut self, memory: &Memory, deviation: f32) -> Result<(), GpuError> {
        self.stream += 1;
        let address: Address = memory.at(0);
        let (count, mean) = ((memory.len() / self.dtype.size()) as u64, 0.0_f32);
        let mut launch = self.gpu.stream().launch_builder(&self.kernel);
        launch.arg(&address).arg(&count).arg(&self.stream).arg(&mean).arg(&deviation);
        let grid_dim = (8 * self.gpu.multiprocessors(), 1, 1);
        let config = LaunchConfig { grid_dim, block_dim: (256, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of `random` in layers.cu, and the memory has room for so many numbers.
        unsafe { launch.launch(config) }.map_err(GpuError::failed("launching random numbers"))?;
        Ok(())
    }
}
