//! The trait that the model calls, and the bridge from tensors to collectives of host memory.

use crate::error::CommError;
use crate::member::Member;
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use std::cell::RefCell;

/// Collectives on tensors, called on a rank's engine thread only, in the same sequence on all ranks (C1).
pub trait Collective: Send {
    /// Who this rank is.
    fn member(&self) -> Member;

    /// Sums a contiguous f32 tensor over all ranks, in place; the same bits on every rank.
    ///
    /// # Errors
    /// [`CommError`]; the tensor then holds nothing of use.
    fn all_reduce_sum(&mut self, tensor: &Tensor) -> Result<(), CommError>;

    /// [rows, part] on each rank becomes [rows, part * world size] on all, parts in rank order.
    ///
    /// # Errors
    /// [`CommError`].
    fn all_gather_last(&mut self, tensor: &Tensor) -> Result<Tensor, CommError>;

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// [`CommError`].
    fn barrier(&mut self) -> Result<(), CommError>;
}

/// Collectives of host memory.
pub trait HostCollective: Send {
    /// Who this rank is.
    fn member(&self) -> Member;

    /// Sums over all ranks, in place, in rank order.
    ///
    /// # Errors
    /// [`CommError`].
    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError>;

    /// `whole` becomes all ranks' parts in rank order; it is world size times as long as `part`.
    ///
    /// # Errors
    /// [`CommError`].
    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError>;
}

/// Tensors in host memory over a [`HostCollective`]. A tensor on a GPU would be staged here.
pub struct Hosted<H> {
    inner: H,
}

impl<H: HostCollective> Hosted<H> {
    /// A bridge.
    pub fn new(inner: H) -> Self {
        Self { inner }
    }
}

impl<H: HostCollective> Collective for Hosted<H> {
    fn member(&self) -> Member {
        self.inner.member()
    }

    fn all_reduce_sum(&mut self, tensor: &Tensor) -> Result<(), CommError> {
        let operation = InPlaceSum { inner: RefCell::new(&mut self.inner), failed: RefCell::new(None) };
        let result = tensor.inplace_op1(&operation);
        let failed = operation.failed.into_inner();
        match (failed, result) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(bad_tensor("all-reduce", &error)),
            (None, Ok(())) => Ok(()),
        }
    }

    fn all_gather_last(&mut self, tensor: &Tensor) -> Result<Tensor, CommError> {
        let world_size = self.member().world_size().get() as usize;
        let gathered = || -> candle_core::Result<_> {
            let (rows, part) = tensor.dims2()?;
            Ok((rows, part, tensor.flatten_all()?.to_vec1::<f32>()?))
        };
        let (rows, part, data) = gathered().map_err(|error| bad_tensor("all-gather", &error))?;
        let mut whole = vec![0.0; data.len() * world_size];
        self.inner.all_gather(&data, &mut whole)?;
        // The wire has rank by rank; the tensor wants row by row.
        let turned = Tensor::from_vec(whole, (world_size, rows, part), tensor.device())
            .and_then(|all| all.transpose(0, 1)?.contiguous()?.reshape((rows, world_size * part)));
        turned.map_err(|error| bad_tensor("all-gather", &error))
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        self.inner.all_reduce_sum(&mut [0.0])
    }
}

fn bad_tensor(operation: &'static str, error: &candle_core::Error) -> CommError {
    CommError::BadTensor { operation, why: error.to_string() }
}

struct InPlaceSum<'a, H> {
    inner: RefCell<&'a mut H>,
    failed: RefCell<Option<CommError>>,
}

impl<H: HostCollective> InplaceOp1 for InPlaceSum<'_, H> {
    fn name(&self) -> &'static str {
        "all-reduce-sum"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("it must be f32 and contiguous")
        };
        if let Err(error) = self.inner.borrow_mut().all_reduce_sum(&mut data[start..end]) {
            *self.failed.borrow_mut() = Some(error);
        }
        Ok(())
    }
}

/// A group of one: nothing to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Solo {
    /// The only member.
    pub fn new() -> Self {
        Self
    }
}

impl Collective for Solo {
    fn member(&self) -> Member {
        Member::alone()
    }

    fn all_reduce_sum(&mut self, _tensor: &Tensor) -> Result<(), CommError> {
        Ok(())
    }

    fn all_gather_last(&mut self, tensor: &Tensor) -> Result<Tensor, CommError> {
        Ok(tensor.clone())
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        Ok(())
    }
}
