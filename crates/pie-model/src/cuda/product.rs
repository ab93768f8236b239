//! x W^T on a GPU: own kernels for few rows, which are bound by the memory that W is read from, cuBLAS for more.

use super::Address;
use crate::error::ModelError;
use cudarc::cublas::{result, sys};
use pie_kv::cuda::{Dtype, Gpu, GpuError, Kernels, LaunchConfig, Memory, PushKernelArg};
use std::ffi::c_void;

/// A matrix in device memory, `[outputs][inputs]`.
pub(super) struct DeviceMatrix {
    /// Its numbers, row after row.
    pub memory: Memory,
    /// Rows: the numbers that come out of a product.
    pub outputs: usize,
    /// Columns: the numbers that go in.
    pub inputs: usize,
    dtype: Dtype,
}

impl DeviceMatrix {
    /// A matrix of zeros.
    pub fn zeros(gpu: &Gpu, dtype: Dtype, outputs: usize, inputs: usize) -> Result<Self, GpuError> {
        let memory = Memory::zeros(gpu, outputs * inputs * dtype.size(), "the weights")?;
        Ok(Self { memory, outputs, inputs, dtype })
    }

    /// All of it.
    pub fn all(&self) -> MatrixRows {
        self.view(0, self.outputs)
    }

    /// `outputs` rows from one on.
    pub fn view(&self, first: usize, outputs: usize) -> MatrixRows {
        let address = self.memory.at(first * self.inputs * self.dtype.size());
        MatrixRows { address, outputs, inputs: self.inputs }
    }
}

/// Some rows of a matrix.
#[derive(Clone, Copy)]
pub(super) struct MatrixRows {
    address: Address,
    outputs: usize,
    inputs: usize,
}

/// What the numbers of a result are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// As the weights.
    Same,
    /// f32: what is summed over ranks or added to the residual.
    F32,
}

/// Up to this many rows the own kernels are used.
pub(super) const FEW: usize = 8;
/// cuBLAS asks for 32 MiB on Hopper; given once, so that captured graphs do not take memory.
const WORKSPACE: usize = 32 << 20;

/// Multiplies.
pub(super) struct Products {
    gpu: Gpu,
    dtype: Dtype,
    handle: CublasHandle,
    /// For 1, 2, 4, 8 rows: results in the weights' type, and in f32.
    few: Vec<[cudarc::driver::CudaFunction; 2]>,
    _workspace: Memory,
}

struct CublasHandle(sys::cublasHandle_t);

// SAFETY: a handle may be used from any thread, one at a time; it has one owner.
unsafe impl Send for CublasHandle {}

impl Drop for CublasHandle {
    fn drop(&mut self) {
        // SAFETY: the handle was made by cuBLAS, and is forgotten here.
        if let Err(error) = unsafe { result::destroy_handle(self.0) } {
            tracing::debug!(?error, "cuBLAS did not end well");
        }
    }
}

