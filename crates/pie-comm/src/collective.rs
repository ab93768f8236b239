//! What the model sees of a group.

use crate::hosted::{check_gather, check_reduce};
use crate::{CommError, Member};
use candle_core::Tensor;

/// Sums and gathers over the ranks of a group. One call at a time, on the rank's engine thread; all ranks make the same
/// calls in the same order (C1). A group that failed stays failed.
pub trait Collective: Send {
    /// Who this rank is.
    fn member(&self) -> Member;

    /// Sums a contiguous f32 tensor over all ranks, in place (also for those who share its storage). Every rank gets
    /// the same bits: ranks are added in rank order (C3).
    ///
    /// # Errors
    /// See [`CommError`]. After an error the contents of the tensor are undefined, unless it is [`CommError::Tensor`].
    fn all_reduce_sum(&mut self, tensor: &Tensor) -> Result<(), CommError>;

    /// Gathers `[rows.., part]` of each rank into `[rows.., part * world size]` on every rank, parts in rank order along
    /// the last dimension. f32, of the same shape on all ranks.
    ///
    /// # Errors
    /// See [`CommError`].
    fn all_gather_last(&mut self, tensor: &Tensor) -> Result<Tensor, CommError>;

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// See [`CommError`].
    fn barrier(&mut self) -> Result<(), CommError>;
}

/// A group of one rank: nothing to do, on any device. It refuses the same tensors as the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Solo {
    /// The only rank.
    pub fn new() -> Self {
        Self
    }
}

impl Collective for Solo {
    fn member(&self) -> Member {
        Member::solo()
    }

    fn all_reduce_sum(&mut self, tensor: &Tensor) -> Result<(), CommError> {
        check_reduce(tensor)
    }

    fn all_gather_last(&mut self, tensor: &Tensor) -> Result<Tensor, CommError> {
        check_gather(tensor)?;
        Ok(tensor.clone())
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        Ok(())
    }
}
