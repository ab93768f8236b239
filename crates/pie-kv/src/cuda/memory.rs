//! Device memory, and small arrays on their way into it.

use super::device::Gpu;
use super::error::GpuError;
use bytemuck::{NoUninit, Pod};
use cudarc::driver::{CudaEvent, CudaSlice, DevicePtr, PinnedHostSlice};

/// A piece of device memory of its own. What its numbers are, those know who use it.
pub struct Memory {
    slice: CudaSlice<u8>,
    gpu: Gpu,
}

impl Memory {
    /// Takes so many bytes, all 0.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`], saying for what.
    pub fn zeros(gpu: &Gpu, bytes: usize, what: &'static str) -> Result<Self, GpuError> {
        let free = gpu.memory()?.0;
        let slice =
            gpu.stream().alloc_zeros(bytes.max(16)).map_err(GpuError::allocation(bytes, what, free))?;
        Ok(Self { slice, gpu: gpu.clone() })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.slice.len()
    }

    /// Never: there are at least 16 bytes.
    pub fn is_empty(&self) -> bool {
        self.slice.is_empty()
    }

    /// The address of a byte, for kernels.
    pub fn at(&self, byte: usize) -> u64 {
        debug_assert!(byte <= self.len());
        self.slice.device_ptr(self.gpu.stream()).0 + byte as u64
    }

    /// Reads numbers back, from a byte on, and waits for them.
    ///
    /// # Errors
    /// The driver; whatever failed before on the GPU.
    pub fn read<T: Pod>(&self, byte: usize, count: usize) -> Result<Vec<T>, GpuError> {
        let mut numbers = vec![T::zeroed(); count];
        let from = self.slice.slice(byte..byte + count * size_of::<T>());
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut numbers);
        self.gpu.stream().memcpy_dtoh(&from, bytes).map_err(GpuError::failed("reading from the GPU"))?;
        self.gpu.synchronize()?;
        Ok(numbers)
    }

    /// Writes numbers from a byte on, and waits until they are there.
    ///
    /// # Errors
    /// The driver; whatever failed before on the GPU.
    pub fn write<T: NoUninit>(&mut self, byte: usize, numbers: &[T]) -> Result<(), GpuError> {
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        let mut to = self.slice.slice_mut(byte..byte + bytes.len());
        self.gpu.stream().memcpy_htod(bytes, &mut to).map_err(GpuError::failed("writing to the GPU"))?;
        self.gpu.synchronize()
    }

    /// The whole piece, for a copy that is only enqueued.
    pub fn slice_mut(&mut self) -> &mut CudaSlice<u8> {
        &mut self.slice
    }

    /// The whole piece.
    pub fn slice(&self) -> &CudaSlice<u8> {
        &self.slice
    }
}

/// Where an array is in an [`Upload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadOffset(usize);

/// Small arrays that travel to the GPU together, in one copy through pinned memory: tokens, slots, tables, angles.
///
/// Arrays that are padded to a capacity keep the places of those behind them from one step to the next, so that a captured
/// graph, which knows addresses only, can be used again.
pub struct Upload {
    gpu: Gpu,
    bytes: Vec<u8>,
    pinned: PinnedHostSlice<u8>,
    /// The copy before has read the pinned memory.
    sent: CudaEvent,
    device: Memory,
}

const ALIGNMENT: usize = 256;

impl Upload {
    /// Room for so many bytes at first; it grows.
    ///
    /// # Errors
    /// Memory.
    pub fn new(gpu: &Gpu, capacity: usize) -> Result<Self, GpuError> {
        let (pinned, device) = room(gpu, capacity)?;
        let sent = gpu.context().new_event(None).map_err(GpuError::failed("making an event"))?;
        Ok(Self { gpu: gpu.clone(), bytes: Vec::with_capacity(capacity), pinned, sent, device })
    }

    /// Begins a new set of arrays. Those of the set before stay valid until [`Upload::send`].
    pub fn begin(&mut self) {
        self.bytes.clear();
    }

    /// Adds an array.
    pub fn put<T: NoUninit>(&mut self, numbers: &[T]) -> UploadOffset {
        self.put_padded(numbers, numbers.len())
    }

    /// Adds an array with room for `capacity` numbers.
    pub fn put_padded<T: NoUninit>(&mut self, numbers: &[T], capacity: usize) -> UploadOffset {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytemuck::cast_slice(numbers));
        let end = start + capacity.max(numbers.len()) * size_of::<T>();
        self.bytes.resize(end.next_multiple_of(ALIGNMENT), 0);
        UploadOffset(start)
    }

    /// Enqueues the copy. True if the addresses have moved: graphs that know the old ones are of no use.
    ///
    /// # Errors
    /// Memory; the driver.
    pub fn send(&mut self) -> Result<bool, GpuError> {
        let moved = self.bytes.len() > self.device.len();
        if moved {
            // What still runs may read the old memory.
            self.gpu.synchronize()?;
            (self.pinned, self.device) = room(&self.gpu, self.bytes.len().next_power_of_two())?;
        }
        let failed = GpuError::failed("sending a step to the GPU");
        self.sent.synchronize().map_err(&failed)?;
        let pinned = &mut self.pinned.as_mut_slice().map_err(&failed)?[..self.bytes.len()];
        pinned.copy_from_slice(&self.bytes);
        let stream = self.gpu.stream();
        stream.memcpy_htod(&*pinned, self.device.slice_mut()).map_err(&failed)?;
        self.sent.record(stream).map_err(&failed)?;
        Ok(moved)
    }

    /// The address of an array that was sent.
    pub fn at(&self, place: UploadOffset) -> u64 {
        self.device.at(place.0)
    }
}

fn room(gpu: &Gpu, capacity: usize) -> Result<(PinnedHostSlice<u8>, Memory), GpuError> {
    let capacity = capacity.max(ALIGNMENT);
    // SAFETY: the memory is not set; it is bytes, which any pattern is a value of, and only what was written is used.
    let pinned = unsafe { gpu.context().alloc_pinned(capacity) };
    let pinned = pinned.map_err(GpuError::failed("taking pinned memory"))?;
    Ok((pinned, Memory::zeros(gpu, capacity, "the arrays of a step")?))
}
