//! Sums and gathers of device memory over a group that knows host memory only: through pinned memory. For ranks that share a
//! GPU, where NCCL refuses, and for GPUs without a link between them.

use super::Address;
use crate::error::ModelError;
use cudarc::driver::{PinnedHostSlice, result};
use pie_comm::Collective;
use pie_kv::cuda::{Gpu, GpuError};

pub(super) struct StagedCollective {
    gpu: Gpu,
    numbers: PinnedHostSlice<f32>,
    gathered: Vec<f32>,
}

impl StagedCollective {
    /// Takes page-locked host memory, which grows with the sums.
    pub fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        Ok(Self { gpu: gpu.clone(), numbers: pinned(gpu, 1 << 16)?, gathered: Vec::new() })
    }

    /// Sums numbers at an address over all ranks, in place; waits for what computes them.
    ///
    /// # Safety
    /// The address is of so many f32 in device memory.
    pub unsafe fn sum(
        &mut self,
        address: Address,
        count: usize,
        comm: &mut dyn Collective,
    ) -> Result<(), ModelError> {
        // SAFETY: the caller's.
        unsafe { self.fetch(address, count)? };
        let numbers = &mut self.numbers.as_mut_slice().map_err(GpuError::failed("reading a sum"))?[..count];
        comm.all_reduce_sum(numbers)?;
        // SAFETY: the address is the caller's; the pinned memory stays as it is until the next call has waited for the stream.
        unsafe { result::memcpy_htod_async(address, numbers, self.gpu.stream().cu_stream()) }
            .map_err(GpuError::failed("sending a sum"))?;
        Ok(())
    }

    /// Gathers `[count]` of each rank, from `part` to `whole`.
    ///
    /// # Safety
    /// The addresses are of so many f32 in device memory; of the whole, `world size` times as many.
    pub unsafe fn gather(
        &mut self,
        part: Address,
        whole: Address,
        count: usize,
        comm: &mut dyn Collective,
    ) -> Result<(), ModelError> {
        // SAFETY: the caller's.
        unsafe { self.fetch(part, count)? };
        let ranks = comm.member().world_size().get() as usize;
        self.gathered.resize(ranks * count, 0.0);
        let numbers = &self.numbers.as_slice().map_err(GpuError::failed("reading a part"))?[..count];
        comm.all_gather(numbers, &mut self.gathered)?;
        // SAFETY: the address is the caller's; memory that is not pinned is copied away before the call returns.
        unsafe { result::memcpy_htod_async(whole, &self.gathered, self.gpu.stream().cu_stream()) }
            .map_err(GpuError::failed("sending what was gathered"))?;
        Ok(())
    }

    /// Numbers of the device, in the pinned memory.
    unsafe fn fetch(&mut self, address: Address, count: usize) -> Result<(), GpuError> {
        if count > self.numbers.len() {
            self.gpu.synchronize()?;
            self.numbers = pinned(&self.gpu, count.next_power_of_two())?;
        }
        let failed = GpuError::failed("reading a sum");
        let numbers = &mut self.numbers.as_mut_slice().map_err(&failed)?[..count];
        // SAFETY: the address is the caller's, and the stream is waited for while the memory is borrowed.
        unsafe { result::memcpy_dtoh_async(numbers, address, self.gpu.stream().cu_stream()) }
            .map_err(&failed)?;
        self.gpu.synchronize()
    }
}

fn pinned(gpu: &Gpu, count: usize) -> Result<PinnedHostSlice<f32>, GpuError> {
    const CACHED: u32 = 0;
    // SAFETY: the memory is not set; any bits are f32, and only what was written is read.
    let memory = unsafe { gpu.context().alloc_pinned_with_flags(count, CACHED) };
    memory.map_err(GpuError::failed("taking pinned memory"))
}
