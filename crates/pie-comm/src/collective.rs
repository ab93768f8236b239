//! What the model sees of a group.

use crate::{CommError, Member, Operation};

/// Sums and gathers over the ranks of a group. One call at a time, on the rank's engine thread; all ranks make the same
/// calls in the same order (C1). A group that failed stays failed.
pub trait Collective: Send {
    /// Who this rank is.
    fn member(&self) -> Member;

    /// Sums `data` over all ranks, in place. Every rank gets the same bits: ranks are added in rank order (C3).
    ///
    /// # Errors
    /// See [`CommError`]; the contents of `data` are then undefined.
    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError>;

    /// Puts the `part` of every rank, as long on each, into `whole`, in rank order.
    ///
    /// # Errors
    /// [`CommError::Tensor`] unless `whole` is `world size * part` long; see [`CommError`].
    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError>;

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// See [`CommError`].
    fn barrier(&mut self) -> Result<(), CommError>;

    /// The same for numbers on this rank's GPU, if the group can do it there. Without, they go through host memory.
    #[cfg(feature = "cuda")]
    fn on_device(&mut self) -> Option<&mut dyn crate::DeviceCollective> {
        None
    }
}

/// A group of one rank: nothing to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Solo {
    /// A world of one rank, which has nobody to wait for.
    pub fn new() -> Self {
        Self
    }
}

impl Collective for Solo {
    fn member(&self) -> Member {
        Member::solo()
    }

    fn all_reduce_sum(&mut self, _data: &mut [f32]) -> Result<(), CommError> {
        Ok(())
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError> {
        check_whole(self.member(), part, whole)?;
        whole.copy_from_slice(part);
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        Ok(())
    }
}

/// Checks the lengths of [`Collective::all_gather`].
pub(crate) fn check_whole(member: Member, part: &[f32], whole: &[f32]) -> Result<(), CommError> {
    let expected = part.len() * member.world_size().get() as usize;
    if whole.len() == expected {
        return Ok(());
    }
    let problem = format!("the whole has {} elements, and the parts of all ranks {expected}", whole.len());
    Err(CommError::tensor(Operation::AllGather, problem))
}
