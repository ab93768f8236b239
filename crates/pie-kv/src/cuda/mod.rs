//! The same cache on a GPU: rows in device memory, turned, copied and read by kernels of `kernels/`.
//!
//! The kernels are compiled to PTX beforehand and committed beside their source (`scripts/gpu/kernels.sh --check`): a build
//! needs no toolkit, and the driver compiles them for whatever GPU it finds. Libraries are looked for at run time, so one
//! program serves machines with and without a GPU.

mod attention;
mod cache;
mod device;
mod error;
mod memory;
mod tiles;

pub use attention::SentSequences;
pub use cache::{GpuCache, Placing};
pub use cudarc::driver::{CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
pub use device::{Dtype, Gpu, Kernels};
pub use error::GpuError;
pub use memory::{Memory, Upload, UploadOffset};
