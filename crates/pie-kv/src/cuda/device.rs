//! One GPU of this process.

use super::error::GpuError;
use cudarc::driver::sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, sys};
use cudarc::nvrtc::Ptx;
use flate2::read::GzDecoder;
use std::io::Read;
use std::sync::Arc;

/// What numbers weights, activations and rows are on a GPU. Sums, norms, rotations and the residual are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// For checks against the CPU.
    F32,
    /// IEEE half.
    F16,
    /// As models come.
    Bf16,
}

impl Dtype {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// What the names of kernels end with.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// A GPU, and the one stream on which this process uses it: everything happens in the order in which it is asked for.
#[derive(Clone)]
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    multiprocessors: u32,
    name: String,
}

impl Gpu {
    /// Opens a GPU by its number.
    ///
    /// # Errors
    /// [`GpuError::NoLibrary`], [`GpuError::NoDevice`], [`GpuError::Failed`].
    pub fn open(ordinal: usize) -> Result<Self, GpuError> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(GpuError::NoDevice { ordinal, count });
        }
        let failed = GpuError::failed("opening the GPU");
        let context = CudaContext::new(ordinal).map_err(&failed)?;
        // SAFETY: events keep streams apart that share memory; this process has one stream.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(&failed)?;
        let multiprocessors = context.attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(&failed)?;
        let name = context.name().map_err(&failed)?;
        Ok(Self { context, stream, multiprocessors: multiprocessors.unsigned_abs().max(1), name })
    }

    /// How many GPUs this machine has.
    ///
    /// # Errors
    /// [`GpuError::NoLibrary`] without a driver.
    pub fn count() -> Result<usize, GpuError> {
        // SAFETY: it only looks whether the library can be loaded. Asked first, since the binding panics without it.
        if !unsafe { sys::is_culib_present() } {
            return Err(GpuError::NoLibrary { library: "libcuda.so", package: "driver" });
        }
        match CudaContext::device_count() {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(error) if error.0 == sys::cudaError_enum::CUDA_ERROR_NO_DEVICE => Ok(0),
            Err(error) => Err(GpuError::failed("counting GPUs")(error)),
        }
    }

    /// As `NVIDIA H200`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.context.ordinal()
    }

    /// Its multiprocessors: blocks beyond a few for each wait.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The context, for pinned memory and events.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// (bytes free, bytes in all).
    ///
    /// # Errors
    /// The driver.
    pub fn memory(&self) -> Result<(u64, u64), GpuError> {
        let (free, total) =
            self.context.mem_get_info().map_err(GpuError::failed("asking for free memory"))?;
        Ok((free as u64, total as u64))
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// What failed on the way: kernels report here.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.stream.synchronize().map_err(GpuError::failed("computing on the GPU"))
    }

    /// Loads compiled kernels: PTX, compressed as it is committed, so that its tens of thousands of lines show up in no diff and
    /// no search.
    ///
    /// # Errors
    /// A driver that is too old for them.
    pub fn load(&self, packed: &[u8]) -> Result<Kernels, GpuError> {
        let mut ptx = String::new();
        let unpacked = GzDecoder::new(packed).read_to_string(&mut ptx);
        unpacked.map_err(GpuError::failed("unpacking kernels"))?;
        let module = self.context.load_module(Ptx::from_src(ptx));
        let advice = "loading kernels (they need a driver of CUDA 13, 580 or newer)";
        Ok(Kernels { module: module.map_err(GpuError::failed(advice))? })
    }
}

/// Loaded kernels, by name.
pub struct Kernels {
    module: Arc<CudaModule>,
}

impl Kernels {
    /// A kernel.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn get(&self, name: &str) -> Result<CudaFunction, GpuError> {
        self.module.load_function(name).map_err(|error| GpuError::Failed {
            action: "looking for a kernel",
            problem: format!("{name}: {error:?}"),
        })
    }

    /// A kernel that may use more shared memory than kernels have by default.
    ///
    /// # Errors
    /// There is none of this name, or the GPU has not that much.
    pub fn get_with_shared(&self, name: &str, bytes: u32) -> Result<CudaFunction, GpuError> {
        const DEFAULT: u32 = 48 << 10;
        let function = self.get(name)?;
        if bytes > DEFAULT {
            let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let set = function.set_attribute(most, bytes.cast_signed());
            set.map_err(GpuError::failed("asking for shared memory"))?;
        }
        Ok(function)
    }
}
