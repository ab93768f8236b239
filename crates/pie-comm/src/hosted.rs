//! Collectives of tensors out of collectives of host memory.

use crate::{Collective, CommError, Member, Operation};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Tensor};
use std::cell::RefCell;

/// Collectives of host memory, with the rules of [`Collective`].
pub trait HostCollective: Send {
    /// Who this rank is.
    fn member(&self) -> Member;

    /// Sums `data` over all ranks, in place, adding in rank order.
    ///
    /// # Errors
    /// See [`CommError`]; the contents of `data` are then undefined.
    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError>;

    /// Puts the `part` of every rank into `whole`, in rank order.
    ///
    /// # Errors
    /// [`CommError::Tensor`] unless `whole` is `world size * part` long; see [`CommError`].
    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError>;

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// See [`CommError`].
    fn barrier(&mut self) -> Result<(), CommError>;
}

/// A [`Collective`] over a [`HostCollective`]: CPU tensors are summed where they lie, those of other devices go through
/// host memory.
#[derive(Debug)]
pub struct Hosted<H> {
    host: H,
}

impl<H: HostCollective> Hosted<H> {
    /// Wraps a collective of host memory.
    pub fn new(host: H) -> Self {
        Self { host }
    }

    /// Gives it back.
    pub fn into_inner(self) -> H {
        self.host
    }

    fn reduce_in_place(&mut self, tensor: &Tensor) -> Result<(), CommError> {
        let operation = ReduceInPlace { host: RefCell::new(&mut self.host), failure: RefCell::new(None) };
        let done = tensor.inplace_op1(&operation);
        match operation.failure.into_inner() {
            Some(failure) => Err(failure),
            None => done.map_err(|error| CommError::tensor(Operation::AllReduceSum, error)),
        }
    }

    fn reduce_staged(&mut self, tensor: &Tensor) -> Result<(), CommError> {
        let refuse = |error| CommError::tensor(Operation::AllReduceSum, error);
        let flat = tensor.flatten_all().map_err(refuse)?;
        let mut data = flat.to_vec1::<f32>().map_err(refuse)?;
        self.host.all_reduce_sum(&mut data)?;
        if data.is_empty() {
            return Ok(());
        }
        let length = data.len();
        // A contiguous tensor flattens without a copy, so writing to `flat` writes to `tensor`.
        Tensor::from_vec(data, length, tensor.device())
            .and_then(|sum| flat.slice_set(&sum, 0, 0))
            .map_err(refuse)
    }
}

impl<H: HostCollective> Collective for Hosted<H> {
    fn member(&self) -> Member {
        self.host.member()
    }

    fn all_reduce_sum(&mut self, tensor: &Tensor) -> Result<(), CommError> {
        check_reduce(tensor)?;
        match tensor.device() {
            Device::Cpu => self.reduce_in_place(tensor),
            _ => self.reduce_staged(tensor),
        }
    }

    fn all_gather_last(&mut self, tensor: &Tensor) -> Result<Tensor, CommError> {
        let part_width = check_gather(tensor)?;
        let refuse = |error| CommError::tensor(Operation::AllGather, error);
        let world = self.host.member().world_size().get() as usize;
        let part = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(refuse)?;
        let mut whole = vec![0.0; part.len() * world];
        self.host.all_gather(&part, &mut whole)?;
        let rows = part.len().checked_div(part_width).unwrap_or(0);
        let whole = if rows > 1 { interleave(&whole, part.len(), part_width) } else { whole };
        let mut dims = tensor.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last *= world;
        }
        Tensor::from_vec(whole, dims, tensor.device()).map_err(refuse)
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        self.host.barrier()
    }
}

/// `[world, rows, part]` to `[rows, world, part]`.
fn interleave(whole: &[f32], part: usize, part_width: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(whole.len());
    for start in (0..part).step_by(part_width) {
        for of_rank in whole.chunks_exact(part) {
            rows.extend_from_slice(&of_rank[start..start + part_width]);
        }
    }
    rows
}

/// Checks what [`Collective::all_reduce_sum`] asks of its tensor.
pub(crate) fn check_reduce(tensor: &Tensor) -> Result<(), CommError> {
    let refuse = |problem: String| Err(CommError::tensor(Operation::AllReduceSum, problem));
    if tensor.dtype() != DType::F32 {
        return refuse(format!("it is {:?}; convert it to f32, which all sums are kept in", tensor.dtype()));
    }
    if !tensor.is_contiguous() {
        return refuse(format!("{:?} is not contiguous and is to be written in place", tensor.layout()));
    }
    Ok(())
}

/// Checks what [`Collective::all_gather_last`] asks of its tensor; the size of its last dimension.
pub(crate) fn check_gather(tensor: &Tensor) -> Result<usize, CommError> {
    if tensor.dtype() != DType::F32 {
        let problem = format!("it is {:?}; convert it to f32", tensor.dtype());
        return Err(CommError::tensor(Operation::AllGather, problem));
    }
    tensor
        .dims()
        .last()
        .copied()
        .ok_or_else(|| CommError::tensor(Operation::AllGather, "a scalar has no last dimension"))
}

/// Checks the lengths of [`HostCollective::all_gather`].
pub(crate) fn check_whole(member: Member, part: &[f32], whole: &[f32]) -> Result<(), CommError> {
    let expected = part.len() * member.world_size().get() as usize;
    if whole.len() == expected {
        return Ok(());
    }
    let problem = format!("the whole has {} elements, and the parts of all ranks {expected}", whole.len());
    Err(CommError::tensor(Operation::AllGather, problem))
}

/// candle lends storage for writing to operations only, and operations are `&self`: hence the cells.
struct ReduceInPlace<'a, H> {
    host: RefCell<&'a mut H>,
    failure: RefCell<Option<CommError>>,
}

impl<H: HostCollective> InplaceOp1 for ReduceInPlace<'_, H> {
    fn name(&self) -> &'static str {
        "all-reduce"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let dtype = storage.dtype();
        let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("{layout:?} of {dtype:?} where contiguous f32 was checked");
        };
        if let Err(failure) = self.host.borrow_mut().all_reduce_sum(&mut data[start..end]) {
            self.failure.replace(Some(failure));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ThreadGroup;

    /// The way of other devices, on the CPU, gives what the way in place gives.
    #[test]
    fn staged_equals_in_place() {
        let members = ThreadGroup::new(2).expect("a world size");
        std::thread::scope(|scope| {
            for mut member in members {
                scope.spawn(move || {
                    let rank = member.member().rank().0 as f32;
                    let tensor = |n: usize| Tensor::full(rank + 0.5, (n, 3), &Device::Cpu).expect("a tensor");
                    for rows in [0, 1, 5] {
                        let (staged, in_place) = (tensor(rows), tensor(rows));
                        member.reduce_staged(&staged).expect("both ranks are there");
                        member.reduce_in_place(&in_place).expect("both ranks are there");
                        let values = |tensor: &Tensor| tensor.to_vec2::<f32>().expect("f32 rows");
                        assert_eq!(values(&staged), vec![vec![2.0; 3]; rows]);
                        assert_eq!(values(&staged), values(&in_place));
                    }
                });
            }
        });
    }
}
