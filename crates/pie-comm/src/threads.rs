//! A group of threads in one process, for tests.

use crate::error::CommError;
use crate::host::{Collective, HostCollective, Hosted};
use crate::member::{Member, Rank};
use candle_core::Tensor;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// Makes groups of threads.
pub struct ThreadGroup;

impl ThreadGroup {
    /// The members of a new group, by rank.
    ///
    /// # Errors
    /// [`CommError::BadMember`] for a world size of 0.
    #[allow(clippy::new_ret_no_self, reason = "a group is its members")]
    pub fn new(world_size: u32) -> Result<Vec<ThreadMember>, CommError> {
        Self::with_deadline(world_size, DEADLINE)
    }

    /// The same with another deadline.
    ///
    /// # Errors
    /// [`CommError::BadMember`] for a world size of 0.
    pub fn with_deadline(world_size: u32, deadline: Duration) -> Result<Vec<ThreadMember>, CommError> {
        let shared = Arc::new(Shared { state: Mutex::new(State::new(world_size)), changed: Condvar::new() });
        Member::new(0, world_size)?;
        (0..world_size)
            .map(|rank| {
                let member = Member::new(rank, world_size)?;
                Ok(ThreadMember(Hosted::new(HostThread { member, shared: shared.clone(), round: 0, deadline })))
            })
            .collect()
    }
}

/// One member, to be moved to its thread.
pub struct ThreadMember(Hosted<HostThread>);

impl Collective for ThreadMember {
    fn member(&self) -> Member {
        self.0.member()
    }
    fn all_reduce_sum(&mut self, tensor: &Tensor) -> Result<(), CommError> {
        self.0.all_reduce_sum(tensor)
    }
    fn all_gather_last(&mut self, tensor: &Tensor) -> Result<Tensor, CommError> {
        self.0.all_gather_last(tensor)
    }
    fn barrier(&mut self) -> Result<(), CommError> {
        self.0.barrier()
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Rounds that every rank has taken its result of.
    round: u64,
    parts: Vec<Option<(&'static str, Vec<f32>)>>,
    taken: usize,
    failed: Option<CommError>,
}

impl State {
    fn new(world_size: u32) -> Self {
        Self { round: 0, parts: vec![None; world_size as usize], taken: 0, failed: None }
    }
}

struct HostThread {
    member: Member,
    shared: Arc<Shared>,
    round: u64,
    deadline: Duration,
}

impl HostThread {
    /// Every rank puts its part in, waits for all, and reads them.
    fn exchange(
        &mut self,
        operation: &'static str,
        part: &[f32],
        read: impl FnOnce(&[Vec<f32>]),
    ) -> Result<(), CommError> {
        let end = Instant::now() + self.deadline;
        let (rank, round) = (self.member.rank().0 as usize, self.round);
        self.round += 1;
        let mut state = self.wait(end, operation, |state| state.round == round)?;
        state.parts[rank] = Some((operation, part.to_vec()));
        self.shared.changed.notify_all();
        drop(state);
        let mut state = self.wait(end, operation, |state| state.parts.iter().all(Option::is_some))?;
        let parts = self.in_step(&mut state, operation, part.len())?;
        read(&parts);
        state.taken += 1;
        if state.taken == parts.len() {
            state.taken = 0;
            state.round += 1;
            state.parts.iter_mut().for_each(|part| *part = None);
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    fn in_step(&self, state: &mut State, operation: &str, length: usize) -> Result<Vec<Vec<f32>>, CommError> {
        let mut parts = Vec::new();
        for (rank, (theirs, part)) in (0..).zip(state.parts.iter().flatten()) {
            if *theirs != operation || part.len() != length {
                let error = CommError::OutOfStep {
                    rank: Rank(rank),
                    theirs: format!("{theirs} of {}", part.len()),
                    ours: format!("{operation} of {length}"),
                };
                state.failed.get_or_insert(error.clone());
                self.shared.changed.notify_all();
                return Err(error);
            }
            parts.push(part.clone());
        }
        Ok(parts)
    }

    fn wait(
        &self,
        end: Instant,
        operation: &str,
        ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'_, State>, CommError> {
        // A thread that panicked has dropped its member, which marks the group failed.
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if ready(&state) {
                return Ok(state);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let missing = state.parts.iter().position(Option::is_none).unwrap_or(0);
                let rank = Rank(u32::try_from(missing).unwrap_or(u32::MAX));
                let error =
                    CommError::Deadline { rank, operation: operation.to_owned(), deadline: self.deadline };
                state.failed = Some(error.clone());
                self.shared.changed.notify_all();
                return Err(error);
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl HostCollective for HostThread {
    fn member(&self) -> Member {
        self.member
    }

    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError> {
        let part = data.to_vec();
        self.exchange("all-reduce", &part, |parts| {
            data.fill(0.0);
            for part in parts {
                data.iter_mut().zip(part).for_each(|(sum, number)| *sum += number);
            }
        })
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError> {
        self.exchange("all-gather", part, |parts| {
            whole.chunks_exact_mut(part.len().max(1)).zip(parts).for_each(|(to, from)| to.copy_from_slice(from));
        })
    }
}

impl Drop for HostThread {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rank = self.member.rank();
        let lost = CommError::PeerLost { rank, operation: "the group".to_owned(), why: "it was dropped".to_owned() };
        state.failed.get_or_insert(lost);
        self.shared.changed.notify_all();
    }
}