impl Products {
    /// Starts cuBLAS, and loads the kernels for few rows.
    pub fn new(gpu: &Gpu, dtype: Dtype) -> Result<Self, GpuError> {
        // SAFETY: it only looks whether the library can be loaded.
        if !unsafe { sys::is_culib_present() } {
            return Err(GpuError::NoLibrary { library: "libcublas.so", package: "CUDA 13 libraries" });
        }
        let failed = GpuError::failed("starting cuBLAS");
        let handle = CublasHandle(result::create_handle().map_err(&failed)?);
        let workspace = Memory::zeros(gpu, WORKSPACE, "cuBLAS")?;
        // SAFETY: the handle is new, the stream and the workspace live as long as it does, in this struct.
        unsafe {
            result::set_stream(handle.0, gpu.stream().cu_stream().cast()).map_err(&failed)?;
            let set = sys::cublasSetWorkspace_v2(handle.0, workspace.at(0) as *mut c_void, WORKSPACE);
            set.result().map_err(&failed)?;
        }
        let kernels = gpu.load(include_bytes!("../../kernels/products.ptx.gz"))?;
        let few = [1, 2, 4, 8].map(|rows| few_kernels(&kernels, dtype, rows));
        let few = few.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { gpu: gpu.clone(), dtype, handle, few, _workspace: workspace })
    }

    /// Enqueues `x` `[rows][inputs]` times W^T to `y` `[rows][outputs]`. Up to [`FEW`] rows, x and y have room for the next
    /// power of two of rows.
    ///
    /// # Safety
    /// The addresses are of device memory of these sizes.
    pub unsafe fn multiply(
        &self,
        w: MatrixRows,
        x: Address,
        y: Address,
        rows: usize,
        output: Output,
    ) -> Result<(), ModelError> {
        if rows == 0 || w.outputs == 0 {
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe {
            if rows <= FEW { self.few(w, x, y, rows, output) } else { self.many(w, x, y, rows, output) }
        }
    }

    unsafe fn few(
        &self,
        w: MatrixRows,
        x: Address,
        y: Address,
        rows: usize,
        output: Output,
    ) -> Result<(), ModelError> {
        const SHARED: u32 = 32 << 10;
        let index = rows.next_power_of_two().trailing_zeros() as usize;
        let function = &self.few[index][usize::from(output == Output::F32)];
        let of_block = 8 * if rows <= 2 { 2 } else { 4 };
        let (outputs, inputs) = (w.outputs as u32, w.inputs as u32);
        let mut launch = self.gpu.stream().launch_builder(function);
        launch.arg(&x).arg(&w.address).arg(&y).arg(&outputs).arg(&inputs);
        let grid_dim = (outputs.div_ceil(of_block), 1, 1);
        let config = LaunchConfig { grid_dim, block_dim: (256, 1, 1), shared_mem_bytes: SHARED };
        // SAFETY: the arguments are those of `few` in products.cu; the caller answers for the addresses.
        unsafe { launch.launch(config) }.map_err(GpuError::failed("launching a product"))?;
        Ok(())
    }

    /// Row-major y = x W^T is column-major y^T = W x^T, with W as it lies read transposed.
    pub unsafe fn many(
        &self,
        w: MatrixRows,
        x: Address,
        y: Address,
        rows: usize,
        output: Output,
    ) -> Result<(), ModelError> {
        let kind = cublas_type(self.dtype);
        let out = if output == Output::F32 { cublas_type(Dtype::F32) } else { kind };
        let (one, zero) = (1.0_f32, 0.0_f32);
        let pointer = |number: &f32| std::ptr::from_ref(number).cast::<c_void>();
        let [m, n, k] = [w.outputs, rows, w.inputs].map(|size| size as i32);
        let (transposed, plain) = (sys::cublasOperation_t::CUBLAS_OP_T, sys::cublasOperation_t::CUBLAS_OP_N);
        // SAFETY: the sizes are those of the matrices, all packed: leading dimensions are their columns. The factors live on
        // this stack frame, where cuBLAS reads them at the call. The caller answers for x and y.
        unsafe {
            result::gemm_ex(
                self.handle.0,
                transposed,
                plain,
                m,
                n,
                k,
                pointer(&one),
                w.address as *const c_void,
                kind,
                k,
                x as *const c_void,
                kind,
                k,
                pointer(&zero),
                y as *mut c_void,
                out,
                m,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(GpuError::failed("multiplying by cuBLAS"))?;
        Ok(())
    }
}

fn few_kernels(
    kernels: &Kernels,
    dtype: Dtype,
    rows: usize,
) -> Result<[cudarc::driver::CudaFunction; 2], GpuError> {
    let name = format!("few_{}_{rows}", dtype.suffix());
    Ok([kernels.get(&name)?, kernels.get(&format!("{name}_f32"))?])
}

fn cublas_type(dtype: Dtype) -> sys::cudaDataType {
    match dtype {
        Dtype::F32 => sys::cudaDataType::CUDA_R_32F,
        Dtype::F16 => sys::cudaDataType::CUDA_R_16F,
        Dtype::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}
